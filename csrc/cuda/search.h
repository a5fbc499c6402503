// What both ways of inversion share: the pairs of a tile, where their numbers come from and where
// they go.
#pragma once

#include <cstdint>
#include <type_traits>

namespace micfast {
namespace MICFAST_ISA {

// A tile: up to P targets of one module, all starts counted as targets of their own.
template <class T>
struct SearchTile {
  const SearchProblem<T>& p;
  int64_t module;
  int64_t first;   // of the tile's targets, in their order
  int64_t target;  // of this pair: the target and its start as one number n * S + s
  bool counts;     // pairs past the last target repeat it and write nothing

  MICFAST_INLINE SearchTile(const SearchProblem<T>& problem, const Plan& plan, int64_t item,
                            int pair)
      : p(problem) {
    const int64_t N = p.sizes.n_targets, per_module = (N + plan.pairs - 1) / plan.pairs;
    module = item / per_module;
    first = item % per_module * plan.pairs;
    counts = first + pair < N;
    target = ordered(counts ? first + pair : N - 1);
  }
  // Steps of the tile's longest target.
  MICFAST_INLINE int longest(const Plan& plan) const {
    if (!p.lengths) return static_cast<int>(p.sizes.n_steps);
    const int64_t N = p.sizes.n_targets;
    int n_steps = 1;
    for (int64_t other = first; other < first + plan.pairs && other < N; ++other) {
      const int64_t length = p.lengths[target_of(ordered(other))];
      if (length > n_steps) n_steps = static_cast<int>(length);
    }
    return n_steps;
  }
  MICFAST_INLINE int64_t ordered(int64_t position) const {
    if (!p.order) return position;
    const int64_t n = position / p.n_starts;
    return position + (p.order[n] - n) * p.n_starts;
  }
  // The place of a pair's target among all of them.
  MICFAST_INLINE int64_t target_of(int64_t pair) const {
    return module * p.target_stride + pair / p.n_starts;
  }
  // Steps of this pair's target, and how many values it has.
  MICFAST_INLINE int length() const {
    return static_cast<int>(p.lengths ? p.lengths[target_of(target)] : p.sizes.n_steps);
  }
  MICFAST_INLINE int64_t n_values() const {
    return p.counts ? p.counts[target_of(target)] : p.sizes.n_steps * p.sizes.output_size;
  }
  MICFAST_INLINE int64_t index() const { return module * p.sizes.n_targets + target; }
  MICFAST_INLINE const T* target_values() const {
    return p.targets + target_of(target) * (p.sizes.n_steps * p.sizes.output_size);
  }
  MICFAST_INLINE const T* start() const {
    return p.init + module * p.init_strides[0] + target / p.n_starts * p.init_strides[1] +
           target % p.n_starts * p.init_strides[2];
  }
};

// y - target; where values may be missing, a NaN is one and counts 0. (So does an infinite target
// there; its pair's scale is NaN.)
template <class T>
MICFAST_INLINE T residual_of(bool omits, T y, T target) {
  return omits && !(target - target == 0) ? T(0) : y - target;
}

// What makes an error of a pair's sum of squares: one over the number of its target's values, or
// NaN if it has none or one of them is not finite. `poison`: the sum of poison_of() over the
// values.
template <class T>
MICFAST_INLINE T poison_of(const SearchTile<T>& tile, T value) {
  return tile.p.counts && value != value ? T(0) : value * 0;
}
template <class T>
MICFAST_INLINE double error_scale(const SearchTile<T>& tile, T poison) {
  const double mean = tile.n_values() > 0 ? 1. / static_cast<double>(tile.n_values()) : NAN;
  return mean + static_cast<double>(poison);
}
// The same by the threads of a pair. `scratch` [P, G].
template <class T, int kHidden>
MICFAST_INLINE double error_scale(const SearchTile<T>& tile, const Place<kHidden>& place,
                                  T* scratch) {
  const T* target = tile.target_values();
  T poison = 0;
  place.for_share(tile.length() * tile.p.sizes.output_size,
                  [&](int64_t j) { poison += poison_of(tile, target[j]); });
  return error_scale(tile, pair_sum(place, poison, scratch));
}

// Writes a pair's error and latent to row `index`.
template <class Where, class T, class Z>
MICFAST_INLINE void record_pair(const Where& place, T* errors, T* latents, int64_t index, T error,
                                Z z, int K) {
  if (place.works && place.lane == 0) errors[index] = error;
  place.for_share(K, [&](int k) { latents[index * K + k] = static_cast<T>(z[k]); });
}

// The same to row i of the history, if there is one.
template <class T, class Where, class Z>
MICFAST_INLINE void record_history(const SearchTile<T>& tile, const Where& place, int64_t i,
                                   T error, Z z, int K) {
  const SearchProblem<T>& p = tile.p;
  if (!p.error_history || !tile.counts) return;
  const int64_t first = i * p.sizes.n_modules * p.sizes.n_targets;
  record_pair(place, p.error_history + first, p.latent_history + first * K, tile.index(), error, z,
              K);
}

// z = clip(z, 0, 1) / sum, or 1/K where the sum is 0; NaN stays. By one thread.
template <class Z>
MICFAST_INLINE void project(Z z, int64_t K) {
  using T = std::remove_reference_t<decltype(z[0])>;
  T sum = 0;
#pragma unroll 1
  for (int64_t k = 0; k < K; ++k) {
    z[k] = z[k] < 0 ? T(0) : z[k] > 1 ? T(1) : z[k];
    sum += z[k];
  }
#pragma unroll 1
  for (int64_t k = 0; k < K; ++k) z[k] = sum == 0 ? T(1) / static_cast<T>(K) : quotient(z[k], sum);
}

// Steps whose outputs together give every one of H threads the same number of them.
inline int segment_of(const Sizes& s) {
  const int64_t H = s.hidden_size < 128 ? s.hidden_size : 128;
  int64_t a = H, b = s.output_size;
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  const int64_t segment = H / a < 8 ? H / a : 8;
  // Where that is one output, two: there is some work around a segment.
  return static_cast<int>(segment * s.output_size <= H ? 2 * segment : segment);
}

// How the tiles of a search are cut. Few pairs to a block where there are few in all, so that the
// whole device has work; `most_pairs` where their arrays are large.
template <int kHidden>
Plan search_plan(const Sizes& s, int most_pairs) {
  Plan plan{};
  const int H = static_cast<int>(s.hidden_size < 128 ? s.hidden_size : 128);
  plan.threads_per_pair = H;
  const int64_t all = s.n_modules * s.n_targets;
  const int64_t fair = (all + 2 * n_multiprocessors() - 1) / (2 * n_multiprocessors());
  int64_t pairs = 128 / H;
  if (pairs > s.n_targets) pairs = s.n_targets;
  if (pairs > fair) pairs = fair;
  if (pairs > most_pairs) pairs = most_pairs;
  plan.pairs = static_cast<int>(pairs < 1 ? 1 : pairs);
  constexpr int kTeam = team_of(kHidden);
  if constexpr (kTeam > 0) {
    const int of_team = kTeam / kHidden, n_teams = (plan.pairs + of_team - 1) / of_team;
    plan.threads = plan.pairs == 1 ? (H + 31) / 32 * 32 : n_teams * kTeam;
  } else {
    plan.threads = (plan.pairs * H + 31) / 32 * 32;
  }
  plan.segment = segment_of(s);
  plan.tape_steps = s.n_steps;
  plan.n_items = s.n_modules * ((s.n_targets + plan.pairs - 1) / plan.pairs);
  plan.end = plan.n_items;
  return plan;
}

// A Solver is made of a problem, a plan, a thread and a space, and runs one tile after the other.
template <class T, template <class, int> class Solver, int kHidden, class Problem>
MICFAST_KERNEL void MICFAST_LAUNCH_BOUNDS(128, (Solver<T, kHidden>::kBlocksAtOnce))
    search_kernel(Problem p, Plan plan, char* packed_weights, char* workspace) {
  Space space{shared_memory(), plan.shared_limit, workspace + block_index() * plan.global_bytes};
  Solver<T, kHidden> solver(p, plan, thread_index(), space);
  const PackedModules<T> packed(packed_weights, p.search.sizes);
  for (int64_t item = plan.first + block_index(); item < plan.end; item += n_blocks())
    solver.run(plan, item, packed);
}

}  // namespace MICFAST_ISA
}  // namespace micfast
