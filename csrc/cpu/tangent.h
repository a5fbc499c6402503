// Forward mode: one pass that draws a sequence, measures it against its target and carries the
// derivatives along a few directions of the input. Nothing is kept over time, so the working set
// is some lane rows whatever the number of steps.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// With r the residuals and d_i the derivative of the outputs along direction i, summed over steps
// and outputs: sum of r^2, of r d_i, and of d_i d_j for j <= i. All lane rows.
template <class T>
struct LeastSquares {
  T* squares;   // one lane row
  T* gradient;  // [D]
  T* normal;    // [D (D + 1) / 2], rows of the lower triangle

  void take(Arena& arena, int64_t n_directions) {
    squares = arena.take<T>(kLanes<T>);
    gradient = arena.take<T>(n_directions * kLanes<T>);
    normal = arena.take<T>(n_directions * (n_directions + 1) / 2 * kLanes<T>);
  }
};

// What the outputs of one step after the other are compared with.
template <class T>
struct Wanted {
  const T* target;   // [T, O] lane rows
  const T* weights;  // [T, O] what a squared difference counts, or null: 1
  bool omit;         // NaN in the target are missing values

  void next_step(int64_t n_outputs) {
    target += n_outputs * kLanes<T>;
    if (weights) weights += n_outputs;
  }
};

// Scratch of the pass, all lane rows. "Member" 0 is the sequence itself, member 1 + i its
// derivative along direction i.
template <class T>
struct TangentState {
  T* h[2];    // [1 + D, H] each: states of even and odd steps; the first step reads h[1]
  T* c;       // [1 + D, H]
  T* y;       // [1 + D, O]
  T* drive;   // [1 + D, 4H]: as in SequenceState
  T* slopes;  // [O] or [max(H, O)]: of the outputs' map, or of the initial state's

  void take(Arena& arena, const Sizes& s, int64_t n_directions, const Weights<T>& w = {}) {
    const int64_t rows = (1 + n_directions) * kLanes<T>, H = s.hidden_size, O = s.output_size;
    h[0] = arena.take<T>(rows * H);
    h[1] = arena.take<T>(rows * H);
    c = arena.take<T>(rows * H);
    y = arena.take<T>(rows * O);
    drive = arena.take<T>(w.decoder.latent == Latent::kEvery ? rows * 4 * H : 0);
    const bool is_tanh = w.decoder.latent == Latent::kTanhState;
    slopes = arena.take<T>((is_tanh && H > O ? H : is_tanh || maps_outputs(w) ? O : 0) * kLanes<T>);
  }
};

// sum += a[o] b[o] over n lane rows
template <class T>
MICFAST_INLINE void add_products(T* sum, const T* a, const T* b, int64_t n) {
  using V = Vec<T>;
  for (int v = 0; v < kVectorsPerBlock; ++v) {
    V total = V::load(sum + v * V::kWidth);
    for (int64_t j = v * V::kWidth; j < n * kLanes<T>; j += kLanes<T>)
      total = fma(V::load(a + j), V::load(b + j), total);
    total.store(sum + v * V::kWidth);
  }
}

// y [1 + D, O] holds the outputs of a step and their derivatives: turns the outputs into residuals
// and, with kOmit, makes all of them 0 where the target is NaN.
template <bool kOmit, class T>
MICFAST_INLINE void subtract_target(T* y, const T* target, int64_t n_outputs, int64_t D) {
  using V = Vec<T>;
  const int64_t n = n_outputs * kLanes<T>;
  for (int64_t j = 0; j < n; j += V::kWidth) {
    const V known = V::load(target + j);
    residual_of<kOmit>(V::load(y + j), known).store(y + j);
    if constexpr (kOmit)
      for (int64_t d = 1; d <= D; ++d)
        if_zero(known - known, V::load(y + d * n + j), V::broadcast(0)).store(y + d * n + j);
  }
}

// y[d][o] *= sqrt(weights[o]), so that the squares count as they should. y [1 + D, O]
template <class T>
void weigh_members(T* y, const T* weights, int64_t n_outputs, int64_t D) {
  using V = Vec<T>;
  for (int64_t o = 0; o < n_outputs; ++o) {
    const V root = sqrt(V::broadcast(weights[o]));
    for (int64_t d = 0; d <= D; ++d)
      for (int v = 0; v < kVectorsPerBlock; ++v) {
        T* at = y + (d * n_outputs + o) * kLanes<T> + v * V::kWidth;
        (V::load(at) * root).store(at);
      }
  }
}

template <class T>
MICFAST_INLINE void clear_sums(const LeastSquares<T>& sums, int64_t D) {
  clear(sums.squares, 1);
  clear(sums.gradient, D);
  clear(sums.normal, D * (D + 1) / 2);
}

// Adds one step's outputs and their derivatives, y [1 + D, O], to the sums.
template <class T>
MICFAST_INLINE void add_step(T* y, const Wanted<T>& wanted, int64_t O, int64_t D,
                             const LeastSquares<T>& sums) {
  constexpr int64_t row = kLanes<T>;
  if (wanted.omit)
    subtract_target<true>(y, wanted.target, O, D);
  else
    subtract_target<false>(y, wanted.target, O, D);
  if (wanted.weights) weigh_members(y, wanted.weights, O, D);
  add_products(sums.squares, y, y, O);
  T* normal = sums.normal;
  for (int64_t i = 1; i <= D; ++i) {
    const T* y_i = y + i * O * row;
    add_products(sums.gradient + (i - 1) * row, y, y_i, O);
    for (int64_t j = 1; j <= i; ++j, normal += row) add_products(normal, y_i, y + j * O * row, O);
  }
}

// The outputs' map, of one step's outputs and their derivatives y [1 + D, O].
template <class Layout, class T, class Cell>
MICFAST_INLINE void map_members(const PackedWeights<Layout, T, Cell>& w, int64_t O, int64_t D, T* y,
                                T* slopes) {
  if (!w.maps) return;
  map_outputs<Layout>(w.decoder.output, w.scale, w.shift, O, y, slopes);
  for (int64_t d = 1; d <= D; ++d) multiply_rows(y + d * O * kLanes<T>, slopes, O);
}

// Which state a layout's pass uses.
template <class Layout, class T>
struct TangentStateOf {
  using Tangent = TangentState<T>;
};
template <class T>
MICFAST_INLINE void set_targets(TangentState<T>&, int) {}

// As sequence.h's enter(), for the members x [1 + D, K].
template <class Layout, class T, class Cell>
void enter_members(const Sizes& s, const PackedWeights<Layout, T, Cell>& w, const T* x, int64_t D,
                   const TangentState<T>& state) {
  constexpr int64_t row = kLanes<T>;
  constexpr int64_t stride = Layout::template kStride<T>;
  const int64_t H = s.hidden_size, K = s.input_size, n_gates = Cell::kGates * H;
  clear(state.c, (1 + D) * H);
  for (int64_t d = 0; d <= D && w.decoder.latent == Latent::kEvery; ++d) {
    T* drive = state.drive + d * n_gates * row;
    if (d == 0)
      copy_rows<Layout>(drive, w.gate_b, n_gates);
    else
      clear(drive, n_gates);
    multiply_add<Layout>(drive, n_gates, w.gate_x, x + d * K * row, K);
  }
  if (!sets_state(w.decoder)) return;
  const bool is_tanh = w.decoder.latent == Latent::kTanhState;
  for (int64_t part = 0; part < w.decoder.n_states; ++part)
    for (int64_t d = 0; d <= D; ++d) {
      T* start = (part == 0 ? state.h[1] : state.c) + d * H * row;
      if (d == 0)
        copy_rows<Layout>(start, w.state_b + part * H * stride, H);
      else
        clear(start, H);
      multiply_add<Layout>(start, H, w.gate_x + part * K * H * stride, x + d * K * row, K);
      if (is_tanh && d == 0) tanh_rows(start, state.slopes, H);
      if (is_tanh && d > 0) multiply_rows(start, state.slopes, H);
    }
  if (Cell::kCellIsState) copy_rows<LaneWeights>(state.c, state.h[1], (1 + D) * H);
}

// `x` [1 + D, K]: the latent, then the D directions.
template <class Layout, class T, class Cell>
void measure_with_tangents(const Sizes& s, const PackedWeights<Layout, T, Cell>& w, const T* x,
                           int64_t n_directions, Wanted<T> wanted, const TangentState<T>& state,
                           const LeastSquares<T>& sums) {
  using V = Vec<T>;
  constexpr int64_t row = kLanes<T>;
  constexpr int64_t stride = Layout::template kStride<T>;
  constexpr int kGates = Cell::kGates, kMaxUnits = kMaxRows<T> / kGates;
  const int64_t H = s.hidden_size, O = s.output_size, D = n_directions;
  enter_members(s, w, x, D, state);
  if (sets_state(w.decoder)) x = state.h[1];
  clear_sums(sums, D);

  for (int64_t t = 0; t < s.n_steps; ++t, wanted.next_step(O)) {
    const bool sees_latent = t == 0 && !sets_state(w.decoder);
    const T* w_x = sees_latent ? w.gate_x : w.gate_h;
    const int64_t n_x = sees_latent ? s.input_size : H;
    const T* bias = t == 0 ? w.first_b : w.gate_b;
    const T* drive = t > 0 && w.decoder.latent == Latent::kEvery ? state.drive : nullptr;
    T* h = state.h[t & 1];

    for_row_blocks<kMaxUnits>(H, [&](auto units, int64_t first_unit) MICFAST_LAMBDA_INLINE {
      constexpr int kUnits = decltype(units)::value;
      Rows<T, kGates * kUnits> a;
      if (drive)
        load_rows<LaneWeights>(a, drive + kGates * first_unit * row);
      else
        load_rows<Layout>(a, bias + kGates * first_unit * stride);
      accumulate<Layout>(a, w_x + kGates * first_unit * stride, kGates * H, x, n_x);
      typename Cell::template Slopes<T> slopes[kUnits][kVectorsPerBlock];
#pragma GCC unroll 8
      for (int u = 0; u < kUnits; ++u)
#pragma GCC unroll 8
        for (int v = 0; v < kVectorsPerBlock; ++v) {
          const int64_t at = (first_unit + u) * row + v * V::kWidth;
          typename Cell::template Tape<T> tape;
          const auto gate = [&](int g) MICFAST_LAMBDA_INLINE { return a.v[kGates * u + g][v]; };
          const CellState<T> next = Cell::forward(gate, V::load(state.c + at), tape);
          next.h.store(h + at);
          next.c.store(state.c + at);
          slopes[u][v] = Cell::slopes(tape);
        }
      for (int64_t d = 1; d <= D; ++d) {
        if (drive)
          load_rows<LaneWeights>(a, drive + (d * kGates * H + kGates * first_unit) * row);
        else
          clear_rows(a);
        accumulate<Layout>(a, w_x + kGates * first_unit * stride, kGates * H, x + d * n_x * row,
                           n_x);
#pragma GCC unroll 8
        for (int u = 0; u < kUnits; ++u)
#pragma GCC unroll 8
          for (int v = 0; v < kVectorsPerBlock; ++v) {
            const int64_t at = (d * H + first_unit + u) * row + v * V::kWidth;
            const auto gate = [&](int g) MICFAST_LAMBDA_INLINE { return a.v[kGates * u + g][v]; };
            const CellState<T> next = Cell::tangent(gate, V::load(state.c + at), slopes[u][v]);
            next.h.store(h + at);
            next.c.store(state.c + at);
          }
      }
    });
    x = h;

    copy_rows<Layout>(state.y, w.out_b, O);
    clear(state.y + O * row, D * O);
    for (int64_t d = 0; d <= D; ++d)
      multiply_add<Layout>(state.y + d * O * row, O, w.out_h, h + d * H * row, H);
    map_members<Layout>(w, O, D, state.y, state.slopes);
    add_step(state.y, wanted, O, D, sums);
  }
}

}  // namespace MICFAST_ISA
}  // namespace micfast
