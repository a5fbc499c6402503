// The second mapping, for very many targets: a thread draws whole sequences, two at a time (one
// where there are many units, so that more warps fit), and no thread waits for another between the
// first step and the last.
//
// A module's weights lie in shared memory, and all threads of a block want the same one at the same
// time: a read of four serves eight FMAs where there are two targets. The states h stay in
// registers during the products of a step. What is indexed by the unit at hand (c, and the
// gradients of h and c) lies in shared memory, one column a thread. The backward pass need not keep
// gradients of gates: those of a unit are at once multiplied into the sums for the step before,
// which stay in registers. The tape and the targets lie in the workspace, side by side for the
// threads.
//
// Every sum has the order it has in sequence.h, so that both mappings give the same bits.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// A value for each of a thread's targets.
template <class T, int n>
struct alignas(n * sizeof(T)) Lanes {
  T of[n];
};

template <class T, int kHidden>
struct ThreadSequence {
  static constexpr int kThreads = 128, kTargets = kHidden > 10 ? 1 : 2;
  static constexpr int kGateRow = kHidden + 1;           // a unit's weights and its bias
  static constexpr int kOutRow = (kHidden + 4) / 4 * 4;  // an output's weights and its bias, padded
  static constexpr int kUnroll = kHidden > 10 ? 1 : 5;   // units, of a loop's body
  using Pair = Lanes<T, kTargets>;

  const int K, O, thread;
  const int segment, share;  // of steps and outputs, as Sequence adds up squares
  int n_steps;               // to draw: as many as the longer target has
  PackedWeights<T> w;
  Quad<T>* gate_rows;   // [H, kGateRow]
  Quad<T>* from_gate;   // [H, H]: of unit v to state u at v H + u
  T* out_rows;          // [O, kOutRow]
  Pair* state;          // [3 H + 1, threads]: c, h or its gradient, the gradient of c or sums
  Pair* values;         // [T O, 2, threads]: of the targets, NaN where missing, and residuals
  Quad<T>* tape_gates;  // [T, H, targets, threads]
  Pair* tape_c;         // [T, H, threads]

  static constexpr int kH = kHidden * kThreads, kSums = 2 * kH;  // in `state`, from c on

  MICFAST_BOTH ThreadSequence(const Sizes& s, const Plan& plan, int index, Space& space)
      : K(static_cast<int>(s.input_size)),
        O(static_cast<int>(s.output_size)),
        thread(index),
        segment(plan.segment),
        share((plan.segment * O + kHidden - 1) / kHidden) {
    const int64_t steps = s.n_steps;
    gate_rows = space.template take_shared<Quad<T>>(kHidden * kGateRow);
    from_gate = space.template take_shared<Quad<T>>(kHidden * kHidden);
    out_rows = space.template take_shared<T>(static_cast<int64_t>(O) * kOutRow);
    state = space.template take_shared<Pair>((3 * kHidden + 1) * kThreads) + thread;
    values = space.template take_global<Pair>(steps * O * 2 * kThreads) + thread;
    tape_gates = space.template take_global<Quad<T>>(steps * kHidden * kTargets * kThreads);
    tape_c = space.template take_global<Pair>(steps * kH);
    tape_gates += thread;
    tape_c += thread;
  }

  // Makes a module current, in the whole block. `out` and `bias`: its W_out and b_out.
  MICFAST_INLINE void set_weights(const PackedWeights<T>& packed, const T* out, const T* bias) {
    w = packed;
    block_sync();
#pragma unroll 1
    for (int j = thread; j < kHidden * kHidden; j += kThreads) {
      gate_rows[j % kHidden * kGateRow + j / kHidden] = packed.gate_h[j];
      from_gate[j] = packed.from_gate[j];
    }
#pragma unroll 1
    for (int u = thread; u < kHidden; u += kThreads)
      gate_rows[u * kGateRow + kHidden] = packed.gate_b[u];
#pragma unroll 1
    for (int j = thread; j < O * kOutRow; j += kThreads) {
      const int o = j / kOutRow, u = j - o * kOutRow;
      out_rows[j] = u < kHidden ? out[o * kHidden + u] : bias[o];
    }
    block_sync();
  }

  // Draws from the inputs z(i) of the targets i. Answers the sums of the squares of the residuals;
  // keeps these and the tape if asked.
  template <bool kKeeps, class Z>
  MICFAST_INLINE Pair forward(Z z) {
    T h[kTargets][kHidden];
    Quad<T>* gates_at = tape_gates;
    Pair* c_at = tape_c;
    const auto draw_step = [&](auto is_first) {
      const Quad<T>* row = gate_rows;
      Pair* unit = state;
#pragma unroll(is_first.value ? 1 : kUnroll)
      for (int u = 0; u < kHidden; ++u) {
        Quad<T> a[kTargets];
        for (int i = 0; i < kTargets; ++i) {
          if constexpr (is_first.value)
            a[i] = first_gates(z(i), u);
          else
            a[i] = row[kHidden];
        }
        if constexpr (!is_first.value) {
#pragma unroll
          for (int k = 0; k < kHidden; ++k) {
            const Quad<T> weight = row[k];
            for (int i = 0; i < kTargets; ++i) add_scaled(a[i], weight, h[i][k]);
          }
        }
        Pair c = unit[0], h_next;
        for (int i = 0; i < kTargets; ++i) {
          using V = Vec<T>;
          CellTape<T> gates;
          const CellState<T> next = cell_forward(V{a[i].i}, V{a[i].f}, V{a[i].g}, V{a[i].o},
                                                 V{is_first.value ? T(0) : c.of[i]}, gates);
          c.of[i] = next.c.v;
          h_next.of[i] = next.h.v;
          if constexpr (kKeeps)
            gates_at[i * kThreads] = {gates.i.v, gates.f.v, gates.g.v, gates.o.v};
        }
        unit[0] = c;
        unit[kH] = h_next;
        if constexpr (kKeeps) *c_at = c;
        gates_at += kTargets * kThreads;
        c_at += kThreads;
        row += kGateRow;
        unit += kThreads;
      }
#pragma unroll
      for (int k = 0; k < kHidden; ++k) {
        const Pair of_unit = state[kH + k * kThreads];
        for (int i = 0; i < kTargets; ++i) h[i][k] = of_unit.of[i];
      }
    };

    // As in Sequence: each of H sums takes `share` outputs of a segment, one after the other.
#pragma unroll 1
    for (int j = 0; j <= kHidden; ++j) state[kSums + j * kThreads] = {};
    Pair* sum_at = state + kSums;
    Pair sum{};
    int left = share, left_of_segment = segment;
    Pair* value = values;
#pragma unroll 1
    for (int t = 0; t < n_steps; ++t) {
      if (t == 0)
        draw_step(Constant<true>{});
      else
        draw_step(Constant<false>{});
      const T* row = out_rows;
      int left_of_step = O;
#pragma unroll 1
      do {
        const int n = left < left_of_step ? left : left_of_step;
        left -= n;
        left_of_step -= n;
        add_squares<kKeeps>(h, n, row, value, sum);
        if (left > 0) continue;
        *sum_at = sum;
        sum_at += kThreads;  // after the last sum, to one that does not count
        sum = *sum_at;
        left = share;
      } while (left_of_step > 0);
      if (--left_of_segment > 0) continue;
      *sum_at = sum;
      sum_at = state + kSums;
      sum = *sum_at;
      left = share;
      left_of_segment = segment;
    }
    *sum_at = sum;
    Pair total{};
#pragma unroll 1
    for (int j = 0; j < kHidden; ++j) {
      const Pair one = state[kSums + j * kThreads];
      for (int i = 0; i < kTargets; ++i) total.of[i] += one.of[i];
    }
    return total;
  }

  // Adds the squares of n residuals of a step; moves on to the next output and value.
  template <bool kKeeps>
  MICFAST_INLINE void add_squares(const T (&h)[kTargets][kHidden], int n, const T*& row,
                                  Pair*& value, Pair& sum) const {
#pragma unroll 1
    do {
      Pair y{}, residual;
      for_padded<kHidden>(row, [&](int k, T weight) {
        for (int i = 0; i < kTargets; ++i) y.of[i] = fused(weight, h[i][k], y.of[i]);
      });
      const Pair target = value[0];
      for (int i = 0; i < kTargets; ++i) {
        const T drawn = row[kHidden] + y.of[i];
        const T r = target.of[i] == target.of[i] ? drawn - target.of[i] : T(0);
        sum.of[i] = fused(r, r, sum.of[i]);
        residual.of[i] = r;
      }
      if constexpr (kKeeps) value[kThreads] = residual;
      prefetch(value + O * 2 * kThreads);  // of the next step
      value += 2 * kThreads;
      row += kOutRow;
    } while (--n > 0);
  }

  // Scaled pre-activations of unit u at the first step, from the input z [K].
  template <class Z>
  MICFAST_INLINE Quad<T> first_gates(Z z, int u) const {
    Quad<T> a = w.gate_b[u];
#pragma unroll 1
    for (int k = 0; k < K; ++k) add_scaled(a, w.gate_x[k * kHidden + u], z[k]);
    return a;
  }

  // From the residuals to the gradients d_z(i) [K] of half the sums of squares: after forward().
  template <class DZ>
  MICFAST_INLINE void backward(const T* W_ih, DZ d_z) {
    TwoSums<T> sum[kTargets][kHidden];  // of the gradients of h, one step before
    const Pair* value = values + static_cast<int64_t>(n_steps) * O * 2 * kThreads;
    // Starts the sums with what the outputs of the step before give.
    const auto start_sums = [&] {
      value -= O * 2 * kThreads;
#pragma unroll
      for (int k = 0; k < kHidden; ++k)
        for (int i = 0; i < kTargets; ++i) sum[i][k] = {0, 0};
      const T* row = out_rows;
      const Pair* at = value + kThreads;
      int left = O;
#pragma unroll 1
      do {
        const Pair residual = *at;
        prefetch(at - O * 2 * kThreads);
        for_padded<kHidden>(row, [&](int k, T weight) {
          for (int i = 0; i < kTargets; ++i)
            sum[i][k].i_f = fused(weight, residual.of[i], sum[i][k].i_f);
        });
        at += 2 * kThreads;
        row += kOutRow;
      } while (--left > 0);
    };
    const auto finish_sums = [&] {
#pragma unroll
      for (int k = 0; k < kHidden; ++k) {
        Pair d_h;
        for (int i = 0; i < kTargets; ++i) d_h.of[i] = sum[i][k].total();
        state[kH + k * kThreads] = d_h;
      }
    };

    // Of the next unit: read as soon as this one's is used.
    Quad<T> q[kTargets];
    Pair c_before{};
    const int64_t last = static_cast<int64_t>(n_steps - 1) * kHidden;
    const Quad<T>* gates_at = tape_gates + last * (kTargets * kThreads);
    const Pair* c_at = tape_c + (last - kHidden) * kThreads;  // of the step before
    const auto read_tape = [&](auto is_first) {
      for (int i = 0; i < kTargets; ++i) q[i] = gates_at[i * kThreads];
      if constexpr (!is_first.value) c_before = *c_at;
    };
    const auto through_step = [&](auto is_first) {
      const Quad<T>* weights = from_gate;
      Pair* unit = state;
#pragma unroll(is_first.value ? 1 : kUnroll)
      for (int v = 0; v < kHidden; ++v) {
        const Pair c = unit[0], d_h = unit[kH], d_c = unit[2 * kH];
        Pair d_c_before;
        Quad<T> d[kTargets];
        for (int i = 0; i < kTargets; ++i) {
          using V = Vec<T>;
          const CellTape<T> gates{V{q[i].i},
                                  V{q[i].f},
                                  V{q[i].g},
                                  V{q[i].o},
                                  V{is_first.value ? T(0) : c_before.of[i]},
                                  tanh_of_scaled(V{c.of[i] * kTanhScale<T>})};
          const CellGradient<T> g = cell_backward(V{d_h.of[i]}, V{d_c.of[i]}, gates);
          d_c_before.of[i] = g.c_prev.v;
          d[i] = {g.a_i.v, g.a_f.v, g.a_g.v, g.a_o.v};
        }
        unit[0] = c_before;
        unit[2 * kH] = d_c_before;
        unit += kThreads;
        gates_at += kTargets * kThreads;
        c_at += kThreads;
        if (v + 1 < kHidden) read_tape(is_first);
        if constexpr (!is_first.value) {  // of the step before: its global memory is far away
          for (int i = 0; i < kTargets; ++i)
            prefetch(gates_at + (i - kTargets * kHidden) * kThreads);
          prefetch(c_at - kH);
        }
        if constexpr (!is_first.value) {
#pragma unroll
          for (int u = 0; u < kHidden; ++u) {
            const Quad<T> weight = weights[u];
            for (int i = 0; i < kTargets; ++i) sum[i][u].add(weight, d[i]);
          }
          weights += kHidden;
        } else {
          add_inputs(W_ih, v, d, d_z);
        }
      }
    };

#pragma unroll 1
    for (int v = 0; v < kHidden; ++v) state[2 * kH + v * kThreads] = {};
    for (int i = 0; i < kTargets; ++i)
#pragma unroll 1
      for (int k = 0; k < K; ++k) d_z(i)[k] = 0;
    start_sums();
    finish_sums();
#pragma unroll 1
    for (int t = n_steps - 1; t > 0; --t) {
      read_tape(Constant<false>{});
      start_sums();
      through_step(Constant<false>{});
      finish_sums();
      gates_at -= 2 * kHidden * kTargets * kThreads;
      c_at -= 2 * kH;
    }
    read_tape(Constant<true>{});
    through_step(Constant<true>{});
  }

  // What the gradients d of unit v's gates at the first step add to the inputs'.
  template <class DZ>
  MICFAST_INLINE void add_inputs(const T* W_ih, int v, const Quad<T>* d, DZ d_z) const {
#pragma unroll 1
    for (int k = 0; k < K; ++k) {
      const Quad<T> weight = gates_of(W_ih, kHidden, K, v, k);
      for (int i = 0; i < kTargets; ++i) {
        T sum = d_z(i)[k];
        sum = fused(weight.i, d[i].i, sum);
        sum = fused(weight.f, d[i].f, sum);
        sum = fused(weight.g, d[i].g, sum);
        d_z(i)[k] = fused(weight.o, d[i].o, sum);
      }
    }
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
