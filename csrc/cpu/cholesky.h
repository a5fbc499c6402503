// Symmetric positive definite systems in double precision, by Cholesky's method.
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

// Replaces x by the solution of L x = x, or L' x = x.
inline void solve_lower_small(const double* L, int64_t n, double* x) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < i; ++k) x[i] -= L[i * n + k] * x[k];
    x[i] /= L[i * n + i];
  }
}
inline void solve_upper_small(const double* L, int64_t n, double* x) {
  for (int64_t i = n - 1; i >= 0; --i) {
    x[i] /= L[i * n + i];
    for (int64_t k = 0; k < i; ++k) x[k] -= L[i * n + k] * x[i];
  }
}

// The lower triangle of a symmetric matrix of many rows, in bands of kBand rows: column by column
// within a band, as multiply_add() reads both of its factors. Rows past n are those of the unit
// matrix.
struct RowBands {
  static constexpr int64_t kBand = kLanes<double>;
  // Bands whose columns are finished before what follows them is updated: what an update reads
  // stays in the first cache.
  static constexpr int64_t kPanel = 128 / kBand;
  int64_t n, n_bands;
  double* values;

  void take(Arena& arena, int64_t rows) {
    n = rows;
    n_bands = (rows + kBand - 1) / kBand;
    values = arena.take<double>(n_values());
  }
  int64_t n_values() const { return n_bands * n_bands * kBand * kBand; }
  double* band(int64_t i) const { return values + i * n_bands * kBand * kBand; }
  double* tile(int64_t i, int64_t j) const { return band(i) + j * kBand * kBand; }
  double& at(int64_t r, int64_t c) const { return band(r / kBand)[c * kBand + r % kBand]; }

  void clear() const {
    for (int64_t j = 0; j < n_values(); ++j) values[j] = 0;
    for (int64_t r = n; r < n_bands * kBand; ++r) at(r, r) = 1;
  }
  void copy_of(const RowBands& other) const {
    for (int64_t i = 0; i < n_bands; ++i)
      for (int64_t j = 0; j < (i + 1) * kBand * kBand; ++j) band(i)[j] = other.band(i)[j];
  }
};

// tile [kBand, kBand] -= sum over k < n of w[k] x[k]', columns w by rows x.
inline void subtract_products(double* tile, const double* w, const double* x, int64_t n) {
  constexpr int64_t kBand = RowBands::kBand;
  alignas(64) double sums[kBand * kBand];
  clear(sums, kBand);
  multiply_add<SharedWeights>(sums, kBand, w, x, n);
  for (int64_t j = 0; j < kBand * kBand; ++j) tile[j] -= sums[j];
}

inline bool factor_tile(double* tile, double* inverse_root) {
  constexpr int64_t kBand = RowBands::kBand;
  for (int64_t c = 0; c < kBand; ++c) {
    double* column = tile + c * kBand;
    for (int64_t k = 0; k < c; ++k)
      for (int64_t l = c; l < kBand; ++l) column[l] -= tile[k * kBand + c] * tile[k * kBand + l];
    if (!(column[c] > 0)) return false;
    column[c] = __builtin_sqrt(column[c]);
    inverse_root[c] = 1 / column[c];
    for (int64_t l = c + 1; l < kBand; ++l) column[l] *= inverse_root[c];
  }
  return true;
}

// Turns A into L with L L' = A. Answers false where A is not positive definite.
inline bool factor(const RowBands& A) {
  constexpr int64_t kBand = RowBands::kBand, kPanel = RowBands::kPanel;
  double inverse_root[kBand];
  for (int64_t first = 0; first < A.n_bands; first += kPanel) {
    const int64_t last = first + kPanel < A.n_bands ? first + kPanel : A.n_bands;
    for (int64_t j = first; j < last; ++j) {
      double* diagonal = A.tile(j, j);
      for (int64_t i = j; i < A.n_bands; ++i) {
        double* tile = A.tile(i, j);
        subtract_products(tile, A.tile(j, first), A.tile(i, first), (j - first) * kBand);
        if (i == j) {
          if (!factor_tile(diagonal, inverse_root)) return false;
          continue;
        }
        for (int64_t c = 0; c < kBand; ++c) {
          double* column = tile + c * kBand;
          for (int64_t k = 0; k < c; ++k)
            for (int64_t l = 0; l < kBand; ++l)
              column[l] -= diagonal[k * kBand + c] * tile[k * kBand + l];
          for (int64_t l = 0; l < kBand; ++l) column[l] *= inverse_root[c];
        }
      }
    }
    for (int64_t j = last; j < A.n_bands; ++j)
      for (int64_t i = j; i < A.n_bands; ++i)
        subtract_products(A.tile(i, j), A.tile(j, first), A.tile(i, first), (last - first) * kBand);
  }
  return true;
}

// Replaces x [n_bands kBand] by the solution of L L' x = x.
inline void solve(const RowBands& L, double* x) {
  constexpr int64_t kBand = RowBands::kBand;
  for (int64_t i = 0; i < L.n_bands; ++i) {
    double* own = x + i * kBand;
    for (int64_t k = 0; k < i * kBand; ++k)
      for (int64_t l = 0; l < kBand; ++l) own[l] -= L.band(i)[k * kBand + l] * x[k];
    const double* tile = L.tile(i, i);
    for (int64_t c = 0; c < kBand; ++c) {
      own[c] /= tile[c * kBand + c];
      for (int64_t l = c + 1; l < kBand; ++l) own[l] -= tile[c * kBand + l] * own[c];
    }
  }
  for (int64_t i = L.n_bands - 1; i >= 0; --i) {
    double* own = x + i * kBand;
    const double* tile = L.tile(i, i);
    for (int64_t c = kBand - 1; c >= 0; --c) {
      for (int64_t l = c + 1; l < kBand; ++l) own[c] -= tile[c * kBand + l] * own[l];
      own[c] /= tile[c * kBand + c];
    }
    for (int64_t k = 0; k < i * kBand; ++k)
      for (int64_t l = 0; l < kBand; ++l) x[k] -= L.band(i)[k * kBand + l] * own[l];
  }
}

}  // namespace MICFAST_ISA
}  // namespace micfast
