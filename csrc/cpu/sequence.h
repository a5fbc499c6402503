// A whole sequence for one block of lanes: weights packed for the inner loop, the forward pass and
// the backward pass through time.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// Hands out 64-byte aligned pieces of a work item's scratch memory; with a null base it only
// counts.
struct Arena {
  char* base;
  int64_t used = 0;
  template <class T>
  T* take(int64_t n) {
    T* p = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += (n * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return p;
  }
};

// Weights of one block. Gate rows are interleaved by unit (row 4u + gate), so that a run of
// consecutive rows holds all four gates of some units; `gate_*` are scaled for the activations
// (activations.h). Every matrix is stored as the loop that reads it walks.
template <class Layout, class T>
struct PackedWeights {
  T* gate_x;    // [K, 4H] scaled: input to gates
  T* gate_h;    // [H, 4H] scaled: state to gates
  T* gate_b;    // [4H]    scaled
  T* out_h;     // [H, O]  state to outputs
  T* out_b;     // [O]
  T* gate_h_t;  // [4H, H] gate gradients to state gradient
  T* gate_x_t;  // [4H, K] gate gradients to input gradient
  T* out_h_t;   // [O, H]  output gradients to state gradient

  void take(Arena& arena, const Sizes& s) {
    constexpr int64_t stride = Layout::template kStride<T>;
    const int64_t H = s.hidden_size, K = s.input_size, O = s.output_size;
    gate_x = arena.take<T>(K * 4 * H * stride);
    gate_h = arena.take<T>(H * 4 * H * stride);
    gate_b = arena.take<T>(4 * H * stride);
    out_h = arena.take<T>(H * O * stride);
    out_b = arena.take<T>(O * stride);
    gate_h_t = arena.take<T>(4 * H * H * stride);
    gate_x_t = arena.take<T>(4 * H * K * stride);
    out_h_t = arena.take<T>(O * H * stride);
  }

  // Writes one module's weights; `lane` is 0 for shared weights.
  void pack(const Sizes& s, const Weights<T>& w, int64_t module, int lane) {
    constexpr int64_t stride = Layout::template kStride<T>;
    const int64_t H = s.hidden_size, K = s.input_size, O = s.output_size;
    const T* W_ih = w.W_ih + module * 4 * H * K;
    const T* W_hh = w.W_hh + module * 4 * H * H;
    const T* b = w.b + module * 4 * H;
    const T* W_out = w.W_out + module * O * H;
    const T* b_out = w.b_out + module * O;
    for (int64_t u = 0; u < H; ++u)
      for (int64_t gate = 0; gate < 4; ++gate) {
        const T scale = gate == 2 ? kTanhScale<T> : kSigmoidScale<T>;
        const int64_t from = gate * H + u, to = 4 * u + gate;
        gate_b[to * stride + lane] = scale * b[from];
        for (int64_t k = 0; k < K; ++k) {
          gate_x[(k * 4 * H + to) * stride + lane] = scale * W_ih[from * K + k];
          gate_x_t[(to * K + k) * stride + lane] = W_ih[from * K + k];
        }
        for (int64_t k = 0; k < H; ++k) {
          gate_h[(k * 4 * H + to) * stride + lane] = scale * W_hh[from * H + k];
          gate_h_t[(to * H + k) * stride + lane] = W_hh[from * H + k];
        }
      }
    for (int64_t o = 0; o < O; ++o) {
      out_b[o * stride + lane] = b_out[o];
      for (int64_t k = 0; k < H; ++k) {
        out_h[(k * O + o) * stride + lane] = W_out[o * H + k];
        out_h_t[(o * H + k) * stride + lane] = W_out[o * H + k];
      }
    }
  }
};

// Scratch of the two passes, all lane rows.
template <class T>
struct SequenceState {
  static constexpr int kTapeRows = 6;  // of CellTape
  T* h[2];                             // [H] each: state of even and odd steps
  T* c;                                // [H]
  T* tape;                             // [T, H, 6]
  T* d_a;                              // [n_slots, 4H]: gate gradients, step t in slot t % n_slots
  T* d_c;                              // [H]
  int64_t n_slots;

  // `slots`: steps whose gate gradients are kept; 2 are enough for backward() itself, 0 is for a
  // forward pass without tape.
  void take(Arena& arena, const Sizes& s, int64_t slots) {
    n_slots = slots;
    const int64_t row = kLanes<T>, H = s.hidden_size;
    h[0] = arena.take<T>(H * row);
    h[1] = arena.take<T>(H * row);
    c = arena.take<T>(H * row);
    tape = arena.take<T>(slots ? s.n_steps * H * kTapeRows * row : 0);
    d_a = arena.take<T>(slots * 4 * H * row);
    d_c = arena.take<T>(slots ? H * row : 0);
  }
  T* tape_of(int64_t t, int64_t unit, const Sizes& s) const {
    return tape + (t * s.hidden_size + unit) * kTapeRows * kLanes<T>;
  }
};

// The six vectors of a tape, kStride values apart.
template <int64_t kStride, class T>
MICFAST_INLINE void store_tape(T* p, const CellTape<T>& s) {
  s.i.store(p);
  s.f.store(p + kStride);
  s.g.store(p + 2 * kStride);
  s.o.store(p + 3 * kStride);
  s.c_prev.store(p + 4 * kStride);
  s.tanh_c.store(p + 5 * kStride);
}

template <int64_t kStride, class T>
MICFAST_INLINE CellTape<T> load_tape(const T* p) {
  return {Vec<T>::load(p),
          Vec<T>::load(p + kStride),
          Vec<T>::load(p + 2 * kStride),
          Vec<T>::load(p + 3 * kStride),
          Vec<T>::load(p + 4 * kStride),
          Vec<T>::load(p + 5 * kStride)};
}

// Runs the generator on the input z [K] and writes the outputs y [T, O]. Keeps the tape that
// backward() needs where kKeepTape.
template <bool kKeepTape, class Layout, class T>
void forward(const Sizes& s, const PackedWeights<Layout, T>& w, const T* z,
             const SequenceState<T>& state, T* y) {
  using V = Vec<T>;
  constexpr int64_t row = kLanes<T>;
  constexpr int64_t stride = Layout::template kStride<T>;
  constexpr int kMaxUnits = kMaxRows<T> / 4;
  const int64_t H = s.hidden_size, O = s.output_size;
  clear(state.c, H);

  for (int64_t t = 0; t < s.n_steps; ++t, y += O * row) {
    // The first step sees the input and a zero state; every later one the state and a zero input.
    const T* x = t == 0 ? z : state.h[(t - 1) & 1];
    const T* w_x = t == 0 ? w.gate_x : w.gate_h;
    const int64_t n_x = t == 0 ? s.input_size : H;
    T* h = state.h[t & 1];

    for_row_blocks<kMaxUnits>(H, [&](auto units, int64_t first_unit) MICFAST_LAMBDA_INLINE {
      constexpr int kUnits = decltype(units)::value;
      Rows<T, 4 * kUnits> a;
      load_rows<Layout>(a, w.gate_b + 4 * first_unit * stride);
      accumulate<Layout>(a, w_x + 4 * first_unit * stride, 4 * H, x, n_x);
#pragma GCC unroll 8
      for (int u = 0; u < kUnits; ++u)
#pragma GCC unroll 8
        for (int v = 0; v < kVectorsPerBlock; ++v) {
          const int64_t unit = first_unit + u, at = unit * row + v * V::kWidth;
          CellTape<T> tape;
          const CellState<T> next =
              cell_forward(a.v[4 * u][v], a.v[4 * u + 1][v], a.v[4 * u + 2][v], a.v[4 * u + 3][v],
                           V::load(state.c + at), tape);
          next.h.store(h + at);
          next.c.store(state.c + at);
          if (kKeepTape) store_tape<row>(state.tape_of(t, unit, s) + v * V::kWidth, tape);
        }
    });
    copy_rows<Layout>(y, w.out_b, O);
    multiply_add<Layout>(y, O, w.out_h, h, H);
  }
}

struct NoStepHook {
  template <class T>
  void operator()(int64_t, const T*) const {}
};

// Back through time from the gradients d_y [T, O] of the outputs, after forward() with the tape
// kept. Writes the gradient of the input to d_z [K]. After each step t, once its gate gradients lie
// in state.d_a, calls after_step(t, gate gradients of step t [4H]).
template <class Layout, class T, class AfterStep>
void backward(const Sizes& s, const PackedWeights<Layout, T>& w, const T* d_y, T* d_z,
              const SequenceState<T>& state, AfterStep after_step) {
  using V = Vec<T>;
  constexpr int64_t row = kLanes<T>;
  constexpr int64_t stride = Layout::template kStride<T>;
  const int64_t H = s.hidden_size, O = s.output_size, K = s.input_size;
  clear(state.d_c, H);

  const T* d_a_next = nullptr;
  for (int64_t t = s.n_steps - 1; t >= 0; --t) {
    T* d_a = state.d_a + (t % state.n_slots) * 4 * H * row;
    for_row_blocks<kMaxRows<T>>(H, [&](auto rows, int64_t first) MICFAST_LAMBDA_INLINE {
      constexpr int kRows = decltype(rows)::value;
      Rows<T, kRows> d_h;
      clear_rows(d_h);
      accumulate<Layout>(d_h, w.out_h_t + first * stride, H, d_y + t * O * row, O);
      if (d_a_next) accumulate<Layout>(d_h, w.gate_h_t + first * stride, H, d_a_next, 4 * H);
#pragma GCC unroll 32
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kVectorsPerBlock; ++v) {
          const int64_t unit = first + r, at = unit * row + v * V::kWidth;
          const CellTape<T> tape = load_tape<row>(state.tape_of(t, unit, s) + v * V::kWidth);
          const CellGradient<T> d = cell_backward(d_h.v[r][v], V::load(state.d_c + at), tape);
          d.c_prev.store(state.d_c + at);
          T* d_a_unit = d_a + 4 * unit * row + v * V::kWidth;
          d.a_i.store(d_a_unit);
          d.a_f.store(d_a_unit + row);
          d.a_g.store(d_a_unit + 2 * row);
          d.a_o.store(d_a_unit + 3 * row);
        }
    });
    after_step(t, d_a);
    d_a_next = d_a;
  }

  clear(d_z, K);
  multiply_add<Layout>(d_z, K, w.gate_x_t, d_a_next, 4 * H);
}

}  // namespace MICFAST_ISA
}  // namespace micfast
