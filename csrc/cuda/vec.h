// Register wrapper of a CUDA thread: one lane wide, so that activations.h, lstm_cell.h and philox.h
// serve here as they serve the CPU.
#pragma once

#include <cmath>
#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
struct Vec {
  static constexpr int kWidth = 1;
  T v;
  static MICFAST_INLINE Vec broadcast(T x) { return {x}; }
};
using VecF = Vec<float>;
using VecD = Vec<double>;

template <class T>
MICFAST_INLINE Vec<T> operator+(Vec<T> a, Vec<T> b) {
  return {a.v + b.v};
}
template <class T>
MICFAST_INLINE Vec<T> operator-(Vec<T> a, Vec<T> b) {
  return {a.v - b.v};
}
template <class T>
MICFAST_INLINE Vec<T> operator*(Vec<T> a, Vec<T> b) {
  return {a.v * b.v};
}
template <class T>
MICFAST_INLINE Vec<T> operator/(Vec<T> a, Vec<T> b) {
  return {quotient(a.v, b.v)};
}
template <class T>
MICFAST_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  return {fused(a.v, b.v, c.v)};
}
template <class T>
MICFAST_INLINE Vec<T> fnma(Vec<T> a, Vec<T> b, Vec<T> c) {
  return {fused(-a.v, b.v, c.v)};
}

// One instruction of the special function unit in float32 (2^x to 2 units in the last place, 0 and
// infinity beyond the range, NaN kept).
#define MICFAST_HARDWARE_EXP2
template <class T>
MICFAST_INLINE Vec<T> exp2(Vec<T> x) {
  return {::exp2(x.v)};
}
template <>
MICFAST_INLINE VecF exp2(VecF x) {
  return {::exp2f(x.v)};
}

}  // namespace MICFAST_ISA
}  // namespace micfast
