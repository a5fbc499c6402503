// The maps that may follow the read-out, and their slopes, over a lane vector.
#pragma once

namespace micfast {
namespace MICFAST_ISA {

// A map's value and its derivative at a point.
template <class T>
struct Mapped {
  Vec<T> value, slope;
};

struct TanhMap {
  template <class T>
  static MICFAST_INLINE Mapped<T> at(Vec<T> x) {
    const Vec<T> y = tanh_of_scaled(x * Vec<T>::broadcast(kTanhScale<T>));
    return {y, fnma(y, y, Vec<T>::broadcast(1))};
  }
};

struct SigmoidMap {
  template <class T>
  static MICFAST_INLINE Mapped<T> at(Vec<T> x) {
    const Vec<T> y = sigmoid_of_scaled(x * Vec<T>::broadcast(kSigmoidScale<T>));
    return {y, fnma(y, y, y)};
  }
};

// Ends at 2^125 in float32 and 2^1021 in float64, and at their inverses: see clamp_exp2.
struct ExpMap {
  template <class T>
  static MICFAST_INLINE Mapped<T> at(Vec<T> x) {
    const Vec<T> y = exp2(x * Vec<T>::broadcast(-kSigmoidScale<T>));
    return {y, y};
  }
};

// ln(1 + e^x) = max(x, 0) + ln(1 + e), e = e^-|x|, and ln(1 + e) = 2 artanh(s), s = e / (2 + e).
// Its series in s^2 <= 1/9 is cut off below a rounding.
struct SoftplusMap {
  template <class T>
  static MICFAST_INLINE Mapped<T> at(Vec<T> x) {
    constexpr int kTerms = sizeof(T) == 4 ? 8 : 17;
    const Vec<T> zero = Vec<T>::broadcast(0);
    const Vec<T> e = exp2(max(x, zero - x) * Vec<T>::broadcast(kSigmoidScale<T>));
    const Vec<T> s = e / (Vec<T>::broadcast(2) + e), q = s * s;
    Vec<T> series = Vec<T>::broadcast(static_cast<T>(1) / (2 * kTerms + 1));
    for (int n = kTerms - 1; n >= 0; --n)
      series = fma(series, q, Vec<T>::broadcast(static_cast<T>(1) / static_cast<T>(2 * n + 1)));
    return {max(zero, x) + (s + s) * series,
            sigmoid_of_scaled(x * Vec<T>::broadcast(kSigmoidScale<T>))};
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
