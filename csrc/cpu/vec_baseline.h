// Register wrapper for every other processor: the vector types of gcc and clang, 128 bits wide
// (SSE2 on x86-64). No fused multiply-add: products are rounded.
#pragma once

#include <cmath>
#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
struct VecTraits;
template <>
struct VecTraits<float> {
  using Reg __attribute__((vector_size(16))) = float;
  using Bits __attribute__((vector_size(16))) = int32_t;
  using UnsignedBits __attribute__((vector_size(16))) = uint32_t;
  static constexpr int kWidth = 4;
};
template <>
struct VecTraits<double> {
  using Reg __attribute__((vector_size(16))) = double;
  using Bits __attribute__((vector_size(16))) = int64_t;
  using UnsignedBits __attribute__((vector_size(16))) = uint64_t;
  static constexpr int kWidth = 2;
};

template <class T>
struct Vec {
  using Reg = typename VecTraits<T>::Reg;
  using Bits = typename VecTraits<T>::Bits;
  static constexpr int kWidth = VecTraits<T>::kWidth;
  Reg v;
  static Vec load(const T* p) { return {*reinterpret_cast<const Reg*>(p)}; }
  static Vec broadcast(T x) { return {Reg{} + x}; }
  void store(T* p) const { *reinterpret_cast<Reg*>(p) = v; }
  template <class F>
  static Vec map(Vec a, F f) {
    for (int i = 0; i < kWidth; ++i) a.v[i] = f(a.v[i]);
    return a;
  }
  static Vec select(Bits mask, Vec then, Vec otherwise) {
    return {reinterpret_cast<Reg>((mask & reinterpret_cast<Bits>(then.v)) |
                                  (~mask & reinterpret_cast<Bits>(otherwise.v)))};
  }
};
constexpr int kVectorsPerBlock = 2;
template <class T>
constexpr int kMaxRows = 4;

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
  return {a.v / b.v};
}
template <class T>
MICFAST_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  return {a.v * b.v + c.v};
}
template <class T>
MICFAST_INLINE Vec<T> fnma(Vec<T> a, Vec<T> b, Vec<T> c) {
  return {c.v - a.v * b.v};
}
template <class T>
MICFAST_INLINE Vec<T> sqrt(Vec<T> a) {
  return Vec<T>::map(a, [](T x) { return std::sqrt(x); });
}
// max and min return their second argument where either is NaN.
template <class T>
MICFAST_INLINE Vec<T> max(Vec<T> a, Vec<T> b) {
  return Vec<T>::select(a.v > b.v, a, b);
}
template <class T>
MICFAST_INLINE Vec<T> min(Vec<T> a, Vec<T> b) {
  return Vec<T>::select(a.v < b.v, a, b);
}
template <class T>
MICFAST_INLINE Vec<T> if_zero(Vec<T> x, Vec<T> then, Vec<T> otherwise) {
  return Vec<T>::select(x.v == Vec<T>::broadcast(0).v, then, otherwise);
}

template <class T>
struct Exponent;
template <>
struct Exponent<float> {
  static constexpr int kMantissaBits = 23;
  static constexpr float kLimit = 125.f;
  static constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
};
template <>
struct Exponent<double> {
  static constexpr int kMantissaBits = 52;
  static constexpr double kLimit = 1021.;
  static constexpr double kRound = 6755399441055744.;  // 1.5 * 2^52
};

// Keeps 2^x and a factor near 1 a normal number; NaN passes.
template <class T>
MICFAST_INLINE Vec<T> clamp_exp2(Vec<T> x) {
  const T limit = Exponent<T>::kLimit;
  return min(Vec<T>::broadcast(limit), max(Vec<T>::broadcast(-limit), x));
}
// x - n for n = x rounded to the nearest integer
template <class T>
MICFAST_INLINE Vec<T> fraction(Vec<T> x) {
  const Vec<T> shift = Vec<T>::broadcast(Exponent<T>::kRound);
  return x - ((x + shift) - shift);
}
// p * 2^n for p near 1 and whole n as clamp_exp2 leaves it: adds n to p's exponent. The low bits of
// n + kRound hold n as an integer, and the shift drops all others. NaN in p stays NaN.
template <class T>
MICFAST_INLINE Vec<T> scale_by_pow2(Vec<T> p, Vec<T> n) {
  n = n + Vec<T>::broadcast(Exponent<T>::kRound);
  using Bits = typename VecTraits<T>::UnsignedBits;
  const Bits bits =
      reinterpret_cast<Bits>(p.v) + (reinterpret_cast<Bits>(n.v) << Exponent<T>::kMantissaBits);
  return {reinterpret_cast<typename Vec<T>::Reg>(bits)};
}

}  // namespace MICFAST_ISA
}  // namespace micfast
