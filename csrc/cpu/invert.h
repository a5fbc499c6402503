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

// z = z, or the nearest number within its bounds [2, K]. NaN stays NaN. `z` [K] is in-out.
template <class T>
void clip(T* z, const double* bounds, int64_t n_inputs) {
  using V = Vec<T>;
  for (int64_t k = 0; k < n_inputs; ++k) {
    const V lowest = V::broadcast(static_cast<T>(bounds[k]));
    const V highest = V::broadcast(static_cast<T>(bounds[n_inputs + k]));
    for (int v = 0; v < kVectorsPerBlock; ++v) {
      T* at = z + k * kLanes<T> + v * V::kWidth;
      min(highest, max(lowest, V::load(at))).store(at);
    }
  }
}

// z = radius z / |z|, or equal components where z is 0. NaN stays NaN. `z` [K] is in-out.
template <class T>
void normalise(T* z, double radius, int64_t n_inputs) {
  using V = Vec<T>;
  const V zero = V::broadcast(0), length = V::broadcast(static_cast<T>(radius));
  const V uniform = length / sqrt(V::broadcast(static_cast<T>(n_inputs)));
  for (int v = 0; v < kVectorsPerBlock; ++v) {
    T* column = z + v * V::kWidth;
    V size = zero, sum = zero;
    for (int64_t k = 0; k < n_inputs; ++k) {
      const V x = V::load(column + k * kLanes<T>);
      size = size + max(x, zero - x);
    }
    // Relative to their size, no square overflows, and not all of them vanish.
    for (int64_t k = 0; k < n_inputs; ++k) {
      const V x = V::load(column + k * kLanes<T>) / size;
      x.store(column + k * kLanes<T>);
      sum = fma(x, x, sum);
    }
    const V factor = length / sqrt(sum);
    for (int64_t k = 0; k < n_inputs; ++k) {
      T* at = column + k * kLanes<T>;
      if_zero(size, uniform, factor * V::load(at)).store(at);
    }
  }
}

// Puts latents [K] where they may be.
template <class T>
MICFAST_INLINE void constrain(T* z, bool simplex, const Objective<T>& objective, int64_t n_inputs) {
  if (simplex)
    project(z, n_inputs);
  else if (objective.bounds)
    clip(z, objective.bounds, n_inputs);
  else if (objective.radius > 0)
    normalise(z, objective.radius, n_inputs);
}

// y - target; with kOmit, 0 where the target is NaN. (An infinite target counts as NaN there; its
// lane's scale is NaN, see SearchBlock::gather.)
template <bool kOmit, class T>
MICFAST_INLINE Vec<T> residual_of(Vec<T> y, Vec<T> target) {
  if constexpr (kOmit)
    return if_zero(target - target, y - target, Vec<T>::broadcast(0));
  else
    return y - target;
}

// y -= target and sum = the squares of the differences, over n lane rows; with kOmit, those where
// the target is NaN are 0.
template <bool kOmit, class T>
MICFAST_INLINE void subtract_and_sum_squares(T* y, const T* target, int64_t n, T* sum) {
  using V = Vec<T>;
  for (int v = 0; v < kVectorsPerBlock; ++v) {
    V total = V::broadcast(0);
    for (int64_t j = v * V::kWidth; j < n * kLanes<T>; j += kLanes<T>) {
      const V r = residual_of<kOmit>(V::load(y + j), V::load(target + j));
      r.store(y + j);
      total = fma(r, r, total);
    }
    total.store(sum + v * V::kWidth);
  }
}

// residual *= weight and sum = weight residual^2, over n lane rows with a weight each.
template <class T>
void weigh_and_sum_squares(T* residual, const T* weights, int64_t n, T* sum) {
  using V = Vec<T>;
  for (int v = 0; v < kVectorsPerBlock; ++v) {
    V total = V::broadcast(0);
    for (int64_t i = 0; i < n; ++i) {
      T* at = residual + i * kLanes<T> + v * V::kWidth;
      const V r = V::load(at), weighed = V::broadcast(weights[i]) * r;
      weighed.store(at);
      total = fma(weighed, r, total);
    }
    total.store(sum + v * V::kWidth);
  }
}

// Huber loss of n lane rows: with c the residual r cut off at +-delta, sum = weight c (r - c / 2),
// and residual = weight c, its slope. `weights` [n] is null where all are 1.
template <class T>
void cut_and_sum_huber(T* residual, const T* weights, T delta, int64_t n, T* sum) {
  using V = Vec<T>;
  const V lowest = V::broadcast(-delta), highest = V::broadcast(delta);
  const V half = V::broadcast(static_cast<T>(0.5));
  for (int v = 0; v < kVectorsPerBlock; ++v) {
    V total = V::broadcast(0);
    for (int64_t i = 0; i < n; ++i) {
      T* at = residual + i * kLanes<T> + v * V::kWidth;
      const V r = V::load(at), c = min(highest, max(lowest, r));
      const V slope = weights ? V::broadcast(weights[i]) * c : c;
      slope.store(at);
      total = fma(slope, fnma(half, c, r), total);
    }
    total.store(sum + v * V::kWidth);
  }
}

// The L2 prior of latents z [K]: adds its value to `loss`, or its slope to `gradient` [K].
template <class T>
void add_prior(const Objective<T>& objective, const T* z, int64_t n_inputs, T* loss, T* gradient) {
  using V = Vec<T>;
  const V weight = V::broadcast(static_cast<T>(objective.prior_weight));
  for (int64_t j = 0; j < n_inputs * kLanes<T>; j += V::kWidth) {
    const T mean = static_cast<T>(objective.prior_mean[j / kLanes<T>]);
    const V distance = V::load(z + j) - V::broadcast(mean), scaled = weight * distance;
    T* const value = loss + j % kLanes<T>;
    if (gradient)
      (V::load(gradient + j) + (scaled + scaled)).store(gradient + j);
    else
      fma(scaled, distance, V::load(value)).store(value);
  }
}

template <class Layout, class T, class Cell>
struct Inverter {
  using V = Vec<T>;
  static constexpr int64_t row = kLanes<T>;
  // A pair has converged when its lowest error fell by less than tol in this many iterations:
  // Adam's error may rise for a few of them.
  static constexpr int64_t kPatience = 5;

  const InvertProblem<T>& p;
  Sizes s;  // with the steps of the block at work
  PackedWeights<Layout, T, Cell> weights;
  typename StateOf<Layout, T, Cell>::Sequence state;
  T *target, *residual;                             // [T, O]
  T *z, *moment1, *moment2, *gradient, *projected;  // [K]
  T* loss;                                          // one lane row, as all below
  T* scale;  // what makes a mean of a sum over the target's values; NaN if it is not finite
  T *lowest, *lowest_before;  // lowest error, and kPatience iterations ago
  T* moving;                  // 0 once the lane has converged, else 1
  int64_t* n_iter_used;

  Inverter(const InvertProblem<T>& problem, Arena& arena) : p(problem), s(problem.search.sizes) {
    weights.take(arena, s, p.search.weights);
    state.take(arena, s, p.search.n_iter > 0 ? 2 : 0, p.search.weights);
    target = arena.take<T>(s.n_steps * s.output_size * row);
    residual = arena.take<T>(s.n_steps * s.output_size * row);
    z = arena.take<T>(s.input_size * row);
    moment1 = arena.take<T>(s.input_size * row);
    moment2 = arena.take<T>(s.input_size * row);
    gradient = arena.take<T>(s.input_size * row);
    projected = arena.take<T>(s.input_size * row);
    loss = arena.take<T>(row);
    scale = arena.take<T>(row);
    lowest = arena.take<T>(row);
    lowest_before = arena.take<T>(row);
    moving = arena.take<T>(row);
    n_iter_used = arena.take<int64_t>(row);
  }

  // Mean squared error (weighted, with the prior) or Huber loss of the sequence drawn from `input`,
  // and the residuals, or Huber's slopes; keeps the tape if asked.
  template <bool kKeepTape>
  void measure(const T* input) {
    const Objective<T>& objective = p.search.objective;
    const int64_t n = s.n_steps * s.output_size;
    forward<kKeepTape>(s, weights, input, state, residual);
    if (p.search.counts)
      subtract_and_sum_squares<true>(residual, target, n, loss);
    else
      subtract_and_sum_squares<false>(residual, target, n, loss);
    if (objective.huber > 0)
      cut_and_sum_huber(residual, objective.weights, static_cast<T>(objective.huber), n, loss);
    else if (objective.weights)
      weigh_and_sum_squares(residual, objective.weights, n, loss);
    for (int64_t j = 0; j < row; ++j) loss[j] *= scale[j];
    if (objective.prior_weight != 0) add_prior<T>(objective, input, s.input_size, loss, nullptr);
  }

  // The gradient of the loss at z, where it was last measured, and Adam's step number i.
  void step(int64_t i) {
    backward(s, weights, residual, gradient, state, NoStepHook{});
    const double* at = p.steps ? p.steps + 2 * i : nullptr;
    const Objective<T>& objective = p.search.objective;
    const V slope = V::broadcast(objective.huber > 0 ? 1 : 2);  // of a square it is 2 r
    const V beta1 = V::broadcast(static_cast<T>(p.adam.beta1));
    const V beta2 = V::broadcast(static_cast<T>(p.adam.beta2));
    const V rest1 = V::broadcast(static_cast<T>(1. - p.adam.beta1));
    const V rest2 = V::broadcast(static_cast<T>(1. - p.adam.beta2));
    const V lr = V::broadcast(static_cast<T>(at ? at[0] : p.adam.lr));
    const V eps = V::broadcast(static_cast<T>(at ? at[1] : p.adam.eps));
    for (int64_t j = 0; j < s.input_size * row; j += V::kWidth)
      (V::load(gradient + j) * (slope * V::load(scale + j % row))).store(gradient + j);
    if (objective.prior_weight != 0) add_prior<T>(objective, z, s.input_size, nullptr, gradient);
    for (int64_t j = 0; j < s.input_size * row; j += V::kWidth) {
      const V g = V::load(gradient + j);
      const V m = fma(beta1, V::load(moment1 + j), rest1 * g);
      const V v = fma(beta2, V::load(moment2 + j), rest2 * (g * g));
      m.store(moment1 + j);
      v.store(moment2 + j);
      const V before = V::load(z + j);
      const V after = before - lr * m / (sqrt(v) + eps);
      if_zero(V::load(moving + j % row), before, after).store(z + j);
    }
  }

  // Stops the lanes that have converged after i iterations; answers whether any still moves.
  bool watch_convergence(int64_t i) {
    bool any = false;
    for (int64_t l = 0; l < row; ++l) {
      if (i == 0) lowest_before[l] = lowest[l] = loss[l];
      if (loss[l] < lowest[l]) lowest[l] = loss[l];
      if (i > 0 && i % kPatience == 0) {
        const T gain = lowest_before[l] - lowest[l];
        // Written so that NaN stops, too.
        if (moving[l] != 0 && !(gain > static_cast<T>(p.search.tol) * lowest_before[l])) {
          moving[l] = 0;
          n_iter_used[l] = i;
        }
        lowest_before[l] = lowest[l];
      }
      any = any || moving[l] != 0;
    }
    return any;
  }

  void run(int64_t item, Monitor* monitor) {
    const SearchProblem<T>& search = p.search;
    const SearchBlock<T> block(search, item);
    const int64_t K = s.input_size;
    s.n_steps = block.n_steps;
    pack_block(block.blocks, item, s, search.weights, weights);
    set_targets(state, block.n_lanes());
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      scale[lane] = static_cast<T>(block.gather(lane, target, z));
      moving[lane] = 1;
      n_iter_used[lane] = search.n_iter;
    }
    clear(moment1, K);
    clear(moment2, K);

    const auto constrained = [&](T* x) { constrain(x, p.simplex, search.objective, K); };
    for (int64_t i = 0; i < search.n_iter; ++i) {
      constrained(z);
      measure<true>(z);
      block.record_history(i, loss, z);
      const bool any_moves = search.tol <= 0 || watch_convergence(i);
      // A history wants every row, also where nothing moves.
      if (!any_moves && !search.error_history) {
        // The iterations left would project once more each, which can move a latent by a rounding:
        // done, so that a result does not depend on when the other lanes stop.
        for (int64_t left = i + 1; left < search.n_iter; ++left) constrained(z);
        break;
      }
      step(i);
      if (!monitor->tick(monitor, 1)) return;
    }
    for (int64_t j = 0; j < K * row; ++j) projected[j] = z[j];
    constrained(projected);
    measure<false>(p.unprojected_error ? z : projected);
    block.record_history(search.n_iter, loss, projected);
    block.record_result(loss, projected);
    for (int lane = 0; lane < block.n_lanes(); ++lane) {
      search.n_iter_used[block.index(lane)] = static_cast<int32_t>(n_iter_used[lane]);
      search.converged[block.index(lane)] = moving[lane] == 0 && loss[lane] == loss[lane];
    }
    monitor->tick(monitor, 1);
  }
};

template <class T>
using InvertJob = SearchJob<Inverter, InvertProblem, T>;

}  // namespace MICFAST_ISA
}  // namespace micfast
