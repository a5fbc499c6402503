// Gradients of the weights of one block: every lane collects its own, as lane rows.
//
// The gate gradients of a segment of steps are kept and multiplied with the states in one go, so
// that an accumulator is loaded and stored once per segment instead of once per step.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// sum[r, c] += over n steps of a[r] b[c], lane by lane. a and b advance by a_step and b_step
// scalars a step; `sum` has rows of sum_stride lane rows.
template <int R, int C, class T>
MICFAST_INLINE void add_outer_products(T* sum, int64_t sum_stride, const T* a, int64_t a_step,
                                       const T* b, int64_t b_step, int64_t n) {
  using V = Vec<T>;
  constexpr int64_t row = kLanes<T>;
  for (int v = 0; v < kVectorsPerBlock; ++v) {
    T* out = sum + v * V::kWidth;
    const T* a_t = a + v * V::kWidth;
    const T* b_t = b + v * V::kWidth;
    V acc[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[r][c] = V::load(out + (r * sum_stride + c) * row);
    for (int64_t t = 0; t < n; ++t) {
      V bt[C];
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) bt[c] = V::load(b_t + c * row);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const V ar = V::load(a_t + r * row);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) acc[r][c] = fma(ar, bt[c], acc[r][c]);
      }
      a_t += a_step;
      b_t += b_step;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[r][c].store(out + (r * sum_stride + c) * row);
  }
}

// The whole of sum [rows, columns], cut into register tiles.
template <class T>
inline void add_outer(T* sum, int64_t rows, int64_t columns, const T* a, int64_t a_step, const T* b,
                      int64_t b_step, int64_t n) {
  constexpr int kTileRows = kMaxRows<T> >= 12 ? 4 : 2;
  constexpr int kTileColumns = kMaxRows<T> >= 5 ? 5 : 4;
  constexpr int64_t row = kLanes<T>;
  for_row_blocks<kTileRows>(rows, [&](auto tile_rows, int64_t r) MICFAST_LAMBDA_INLINE {
    constexpr int R = decltype(tile_rows)::value;
    for_row_blocks<kTileColumns>(columns, [&](auto tile_columns, int64_t c) MICFAST_LAMBDA_INLINE {
      constexpr int C = decltype(tile_columns)::value;
      add_outer_products<R, C>(sum + (r * columns + c) * row, columns, a + r * row, a_step,
                               b + c * row, b_step, n);
    });
  });
}

template <class T>
inline void add_rows(T* sum, int64_t rows, const T* a, int64_t a_step, int64_t n) {
  for (int64_t t = 0; t < n; ++t)
    for (int64_t j = 0; j < rows * kLanes<T>; ++j) sum[j] += a[t * a_step + j];
}

// Gate rows interleaved by unit, as in PackedWeights. The order is that of the arrays in memory:
// one run of n_rows() lane rows.
template <class T, class Cell = Lstm>
struct WeightGradient {
  static constexpr int64_t row = kLanes<T>;
  static constexpr int64_t kSegment = 8;  // steps collected before they are multiplied
  const Sizes& s;
  T* gate_h;   // [4H, H]
  T* gate_x;   // [R, K]
  T* gate_b;   // [4H]
  T* out_h;    // [O, H]
  T* out_b;    // [O]
  T* first_b;  // [4H], null if the modules have none
  T* state_b;  // [R], null if the modules have none
  T* h;        // [kSegment + 1, H]: states h_t, h_{t-1}, ... of the segment being collected
  Decoder decoder;
  int64_t n_all;  // n_rows() of these modules
  int64_t n_collected;

  static int64_t n_rows(const Sizes& s, const Weights<T>& w = {}) {
    const int64_t H = s.hidden_size, R = entry_rows(s, w.decoder);
    return 4 * H * (H + 1) + R * s.input_size + s.output_size * (H + 1) + (w.b_first ? 4 * H : 0) +
           (w.b_state ? R : 0);
  }
  WeightGradient(const Sizes& sizes, Arena& arena, const Weights<T>& w = {})
      : s(sizes), decoder(w.decoder), n_all(n_rows(sizes, w)) {
    const int64_t H = s.hidden_size, R = entry_rows(s, decoder);
    gate_h = arena.take<T>(n_all * row);
    gate_x = gate_h + 4 * H * H * row;
    gate_b = gate_x + R * s.input_size * row;
    out_h = gate_b + 4 * H * row;
    out_b = out_h + s.output_size * H * row;
    T* end = out_b + s.output_size * row;
    first_b = w.b_first ? end : nullptr;
    state_b = w.b_state ? end + (w.b_first ? 4 * H * row : 0) : nullptr;
    h = arena.take<T>((kSegment + 1) * H * row);
  }

  void start() {
    clear(gate_h, n_all);
    n_collected = 0;
  }

  void store_state(T* to, int64_t t, const SequenceState<T, Cell>& state) const {
    using V = Vec<T>;
    for (int64_t u = 0; u < s.hidden_size; ++u)
      for (int v = 0; v < kVectorsPerBlock; ++v) {
        const auto tape = Cell::template load<row>(state.tape_of(t, u, s) + v * V::kWidth);
        Cell::state_of(tape).store(to + u * row + v * V::kWidth);
      }
  }

  // backward()'s hook for step t. d_y [T, O]: gradients of the outputs; x [K]: the input.
  void after_step(int64_t t, const T* d_y, const T* x, const SequenceState<T, Cell>& state) {
    const int64_t H = s.hidden_size, O = s.output_size, K = s.input_size;
    if (t == s.n_steps - 1) store_state(h, t, state);
    ++n_collected;
    T* h_before = h + n_collected * H * row;
    if (t > 0)
      store_state(h_before, t - 1, state);
    else if (sets_state(decoder))
      copy_rows<LaneWeights>(h_before, state.start, H);
    else
      clear(h_before, H);
    // Slots of state.d_a run with t modulo kSegment: a segment ends where t is a multiple of it.
    if (t % kSegment != 0) return;

    const int64_t n = n_collected, gate_step = 4 * H * row;
    const T* d_a_last = state.d_a + (n - 1) * gate_step;  // of the latest step, t + n - 1
    add_outer(gate_h, 4 * H, H, d_a_last, -gate_step, h + H * row, H * row, n);
    add_rows(gate_b, 4 * H, d_a_last, -gate_step, n);
    const T* d_y_last = d_y + (t + n - 1) * O * row;
    add_outer(out_h, O, H, d_y_last, -O * row, h, H * row, n);
    add_rows(out_b, O, d_y_last, -O * row, n);
    if (t == 0 && decoder.latent == Latent::kFirst)
      add_outer(gate_x, 4 * H, K, state.d_a, gate_step, x, K * row, 1);
    if (t == 0 && first_b) add_rows(first_b, 4 * H, state.d_a, gate_step, 1);
    for (int64_t j = 0; j < H * row; ++j) h[j] = h_before[j];
    n_collected = 0;
  }

  // After backward(): the share of a latent x [K] that enters elsewhere than in the first gates.
  void add_entry(const T* x, const SequenceState<T, Cell>& state) {
    if (decoder.latent == Latent::kFirst) return;
    const int64_t R = entry_rows(s, decoder), K = s.input_size;
    add_outer(gate_x, R, K, state.d_entry, R * row, x, K * row, 1);
    if (state_b) add_rows(state_b, R, state.d_entry, R * row, 1);
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
