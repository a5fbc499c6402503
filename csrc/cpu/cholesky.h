// Symmetric positive definite systems in double precision.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// Turns the lower triangle of A [n, n] into L with L L' = A, row by row. For systems of a few dozen
// unknowns; where A is not positive definite, L holds NaN.
inline void factor_small(double* A, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double sum = A[i * n + j];
      for (int64_t k = 0; k < j; ++k) sum -= A[i * n + k] * A[j * n + k];
      A[i * n + j] = j < i ? sum / A[j * n + j] : __builtin_sqrt(sum);
    }
}

// Replaces x by the solution of L L' x = x.
inline void solve_small(const double* L, int64_t n, double* x) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < i; ++k) x[i] -= L[i * n + k] * x[k];
    x[i] /= L[i * n + i];
  }
  for (int64_t i = n - 1; i >= 0; --i) {
    x[i] /= L[i * n + i];
    for (int64_t k = 0; k < i; ++k) x[k] -= L[i * n + k] * x[i];
  }
}

}  // namespace MICFAST_ISA
}  // namespace micfast
