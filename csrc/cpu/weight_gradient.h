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
  constexpr int kTileColumns = kMaxRows<T> >= 12 ? 5 : 4;
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
template <class T>
struct WeightGradient {
  static constexpr int64_t row = kLanes<T>;
  static constexpr int64_t kSegment = 8;  // steps collected before they are multiplied
  const Sizes& s;
  T* gate_h;  // [4H, H]
  T* gate_x;  // [4H, K]
  T* gate_b;  // [4H]
  T* out_h;   // [O, H]
  T* out_b;   // [O]
  T* h;       // [kSegment + 1, H]: states h_t, h_{t-1}, ... of the segment being collected
  int64_t n_collected;

  static int64_t n_rows(const Sizes& s) {
    return 4 * s.hidden_size * (s.hidden_size + s.input_size + 1) +
           s.output_size * (s.hidden_size + 1);
  }
  WeightGradient(const Sizes& sizes, Arena& arena) : s(sizes) {
    const int64_t H = s.hidden_size;
    gate_h = arena.take<T>(n_rows(s) * row);
    gate_x = gate_h + 4 * H * H * row;
    gate_b = gate_x + 4 * H * s.input_size * row;
    out_h = gate_b + 4 * H * row;
    out_b = out_h + s.output_size * H * row;
    h = arena.take<T>((kSegment + 1) * H * row);
  }

  void start() {
    clear(gate_h, n_rows(s));
    n_collected = 0;
  }

  void store_state(T* to, int64_t t, const SequenceState<T>& state) const {
    using V = Vec<T>;
    for (int64_t u = 0; u < s.hidden_size; ++u)
      for (int v = 0; v < kVectorsPerBlock; ++v) {
        const CellTape<T> tape = load_tape<row>(state.tape_of(t, u, s) + v * V::kWidth);
        (tape.o * tape.tanh_c).store(to + u * row + v * V::kWidth);
      }
  }

  // backward()'s hook for step t. d_y [T, O]: gradients of the outputs; x [K]: the input.
  void after_step(int64_t t, const T* d_y, const T* x, const SequenceState<T>& state) {
    const int64_t H = s.hidden_size, O = s.output_size, K = s.input_size;
    if (t == s.n_steps - 1) store_state(h, t, state);
    ++n_collected;
    T* h_before = h + n_collected * H * row;
    if (t > 0)
      store_state(h_before, t - 1, state);
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
    if (t == 0) add_outer(gate_x, 4 * H, K, state.d_a, gate_step, x, K * row, 1);
    for (int64_t j = 0; j < H * row; ++j) h[j] = h_before[j];
    n_collected = 0;
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
