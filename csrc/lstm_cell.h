// One step of the LSTM cell, forward and backward, over a lane vector. Equations only: no memory
// access and no time loop. Notation: docs/conventions.md.
#pragma once

namespace micfast {
namespace MICFAST_ISA {

// What the backward step needs of the forward step: activated gates, c_{t-1} and tanh(c_t).
template <class T>
struct CellTape {
  Vec<T> i, f, g, o, c_prev, tanh_c;
};

template <class T>
struct CellState {
  Vec<T> h, c;
};

// Pre-activations come scaled: kSigmoidScale for i, f, o and kTanhScale for g.
template <class T>
MICFAST_INLINE CellState<T> cell_forward(Vec<T> a_i, Vec<T> a_f, Vec<T> a_g, Vec<T> a_o,
                                         Vec<T> c_prev, CellTape<T>& tape) {
  tape.i = sigmoid_of_scaled(a_i);
  tape.f = sigmoid_of_scaled(a_f);
  tape.g = tanh_of_scaled(a_g);
  tape.o = sigmoid_of_scaled(a_o);
  tape.c_prev = c_prev;
  const Vec<T> c = fma(tape.f, c_prev, tape.i * tape.g);
  tape.tanh_c = tanh_of_scaled(c * Vec<T>::broadcast(kTanhScale<T>));
  return {tape.o * tape.tanh_c, c};
}

template <class T>
struct CellGradient {
  Vec<T> a_i, a_f, a_g, a_o;  // of the unscaled pre-activations
  Vec<T> c_prev;
};

// dh: gradient of h_t; dc: gradient of c_t that comes from step t + 1.
template <class T>
MICFAST_INLINE CellGradient<T> cell_backward(Vec<T> dh, Vec<T> dc, const CellTape<T>& s) {
  const Vec<T> one = Vec<T>::broadcast(1);
  const Vec<T> dh_o = dh * s.o;
  dc = fma(dh_o, fnma(s.tanh_c, s.tanh_c, one), dc);
  const Vec<T> dc_i = dc * s.i;
  const Vec<T> dc_f = dc * s.f;
  CellGradient<T> d;
  d.a_i = (dc_i * s.g) * (one - s.i);
  d.a_f = (dc_f * s.c_prev) * (one - s.f);
  d.a_g = dc_i * fnma(s.g, s.g, one);
  d.a_o = (dh_o * s.tanh_c) * (one - s.o);
  d.c_prev = dc_f;
  return d;
}

// How c_t and h_t change with the pre-activations, c_{t-1} and c_t: the cell's part of a
// directional derivative. By the *scaled* pre-activations, so that tangents go through the same
// packed weights.
template <class T>
struct CellSlopes {
  Vec<T> c_i, c_f, c_g;  // of c_t by a_i, a_f, a_g
  Vec<T> c_c;            // of c_t by c_{t-1}
  Vec<T> h_o, h_c;       // of h_t by a_o, c_t
};

template <class T>
MICFAST_INLINE CellSlopes<T> cell_slopes(const CellTape<T>& s) {
  const Vec<T> one = Vec<T>::broadcast(1);
  const Vec<T> per_sigmoid = Vec<T>::broadcast(1 / kSigmoidScale<T>);
  const Vec<T> per_tanh = Vec<T>::broadcast(1 / kTanhScale<T>);
  CellSlopes<T> d;
  d.c_i = (s.i * per_sigmoid) * (one - s.i) * s.g;
  d.c_f = (s.f * per_sigmoid) * (one - s.f) * s.c_prev;
  d.c_g = (s.i * per_tanh) * fnma(s.g, s.g, one);
  d.c_c = s.f;
  d.h_o = (s.o * per_sigmoid) * (one - s.o) * s.tanh_c;
  d.h_c = s.o * fnma(s.tanh_c, s.tanh_c, one);
  return d;
}

// The cell's tangent: h and c change by the state returned.
template <class T>
MICFAST_INLINE CellState<T> cell_tangent(Vec<T> a_i, Vec<T> a_f, Vec<T> a_g, Vec<T> a_o,
                                         Vec<T> c_prev, const CellSlopes<T>& d) {
  const Vec<T> c = fma(d.c_g, a_g, fma(d.c_f, a_f, fma(d.c_i, a_i, d.c_c * c_prev)));
  return {fma(d.h_c, c, d.h_o * a_o), c};
}

// What the sequence code (cpu/sequence.h) asks of a cell: how many pre-activations a unit has and
// how they are scaled, whether c is h itself, the three steps, and the tape as kTapeRows vectors
// kStride values apart. A cell of another kind is a struct like this one (gru_cell.h).
struct Lstm {
  static constexpr int kGates = 4;
  static constexpr int kTapeRows = 6;
  static constexpr bool kCellIsState = false;
  template <class T>
  using Tape = CellTape<T>;
  template <class T>
  using Slopes = CellSlopes<T>;

  template <class T>
  static constexpr T scale(int64_t gate) {
    return gate == 2 ? kTanhScale<T> : kSigmoidScale<T>;
  }
  // `a(gate)` is the unit's scaled pre-activation.
  template <class T, class Gates>
  static MICFAST_INLINE CellState<T> forward(Gates a, Vec<T> c_prev, Tape<T>& tape) {
    return cell_forward(a(0), a(1), a(2), a(3), c_prev, tape);
  }
  // Hands the gradient of each unscaled pre-activation to `write(gate, gradient)`; answers that of
  // c_{t-1}.
  template <class T, class Write>
  static MICFAST_INLINE Vec<T> backward(Vec<T> dh, Vec<T> dc, const Tape<T>& tape, Write write) {
    const CellGradient<T> d = cell_backward(dh, dc, tape);
    write(0, d.a_i);
    write(1, d.a_f);
    write(2, d.a_g);
    write(3, d.a_o);
    return d.c_prev;
  }
  template <class T>
  static MICFAST_INLINE Slopes<T> slopes(const Tape<T>& tape) {
    return cell_slopes(tape);
  }
  template <class T, class Gates>
  static MICFAST_INLINE CellState<T> tangent(Gates a, Vec<T> c_prev, const Slopes<T>& d) {
    return cell_tangent(a(0), a(1), a(2), a(3), c_prev, d);
  }
  template <class T>
  static MICFAST_INLINE Vec<T> state_of(const Tape<T>& tape) {
    return tape.o * tape.tanh_c;
  }

  template <int64_t kStride, class T>
  static MICFAST_INLINE void store(T* p, const Tape<T>& s) {
    s.i.store(p);
    s.f.store(p + kStride);
    s.g.store(p + 2 * kStride);
    s.o.store(p + 3 * kStride);
    s.c_prev.store(p + 4 * kStride);
    s.tanh_c.store(p + 5 * kStride);
  }
  template <int64_t kStride, class T>
  static MICFAST_INLINE Tape<T> load(const T* p) {
    return {Vec<T>::load(p),
            Vec<T>::load(p + kStride),
            Vec<T>::load(p + 2 * kStride),
            Vec<T>::load(p + 3 * kStride),
            Vec<T>::load(p + 4 * kStride),
            Vec<T>::load(p + 5 * kStride)};
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
