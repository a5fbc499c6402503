// Forward mode for a tile of targets of one module, with units in the lanes: as tangent.h.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// Scratch of the pass. The 1 + D members of a target share the loads of the weights.
template <class T>
struct NarrowTangentState {
  T* h[2];    // [tile, 1 + D, units]: states of even and odd steps
  T* c;       // [tile, 1 + D, units]
  T* x;       // [tile, 1 + D, K]: latents and directions, dense
  T* start;   // [tile, 1 + D, n_states, units]: initial states, if the latent sets them
  T* drive;   // [tile, 1 + D, unit vectors, 4, W]: as in NarrowState
  T* y;       // [1 + D, O] lane rows
  T* slopes;  // [O] lane rows: of the outputs' map
  T* out;     // [output vectors W]
  int64_t units;
  int n_targets;  // of the tile at work

  void take(Arena& arena, const Sizes& s, int64_t n_directions, const Weights<T>& w = {}) {
    units = vectors_of<T>(s.hidden_size) * Vec<T>::kWidth;
    const int64_t members = kTileTargets * (1 + n_directions);
    h[0] = arena.take<T>(members * units);
    h[1] = arena.take<T>(members * units);
    c = arena.take<T>(members * units);
    x = arena.take<T>(members * s.input_size);
    const int64_t entry = sets_state(w.decoder) ? w.decoder.n_states : 4;
    start = drive = arena.take<T>(w.decoder.latent == Latent::kFirst ? 0 : members * entry * units);
    slopes = arena.take<T>(maps_outputs(w) ? s.output_size * kLanes<T> : 0);
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

// As sequence.h's enter(), for the members of the tile's targets.
template <class T, class Cell>
void enter_members(const Sizes& s, const PackedWeights<UnitLanes, T, Cell>& w, const T* x,
                   int64_t D, const NarrowTangentState<T>& state) {
  constexpr int64_t W = Vec<T>::kWidth, row = kLanes<T>;
  constexpr int kGates = Cell::kGates;
  const int64_t K = s.input_size, units = state.units, n_states = w.decoder.n_states;
  const int64_t n_members = state.n_targets * (1 + D), n_vectors = units / W;
  clear_values(state.c, n_members * units);
  for (int64_t r = 0; r < state.n_targets; ++r)
    for (int64_t j = 0; j < (1 + D) * K; ++j) state.x[r * (1 + D) * K + j] = x[j * row + r];
  for (int64_t m = 0; m < n_members && w.decoder.latent == Latent::kEvery; ++m)
    for (int64_t v = 0; v < n_vectors; ++v) {
      Vec<T> a[1][1][kGates];
      for (int gate = 0; gate < kGates; ++gate) a[0][0][gate] = Vec<T>::broadcast(0);
      if (m % (1 + D) == 0) load_gates(a, w.gate_b + v * kGates * W, 0);
      accumulate_gates(a, w.gate_x + v * K * kGates * W, state.x + m * K, K, K);
      for (int gate = 0; gate < kGates; ++gate)
        a[0][0][gate].store(state.drive + ((m * n_vectors + v) * kGates + gate) * W);
    }
  for (int64_t m = 0; m < n_members && sets_state(w.decoder); ++m) {
    const int64_t d = m % (1 + D);
    T* start = state.start + m * n_states * units;
    const T* of_target = start - d * n_states * units;
    multiply_start<T>(w, d == 0 ? w.state_b : nullptr, state.x + m * K, K, units, start);
    for (int64_t j = 0; j < n_states * units && w.decoder.latent == Latent::kTanhState; j += W) {
      const Vec<T> before = Vec<T>::load(start + j), h = Vec<T>::load(of_target + j);
      if (d == 0)
        TanhMap::at(before).value.store(start + j);
      else
        (before * fnma(h, h, Vec<T>::broadcast(1))).store(start + j);
    }
    const T* cell = Cell::kCellIsState ? start : n_states == 2 ? start + units : nullptr;
    for (int64_t j = 0; cell && j < units; ++j) state.c[m * units + j] = cell[j];
  }
}

// One step of one target's members in one vector of units, or two. The first member starts from
// `bias`, the others from `drive` where it is not null, 4 units apart.
template <int kVectors, class Cell, class T>
MICFAST_INLINE void step_members(const T* bias, const T* drive, const T* w_x, const T* x,
                                 int64_t n_x, int64_t stride, int64_t D, int64_t vector,
                                 int64_t units, T* h, T* c) {
  using V = Vec<T>;
  constexpr int64_t W = V::kWidth;
  constexpr int kGates = Cell::kGates;
  V a[1][kVectors][kGates];
  typename Cell::template Slopes<T> slopes[kVectors];
  load_gates(a, (drive ? drive : bias) + vector * kGates * W, 0);
  accumulate_gates(a, w_x + vector * n_x * kGates * W, x, stride, n_x);
#pragma GCC unroll 8
  for (int u = 0; u < kVectors; ++u) {
    const int64_t at = (vector + u) * W;
    typename Cell::template Tape<T> tape;
    const auto gate = [&](int g) MICFAST_LAMBDA_INLINE { return a[0][u][g]; };
    const CellState<T> next = Cell::forward(gate, V::load(c + at), tape);
    next.h.store(h + at);
    next.c.store(c + at);
    slopes[u] = Cell::slopes(tape);
  }
  for (int64_t d = 1; d <= D; ++d) {
    if (drive) {
      load_gates(a, drive + d * kGates * units + vector * kGates * W, 0);
    } else {
#pragma GCC unroll 8
      for (int u = 0; u < kVectors; ++u)
#pragma GCC unroll 4
        for (int gate = 0; gate < kGates; ++gate) a[0][u][gate] = V::broadcast(0);
    }
    accumulate_gates(a, w_x + vector * n_x * kGates * W, x + d * stride, stride, n_x);
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u) {
      const int64_t at = d * units + (vector + u) * W;
      const auto gate = [&](int g) MICFAST_LAMBDA_INLINE { return a[0][u][g]; };
      const CellState<T> next = Cell::tangent(gate, V::load(c + at), slopes[u]);
      next.h.store(h + at);
      next.c.store(c + at);
    }
  }
}

template <class T, class Cell>
void measure_with_tangents(const Sizes& s, const PackedWeights<UnitLanes, T, Cell>& w, const T* x,
                           int64_t n_directions, Wanted<T> wanted,
                           const NarrowTangentState<T>& state, const LeastSquares<T>& sums) {
  constexpr int64_t row = kLanes<T>;
  const int64_t H = s.hidden_size, O = s.output_size, K = s.input_size, D = n_directions;
  const int64_t units = state.units, n_vectors = vectors_of<T>(H), n = state.n_targets;
  enter_members(s, w, x, D, state);
  clear_sums(sums, D);

  for (int64_t t = 0; t < s.n_steps; ++t, wanted.next_step(O)) {
    const bool sees_latent = t == 0 && !sets_state(w.decoder);
    const T* w_x = sees_latent ? w.gate_x : w.gate_h;
    const T* from = sees_latent ? state.x : t == 0 ? state.start : state.h[(t - 1) & 1];
    const int64_t n_x = sees_latent ? K : H;
    const int64_t stride = sees_latent ? K : t == 0 ? w.decoder.n_states * units : units;
    const bool driven = t > 0 && w.decoder.latent == Latent::kEvery;
    const T* bias = t == 0 ? w.first_b : w.gate_b;
    T* h = state.h[t & 1];
    for (int64_t v = 0; v < n_vectors; v += 2)
      for (int64_t r = 0; r < n; ++r) {
        const T* x_r = from + r * (1 + D) * stride;
        const T* drive = driven ? state.drive + r * (1 + D) * Cell::kGates * units : nullptr;
        T *h_r = h + r * (1 + D) * units, *c_r = state.c + r * (1 + D) * units;
        if (v + 1 < n_vectors)
          step_members<2, Cell>(bias, drive, w_x, x_r, n_x, stride, D, v, units, h_r, c_r);
        else
          step_members<1, Cell>(bias, drive, w_x, x_r, n_x, stride, D, v, units, h_r, c_r);
      }
    clear(state.y, (1 + D) * O);
    for (int64_t r = 0; r < n; ++r)
      for (int64_t d = 0; d <= D; ++d) {
        multiply_dense(state.out, d == 0 ? w.out_b : static_cast<const T*>(nullptr), w.out_h,
                       h + (r * (1 + D) + d) * units, H, vectors_of<T>(O));
        for (int64_t o = 0; o < O; ++o) state.y[(d * O + o) * row + r] = state.out[o];
      }
    map_members<UnitLanes>(w, O, D, state.y, state.slopes);
    add_step(state.y, wanted, O, D, sums);
  }
}

}  // namespace MICFAST_ISA
}  // namespace micfast
