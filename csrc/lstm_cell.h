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

}  // namespace MICFAST_ISA
}  // namespace micfast
