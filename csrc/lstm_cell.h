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

}  // namespace MICFAST_ISA
}  // namespace micfast
