// One step of the GRU cell, forward and backward, as lstm_cell.h has it of the LSTM.
//
// The reset gate scales what the state adds to n, not what the input adds: the two are rows of
// their own, so that a unit has four pre-activations r, z, n_x and n_h, as many as in the LSTM.
//
//   h_t = n + z (h_{t-1} - n),   n = tanh(a_n_x + r a_n_h)
#pragma once

namespace micfast {
namespace MICFAST_ISA {

template <class T>
struct GruTape {
  Vec<T> r, z, n, a_h, h_prev;  // a_h: the scaled pre-activation n_h
};

// How h_t changes with the *scaled* pre-activations and with h_{t-1}; n_h's is that of n_x times r.
template <class T>
struct GruSlopes {
  Vec<T> h_r, h_z, h_n, r, h_h;
};

struct Gru {
  static constexpr int kGates = 4;
  static constexpr int kTapeRows = 5;
  static constexpr bool kCellIsState = true;
  template <class T>
  using Tape = GruTape<T>;
  template <class T>
  using Slopes = GruSlopes<T>;

  template <class T>
  static constexpr T scale(int64_t gate) {
    return gate < 2 ? kSigmoidScale<T> : kTanhScale<T>;
  }
  template <class T, class Gates>
  static MICFAST_INLINE CellState<T> forward(Gates a, Vec<T> h_prev, Tape<T>& tape) {
    tape.r = sigmoid_of_scaled(a(0));
    tape.z = sigmoid_of_scaled(a(1));
    tape.a_h = a(3);
    tape.n = tanh_of_scaled(fma(tape.r, tape.a_h, a(2)));
    tape.h_prev = h_prev;
    const Vec<T> h = state_of(tape);
    return {h, h};
  }
  template <class T, class Write>
  static MICFAST_INLINE Vec<T> backward(Vec<T> dh, Vec<T> dh_kept, const Tape<T>& s, Write write) {
    const Vec<T> one = Vec<T>::broadcast(1);
    dh = dh + dh_kept;
    const Vec<T> dh_z = dh * s.z;
    const Vec<T> d_n = (dh - dh_z) * fnma(s.n, s.n, one), d_h = d_n * s.r;
    write(0, (d_h * (s.a_h * Vec<T>::broadcast(1 / kTanhScale<T>))) * (one - s.r));
    write(1, (dh_z * (s.h_prev - s.n)) * (one - s.z));
    write(2, d_n);
    write(3, d_h);
    return dh_z;
  }
  template <class T>
  static MICFAST_INLINE Slopes<T> slopes(const Tape<T>& s) {
    const Vec<T> one = Vec<T>::broadcast(1);
    const Vec<T> per_sigmoid = Vec<T>::broadcast(1 / kSigmoidScale<T>);
    const Vec<T> per_tanh = Vec<T>::broadcast(1 / kTanhScale<T>);
    Slopes<T> d;
    d.h_n = ((one - s.z) * per_tanh) * fnma(s.n, s.n, one);
    d.h_r = (d.h_n * s.a_h) * (s.r * per_sigmoid) * (one - s.r);
    d.h_z = (s.z * per_sigmoid) * (one - s.z) * (s.h_prev - s.n);
    d.r = s.r;
    d.h_h = s.z;
    return d;
  }
  template <class T, class Gates>
  static MICFAST_INLINE CellState<T> tangent(Gates a, Vec<T> h_prev, const Slopes<T>& d) {
    const Vec<T> of_n = d.h_n * fma(d.r, a(3), a(2));
    const Vec<T> h = fma(d.h_r, a(0), fma(d.h_z, a(1), fma(d.h_h, h_prev, of_n)));
    return {h, h};
  }
  template <class T>
  static MICFAST_INLINE Vec<T> state_of(const Tape<T>& s) {
    return fma(s.z, s.h_prev - s.n, s.n);
  }

  template <int64_t kStride, class T>
  static MICFAST_INLINE void store(T* p, const Tape<T>& s) {
    s.r.store(p);
    s.z.store(p + kStride);
    s.n.store(p + 2 * kStride);
    s.a_h.store(p + 3 * kStride);
    s.h_prev.store(p + 4 * kStride);
  }
  template <int64_t kStride, class T>
  static MICFAST_INLINE Tape<T> load(const T* p) {
    return {Vec<T>::load(p), Vec<T>::load(p + kStride), Vec<T>::load(p + 2 * kStride),
            Vec<T>::load(p + 3 * kStride), Vec<T>::load(p + 4 * kStride)};
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
