// Sigmoid and tanh over lane vectors, through one exponential.
//
//   sigmoid(x) = 1 / (1 + 2^(-x log2 e)),   tanh(x) = 2 / (1 + 2^(-2x log2 e)) - 1
//
// The factors -log2 e and -2 log2 e are linear, so the kernels fold them into the weights of the
// gate rows (kSigmoidScale, kTanhScale) and call the functions that take the exponent of 2 itself.
//
// Error over the whole range, measured by tests/test_kernel.py: at most 1.9e-7 absolute in float32
// (3 roundings of 1) and 3.5e-16 in float64. Both saturate to exactly 0, 1 and -1 or
// within that error of them, are exact at 0, and pass NaN through.
#pragma once

namespace micfast {
namespace MICFAST_ISA {

template <class T>
constexpr T kSigmoidScale = static_cast<T>(-1.442695040888963407359924681);
template <class T>
constexpr T kTanhScale = static_cast<T>(-2.885390081777926814719849362);

// Minimax polynomial of 2^f on [-1/2, 1/2] with value 1 at 0, relative error 1.1e-7.
MICFAST_INLINE VecF exp2_fraction(VecF f) {
  VecF p = VecF::broadcast(0.001326472749f);
  p = fma(p, f, VecF::broadcast(0.009671512642f));
  p = fma(p, f, VecF::broadcast(0.05550733742f));
  p = fma(p, f, VecF::broadcast(0.2402224209f));
  p = fma(p, f, VecF::broadcast(0.6931469776f));
  return fma(p, f, VecF::broadcast(1.f));
}

// As above for float64, relative error 3.1e-18 before rounding.
MICFAST_INLINE VecD exp2_fraction(VecD f) {
  VecD p = VecD::broadcast(4.435280761114347347e-10);
  p = fma(p, f, VecD::broadcast(7.0741056282741922873e-9));
  p = fma(p, f, VecD::broadcast(1.0178198034479749975e-7));
  p = fma(p, f, VecD::broadcast(1.3215433089583750709e-6));
  p = fma(p, f, VecD::broadcast(1.5252733489958254149e-5));
  p = fma(p, f, VecD::broadcast(1.5403530462514632186e-4));
  p = fma(p, f, VecD::broadcast(1.3333558146789952681e-3));
  p = fma(p, f, VecD::broadcast(9.6181291075883350705e-3));
  p = fma(p, f, VecD::broadcast(5.5504108664819921475e-2));
  p = fma(p, f, VecD::broadcast(0.24022650695910156205));
  p = fma(p, f, VecD::broadcast(0.69314718055994533046));
  return fma(p, f, VecD::broadcast(1.));
}

// A register wrapper whose hardware has an exponential brings its own.
#if !defined(MICFAST_HARDWARE_EXP2)
template <class T>
MICFAST_INLINE Vec<T> exp2(Vec<T> x) {
  x = clamp_exp2(x);
  const Vec<T> f = fraction(x);
  return scale_by_pow2(exp2_fraction(f), x - f);
}
#endif

// sigmoid(a) for x = kSigmoidScale * a
template <class T>
MICFAST_INLINE Vec<T> sigmoid_of_scaled(Vec<T> x) {
  const Vec<T> one = Vec<T>::broadcast(1);
  return one / (one + exp2(x));
}

// tanh(a) for x = kTanhScale * a. (Where the hardware has no division, 2 (1 / y) - 1 is one
// instruction less and has the same bits.)
template <class T>
MICFAST_INLINE Vec<T> tanh_of_scaled(Vec<T> x) {
  const Vec<T> one = Vec<T>::broadcast(1), two = Vec<T>::broadcast(2);
#if defined(MICFAST_HARDWARE_EXP2)
  return fma(two, one / (one + exp2(x)), Vec<T>::broadcast(-1));
#else
  return two / (one + exp2(x)) - one;
#endif
}

}  // namespace MICFAST_ISA
}  // namespace micfast
