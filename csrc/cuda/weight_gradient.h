// Gradients of a module's weights, summed over steps (and over sequences, where there are several).
// Gate rows as in PackedWeights, but not scaled. Every value has one thread that adds to it.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// A whole set of weights in the layout of the kernels: masters, gradients or moments.
template <class T>
struct WeightArrays {
  Quad<T>* gate_h;  // [H, H]: of state k to unit u at k H + u
  Quad<T>* gate_x;  // [K, H]
  Quad<T>* gate_b;  // [H]
  T* out_h;         // [O, H]
  T* out_b;         // [O]

  MICFAST_BOTH static int64_t n_values(const Sizes& s) {
    const int64_t H = s.hidden_size;
    return 4 * H * (H + s.input_size + 1) + s.output_size * (H + 1);
  }
  // The same, padded so that sets one behind the other stay aligned.
  MICFAST_BOTH static int64_t stride(const Sizes& s) { return padded(n_values(s)); }
  MICFAST_BOTH static WeightArrays in(T* values, const Sizes& s) {
    const int64_t H = s.hidden_size, K = s.input_size;
    Quad<T>* quads = reinterpret_cast<Quad<T>*>(values);
    T* rest = values + 4 * H * (H + K + 1);
    return {quads, quads + H * H, quads + H * (H + K), rest, rest + s.output_size * H};
  }
};

// Calls f(place in a WeightArrays, place in torch's tensor of that name, which tensor) for this
// thread's part of all values. The tensors are numbered as in Weights.
template <class F>
MICFAST_INLINE void for_weights(const Sizes& s, F f) {
  const int64_t H = s.hidden_size, K = s.input_size, O = s.output_size;
  const int64_t n_gate = 4 * H, first_x = n_gate * H, first_b = first_x + n_gate * K;
  for (int64_t j = thread_index(); j < first_b + n_gate; j += n_threads()) {
    const int64_t gate = j % 4, unit = j / 4 % H, column = j / n_gate;
    const int64_t gate_row = gate * H + unit;
    if (j < first_x)
      f(j, gate_row * H + column, 1);
    else if (j < first_b)
      f(j, gate_row * K + (column - H), 0);
    else
      f(j, gate_row, 2);
  }
  const int64_t first_out = first_b + n_gate;
  for (int64_t j = thread_index(); j < O * H; j += n_threads()) f(first_out + j, j, 3);
  for (int64_t j = thread_index(); j < O; j += n_threads()) f(first_out + O * H + j, j, 4);
}

// The tensor of that number of one module, by pointer arithmetic on any of the two structs.
template <class Set>
MICFAST_INLINE auto weight_tensor(const Set& w, const Sizes& s, int64_t module, int which) {
  const int64_t H = s.hidden_size, K = s.input_size, O = s.output_size;
  return which == 0   ? w.W_ih + module * 4 * H * K
         : which == 1 ? w.W_hh + module * 4 * H * H
         : which == 2 ? w.b + module * 4 * H
         : which == 3 ? w.W_out + module * O * H
                      : w.b_out + module * O;
}

// Adds the gradients of one sequence to `sum`, which lies in memory; those of W_hh are collected in
// registers first where H is a template parameter. For tiles of one pair.
template <class T, int kHidden>
struct WeightGradient {
  WeightArrays<T> sum;
  Quad<T> gate_h[kHidden > 0 ? kHidden : 1], gate_b;

  MICFAST_INLINE void start() {
    gate_b = {0, 0, 0, 0};
    if constexpr (kHidden > 0) {
#pragma unroll
      for (int k = 0; k < kHidden; ++k) gate_h[k] = {0, 0, 0, 0};
    }
  }
  static MICFAST_INLINE void add(Quad<T>& to, const Quad<T>& d) {
    to = {to.i + d.i, to.f + d.f, to.g + d.g, to.o + d.o};
  }

  // The hook of Sequence::backward(); z [K] is the input.
  MICFAST_INLINE void on_step(const Sizes& s, const T* z, int t, int u, const Quad<T>& d,
                              const T* h) {
    const int64_t H = s.hidden_size;
    if (t > 0) {
      if constexpr (kHidden > 0) {
        for_padded<kHidden>(h, [&](int k, T x) { add_scaled(gate_h[k], d, x); });
      } else {
        for (int64_t k = 0; k < H; ++k) add_scaled(sum.gate_h[k * H + u], d, h[k]);
      }
    } else {
      for (int64_t k = 0; k < s.input_size; ++k) add_scaled(sum.gate_x[k * H + u], d, z[k]);
    }
    if constexpr (kHidden > 0)
      add(gate_b, d);
    else
      add(sum.gate_b[u], d);
  }

  // After backward(): what is still in registers, and the output layer's, from the states on the
  // tape and the outputs' gradients d_output(t O + o). Ends with a barrier.
  template <class DOutput>
  MICFAST_INLINE void finish(const Sequence<T, kHidden>& sequence, DOutput d_output) {
    const int H = sequence.place.H, O = sequence.O, n_steps = sequence.n_steps;
    if constexpr (kHidden > 0) {
      sequence.place.for_units([&](int u) {
#pragma unroll
        for (int k = 0; k < kHidden; ++k) add(sum.gate_h[k * kHidden + u], gate_h[k]);
        add(sum.gate_b[u], gate_b);
      });
    }
    // All threads of the block help: the tile has one pair.
    for (int j = thread_index(); j < O * H; j += n_threads()) {
      const int o = j / H;
      const T* h = sequence.states + (j - o * H);
      T d = 0;
      for (int t = 0; t < n_steps; ++t, h += H) d = fused(d_output(t * O + o), *h, d);
      sum.out_h[j] += d;
    }
    for (int o = thread_index(); o < O; o += n_threads()) {
      T d = 0;
      for (int t = 0; t < n_steps; ++t) d += d_output(t * O + o);
      sum.out_b[o] += d;
    }
    block_sync();
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
