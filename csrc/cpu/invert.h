// Inversion: the whole loop of projected Adam steps on the input vectors of one block of lanes.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// z = clip(z, 0, 1) / sum, or 1/K where the sum is 0. NaN stays NaN. `z` [K] is in-out.
template <class T>
inline void project(T* z, int64_t n_inputs) {
  using V = Vec<T>;
  const V zero = V::broadcast(0), one = V::broadcast(1);
  const V uniform = V::broadcast(static_cast<T>(1) / static_cast<T>(n_inputs));
  for (int v = 0; v < kVectorsPerBlock; ++v) {
    T* column = z + v * V::kWidth;
    V sum = zero;
    for (int64_t k = 0; k < n_inputs; ++k) {
      const V clipped = min(one, max(zero, V::load(column + k * kLanes<T>)));
      clipped.store(column + k * kLanes<T>);
      sum = sum + clipped;
    }
    for (int64_t k = 0; k < n_inputs; ++k)
      if_zero(sum, uniform, V::load(column + k * kLanes<T>) / sum).store(column + k * kLanes<T>);
  }
}

// y -= target and sum = the squares of the differences, over n lane rows.
template <class T>
MICFAST_INLINE void subtract_and_sum_squares(T* y, const T* target, int64_t n, T* sum) {
  using V = Vec<T>;
  for (int v = 0; v < kVectorsPerBlock; ++v) {
    V total = V::broadcast(0);
    for (int64_t j = v * V::kWidth; j < n * kLanes<T>; j += kLanes<T>) {
      const V r = V::load(y + j) - V::load(target + j);
      r.store(y + j);
      total = fma(r, r, total);
    }
    total.store(sum + v * V::kWidth);
  }
}

template <class Layout, class T>
struct Inverter {
  using V = Vec<T>;
  static constexpr int64_t row = kLanes<T>;

  const InvertProblem<T>& p;
  PackedWeights<Layout, T> weights;
  SequenceState<T> state;
  T *target, *residual;                             // [T, O]
  T *z, *moment1, *moment2, *gradient, *projected;  // [K]
  T *loss, *poison;                                 // one lane row each
  const T loss_scale;

  Inverter(const InvertProblem<T>& problem, Arena& arena)
      : p(problem),
        loss_scale(static_cast<T>(1. / (problem.sizes.n_steps * problem.sizes.output_size))) {
    const Sizes& s = p.sizes;
    weights.take(arena, s);
    state.take(arena, s, p.n_iter > 0 ? 2 : 0);
    target = arena.take<T>(s.n_steps * s.output_size * row);
    residual = arena.take<T>(s.n_steps * s.output_size * row);
    z = arena.take<T>(s.input_size * row);
    moment1 = arena.take<T>(s.input_size * row);
    moment2 = arena.take<T>(s.input_size * row);
    gradient = arena.take<T>(s.input_size * row);
    projected = arena.take<T>(s.input_size * row);
    loss = arena.take<T>(row);
    poison = arena.take<T>(row);
  }

  // Mean squared error of the sequence drawn from `input`, and the residuals; keeps the tape if
  // asked.
  template <bool kKeepTape>
  void measure(const T* input) {
    forward<Layout, kKeepTape>(p.sizes, weights, input, state, residual);
    subtract_and_sum_squares(residual, target, p.sizes.n_steps * p.sizes.output_size, loss);
    for (int64_t j = 0; j < row; ++j) loss[j] = loss[j] * loss_scale + poison[j];
  }

  // The gradient of the loss at the point last measured, and one Adam step of z.
  void step() {
    backward<Layout>(p.sizes, weights, residual, gradient, state, NoStepHook{});
    const V scale = V::broadcast(2 * loss_scale);
    const V beta1 = V::broadcast(static_cast<T>(p.adam.beta1));
    const V beta2 = V::broadcast(static_cast<T>(p.adam.beta2));
    const V rest1 = V::broadcast(static_cast<T>(1. - p.adam.beta1));
    const V rest2 = V::broadcast(static_cast<T>(1. - p.adam.beta2));
    const V lr = V::broadcast(static_cast<T>(p.adam.lr));
    const V eps = V::broadcast(static_cast<T>(p.adam.eps));
    for (int64_t j = 0; j < p.sizes.input_size * row; j += V::kWidth) {
      const V g = V::load(gradient + j) * scale;
      const V m = fma(beta1, V::load(moment1 + j), rest1 * g);
      const V v = fma(beta2, V::load(moment2 + j), rest2 * (g * g));
      m.store(moment1 + j);
      v.store(moment2 + j);
      (V::load(z + j) - lr * m / (sqrt(v) + eps)).store(z + j);
    }
  }

  void record(const Blocks<T>& blocks, int64_t item, const T* latent, T* errors, T* latents) {
    const int64_t N = p.sizes.n_targets, K = p.sizes.input_size;
    for (int lane = 0; lane < blocks.n_lanes(item); ++lane) {
      const Pair at = blocks.pair(item, lane);
      errors[at.module * N + at.target] = loss[lane];
      scatter_lane(latent, K, lane, latents + (at.module * N + at.target) * K);
    }
  }

  void run(int64_t item, Monitor* monitor) {
    const Blocks<T> blocks(p.sizes);
    const int64_t M = p.sizes.n_modules, N = p.sizes.n_targets, K = p.sizes.input_size;
    const int64_t size = p.sizes.n_steps * p.sizes.output_size;
    pack_block(blocks, item, p.sizes, p.weights, weights);
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      const Pair at = blocks.pair(item, lane);
      gather_lane(p.targets + at.target * size, size, lane, target);
      gather_lane(p.init + at.module * p.init_stride_m + at.target * p.init_stride_n, K, lane, z);
      // 0 for a finite target, NaN for one that is not: added to its errors and to no other's.
      T sum = 0;
      for (int64_t j = 0; j < size; ++j) sum += target[j * row + lane] * 0;
      poison[lane] = sum;
    }
    clear(moment1, K);
    clear(moment2, K);

    for (int64_t i = 0; i < p.n_iter; ++i) {
      project(z, K);
      measure<true>(z);
      if (p.error_history)
        record(blocks, item, z, p.error_history + i * M * N, p.latent_history + i * M * N * K);
      step();
      if (!monitor->tick(monitor, 1)) return;
    }
    for (int64_t j = 0; j < K * row; ++j) projected[j] = z[j];
    project(projected, K);
    measure<false>(p.unprojected_error ? z : projected);
    record(blocks, item, projected, p.errors, p.latents);
    if (p.error_history)
      record(blocks, item, projected, p.error_history + p.n_iter * M * N,
             p.latent_history + p.n_iter * M * N * K);
    monitor->tick(monitor, 1);
  }
};

template <class T>
int64_t invert_items(const InvertProblem<T>& p) {
  return Blocks<T>(p.sizes).n_items;
}

template <class T>
int64_t invert_units(const InvertProblem<T>& p) {
  return p.n_iter + 1;
}

template <class T>
int64_t invert_workspace(const InvertProblem<T>& p) {
  Arena shared{nullptr}, lanes{nullptr};
  Inverter<SharedWeights, T>(p, shared);
  Inverter<LaneWeights, T>(p, lanes);
  return shared.used > lanes.used ? shared.used : lanes.used;
}

template <class T>
void invert_item(const InvertProblem<T>& p, int64_t item, void* workspace, Monitor* monitor) {
  Arena arena{static_cast<char*>(workspace)};
  if (Blocks<T>(p.sizes).shared(item))
    Inverter<SharedWeights, T>(p, arena).run(item, monitor);
  else
    Inverter<LaneWeights, T>(p, arena).run(item, monitor);
}

}  // namespace MICFAST_ISA
}  // namespace micfast
