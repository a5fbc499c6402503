// The Levenberg-Marquardt method for one search: the K x K algebra and the rules between two
// passes through the generator, in double precision. What the passes measure, and how, is the
// kernel's (cpu/tangent.h, cuda/invert_lm.h).
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// The quadratic model of one search: with r the residuals and J their derivatives by the input, the
// sum of squares at z + d is about |r|^2 + 2 g d + d A d.
struct QuadraticModel {
  double* A;  // [K, K] = J'J, symmetric
  double* g;  // [K] = J'r
  double* z;  // [K]
};

struct StepScratch {
  double *L, *x1, *x2;  // [K, K], [K], [K]
  int64_t* free;        // [K]
};

// What a unit step changes on average: the mean eigenvalue of A, in the plane of constant sum where
// `simplex`. The damping is relative to it, so that the scale of the data does not matter.
MICFAST_DEVICE inline double mean_curvature(const QuadraticModel& m, int64_t K, bool simplex) {
  double trace = 0, total = 0;
  for (int64_t i = 0; i < K; ++i) {
    trace += m.A[i * K + i];
    for (int64_t j = 0; j < K; ++j) total += m.A[i * K + j];
  }
  if (!simplex) return trace / static_cast<double>(K);
  return K == 1 ? 0 : (trace - total / static_cast<double>(K)) / static_cast<double>(K - 1);
}

// In place: the Cholesky factor of a symmetric n x n matrix (lower triangle), and the solution of
// L L' x = x.
MICFAST_DEVICE inline void factorise(double* L, int64_t n) {
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = j; i < n; ++i) {
      double sum = L[i * n + j];
      for (int64_t k = 0; k < j; ++k) sum -= L[i * n + k] * L[j * n + k];
      L[i * n + j] = i == j ? __builtin_sqrt(sum) : sum / L[j * n + j];
    }
}
MICFAST_DEVICE inline void solve(const double* L, int64_t n, double* x) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < i; ++k) x[i] -= L[i * n + k] * x[k];
    x[i] /= L[i * n + i];
  }
  for (int64_t i = n - 1; i >= 0; --i) {
    for (int64_t k = i + 1; k < n; ++k) x[i] -= L[k * n + i] * x[k];
    x[i] /= L[i * n + i];
  }
}

// The step d [K] that minimises 2 g d + d (A + mu) d. On the simplex the components of d sum to 0,
// and one that would make its input negative takes it to 0 while the others are solved again. So
// does one that would leave the `bounds` [2, K], if there are any.
MICFAST_DEVICE inline void damped_step(const QuadraticModel& m, int64_t K, bool simplex, double mu,
                                       const StepScratch& scratch, double* d,
                                       const double* bounds = nullptr) {
  int64_t n_free = K;
  for (int64_t i = 0; i < K; ++i) scratch.free[i] = i;
  for (int64_t i = 0; i < K; ++i) d[i] = 0;
  for (;;) {
    double excess = 0;  // what the free components must take over from the fixed ones
    for (int64_t a = 0; a < n_free; ++a) {
      const int64_t i = scratch.free[a];
      for (int64_t b = 0; b <= a; ++b)
        scratch.L[a * n_free + b] = m.A[i * K + scratch.free[b]] + (a == b ? mu : 0);
      d[i] = 0;
    }
    for (int64_t i = 0; i < K; ++i) excess -= d[i];
    for (int64_t a = 0; a < n_free; ++a) {
      const int64_t i = scratch.free[a];
      double sum = m.g[i];
      for (int64_t j = 0; j < K; ++j) sum += m.A[i * K + j] * d[j];
      scratch.x1[a] = -sum;
      scratch.x2[a] = 1;
    }
    factorise(scratch.L, n_free);
    solve(scratch.L, n_free, scratch.x1);
    double shift = 0;  // Lagrange's multiplier of the constant sum
    if (simplex) {
      solve(scratch.L, n_free, scratch.x2);
      double sum1 = 0, sum2 = 0;
      for (int64_t a = 0; a < n_free; ++a) {
        sum1 += scratch.x1[a];
        sum2 += scratch.x2[a];
      }
      shift = (excess - sum1) / sum2;
    }
    int64_t n_left = 0;
    for (int64_t a = 0; a < n_free; ++a) {
      const int64_t i = scratch.free[a];
      d[i] = scratch.x1[a] + shift * scratch.x2[a];
      const double next = m.z[i] + d[i];
      if (simplex && next < 0)
        d[i] = -m.z[i];
      else if (bounds && next < bounds[i])
        d[i] = bounds[i] - m.z[i];
      else if (bounds && next > bounds[K + i])
        d[i] = bounds[K + i] - m.z[i];
      else
        scratch.free[n_left++] = i;
    }
    if (n_left == n_free) return;
    n_free = n_left;
  }
}

constexpr double kLeastDamping = 1e-9, kMostDamping = 1e9;
// Keeps the equations solvable where the output does not depend on the input at all.
constexpr double kLeastCurvature = 1e-30;

// How far a search has come. The model belongs to the best input found so far.
struct DampedSearch {
  QuadraticModel model;
  double* step;         // [K]: the next input, once proposed
  double error;         // the lowest so far
  double damping;       // relative, see mean_curvature()
  double growth;        // of the damping, at the next step that fails
  double predicted;     // decrease of the error that the model promises for the step
  double error_scale;   // makes an error of a sum of squares; NaN if the target is not finite
  int32_t n_iter_used;  // measured so far
  bool finished;        // stopped by tol, or there is nothing to search
  bool converged;
};

// Judges the point just measured, number i: sets the damping by Nielsen's rule (report
// IMM-REP-1999-05) and sees whether the search is over. Answers whether the point is the best so
// far; the caller then makes its model that of the search.
MICFAST_DEVICE inline bool judge(DampedSearch& search, double sum_of_squares, int64_t i,
                                 double tol) {
  if (search.finished) return false;
  const double measured = sum_of_squares * search.error_scale;
  if (i == 0) {
    search.error = measured;
    search.finished = measured != measured;
    return true;
  }
  search.n_iter_used = static_cast<int32_t>(i);
  const double before = search.error, decrease = before - measured;
  if (decrease > 0) {
    const double q = 2 * decrease / search.predicted - 1, factor = 1 - q * q * q;
    search.damping *= factor > 1. / 3 ? factor : 1. / 3;
    if (search.damping < kLeastDamping) search.damping = kLeastDamping;
    search.growth = 2;
    search.error = measured;
  } else {
    search.damping *= search.growth;
    if (search.damping > kMostDamping) search.damping = kMostDamping;
    search.growth *= 2;
  }
  // Where a step failed, what it promised is all that is left to gain.
  const double gain = decrease > 0 ? decrease : search.predicted;
  search.converged = search.finished = tol > 0 && gain <= tol * before;
  return decrease > 0;
}

// Where to measure next, in search.step: the damped step from the best point.
MICFAST_DEVICE inline void propose(DampedSearch& search, int64_t K, bool simplex,
                                   const StepScratch& scratch, const double* bounds = nullptr) {
  const QuadraticModel& m = search.model;
  double* d = search.step;
  const double mu = search.damping * mean_curvature(m, K, simplex);
  damped_step(m, K, simplex, mu > kLeastCurvature ? mu : kLeastCurvature, scratch, d, bounds);
  double change = 0, sum = 0;
  for (int64_t i = 0; i < K; ++i) {
    double slope = 2 * m.g[i];
    for (int64_t j = 0; j < K; ++j) slope += m.A[i * K + j] * d[j];
    change += slope * d[i];
  }
  search.predicted = -change * search.error_scale;
  for (int64_t k = 0; k < K; ++k) {
    d[k] += m.z[k];  // the next input from here on
    if (simplex && d[k] < 0) d[k] = 0;
    if (bounds && d[k] < bounds[k]) d[k] = bounds[k];
    if (bounds && d[k] > bounds[K + k]) d[k] = bounds[K + k];
    sum += d[k];
  }
  if (simplex)
    for (int64_t k = 0; k < K; ++k) d[k] /= sum;
}

}  // namespace MICFAST_ISA
}  // namespace micfast
