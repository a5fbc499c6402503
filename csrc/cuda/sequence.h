// A whole sequence for every pair of a tile: the forward pass, and the backward pass through time.
//
// A thread carries a hidden unit. Its rows and columns of W_hh stay in registers from the first
// iteration to the last where the number of units H is a template parameter; otherwise they are
// read from memory, where the units lie side by side. The states h of a step are exchanged through
// shared memory, one barrier of the team a step. Outputs wait until a segment of some steps is
// drawn, and are then shared out among the threads of a pair.
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

struct NoStepHook {
  template <class... Arguments>
  MICFAST_INLINE void operator()(Arguments...) const {}
};

// What a forward pass leaves behind.
enum class Keep { kNothing, kTape, kTapeAndStates };

template <bool kValue>
struct Constant {
  static constexpr bool value = kValue;
};

template <class T, int kHidden>
struct Sequence {
  // Whether a search has data brought closer ahead of their time. With 20 units it was not faster:
  // the tape of sequences as short as MNIST's is in shared memory.
  static constexpr bool kFetches = kHidden > 0 && kHidden <= 10;

  const Place<kHidden> place;
  int n_steps;  // to draw, at most those of the arrays
  const int K, O, segment;
  const int tape_steps;
  const int row, out_row;                // lengths of padded rows of H and O values
  const int out_quads;                   // of four values each, in out_row
  const int unit_row;                    // of W_out by units; odd in units of four, for the banks
  const int share;                       // outputs of a whole segment for each thread of a pair
  const int share_step, share_output;    // the first of this thread's
  const int staged_step, staged_output;  // the first that this thread stages
  const int stride_step, stride_output;  // from there to its next one
  PackedWeights<T> w;
  T* ring;           // [2 segment, P, row]: states of this segment and of the one before
  T* W_out;          // [O, row]
  T* W_out_of_unit;  // [H, unit_row], padded with 0
  T* b_out;          // [O]
  Quad<T>* d_gate;   // [2, P, H]: of even and odd steps
  T* staged_h;       // [2 segment, P, row]: h before each step, where weights' gradients are wanted
  T* staged_d_y;     // [2 segment, P, out_row], padded with 0
  Quad<T>* tape_gates;  // [tape_steps, P, H]
  T* tape_c;            // [1 + tape_steps, P, H]: first that before the tape's first step
  T* states;            // [T, P, H]: h of every step, where the weights' gradients are wanted
  T *part_h, *part_c;   // [parts, P, H]: of the step before each part of the tape
  UnitValue<T, kHidden> c, d_c;

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

  MICFAST_BOTH Sequence(const Sizes& s, const Place<kHidden>& where, const Plan& plan, Keep keep,
                        Space& space)
      : place(where),
        n_steps(static_cast<int>(s.n_steps)),
        K(static_cast<int>(s.input_size)),
        O(static_cast<int>(s.output_size)),
        segment(plan.segment),
        tape_steps(static_cast<int>(plan.tape_steps)),
        row(static_cast<int>(padded(s.hidden_size))),
        out_row(static_cast<int>(padded(s.output_size))),
        out_quads(out_row / 4),
        unit_row(out_row | 4),
        share((segment * O + place.G - 1) / place.G),
        share_step(place.lane * share / O),
        share_output(place.lane * share % O),
        staged_step(place.lane / O),
        staged_output(place.lane % O),
        stride_step(place.G / O),
        stride_output(place.G % O) {
    const int64_t P = place.P;
    ring = take_hot<T>(space, 2 * segment * P * row);
    W_out = take_hot<T>(space, static_cast<int64_t>(O) * row);
    b_out = take_hot<T>(space, O);
    c.take(space, place);
    if (keep == Keep::kNothing) return;
    W_out_of_unit = take_hot<T>(space, static_cast<int64_t>(place.H) * unit_row);
    d_gate = take_hot<Quad<T>>(space, 2 * P * place.H);
    staged_d_y = take_hot<T>(space, 2 * segment * P * out_row);
    if (keep == Keep::kTapeAndStates) staged_h = take_hot<T>(space, 2 * segment * P * row);
    d_c.take(space, place);
  }
  // After everything else that deserves shared memory.
  MICFAST_BOTH void take_tape(Space& space, bool with_states) {
    const int64_t step = static_cast<int64_t>(place.P) * place.H;
    tape_gates = space.template take<Quad<T>>(tape_steps * step);
    tape_c = space.template take<T>((1 + tape_steps) * step);
    if (with_states) states = space.template take<T>(n_steps * step);
    if constexpr (kHidden == 0) {
      const int64_t n_parts = (n_steps + tape_steps - 1) / tape_steps;
      part_h = space.template take<T>(n_parts * step);
      part_c = space.template take<T>(n_parts * step);
    }
  }

  // Makes a module current, in the whole block. `out` and `bias`: its W_out and b_out.
  template <Keep kKeep>
  MICFAST_INLINE void set_weights(const PackedWeights<T>& packed, const T* out, const T* bias) {
    w = packed;
    block_sync();
#pragma unroll 1
    for (int j = thread_index(); j < O * place.H; j += n_threads())
      W_out[j / place.H * row + j % place.H] = out[j];
#pragma unroll 1
    for (int o = thread_index(); o < O; o += n_threads()) b_out[o] = bias[o];
    if constexpr (kKeep != Keep::kNothing) {
      for (int j = thread_index(); j < 2 * segment * place.P * out_row; j += n_threads())
        staged_d_y[j] = 0;
#pragma unroll 1
      for (int j = thread_index(); j < out_row * place.H; j += n_threads()) {
        const int u = j / out_row, o = j - u * out_row;
        W_out_of_unit[u * unit_row + o] = o < O ? out[o * place.H + u] : T(0);
      }
    }
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
    return State<T, kHidden>(h, place.H).times(W_out + o * row);
  }

  // Draws the sequence of input z [K] and calls on_output(t, t O + o, y) once for every value, on
  // some thread of the pair. Ends with a barrier.
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
    int at_tape = first_value, at_states = begin * tape_step + first_value;
    Quad<T> bias{};
    if constexpr (kHidden > 0) bias = w.gate_b[place.lane];
    const T* before = nullptr;
    T* now = ring_pair;
    const auto draw_step = [&](auto is_first) {
      place.every_unit([&](int u) {
        Quad<T> a = bias;
        if constexpr (is_first.value) {
          a = first_gates(z, u);
        } else {
          if constexpr (kHidden == 0) a = w.gate_b[u];
          rows.add_to(a, before, u);
        }
        CellTape<T> gates;
        const CellState<T> next = step(a, is_first.value ? T(0) : c[u], gates);
        c[u] = next.c.v;
        // (Not in training, which has no register left.)
        const T h = kKeep == Keep::kTapeAndStates ? next.h.v : kept(next.h.v);
        if (!place.works) return;
        now[u] = h;
        if constexpr (kKeep != Keep::kNothing) {
          tape_gates[at_tape + u] = {gates.i.v, gates.f.v, gates.g.v, gates.o.v};
          tape_c[at_tape + tape_step + u] = next.c.v;
          if constexpr (is_first.value) tape_c[at_tape + u] = 0;
        }
        if constexpr (kKeep == Keep::kTapeAndStates) states[at_states + u] = h;
      });
      at_tape += tape_step;
      at_states += tape_step;
      place.sync();
      before = now;
      now += ring_step;
    };
    T* half = ring_pair;  // of the ring, the segment's
#pragma unroll 1
    for (int first = begin; first < end; first += segment) {
      const int n = end - first < segment ? end - first : segment;
      int t = first;
      now = half;
      if (t == 0) draw_step(Constant<true>{}), ++t;
#pragma unroll 1
      for (; t < first + n; ++t) {
        if constexpr (kHidden == 0 && kKeep != Keep::kNothing) {
          if (t % tape_steps == 0) {  // a part begins
            at_tape = first_value;
            before = enter_part(t, t == begin, before);
          }
        }
        draw_step(Constant<false>{});
      }
      if constexpr (kOutputs) outputs(half, first, n, on_output);
      half = half == ring_pair ? ring_pair + segment * ring_step : ring_pair;
    }
    place.sync();
  }

  // The outputs of n steps from t on, whose states lie in `half`. A thread has a few of one step,
  // so that it reads a state once for them: the same also in a last segment that is shorter, since
  // who adds up what must not depend on how long the tile's other sequences are.
  template <class OnOutput>
  MICFAST_INLINE void outputs(const T* half, int t, int n, OnOutput on_output) const {
    if (!place.works) return;
    int i = share_step, o = share_output, left = share;
    const int here = (n - i) * O - o;
    if (here < left) left = here;
    int at = (t + i) * O + o;
    const T* h_at = half + i * place.P * row;
#pragma unroll 1
    for (t += i; left > 0; ++t) {
      const State<T, kHidden> h(h_at, place.H);
      const int end = O - o < left ? O : o + left;
      left -= end - o;
#pragma unroll 1
      do {
        on_output(t, at, b_out[o] + h.times(W_out + o * row));
        ++at;
      } while (++o < end);
      o = 0;
      h_at += place.P * row;
    }
  }

  // Where step t begins a part of the tape: keeps the states before it, or takes them back where
  // the pass begins here. Answers where h lies.
  MICFAST_INLINE const T* enter_part(int t, bool restores, const T* before) {
    const int part = (t / tape_steps * place.P + place.pair) * place.H;
    place.for_units([&](int u) {
      if (restores) {
        c[u] = part_c[part + u];
      } else {
        part_h[part + u] = before[u];
        part_c[part + u] = c[u];
      }
      tape_c[place.pair * place.H + u] = c[u];
    });
    return restores ? part_h + part : before;
  }

  // From the gradients of the outputs, d_output(t O + o), to that of the input z, d_z [K], where it
  // is wanted: after forward(). on_step(t, u, d, h) sees the gradients d of unit u's unscaled gates
  // and, where the forward pass kept states, those before step t (null at the first).
  template <bool kInputGradient, Keep kKept, class DOutput, class OnStep>
  MICFAST_INLINE void backward(const T* z, const T* W_ih, DOutput d_output, T* d_z, OnStep on_step);

  // What the outputs' gradients d_y [out_row] give the state of unit u.
  MICFAST_INLINE T gradient_by_outputs(int u, const T* d_y) const {
    const Quad<T>* weights = reinterpret_cast<const Quad<T>*>(W_out_of_unit + u * unit_row);
    const Quad<T>* gradients = reinterpret_cast<const Quad<T>*>(d_y);
    T d_h = 0;
    int o = 0;
#pragma unroll 1
    do {
      const Quad<T> a = weights[o], b = gradients[o];
      d_h = fused(a.i, b.i, d_h);
      d_h = fused(a.f, b.f, d_h);
      d_h = fused(a.g, b.g, d_h);
      d_h = fused(a.o, b.o, d_h);
    } while (++o < out_quads);
    return d_h;
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
