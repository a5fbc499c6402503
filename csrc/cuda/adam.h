// What an inversion by Adam does between two passes through the sequence, whoever draws it.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// How far one pair has come.
template <class T>
struct AdamProgress {
  // It has converged when its lowest error fell by less than tol in this many iterations.
  static constexpr int64_t kPatience = 5;

  T lowest, lowest_before;
  T scale;         // what makes a mean of a sum over the target's values; NaN if it is not finite
  int32_t length;  // of the target
  int32_t n_iter_used;
  bool moving;

  static MICFAST_INLINE AdamProgress at_start(const SearchTile<T>& tile, double scale) {
    return {0, 0, static_cast<T>(scale), tile.length(), static_cast<int32_t>(tile.p.n_iter), true};
  }
  // After i iterations.
  MICFAST_INLINE void watch(T loss, int64_t i, double tol) {
    if (i == 0) lowest = lowest_before = loss;
    if (loss < lowest) lowest = loss;
    if (i == 0 || i % kPatience != 0) return;
    const T gain = lowest_before - lowest;
    // Written so that NaN stops, too.
    if (moving && !(gain > static_cast<T>(tol) * lowest_before)) {
      moving = false;
      n_iter_used = static_cast<int32_t>(i);
    }
    lowest_before = lowest;
  }
};

// What a component of the input, with gradient g, falls by.
template <class T>
MICFAST_INLINE T adam_step(const AdamSettings& adam, T g, T& moment1, T& moment2) {
  moment1 = fused(static_cast<T>(adam.beta1), moment1, static_cast<T>(1. - adam.beta1) * g);
  moment2 = fused(static_cast<T>(adam.beta2), moment2, static_cast<T>(1. - adam.beta2) * (g * g));
  return static_cast<T>(adam.lr) * moment1 / (sqrt(moment2) + static_cast<T>(adam.eps));
}

}  // namespace MICFAST_ISA
}  // namespace micfast
