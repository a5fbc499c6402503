// How (module, target) pairs are dealt to work items: blocks of lanes, and tiles.
//
// Full blocks of targets go with one module each (SharedWeights). What is left of the targets, less
// than a block, goes the cheapest of three ways: pair by pair over the modules, so that one target
// against many modules still fills the lanes (LaneWeights); as tiles of a few targets whose lanes
// are units (UnitLanes); or as a block of one module that repeats its last target (SharedWeights).
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

struct Pair {
  int64_t module, target;
};

enum class Way { kShared, kLanes, kUnits };

template <class T>
struct Blocks {
  int64_t n_modules, n_targets, full_per_module, rest, n_full, n_items;
  Way rest_way;
  int64_t rest_size;  // most pairs of an item of the rest

  explicit Blocks(const Sizes& s) {
    n_modules = s.n_modules;
    n_targets = s.n_targets;
    full_per_module = n_targets / kLanes<T>;
    rest = n_targets % kLanes<T>;
    n_full = n_modules * full_per_module;
    rest_way = cheapest_way(s.hidden_size);
    rest_size = rest_way == Way::kUnits ? kTileTargets : kLanes<T>;
    n_items = n_full +
              (rest_way == Way::kLanes ? items_of(n_modules * rest) : n_modules * items_of(rest));
  }

  // The cheapest way for the rest, by the nanoseconds that a step takes, forward and backward, as
  // fitted to measurements (bench/NOTES.md, "Few targets"). Only their ratios matter.
  Way cheapest_way(int64_t hidden_size) const {
    const double H = static_cast<double>(hidden_size);
    const double pairs = static_cast<double>(n_modules * rest);
    const double units = pairs * static_cast<double>(vectors_of<T>(hidden_size)) * (3.3 * H + 60);
    const double products = kVectorsPerBlock * 2.75 * H * H, cells = kVectorsPerBlock * 25 * H;
    const double shared = static_cast<double>(n_modules) * (products + cells);
    // A copy of the weights per lane: from the second cache, or from beyond it.
    const double lane_bytes = 8 * H * H * kLanes<T> * sizeof(T);
    const double n_blocks = static_cast<double>((n_modules * rest + kLanes<T> - 1) / kLanes<T>);
    const double lanes = n_blocks * ((lane_bytes < (1 << 18) ? 1.6 : 2.8) * products + cells);
    if (units < lanes && units < shared) return Way::kUnits;
    return lanes < shared ? Way::kLanes : Way::kShared;
  }

  int64_t items_of(int64_t n) const { return (n + rest_size - 1) / rest_size; }
  Way way(int64_t item) const { return item < n_full ? Way::kShared : rest_way; }

  // Pairs of an item. Lanes past them repeat the last one: they compute, and nobody reads them.
  int n_lanes(int64_t item) const {
    if (item < n_full) return kLanes<T>;
    const int64_t i = item - n_full, per_module = items_of(rest);
    const int64_t left = rest_way == Way::kLanes ? n_modules * rest - i * rest_size
                                                 : rest - i % per_module * rest_size;
    return static_cast<int>(left < rest_size ? left : rest_size);
  }
  Pair pair(int64_t item, int lane) const {
    if (item < n_full) return {item / full_per_module, item % full_per_module * kLanes<T> + lane};
    const int last = n_lanes(item) - 1;
    const int64_t i = item - n_full, at = lane < last ? lane : last;
    if (rest_way == Way::kLanes) {
      const int64_t p = i * rest_size + at;
      return {p / rest, n_targets - rest + p % rest};
    }
    const int64_t per_module = items_of(rest);
    return {i / per_module, n_targets - rest + i % per_module * rest_size + at};
  }
};

// Calls body with a decoder's cell.
template <class Body>
MICFAST_INLINE auto with_cell(const Decoder& decoder, Body body) {
  return decoder.cell == CellKind::kGru ? body(Gru{}) : body(Lstm{});
}

// Bytes of the arena of a `Work` that needs the most.
template <template <class, class, class> class Work, class T, class Problem>
int64_t largest_workspace(const Problem& p, const Decoder& decoder) {
  return with_cell(decoder, [&](auto cell) {
    using Cell = decltype(cell);
    Arena shared{nullptr}, lanes{nullptr}, units{nullptr};
    Work<SharedWeights, T, Cell>(p, shared);
    Work<LaneWeights, T, Cell>(p, lanes);
    Work<UnitLanes, T, Cell>(p, units);
    const int64_t most = shared.used > lanes.used ? shared.used : lanes.used;
    return most > units.used ? most : units.used;
  });
}

// Runs an item by the `Work` of its layout and cell.
template <template <class, class, class> class Work, class T, class Problem>
void run_by_layout(const Problem& p, const Sizes& s, const Decoder& decoder, int64_t item,
                   void* workspace, Monitor* monitor) {
  with_cell(decoder, [&](auto cell) {
    using Cell = decltype(cell);
    Arena arena{static_cast<char*>(workspace)};
    switch (Blocks<T>(s).way(item)) {
      case Way::kShared:
        return Work<SharedWeights, T, Cell>(p, arena).run(item, monitor);
      case Way::kLanes:
        return Work<LaneWeights, T, Cell>(p, arena).run(item, monitor);
      case Way::kUnits:
        return Work<UnitLanes, T, Cell>(p, arena).run(item, monitor);
    }
  });
}

template <class Layout, class T, class Cell>
inline void pack_block(const Blocks<T>& blocks, int64_t item, const Sizes& s,
                       const Weights<T>& weights, PackedWeights<Layout, T, Cell>& packed) {
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
