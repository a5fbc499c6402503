// How (module, target) pairs are dealt to blocks of lanes.
//
// Full blocks of targets go with one module each (SharedWeights). What is left of the targets, less
// than a block, is dealt pair by pair over the modules (LaneWeights), so that one target against
// many modules still fills the lanes.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

struct Pair {
  int64_t module, target;
};

template <class T>
struct Blocks {
  int64_t n_modules, n_targets, full_per_module, rest, n_full, n_items;

  explicit Blocks(const Sizes& s) {
    n_modules = s.n_modules;
    n_targets = s.n_targets;
    full_per_module = n_targets / kLanes<T>;
    rest = n_targets % kLanes<T>;
    n_full = n_modules * full_per_module;
    n_items = n_full + (n_modules * rest + kLanes<T> - 1) / kLanes<T>;
  }
  bool shared(int64_t item) const { return item < n_full; }
  int n_lanes(int64_t item) const {
    if (shared(item)) return kLanes<T>;
    const int64_t left = n_modules * rest - (item - n_full) * kLanes<T>;
    return static_cast<int>(left < kLanes<T> ? left : kLanes<T>);
  }
  // Lanes past n_lanes() repeat the last pair: they compute, and nobody reads them.
  Pair pair(int64_t item, int lane) const {
    if (shared(item)) return {item / full_per_module, item % full_per_module * kLanes<T> + lane};
    const int last = n_lanes(item) - 1;
    const int64_t p = (item - n_full) * kLanes<T> + (lane < last ? lane : last);
    return {p / rest, n_targets - rest + p % rest};
  }
};

template <class Layout, class T>
inline void pack_block(const Blocks<T>& blocks, int64_t item, const Sizes& s,
                       const Weights<T>& weights, PackedWeights<Layout, T>& packed) {
  const int n_packed = static_cast<int>(Layout::template kStride<T>);
  for (int lane = 0; lane < n_packed; ++lane)
    packed.pack(s, weights, blocks.pair(item, lane).module, lane);
}

// Copies n values per lane between dense memory (a pointer per lane) and lane rows.
template <class T>
inline void gather_lane(const T* from, int64_t n, int lane, T* rows) {
  for (int64_t j = 0; j < n; ++j) rows[j * kLanes<T> + lane] = from[j];
}
// As far as the sequence has steps; NaN in the rows from there to row n.
template <class T>
inline void gather_lane(const T* from, int64_t n_known, int64_t n, int lane, T* rows) {
  gather_lane(from, n_known, lane, rows);
  for (int64_t j = n_known; j < n; ++j)
    rows[j * kLanes<T> + lane] = static_cast<T>(__builtin_nan(""));
}
template <class T>
inline void scatter_lane(const T* rows, int64_t n, int lane, T* to) {
  for (int64_t j = 0; j < n; ++j) to[j] = rows[j * kLanes<T> + lane];
}

}  // namespace MICFAST_ISA
}  // namespace micfast
