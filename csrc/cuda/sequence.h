// A whole sequence for every pair of a tile: the forward pass, and the backward pass through time.
//
// A thread carries a hidden unit. Its rows and columns of W_hh stay in registers from the first
// iteration to the last where the number of units H is a template parameter; otherwise they are
// read from memory, where the units lie side by side. The states h of a step are exchanged through
// shared memory, one barrier a step.
//
// The tape holds the four activated gates and c of every step, in shared memory where it fits and
// else in the block's part of the workspace, read and written in whole lines. Where the workspace
// has no room for all steps, it holds one part of them at a time: the forward pass keeps h and c
// from which each later part starts, and the backward pass draws a part again before it enters it.
// (Only where H is not a template parameter: there the registers are left to the weights.)
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
MICFAST_INLINE void add_scaled(Quad<T>& sum, const Quad<T>& w, T x) {
  sum.i = fused(w.i, x, sum.i);
  sum.f = fused(w.f, x, sum.f);
  sum.g = fused(w.g, x, sum.g);
  sum.o = fused(w.o, x, sum.o);
}
// Calls f(k, row[k]) for a padded row of n values, four of them read together.
template <int n, class T, class F>
MICFAST_INLINE void for_padded(const T* row, F f) {
  const Quad<T>* quads = reinterpret_cast<const Quad<T>*>(row);
#pragma unroll
  for (int k = 0; k < n; k += 4) {
    const Quad<T> four = quads[k / 4];
    f(k, four.i);
    if (k + 1 < n) f(k + 1 < n ? k + 1 : 0, four.f);
    if (k + 2 < n) f(k + 2 < n ? k + 2 : 0, four.g);
    if (k + 3 < n) f(k + 3 < n ? k + 3 : 0, four.o);
  }
}

// W_hh h for this thread's unit: its rows of W_hh in registers.
template <class T, int kHidden>
struct GateRows {
  Quad<T> weight[kHidden];

  MICFAST_INLINE GateRows(const PackedWeights<T>& w, int u, int) {
#pragma unroll
    for (int k = 0; k < kHidden; ++k) weight[k] = w.gate_h[k * kHidden + u];
  }
  MICFAST_INLINE void add_to(Quad<T>& a, const T* h, int) const {
    for_padded<kHidden>(h, [&](int k, T x) { add_scaled(a, weight[k], x); });
  }
};
// The same for any number of units, read where they lie.
template <class T>
struct GateRows<T, 0> {
  const Quad<T>* weight;
  int H;

  MICFAST_INLINE GateRows(const PackedWeights<T>& w, int, int n_units)
      : weight(w.gate_h), H(n_units) {}
  MICFAST_INLINE void add_to(Quad<T>& a, const T* h, int u) const {
    for (int k = 0; k < H; ++k) add_scaled(a, weight[k * H + u], h[k]);
  }
};

// W_hh' d for this thread's unit: the gradient of its state by those of all gates.
template <class T>
MICFAST_INLINE void add_products(Quad<T>& sum, const Quad<T>& w, const Quad<T>& d) {
  sum.i = fused(w.i, d.i, sum.i);
  sum.f = fused(w.f, d.f, sum.f);
  sum.g = fused(w.g, d.g, sum.g);
  sum.o = fused(w.o, d.o, sum.o);
}
template <class T, int kHidden>
struct GateColumns {
  Quad<T> weight[kHidden];

  MICFAST_INLINE GateColumns(const PackedWeights<T>& w, int u, int) {
#pragma unroll
    for (int v = 0; v < kHidden; ++v) weight[v] = w.from_gate[v * kHidden + u];
  }
  MICFAST_INLINE T times(const Quad<T>* d, int) const {
    Quad<T> sum{0, 0, 0, 0};
#pragma unroll
    for (int v = 0; v < kHidden; ++v) add_products(sum, weight[v], d[v]);
    return (sum.i + sum.f) + (sum.g + sum.o);
  }
};
template <class T>
struct GateColumns<T, 0> {
  const Quad<T>* weight;
  int H;

  MICFAST_INLINE GateColumns(const PackedWeights<T>& w, int, int n_units)
      : weight(w.from_gate), H(n_units) {}
  MICFAST_INLINE T times(const Quad<T>* d, int u) const {
    Quad<T> sum{0, 0, 0, 0};
    for (int v = 0; v < H; ++v) add_products(sum, weight[v * H + u], d[v]);
    return (sum.i + sum.f) + (sum.g + sum.o);
  }
};

// This thread's place in the block, and its loops.
template <int kHidden>
struct Place {
  int P, G, H;
  int pair, lane;  // pair of the tile, thread of the pair
  bool works;      // threads past the last pair only keep the barriers

  MICFAST_BOTH Place(const Plan& plan, const Sizes& s, int thread)
      : P(plan.pairs),
        G(kHidden > 0 ? kHidden : plan.threads_per_pair),
        H(kHidden > 0 ? kHidden : static_cast<int>(s.hidden_size)),
        pair(thread / G),
        lane(thread % G),
        works(thread < P * G) {
    if (!works) pair = lane = 0;
  }
  // Calls f(u) for the units of this thread: one where H is a template parameter.
  template <class F>
  MICFAST_INLINE void for_units(F f) const {
    if (!works) return;
    if constexpr (kHidden > 0) {
      f(lane);
    } else {
      for (int u = lane; u < H; u += G) f(u);
    }
  }
  // Calls f(j) for this thread's part of n things of its pair.
  template <class Index, class F>
  MICFAST_INLINE void for_share(Index n, F f) const {
    if (!works) return;
#pragma unroll 1
    for (Index j = lane; j < n; j += G) f(j);
  }
};

// A value of every unit of a pair: in a register where the thread has one unit, else in memory.
template <class T, int kHidden>
struct UnitValue {
  T value;
  MICFAST_BOTH void take(Space&, const Place<kHidden>&) {}
  MICFAST_INLINE T& operator[](int) { return value; }
};
template <class T>
struct UnitValue<T, 0> {
  T* values;
  MICFAST_BOTH void take(Space& space, const Place<0>& place) {
    values = space.template take<T>(static_cast<int64_t>(place.P) * place.H) +
             static_cast<int64_t>(place.pair) * place.H;
  }
  MICFAST_INLINE T& operator[](int u) { return values[u]; }
};

struct NoStepHook {
  template <class... Arguments>
  MICFAST_INLINE void operator()(Arguments...) const {}
};

// What a forward pass leaves behind.
enum class Keep { kNothing, kTape, kTapeAndStates };

template <class T, int kHidden>
struct Sequence {
  const Place<kHidden> place;
  int n_steps;  // to draw, at most those of the arrays
  const int K, O, segment;
  const int tape_steps;
  const int row, out_row;  // lengths of padded rows of H and O values
  PackedWeights<T> w;
  const T* b_out;
  T* ring;              // [segment + 1, P, row]: the latest states
  Quad<T>* d_gate;      // [2, P, H]
  T* staged_h;          // [2, P, row]
  T* staged_d_y;        // [2, P, out_row]
  T* W_out;             // [O, row]
  Quad<T>* tape_gates;  // [tape_steps, P, H]
  T* tape_c;            // [tape_steps, P, H]
  T* states;            // [T, P, H]: h of every step, where the weights' gradients are wanted
  T *part_h, *part_c;   // [parts, P, H]: of the step before each part of the tape
  UnitValue<T, kHidden> c, d_h, d_c;

  // Arrays the inner loops go through: known to be in shared memory where H is a template
  // parameter.
  template <class U>
  MICFAST_BOTH static U* take_hot(Space& space, int64_t n) {
    if constexpr (kHidden > 0) {
      return space.template take_shared<U>(n);
    } else {
      return space.template take<U>(n);
    }
  }

  MICFAST_BOTH Sequence(const Sizes& s, const Place<kHidden>& where, const Plan& plan,
                        bool has_backward, Space& space)
      : place(where),
        n_steps(static_cast<int>(s.n_steps)),
        K(static_cast<int>(s.input_size)),
        O(static_cast<int>(s.output_size)),
        segment(plan.segment),
        tape_steps(static_cast<int>(plan.tape_steps)),
        row(static_cast<int>(padded(s.hidden_size))),
        out_row(static_cast<int>(padded(s.output_size))) {
    const int64_t P = place.P;
    ring = take_hot<T>(space, (segment + 1) * P * row);
    W_out = take_hot<T>(space, static_cast<int64_t>(O) * row);
    c.take(space, place);
    if (!has_backward) return;
    d_gate = take_hot<Quad<T>>(space, 2 * P * place.H);
    staged_h = take_hot<T>(space, 2 * P * row);
    staged_d_y = take_hot<T>(space, 2 * P * out_row);
    d_h.take(space, place);
    d_c.take(space, place);
  }
  // After everything else that deserves shared memory.
  MICFAST_BOTH void take_tape(Space& space, bool with_states) {
    const int64_t step = static_cast<int64_t>(place.P) * place.H;
    tape_gates = space.template take<Quad<T>>(tape_steps * step);
    tape_c = space.template take<T>(tape_steps * step);
    if (with_states) states = space.template take<T>(n_steps * step);
    if constexpr (kHidden == 0) {
      const int64_t n_parts = (n_steps + tape_steps - 1) / tape_steps;
      part_h = space.template take<T>(n_parts * step);
      part_c = space.template take<T>(n_parts * step);
    }
  }

  // Makes a module current. `out` and `out_bias`: its W_out and b_out.
  MICFAST_INLINE void set_weights(const PackedWeights<T>& packed, const T* out, const T* out_bias) {
    w = packed;
    b_out = out_bias;
    block_sync();
#pragma unroll 1
    for (int j = thread_index(); j < O * place.H; j += n_threads())
      W_out[j / place.H * row + j % place.H] = out[j];
    block_sync();
  }

  // Scaled pre-activations of unit u at the first step, from the input z [K].
  MICFAST_INLINE Quad<T> first_gates(const T* z, int u) const {
    Quad<T> a = w.gate_b[u];
#pragma unroll 1
    for (int k = 0; k < K; ++k) add_scaled(a, w.gate_x[k * place.H + u], z[k]);
    return a;
  }
  static MICFAST_INLINE CellState<T> step(const Quad<T>& a, T c_prev, CellTape<T>& tape) {
    using V = Vec<T>;
    return cell_forward(V{a.i}, V{a.f}, V{a.g}, V{a.o}, V{c_prev}, tape);
  }

  // One output of the state h, without its bias.
  MICFAST_INLINE T output(const T* h, int o) const {
    const T* weights = W_out + o * row;
    T y = 0;
    if constexpr (kHidden > 0) {
      const Quad<T>* w4 = reinterpret_cast<const Quad<T>*>(weights);
      Quad<T> four{};
      for_padded<kHidden>(h, [&](int k, T x) {
        if (k % 4 == 0) four = w4[k / 4];
        y = fused(k % 4 == 0 ? four.i : k % 4 == 1 ? four.f : k % 4 == 2 ? four.g : four.o, x, y);
      });
    } else {
      for (int k = 0; k < place.H; ++k) y = fused(weights[k], h[k], y);
    }
    return y;
  }

  // Draws the sequence of input z [K] and calls on_output(t, o, y) once for every value, on some
  // thread of the pair. Ends with a barrier.
  template <Keep kKeep, class OnOutput>
  MICFAST_INLINE void forward(const T* z, OnOutput on_output) {
    draw<kKeep, true>(z, 0, n_steps, on_output);
  }

  // Steps [begin, end) of it, from the start or the start of a part of the tape.
  template <Keep kKeep, bool kOutputs, class OnOutput>
  MICFAST_INLINE void draw(const T* z, int begin, int end, OnOutput on_output) {
    const GateRows<T, kHidden> rows(w, place.lane, place.H);
    const int ring_step = place.P * row, tape_step = place.P * place.H;
    const int first_value = place.pair * place.H;
    T* const ring_pair = ring + place.pair * row;
    int64_t at_tape = first_value,
            at_states = static_cast<int64_t>(begin) * tape_step + first_value;
    Quad<T> bias{};
    if constexpr (kHidden > 0) bias = w.gate_b[place.lane];
    int slot = 0, n_waiting = 0;  // of the ring; steps whose outputs are still to be computed
    const T* before = nullptr;
    for (int t = begin; t < end; ++t) {
      if constexpr (kHidden == 0 && kKeep != Keep::kNothing) {
        if (t > 0 && t % tape_steps == 0) {  // a part begins
          const int64_t part = static_cast<int64_t>(t / tape_steps) * tape_step + first_value;
          at_tape = first_value;
          if (t == begin) {
            before = part_h + part;
            place.for_units([&](int u) { c[u] = part_c[part + u]; });
          } else {
            place.for_units([&](int u) {
              part_h[part + u] = before[u];
              part_c[part + u] = c[u];
            });
          }
        }
      }
      T* const now = ring_pair + slot * ring_step;
      place.for_units([&](int u) {
        if constexpr (kHidden == 0) bias = w.gate_b[u];
        Quad<T> a = bias;
        if (t == 0) {
          a = first_gates(z, u);
          c[u] = 0;
        } else {
          rows.add_to(a, before, u);
        }
        CellTape<T> gates;
        const CellState<T> next = step(a, c[u], gates);
        c[u] = next.c.v;
        now[u] = next.h.v;
        if constexpr (kKeep != Keep::kNothing) {
          tape_gates[at_tape + u] = {gates.i.v, gates.f.v, gates.g.v, gates.o.v};
          tape_c[at_tape + u] = next.c.v;
        }
        if constexpr (kKeep == Keep::kTapeAndStates) states[at_states + u] = next.h.v;
      });
      at_tape += tape_step;
      at_states += tape_step;
      block_sync();
      before = now;
      ++n_waiting;
      if (kOutputs && (n_waiting == segment || t == end - 1)) {
        const int first = slot + 1 - n_waiting + (slot + 1 < n_waiting ? segment + 1 : 0);
        place.for_share(n_waiting * O, [&](int j) {
          const int i = n_waiting == 1 ? 0 : j / O, o = j - i * O;
          const int at = first + i <= segment ? first + i : first + i - segment - 1;
          on_output(t + 1 - n_waiting + i, o, b_out[o] + output(ring_pair + at * ring_step, o));
        });
        n_waiting = 0;
      }
      slot = slot == segment ? 0 : slot + 1;
    }
    block_sync();
  }

  // c of unit u before step t, which lies at `at` on the tape.
  MICFAST_INLINE T c_of_step_before(int t, int64_t at, int u) const {
    const int64_t step = static_cast<int64_t>(place.P) * place.H;
    if constexpr (kHidden == 0)
      if (t % tape_steps == 0) return part_c[t / tape_steps * step + place.pair * place.H + u];
    return tape_c[at - step];
  }

  // From the gradients of the outputs, d_output(t, o), to that of the input z, d_z [K], where it is
  // wanted: after forward(). on_step(t, u, d, h) sees the gradients d of unit u's unscaled gates
  // and, where the forward pass kept states, those before step t (null at the first).
  template <bool kInputGradient, Keep kKept, class DOutput, class OnStep>
  MICFAST_INLINE void backward(const T* z, const T* W_ih, DOutput d_output, T* d_z,
                               OnStep on_step) {
    const GateColumns<T, kHidden> columns(w, place.lane, place.H);
    const int h_step = place.P * row, d_y_step = place.P * out_row, d_step = place.P * place.H;
    T* const h_pair = staged_h + place.pair * row;
    T* const d_y_pair = staged_d_y + place.pair * out_row;
    Quad<T>* const d_pair = d_gate + place.pair * place.H;
    const int first_value = place.pair * place.H;
    int64_t at_tape = static_cast<int64_t>((n_steps - 1) % tape_steps) * d_step + first_value;

    // Brings what step t needs of other threads into shared memory.
    const auto stage = [&](int t) {
      if constexpr (kKept == Keep::kTapeAndStates) {
        if (t > 0)
          place.for_units([&](int u) {
            h_pair[(t & 1) * h_step + u] =
                states[static_cast<int64_t>(t - 1) * d_step + first_value + u];
          });
      }
      place.for_share(O, [&](int o) { d_y_pair[(t & 1) * d_y_step + o] = d_output(t, o); });
    };
    place.for_units([&](int u) { d_h[u] = d_c[u] = 0; });
    stage(n_steps - 1);
    block_sync();
    for (int t = n_steps - 1; t >= 0; --t) {
      if constexpr (kHidden == 0) {
        if (t < n_steps - 1 && (t + 1) % tape_steps == 0) {
          draw<kKept, false>(z, t + 1 - tape_steps, t + 1, [](int, int, T) {});
          at_tape = static_cast<int64_t>(tape_steps - 1) * d_step + first_value;
        }
      }
      const T* const d_y = d_y_pair + (t & 1) * d_y_step;
      Quad<T>* const d_now = d_pair + (t & 1) * d_step;
      place.for_units([&](int u) {
        using V = Vec<T>;
        const Quad<T> q = tape_gates[at_tape + u];
        const V c_before{t == 0 ? T(0) : c_of_step_before(t, at_tape + u, u)};
        const V scaled_c{tape_c[at_tape + u] * kTanhScale<T>};
        const CellTape<T> gates{V{q.i}, V{q.f}, V{q.g}, V{q.o}, c_before, tanh_of_scaled(scaled_c)};
        T dh = d_h[u];
#pragma unroll 2
        for (int o = 0; o < O; ++o) dh = fused(W_out[o * row + u], d_y[o], dh);
        const CellGradient<T> g = cell_backward(V{dh}, V{d_c[u]}, gates);
        d_c[u] = g.c_prev.v;
        const Quad<T> d{g.a_i.v, g.a_f.v, g.a_g.v, g.a_o.v};
        d_now[u] = d;
        on_step(t, u, d, t == 0 ? nullptr : h_pair + (t & 1) * h_step);
      });
      at_tape -= d_step;
      if (t > 0) stage(t - 1);
      block_sync();
      if (t > 0) place.for_units([&](int u) { d_h[u] = columns.times(d_now, u); });
    }
    if constexpr (kInputGradient) {
      place.for_share(K, [&](int k) {
        T sum = 0;
#pragma unroll 1
        for (int u = 0; u < place.H; ++u) {
          const Quad<T> weight = gates_of(W_ih, place.H, K, u, k), d = d_pair[u];
          sum = fused(weight.i, d.i, sum);
          sum = fused(weight.f, d.f, sum);
          sum = fused(weight.g, d.g, sum);
          sum = fused(weight.o, d.o, sum);
        }
        d_z[k] = sum;
      });
      block_sync();
    }
  }
};

// The sum over the threads of a pair, in their order; `scratch` [P, G]. Every thread gets it.
template <class T, int kHidden>
MICFAST_INLINE T pair_sum(const Place<kHidden>& place, T value, T* scratch) {
  T* mine = scratch + place.pair * place.G;
  block_sync();
  if (place.works) mine[place.lane] = value;
  block_sync();
  T sum = 0;
#pragma unroll 1
  for (int i = 0; i < place.G; ++i) sum += mine[i];
  return sum;
}

}  // namespace MICFAST_ISA
}  // namespace micfast
