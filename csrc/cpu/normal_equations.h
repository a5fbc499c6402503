// The damped Gauss-Newton step of one module, in double: J' J of the gates' weights, with the
// read-out eliminated.
//
// Where a step moves the outputs by J d, the read-out takes over what it can. With B = J' phi and
// G = phi' phi + ridge of each channel, what is left of the curvature is the Schur complement
// A = J' J - sum over channels of B G^-1 B'. With G = L L', Z = L^-1 B' is all that is needed.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

struct NormalEquations {
  static constexpr int64_t kBand = RowBands::kBand;
  // Curvature that a weight has at least, relative to the mean.
  static constexpr double kLeastScale = 1e-6;
  int64_t n, n_padded, n_read_out, n_outputs, n_grams;  // weights; H + 1; O
  RowBands A, damped;
  double* Z;         // [bands, O (H + 1), kBand]
  double* factors;   // [n_grams, H + 1, H + 1]: L of each channel
  double* gradient;  // [n]: J' r
  double* scale;     // [n]: the largest diagonal of J' J so far

  void take(Arena& arena, const Sizes& s, int64_t grams) {
    n = 4 * s.hidden_size * (s.hidden_size + 1 + s.input_size);
    n_read_out = s.hidden_size + 1;
    n_outputs = s.output_size;
    n_grams = grams;
    A.take(arena, n);
    damped.take(arena, n);
    n_padded = A.n_bands * kBand;
    Z = arena.take<double>(n_padded * n_outputs * n_read_out);
    factors = arena.take<double>(n_grams * n_read_out * n_read_out);
    gradient = arena.take<double>(n);
    scale = arena.take<double>(n);
  }

  int64_t n_onto() const { return n_outputs * n_read_out; }
  double& z(int64_t k, int64_t p) const {
    return Z[(p / kBand * n_onto() + k) * kBand + p % kBand];
  }

  void start(const ReadOutSystem& system) const {
    A.clear();
    for (int64_t j = 0; j < n_padded * n_onto(); ++j) Z[j] = 0;
    for (int64_t p = 0; p < n; ++p) gradient[p] = 0;
    for (int64_t j = 0; j < n_grams * n_read_out * n_read_out; ++j) factors[j] = system.G[j];
  }

  // Adds what lies in blocks [first, last) of the sums, and between them and the blocks before.
  template <class T>
  void add(const JacobianSums<T>& sums, int64_t first, int64_t last) const {
    constexpr int64_t row = kLanes<T>;
    for (int64_t j = first; j < last; ++j)
      for (int64_t l = 0; l < row; ++l) {
        const int64_t q = sums.weight_at(j, l);
        if (q < 0) continue;
        for (int64_t i = 0; i <= j; ++i) {
          const T* from = sums.tile(i, j) + l;
          const int64_t end = i < j ? row : l + 1;
          if (i < sums.n_shared) {  // the weights' numbers are their places there, and below q
            for (int64_t r = 0; r < end && i * row + r < sums.n_recurrent; ++r)
              A.at(q, i * row + r) += static_cast<double>(from[r * row]);
            continue;
          }
          for (int64_t r = 0; r < end; ++r) {
            const int64_t p = sums.weight_at(i, r);
            if (p >= 0) A.at(p > q ? p : q, p > q ? q : p) += static_cast<double>(from[r * row]);
          }
        }
        for (int64_t o = 0; o < n_outputs; ++o) {
          const T* from = sums.onto_of(j, o) + l;
          for (int64_t k = 0; k < n_read_out; ++k)
            z(o * n_read_out + k, q) += static_cast<double>(from[k * row]);
          gradient[q] += static_cast<double>(from[n_read_out * row]);
        }
      }
  }

  // Once all is added: notes the diagonal, and eliminates the read-out.
  void finish() const {
    double mean = 0;
    for (int64_t p = 0; p < n; ++p) mean += A.at(p, p) / static_cast<double>(n);
    for (int64_t p = 0; p < n; ++p) {
      const double least = kLeastScale * mean;
      const double own = A.at(p, p) > least ? A.at(p, p) : least;
      if (!(scale[p] > own)) scale[p] = own;
    }
    for (int64_t i = 0; i < A.n_bands; ++i)
      for (int64_t o = 0; o < n_outputs; ++o) {
        const double* L = factor_of(o);
        double* rows = Z + (i * n_onto() + o * n_read_out) * kBand;
        for (int64_t r = 0; r < n_read_out; ++r) {
          for (int64_t k = 0; k < r; ++k)
            for (int64_t l = 0; l < kBand; ++l)
              rows[r * kBand + l] -= L[r * n_read_out + k] * rows[k * kBand + l];
          for (int64_t l = 0; l < kBand; ++l) rows[r * kBand + l] /= L[r * n_read_out + r];
        }
      }
    const auto band = [&](int64_t i) { return Z + i * n_onto() * kBand; };
    for (int64_t i = 0; i < A.n_bands; ++i)
      for (int64_t j = 0; j <= i; ++j) subtract_products(A.tile(i, j), band(j), band(i), n_onto());
  }

  const double* factor_of(int64_t o) const {
    return factors + (n_grams > 1 ? o : 0) * n_read_out * n_read_out;
  }

  // Factors A + damping scale; false where that is not positive definite.
  bool factor_damped(double damping) const {
    damped.copy_of(A);
    for (int64_t p = 0; p < n; ++p) damped.at(p, p) += damping * scale[p];
    return factor(damped);
  }

  double length(const double* d) const {
    double sum = 0;
    for (int64_t p = 0; p < n; ++p) sum += scale[p] * d[p] * d[p];
    return sum;
  }

  // How the read-out [O, H + 1] answers a step d of the gates' weights: -G^-1 B' d.
  void answer(const double* d, double* read_out) const {
    for (int64_t o = 0; o < n_outputs; ++o) {
      double* own = read_out + o * n_read_out;
      for (int64_t k = 0; k < n_read_out; ++k) {
        own[k] = 0;
        for (int64_t p = 0; p < n; ++p) own[k] -= z(o * n_read_out + k, p) * d[p];
      }
      solve_upper_small(factor_of(o), n_read_out, own);
    }
  }

  // x -= B G^-1 v, for v [O, H + 1], which is overwritten.
  void eliminate(double* v, double* x) const {
    for (int64_t o = 0; o < n_outputs; ++o) {
      double* own = v + o * n_read_out;
      solve_lower_small(factor_of(o), n_read_out, own);
      for (int64_t k = 0; k < n_read_out; ++k)
        for (int64_t p = 0; p < n; ++p) x[p] -= z(o * n_read_out + k, p) * own[k];
    }
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
