// Inversion: the whole loop of projected Adam steps on the inputs of a tile of pairs.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T, int kHidden>
struct Inverter {
  static constexpr double kWork = 2;  // of an iteration, in passes through the sequence
  static constexpr int kBlocksAtOnce = kHidden > 0 ? 3 : 2;  // what the registers suffice for

  const InvertProblem<T>& p;
  const Sizes& s;
  const int K;
  Place<kHidden> place;
  Sequence<T, kHidden> sequence;
  T *z, *moment1, *moment2, *gradient;  // [P, K]
  T* scratch;                           // [P, G]
  AdamProgress<T>* progress;            // [P], of each pair's first thread
  T* residual;                          // [P, T O]

  MICFAST_BOTH Inverter(const InvertProblem<T>& problem, const Plan& plan, int thread, Space& space)
      : p(problem),
        s(problem.search.sizes),
        K(static_cast<int>(problem.search.sizes.input_size)),
        place(plan, problem.search.sizes, thread),
        sequence(problem.search.sizes, place, plan, Keep::kTape, space) {
    const int64_t n = static_cast<int64_t>(plan.pairs) * K;
    using S = Sequence<T, kHidden>;
    z = S::template take_hot<T>(space, n);
    moment1 = S::template take_hot<T>(space, n);
    moment2 = S::template take_hot<T>(space, n);
    gradient = S::template take_hot<T>(space, n);
    scratch = S::template take_hot<T>(space, plan.pairs * plan.threads_per_pair);
    progress = S::template take_hot<AdamProgress<T>>(space, plan.pairs);
    sequence.take_tape(space, false);
    residual = space.take<T>(s.n_steps * plan.pairs * s.output_size);
  }

  MICFAST_INLINE T* residual_of_pair() const {
    return opaque(residual + static_cast<int>(s.n_steps) * sequence.O * place.pair);
  }

  // Mean squared error of the sequence drawn from z; keeps tape and residuals if asked.
  template <Keep kKeep>
  MICFAST_INLINE T measure(const T* z_pair, const T* target) {
    T sum = 0;
    const int length = progress[place.pair].length;
    const bool omits = p.search.counts;
    const int ahead = sequence.segment * sequence.O, last = sequence.n_steps * sequence.O;
    T* const residual_pair = residual_of_pair();
    sequence.template forward<kKeep>(z_pair, [&](int t, int at, T y) {
      if (Sequence<T, kHidden>::kFetches && at + ahead < last) prefetch(target + at + ahead);
      const T r = t < length ? residual_of(omits, y, target[at]) : T(0);
      sum = fused(r, r, sum);
      if constexpr (kKeep == Keep::kTape) residual_pair[at] = r;
    });
    return pair_sum(place, sum, scratch) * progress[place.pair].scale;
  }

  MICFAST_INLINE void step(T* z_pair) {
    const T scale = 2 * progress[place.pair].scale;
    const int first = place.pair * K;
    const bool moving = progress[place.pair].moving;
    place.for_share(K, [&](int k) {
      const T fall =
          adam_step(p.adam, gradient[first + k] * scale, moment1[first + k], moment2[first + k]);
      if (moving) z_pair[k] -= fall;
    });
    place.sync();
  }

  MICFAST_INLINE void run(const Plan& plan, int64_t item, const PackedModules<T>& packed) {
    const SearchProblem<T>& search = p.search;
    const SearchTile<T> tile(search, plan, item, place.pair);
    const int64_t H = s.hidden_size, O = s.output_size;
    sequence.n_steps = tile.longest(plan);
    const T* target = opaque(tile.target_values());
    const T* W_ih = search.weights.W_ih + tile.module * 4 * H * K;
    sequence.template set_weights<Keep::kTape>(packed.of(tile.module),
                                               search.weights.W_out + tile.module * O * H,
                                               search.weights.b_out + tile.module * O);
    T* z_pair = z + place.pair * K;
    AdamProgress<T>& state = progress[place.pair];
    place.for_share(K, [&](int k) {
      z_pair[k] = tile.start()[k];
      moment1[place.pair * K + k] = moment2[place.pair * K + k] = 0;
    });
    const double scale = error_scale(tile, place, scratch);
    if (place.works && place.lane == 0) state = AdamProgress<T>::at_start(tile, scale);
    place.sync();

    for (int64_t i = 0; i < search.n_iter; ++i) {
      if (place.works && place.lane == 0) project(z_pair, K);
      place.sync();
      const T loss = measure<Keep::kTape>(z_pair, target);
      record_history(tile, place, i, loss, z_pair, K);
      if (search.tol > 0) {
        if (place.works && place.lane == 0) state.watch(loss, i, search.tol);
        // A history wants every row, also where nothing moves.
        if (!place.any(place.works && place.lane == 0 && state.moving) && !search.error_history) {
          // As the CPU's Inverter: the iterations left would project once more each.
          if (place.works && place.lane == 0)
            for (int64_t left = i + 1; left < search.n_iter; ++left) project(z_pair, K);
          place.sync();
          break;
        }
      }
      const T* const residuals = residual_of_pair();
      const int ahead = sequence.segment * sequence.O;
      sequence.template backward<true, Keep::kTape>(
          z_pair, W_ih,
          [&](int at) {
            if (Sequence<T, kHidden>::kFetches && at >= ahead) prefetch(residuals + at - ahead);
            return residuals[at];
          },
          gradient + place.pair * K, NoStepHook{});
      step(z_pair);
    }
    T error = 0;
    if (p.unprojected_error) error = measure<Keep::kNothing>(z_pair, target);
    place.sync();
    if (place.works && place.lane == 0) project(z_pair, K);
    place.sync();
    if (!p.unprojected_error) error = measure<Keep::kNothing>(z_pair, target);
    record_history(tile, place, search.n_iter, error, z_pair, K);
    if (place.works && tile.counts) {
      record_pair(place, search.errors, search.latents, tile.index(), error, z_pair, K);
      if (place.lane == 0) {
        search.n_iter_used[tile.index()] = state.n_iter_used;
        search.converged[tile.index()] = !state.moving && error == error;
      }
    }
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
