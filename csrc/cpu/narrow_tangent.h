// Forward mode for a tile of targets of one module, with units in the lanes: as tangent.h.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// Scratch of the pass. The 1 + D members of a target share the loads of the weights.
template <class T>
struct NarrowTangentState {
  T* h[2];  // [tile, 1 + D, units]: states of even and odd steps
  T* c;     // [tile, 1 + D, units]
  T* x;     // [tile, 1 + D, K]: inputs and directions, dense
  T* y;     // [1 + D, O] lane rows
  T* out;   // [output vectors W]
  int64_t units;
  int n_targets;  // of the tile at work

  void take(Arena& arena, const Sizes& s, int64_t n_directions) {
    units = vectors_of<T>(s.hidden_size) * Vec<T>::kWidth;
    const int64_t members = kTileTargets * (1 + n_directions);
    h[0] = arena.take<T>(members * units);
    h[1] = arena.take<T>(members * units);
    c = arena.take<T>(members * units);
    x = arena.take<T>(members * s.input_size);
    y = arena.take<T>((1 + n_directions) * s.output_size * kLanes<T>);
    out = arena.take<T>(vectors_of<T>(s.output_size) * Vec<T>::kWidth);
    n_targets = kTileTargets;
  }
};

template <class T>
struct TangentStateOf<UnitLanes, T> {
  using Tangent = NarrowTangentState<T>;
};
template <class T>
MICFAST_INLINE void set_targets(NarrowTangentState<T>& state, int n) {
  state.n_targets = n;
}

// One step of one target's members in one vector of units, or two.
template <int kVectors, class T>
MICFAST_INLINE void step_members(const PackedWeights<UnitLanes, T>& w, const T* w_x, const T* x,
                                 int64_t n_x, int64_t stride, int64_t D, int64_t vector,
                                 int64_t units, T* h, T* c) {
  using V = Vec<T>;
  constexpr int64_t W = V::kWidth;
  V a[1][kVectors][4];
  CellSlopes<T> slopes[kVectors];
#pragma GCC unroll 8
  for (int u = 0; u < kVectors; ++u)
#pragma GCC unroll 4
    for (int gate = 0; gate < 4; ++gate)
      a[0][u][gate] = V::load(w.gate_b + ((vector + u) * 4 + gate) * W);
  accumulate_gates(a, w_x + vector * n_x * 4 * W, x, stride, n_x);
#pragma GCC unroll 8
  for (int u = 0; u < kVectors; ++u) {
    const int64_t at = (vector + u) * W;
    CellTape<T> tape;
    const CellState<T> next =
        cell_forward(a[0][u][0], a[0][u][1], a[0][u][2], a[0][u][3], V::load(c + at), tape);
    next.h.store(h + at);
    next.c.store(c + at);
    slopes[u] = cell_slopes(tape);
  }
  for (int64_t d = 1; d <= D; ++d) {
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u)
#pragma GCC unroll 4
      for (int gate = 0; gate < 4; ++gate) a[0][u][gate] = V::broadcast(0);
    accumulate_gates(a, w_x + vector * n_x * 4 * W, x + d * stride, stride, n_x);
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u) {
      const int64_t at = d * units + (vector + u) * W;
      const CellState<T> next =
          cell_tangent(a[0][u][0], a[0][u][1], a[0][u][2], a[0][u][3], V::load(c + at), slopes[u]);
      next.h.store(h + at);
      next.c.store(c + at);
    }
  }
}

template <class T>
void measure_with_tangents(const Sizes& s, const PackedWeights<UnitLanes, T>& w, const T* x,
                           int64_t n_directions, const T* target, bool omit,
                           const NarrowTangentState<T>& state, const LeastSquares<T>& sums) {
  constexpr int64_t row = kLanes<T>;
  const int64_t H = s.hidden_size, O = s.output_size, K = s.input_size, D = n_directions;
  const int64_t units = state.units, n_vectors = vectors_of<T>(H), n = state.n_targets;
  clear_values(state.c, n * (1 + D) * units);
  clear_sums(sums, D);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t j = 0; j < (1 + D) * K; ++j) state.x[r * (1 + D) * K + j] = x[j * row + r];

  for (int64_t t = 0; t < s.n_steps; ++t, target += O * row) {
    const T* w_x = t == 0 ? w.gate_x : w.gate_h;
    const T* from = t == 0 ? state.x : state.h[(t - 1) & 1];
    const int64_t n_x = t == 0 ? K : H, stride = t == 0 ? K : units;
    T* h = state.h[t & 1];
    for (int64_t v = 0; v < n_vectors; v += 2)
      for (int64_t r = 0; r < n; ++r) {
        const T* x_r = from + r * (1 + D) * stride;
        T *h_r = h + r * (1 + D) * units, *c_r = state.c + r * (1 + D) * units;
        if (v + 1 < n_vectors)
          step_members<2>(w, w_x, x_r, n_x, stride, D, v, units, h_r, c_r);
        else
          step_members<1>(w, w_x, x_r, n_x, stride, D, v, units, h_r, c_r);
      }
    clear(state.y, (1 + D) * O);
    for (int64_t r = 0; r < n; ++r)
      for (int64_t d = 0; d <= D; ++d) {
        multiply_dense(state.out, d == 0 ? w.out_b : static_cast<const T*>(nullptr), w.out_h,
                       h + (r * (1 + D) + d) * units, H, vectors_of<T>(O));
        for (int64_t o = 0; o < O; ++o) state.y[(d * O + o) * row + r] = state.out[o];
      }
    add_step(state.y, target, O, D, omit, sums);
  }
}

}  // namespace MICFAST_ISA
}  // namespace micfast
