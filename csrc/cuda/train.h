// Training: one block for every module, from the first episode of a launch to the last. Weights,
// Adam's moments and the tape stay in shared memory where they fit.
//
// A launch may run a part of the episodes; what the next one needs lies in the workspace.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// Episodes of one launch.
struct Episodes {
  int64_t begin, end;
  double power1, power2;  // beta1^begin, beta2^begin
};

template <class T, int kHidden>
struct Trainer {
  // What is left of a module between two launches, beside its weights and moments.
  struct Saved {
    double curve;  // sum of the losses of the point being collected, in units of `most` values
    int64_t point, in_point;
  };

  const TrainProblem<T>& p;
  const Sizes& s;
  const int64_t K, O, n_values;
  Place<kHidden> place;
  Sequence<T, kHidden> sequence;
  PackedWeights<T> packed;
  WeightGradient<T, kHidden> gradient;
  T* d_weights;          // [n_values], as all in the order of WeightArrays
  T *weights, *m1, *m2;  // [n_values]
  T *target, *residual;  // [T, O]
  T* x;                  // [K]
  T* scratch;            // [G]
  PhiloxLanes<1> philox;

  MICFAST_BOTH Trainer(const TrainProblem<T>& problem, const Plan& plan, int thread, Space& space)
      : p(problem),
        s(problem.sizes),
        K(problem.sizes.input_size),
        O(problem.sizes.output_size),
        n_values(WeightArrays<T>::n_values(problem.sizes)),
        place(plan, problem.sizes, thread),
        sequence(problem.sizes, place, plan, Keep::kTapeAndStates, space) {
    x = Sequence<T, kHidden>::template take_hot<T>(space, K);
    scratch = Sequence<T, kHidden>::template take_hot<T>(space, plan.threads_per_pair);
    packed.take(space, s);
    sequence.take_tape(space, true);
    residual = space.take<T>(s.n_steps * O);
    target = space.take<T>(s.n_steps * O);
    d_weights = space.take<T>(n_values);
    weights = space.take<T>(n_values);
    m1 = space.take<T>(n_values);
    m2 = space.take<T>(n_values);
  }

  MICFAST_INLINE static int64_t below(uint32_t word, int64_t n) {
    return static_cast<int64_t>((static_cast<uint64_t>(word) * static_cast<uint64_t>(n)) >> 32);
  }

  // values[j] += sigma times normal number j of the stream, for j < n; by all threads.
  MICFAST_INLINE void add_noise(T* values, int64_t n, T sigma, Stream stream,
                                int64_t episode) const {
    for (int64_t block = thread_index(); 4 * block < n; block += n_threads()) {
      T normal[4][1];
      normals(philox, static_cast<uint32_t>(block), stream, static_cast<uint64_t>(episode), normal);
#pragma unroll
      for (int q = 0; q < 4; ++q)
        if (4 * block + q < n) values[4 * block + q] += sigma * normal[q][0];
    }
  }

  MICFAST_INLINE int64_t count(int64_t type) const {
    return p.counts ? p.counts[type] : s.n_steps * O;
  }

  // Draws type and variant, the noisy input and the noisy target; the episode has as many steps as
  // the type. Answers its number among all types [S, K, V]. Ends with a barrier.
  MICFAST_INLINE int64_t draw(int64_t first_type, T noise_in, T noise_out, int64_t episode) {
    uint32_t words[4][1];
    philox.words(0, kTypeStream, static_cast<uint64_t>(episode), words);
    const int64_t type = below(words[0][0], K), variant = below(words[1][0], p.n_variants);
    const int64_t shown = first_type + type * p.n_variants + variant;
    const T* chosen = p.type_sets + shown * (s.n_steps * O);
    sequence.n_steps = static_cast<int>(p.lengths ? p.lengths[shown] : s.n_steps);
    const int64_t size = sequence.n_steps * O;
    for (int64_t k = thread_index(); k < K; k += n_threads()) x[k] = k == type ? 1 : 0;
    for (int64_t j = thread_index(); j < size; j += n_threads()) target[j] = chosen[j];
    block_sync();
    if (noise_in != 0) {
      add_noise(x, K, noise_in, kInputStream, episode);
      block_sync();
      for (int64_t k = thread_index(); k < K; k += n_threads())
        x[k] = x[k] < 0 ? T(0) : x[k] > 1 ? T(1) : x[k];
    }
    if (noise_out != 0) add_noise(target, size, noise_out, kTargetStream, episode);
    block_sync();
    return shown;
  }

  // The packed weights and those in the threads' registers, from the masters.
  MICFAST_INLINE void spread_weights() {
    const int64_t H = s.hidden_size;
    const WeightArrays<T> w = WeightArrays<T>::in(weights, s);
    for (int64_t j = thread_index(); j < H * H; j += n_threads()) {
      packed.gate_h[j] = scaled(w.gate_h[j]);
      packed.from_gate[j] = w.gate_h[j % H * H + j / H];
    }
    for (int64_t j = thread_index(); j < K * H; j += n_threads())
      packed.gate_x[j] = scaled(w.gate_x[j]);
    for (int64_t j = thread_index(); j < H; j += n_threads())
      packed.gate_b[j] = scaled(w.gate_b[j]);
    sequence.template set_weights<Keep::kTapeAndStates>(packed, w.out_h, w.out_b);
  }

  // Sum of squared residuals; the gradients are those of half of it, and the factor 2 / (number of
  // values) is left to the step.
  MICFAST_INLINE T differentiate() {
    T sum = 0;
    sequence.template forward<Keep::kTapeAndStates>(x, [&](int, int at, T y) {
      const T wanted = target[at];
      const T r = p.counts && !(wanted - wanted == 0) ? T(0) : y - wanted;  // NaN is missing
      sum = fused(r, r, sum);
      residual[at] = r;
    });
    sum = pair_sum(place, sum, scratch);
    for (int64_t j = thread_index(); j < n_values; j += n_threads()) d_weights[j] = 0;
    gradient.sum = WeightArrays<T>::in(d_weights, s);
    gradient.start();
    block_sync();
    const auto d_output = [&](int at) { return residual[at]; };
    sequence.template backward<false, Keep::kTapeAndStates>(
        x, nullptr, d_output, nullptr,
        [&](int t, int u, const Quad<T>& d, const T* h) { gradient.on_step(s, x, t, u, d, h); });
    gradient.finish(sequence, d_output);
    return sum;
  }

  // torch trains two bias vectors with equal gradients: their sum moves twice as far.
  MICFAST_INLINE void adam_step(T lr, T correction2, int64_t count) {
    const T scale = static_cast<T>(2. / static_cast<double>(count));
    const int64_t H = s.hidden_size, first_b = 4 * H * (H + K), end_b = first_b + 4 * H;
    for (int64_t j = thread_index(); j < n_values; j += n_threads()) {
      const T d = d_weights[j] * scale;
      const T m = fused(static_cast<T>(p.adam.beta1), m1[j], static_cast<T>(1. - p.adam.beta1) * d);
      const T v =
          fused(static_cast<T>(p.adam.beta2), m2[j], static_cast<T>(1. - p.adam.beta2) * (d * d));
      m1[j] = m;
      m2[j] = v;
      const T rate = j >= first_b && j < end_b ? 2 * lr : lr;
      weights[j] -= rate * m / fused(T(sqrt(v)), correction2, static_cast<T>(p.adam.eps));
    }
    block_sync();
  }

  // What a module without a type set, or with noise that is no number, gets (operators.py).
  MICFAST_INLINE void refuse(int64_t module) const {
    for_weights(s, [&](int64_t, int64_t to, int which) {
      weight_tensor(p.trained, s, module, which)[to] = T(NAN);
    });
    for (int64_t i = thread_index(); i < p.n_curve; i += n_threads())
      p.loss_curve[module * p.n_curve + i] = T(NAN);
  }

  // `state` [2, n_values] and `saved`: of this module, in the workspace.
  MICFAST_INLINE void run(int64_t module, const Episodes& episodes, T* state, Saved* saved) {
    if (p.set_index[module] < 0) return refuse(module);
    philox.set_seed(0, p.seeds[module]);
    const T noise_in = static_cast<T>(p.noise_in[module]);
    const T noise_out = static_cast<T>(p.noise_out[module]);
    const int64_t n_types = K * p.n_variants, first_type = p.set_index[module] * n_types;
    int64_t most = 1;  // values of the module's types: the unit of the curve's sums
    for (int64_t j = 0; j < n_types; ++j) {
      const int64_t n = count(first_type + j);
      if (n > most) most = n;
    }
    const bool first = episodes.begin == 0;
    for_weights(s, [&](int64_t j, int64_t at, int which) {
      weights[j] = first ? weight_tensor(p.initial, s, module, which)[at]
                         : weight_tensor(p.trained, s, module, which)[at];
      m1[j] = first ? T(0) : state[j];
      m2[j] = first ? T(0) : state[n_values + j];
    });
    Saved at = first ? Saved{0, 0, 0} : *saved;
    block_sync();

    double power1 = episodes.power1, power2 = episodes.power2;
    for (int64_t episode = episodes.begin; episode < episodes.end; ++episode) {
      spread_weights();
      const int64_t shown = draw(first_type, noise_in, noise_out, episode);
      const T sum = differentiate();
      power1 *= p.adam.beta1;
      power2 *= p.adam.beta2;
      adam_step(static_cast<T>(p.adam.lr / (1. - power1)), static_cast<T>(1. / sqrt(1. - power2)),
                count(shown));
      at.curve += static_cast<double>(sum) *
                  (static_cast<double>(most) / static_cast<double>(count(shown)));
      ++at.in_point;
      if ((episode + 1) * p.n_curve / p.n_episodes > at.point) {
        if (thread_index() == 0)
          p.loss_curve[module * p.n_curve + at.point] =
              static_cast<T>(at.curve / static_cast<double>(at.in_point * most));
        at = {0, at.point + 1, 0};
      }
    }
    for_weights(s, [&](int64_t j, int64_t to, int which) {
      weight_tensor(p.trained, s, module, which)[to] = weights[j];
      state[j] = m1[j];
      state[n_values + j] = m2[j];
    });
    if (thread_index() == 0) *saved = at;
    block_sync();
  }
};

// Where training keeps what outlives a launch.
template <class T>
struct TrainState {
  T* moments;   // [M, 2, n_values]
  char* saved;  // [M] of Trainer::Saved
  MICFAST_BOTH TrainState(const Sizes& s, Space& space) {
    moments = space.take_global<T>(s.n_modules * 2 * WeightArrays<T>::n_values(s));
    saved = space.take_global<char>(s.n_modules * 24);
  }
};

template <class T, int kHidden>
MICFAST_KERNEL void MICFAST_LAUNCH_BOUNDS(128, 1)
    train_kernel(TrainProblem<T> p, Plan plan, Episodes episodes, char* state, char* workspace) {
  Space kept{nullptr, 0, state};
  const TrainState<T> saved(p.sizes, kept);
  Space space{shared_memory(), plan.shared_limit, workspace + block_index() * plan.global_bytes};
  Trainer<T, kHidden> trainer(p, plan, thread_index(), space);
  using Saved = typename Trainer<T, kHidden>::Saved;
  static_assert(sizeof(Saved) == 24, "TrainState makes room for it");
  for (int64_t m = plan.first + block_index(); m < plan.end; m += n_blocks())
    trainer.run(m, episodes, saved.moments + m * 2 * trainer.n_values,
                reinterpret_cast<Saved*>(saved.saved) + m);
}

}  // namespace MICFAST_ISA
}  // namespace micfast
