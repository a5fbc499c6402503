// Inversion by the second mapping (thread_sequence.h): each thread runs all Adam steps of its own
// one or two targets and stops when they are done. The results are those of Inverter, bit for bit.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T, int kHidden>
struct ThreadInverter {
  using S = ThreadSequence<T, kHidden>;
  static constexpr int kTargets = S::kTargets, kThreads = S::kThreads;
  // Of an iteration, in passes of a thread that has one unit: it has all of them.
  static constexpr double kWork = 0.4 * kTargets * kHidden;
  static constexpr int kBlocksAtOnce = kHidden > 10 ? 4 : 2;  // measured (bench/NOTES.md)

  // Every value of a target is this thread's own.
  struct Own {
    static constexpr bool works = true;
    static constexpr int lane = 0;
    template <class Index, class F>
    MICFAST_INLINE void for_share(Index n, F f) const {
#pragma unroll 1
      for (Index j = 0; j < n; ++j) f(j);
    }
  };
  // An array over the inputs of one target, which lies as a column among the threads'.
  struct Column {
    T* first;
    MICFAST_INLINE T& operator[](int64_t k) const { return first[k * (kThreads * kTargets)]; }
  };

  const InvertProblem<T>& p;
  const int K, thread;
  S sequence;
  // Not in shared memory, of which the sequences take what lets two blocks fit:
  AdamProgress<T>* progress;  // [targets, threads]
  T* columns;                 // [4, K, threads, targets]: z, its moments, the gradient

  MICFAST_BOTH ThreadInverter(const InvertProblem<T>& problem, const Plan& plan, int index,
                              Space& space)
      : p(problem),
        K(static_cast<int>(problem.search.sizes.input_size)),
        thread(index),
        sequence(problem.search.sizes, plan, index, space) {
    progress = space.template take_global<AdamProgress<T>>(kTargets * kThreads);
    columns = space.template take_global<T>(int64_t{4} * K * kThreads * kTargets);
  }

  MICFAST_INLINE Column column(int which, int i) const {
    return {columns + (which * K * kThreads + thread) * kTargets + i};
  }
  MICFAST_INLINE Column latent(int i) const { return column(0, i); }
  MICFAST_INLINE Column moment1(int i) const { return column(1, i); }
  MICFAST_INLINE Column moment2(int i) const { return column(2, i); }
  MICFAST_INLINE Column gradient(int i) const { return column(3, i); }
  MICFAST_INLINE AdamProgress<T>& state(int i) const { return progress[i * kThreads + thread]; }

  // Mean squared errors of the sequences drawn from z; keeps tape and residuals if asked.
  template <bool kKeeps>
  MICFAST_INLINE typename S::Pair measure() {
    typename S::Pair error = sequence.template forward<kKeeps>([&](int i) { return latent(i); });
    for (int i = 0; i < kTargets; ++i) error.of[i] *= state(i).scale;
    return error;
  }
  MICFAST_INLINE void project_all() const {
#pragma unroll 1
    for (int i = 0; i < kTargets; ++i) project(latent(i), K);
  }

  // Reads target i of this thread and starts its search; answers how many steps it has.
  MICFAST_INLINE int start(const SearchTile<T>& tile, int i) {
    const T *const target = tile.target_values(), *const from = tile.start();
    const int length = tile.length();
    T poison = 0;
#pragma unroll 1
    for (int j = 0; j < p.search.sizes.n_steps * sequence.O; ++j) {
      // (Without missing values, one that is not finite makes the scale NaN, and all that follows.)
      sequence.values[j * 2 * kThreads].of[i] = target[j] - target[j] == 0 ? target[j] : T(NAN);
      if (j < length * sequence.O) poison += poison_of(tile, target[j]);
    }
    state(i) = AdamProgress<T>::at_start(tile, error_scale(tile, poison));
#pragma unroll 1
    for (int k = 0; k < K; ++k) {
      latent(i)[k] = from[k];
      moment1(i)[k] = moment2(i)[k] = 0;
    }
    return length;
  }

  MICFAST_INLINE void step() const {
#pragma unroll 1
    for (int i = 0; i < kTargets; ++i) {
      const AdamProgress<T>& of = state(i);
#pragma unroll 1
      for (int k = 0; k < K; ++k) {
        const T fall =
            adam_step(p.adam, gradient(i)[k] * (2 * of.scale), moment1(i)[k], moment2(i)[k]);
        if (of.moving) latent(i)[k] -= fall;
      }
    }
  }

  MICFAST_INLINE void run(const Plan& plan, int64_t item, const PackedModules<T>& packed) {
    const SearchProblem<T>& search = p.search;
    const int64_t H = kHidden, O = search.sizes.output_size;
    const auto tile = [&](int i) {
      return SearchTile<T>(search, plan, item, thread * kTargets + i);
    };
    const int64_t module = tile(0).module;
    const T* W_ih = search.weights.W_ih + module * 4 * H * K;
    sequence.set_weights(packed.of(module), search.weights.W_out + module * O * H,
                         search.weights.b_out + module * O);
    if (!tile(0).counts) return;
    sequence.n_steps = 1;
#pragma unroll 1
    for (int i = 0; i < kTargets; ++i) {
      const int length = start(tile(i), i);
      if (length > sequence.n_steps) sequence.n_steps = length;
    }
    const auto record = [&](int64_t row, const typename S::Pair& error) {
      for (int i = 0; search.error_history && i < kTargets; ++i)
        record_history(tile(i), Own{}, row, error.of[i], latent(i), K);
    };

#pragma unroll 1
    for (int64_t n = 0; n < search.n_iter; ++n) {
      project_all();
      const typename S::Pair loss = measure<true>();
      record(n, loss);
      if (search.tol > 0) {
        bool moves = false;
        for (int i = 0; i < kTargets; ++i) {
          state(i).watch(loss.of[i], n, search.tol);
          moves = moves || state(i).moving;
        }
        // A history wants every row, also where nothing moves.
        if (!moves && !search.error_history) {
          // As the CPU's Inverter: the iterations left would project once more each.
#pragma unroll 1
          for (int64_t left = n + 1; left < search.n_iter; ++left) project_all();
          break;
        }
      }
      sequence.backward(W_ih, [&](int i) { return gradient(i); });
      step();
    }
    if (!p.unprojected_error) project_all();
    const typename S::Pair error = measure<false>();
    if (p.unprojected_error) project_all();
    record(search.n_iter, error);
    for (int i = 0; i < kTargets; ++i) {
      const SearchTile<T> of = tile(i);
      if (!of.counts) continue;
      record_pair(Own{}, search.errors, search.latents, of.index(), error.of[i], latent(i), K);
      search.n_iter_used[of.index()] = state(i).n_iter_used;
      search.converged[of.index()] = !state(i).moving && error.of[i] == error.of[i];
    }
  }
};

// The tiles of this mapping; their number of pairs does not depend on how many there are.
template <int kHidden>
Plan thread_plan(const Sizes& s) {
  using S = ThreadSequence<float, kHidden>;
  Plan plan{};
  plan.pairs = S::kThreads * S::kTargets;
  plan.threads_per_pair = 1;
  plan.threads = S::kThreads;
  plan.segment = segment_of(s);
  plan.tape_steps = s.n_steps;
  plan.n_items = plan.end = s.n_modules * ((s.n_targets + plan.pairs - 1) / plan.pairs);
  return plan;
}

}  // namespace MICFAST_ISA
}  // namespace micfast
