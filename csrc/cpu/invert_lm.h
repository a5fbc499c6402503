// Inversion by Levenberg and Marquardt's method: damped Gauss-Newton steps of the input vectors of
// one block of lanes. The lanes share the passes through the generators (tangent.h); the K x K
// algebra between two passes is done for each lane alone, in double precision.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// The quadratic model of one lane: with r the residuals and J their derivatives by the input, the
// sum of squares at z + d is about |r|^2 + 2 g d + d A d.
struct QuadraticModel {
  double* A;  // [K, K] = J'J, symmetric
  double* g;  // [K] = J'r
  double* z;  // [K]
};

struct StepScratch {
  double *L, *x1, *x2;  // [K, K], [K], [K]
  int64_t* free;        // [K]
  void take(Arena& arena, int64_t n_inputs) {
    L = arena.take<double>(n_inputs * n_inputs);
    x1 = arena.take<double>(n_inputs);
    x2 = arena.take<double>(n_inputs);
    free = arena.take<int64_t>(n_inputs);
  }
};

// What a unit step changes on average: the mean eigenvalue of A, in the plane of constant sum where
// `simplex`. The damping is relative to it, so that the scale of the data does not matter.
inline double mean_curvature(const QuadraticModel& m, int64_t K, bool simplex) {
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
inline void factorise(double* L, int64_t n) {
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = j; i < n; ++i) {
      double sum = L[i * n + j];
      for (int64_t k = 0; k < j; ++k) sum -= L[i * n + k] * L[j * n + k];
      L[i * n + j] = i == j ? __builtin_sqrt(sum) : sum / L[j * n + j];
    }
}
inline void solve(const double* L, int64_t n, double* x) {
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
// and one that would make its input negative takes it to 0 while the others are solved again.
inline void damped_step(const QuadraticModel& m, int64_t K, bool simplex, double mu,
                        const StepScratch& scratch, double* d) {
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
      if (simplex && m.z[i] + d[i] < 0)
        d[i] = -m.z[i];
      else
        scratch.free[n_left++] = i;
    }
    if (n_left == n_free) return;
    n_free = n_left;
  }
}

template <class Layout, class T>
struct LevenbergMarquardt {
  static constexpr int64_t row = kLanes<T>;
  static constexpr double kLeastDamping = 1e-9, kMostDamping = 1e9;
  // Keeps the equations solvable where the output does not depend on the input at all.
  static constexpr double kLeastCurvature = 1e-30;

  // One lane's search. The model belongs to the best input found so far.
  struct Lane {
    QuadraticModel model;
    double* step;         // [K]
    double error;         // the lowest so far
    double damping;       // relative, see mean_curvature()
    double growth;        // of the damping, at the next step that fails
    double predicted;     // decrease of the error that the model promises for the step
    double error_scale;   // of a sum of squares, see SearchBlock::gather
    int32_t n_iter_used;  // measured so far
    bool finished;        // stopped by tol, or there is nothing to search
    bool converged;
  };

  const InvertLMProblem<T>& p;
  Sizes s;  // with the steps of the block at work
  const int64_t K, n_directions;
  PackedWeights<Layout, T> weights;
  TangentState<T> state;
  LeastSquares<T> sums;
  StepScratch scratch;
  T* target;          // [T, O]
  T* x;               // [1 + D, K]: the input to measure next, and the directions
  T *error, *latent;  // one lane row, [K]: as the results are given
  Lane* lanes;        // [row]

  LevenbergMarquardt(const InvertLMProblem<T>& problem, Arena& arena)
      : p(problem),
        s(problem.search.sizes),
        K(s.input_size),
        n_directions(problem.search.n_iter > 0 ? K - (problem.simplex ? 1 : 0) : 0) {
    weights.take(arena, s);
    state.take(arena, s, n_directions);
    sums.take(arena, n_directions);
    scratch.take(arena, K);
    target = arena.take<T>(s.n_steps * s.output_size * row);
    x = arena.take<T>((1 + n_directions) * K * row);
    error = arena.take<T>(row);
    latent = arena.take<T>(K * row);
    lanes = arena.take<Lane>(row);
    for (int l = 0; l < row; ++l) {
      const QuadraticModel model{arena.take<double>(K * K), arena.take<double>(K),
                                 arena.take<double>(K)};
      double* step = arena.take<double>(K);
      if (arena.base) lanes[l] = {model, step, 0, p.damping, 2, 0, 0, 0, false, false};
    }
  }

  void start(const SearchBlock<T>& block) {
    s.n_steps = block.n_steps;
    pack_block(block.blocks, block.item, s, p.search.weights, weights);
    for (int l = 0; l < row; ++l) lanes[l].error_scale = block.gather(l, target, x);
    if (p.simplex) project(x, K);
    // On the simplex the directions lead from its last corner to each of the others.
    clear(x + K * row, n_directions * K);
    for (int64_t d = 0; d < n_directions; ++d)
      for (int l = 0; l < row; ++l) {
        T* direction = x + (1 + d) * K * row + l;
        direction[d * row] = 1;
        if (p.simplex) direction[(K - 1) * row] = -1;
      }
  }

  // Takes what was measured at x as the lane's best point.
  void accept(Lane& lane, int l, double error_at_x) {
    lane.error = error_at_x;
    double* A = lane.model.A;
    for (int64_t i = 0; i < K * K; ++i) A[i] = 0;
    const T* normal = sums.normal + l;
    for (int64_t i = 0; i < n_directions; ++i)
      for (int64_t j = 0; j <= i; ++j, normal += row)
        A[i * K + j] = A[j * K + i] = static_cast<double>(*normal);
    for (int64_t k = 0; k < K; ++k) {
      lane.model.g[k] = k < n_directions ? static_cast<double>(sums.gradient[k * row + l]) : 0;
      lane.model.z[k] = static_cast<double>(x[k * row + l]);
    }
  }

  // Judges the point just measured: keeps it or not, sets the damping by Nielsen's rule (report
  // IMM-REP-1999-05), and sees whether the search is over.
  void judge(Lane& lane, int l, int64_t i) {
    if (lane.finished) return;
    const double measured = static_cast<double>(sums.squares[l]) * lane.error_scale;
    if (i == 0) {
      accept(lane, l, measured);
      lane.finished = measured != measured;
      return;
    }
    lane.n_iter_used = static_cast<int32_t>(i);
    const double before = lane.error, decrease = before - measured;
    if (decrease > 0) {
      const double q = 2 * decrease / lane.predicted - 1, factor = 1 - q * q * q;
      lane.damping *= factor > 1. / 3 ? factor : 1. / 3;
      if (lane.damping < kLeastDamping) lane.damping = kLeastDamping;
      lane.growth = 2;
      accept(lane, l, measured);
    } else {
      lane.damping *= lane.growth;
      if (lane.damping > kMostDamping) lane.damping = kMostDamping;
      lane.growth *= 2;
    }
    // Where a step failed, what it promised is all that is left to gain.
    const double gain = decrease > 0 ? decrease : lane.predicted;
    lane.converged = lane.finished = p.search.tol > 0 && gain <= p.search.tol * before;
  }

  // Where to measure next: the damped step from the best point.
  void propose(Lane& lane, int l) {
    const QuadraticModel& m = lane.model;
    double* d = lane.step;
    const double mu = lane.damping * mean_curvature(m, K, p.simplex);
    damped_step(m, K, p.simplex, mu > kLeastCurvature ? mu : kLeastCurvature, scratch, d);
    double change = 0, sum = 0;
    for (int64_t i = 0; i < K; ++i) {
      double slope = 2 * m.g[i];
      for (int64_t j = 0; j < K; ++j) slope += m.A[i * K + j] * d[j];
      change += slope * d[i];
    }
    lane.predicted = -change * lane.error_scale;
    for (int64_t k = 0; k < K; ++k) {
      d[k] += m.z[k];  // the next input from here on
      if (p.simplex && d[k] < 0) d[k] = 0;
      sum += d[k];
    }
    for (int64_t k = 0; k < K; ++k) x[k * row + l] = static_cast<T>(p.simplex ? d[k] / sum : d[k]);
  }

  void write_results() {
    for (int l = 0; l < row; ++l) {
      error[l] = static_cast<T>(lanes[l].error);
      for (int64_t k = 0; k < K; ++k) latent[k * row + l] = static_cast<T>(lanes[l].model.z[k]);
    }
  }

  void run(int64_t item, Monitor* monitor) {
    const SearchProblem<T>& search = p.search;
    const SearchBlock<T> block(search, item);
    start(block);
    for (int64_t i = 0; i <= search.n_iter; ++i) {
      // Nothing follows the last point, so its derivatives are left out.
      const int64_t n_wanted = i < search.n_iter ? n_directions : 0;
      measure_with_tangents(s, weights, x, n_wanted, target, search.counts != nullptr, state, sums);
      bool finished = true;
      for (int l = 0; l < row; ++l) {
        judge(lanes[l], l, i);
        finished = finished && lanes[l].finished;
        if (n_wanted && !lanes[l].finished) propose(lanes[l], l);
      }
      write_results();
      block.record_history(i, error, latent);
      if (!monitor->tick(monitor, 1)) return;
      // A history wants every row, also where nothing moves.
      if (finished && !search.error_history) break;
    }
    block.record_result(error, latent);
    for (int l = 0; l < block.n_lanes(); ++l) {
      search.n_iter_used[block.index(l)] = lanes[l].n_iter_used;
      search.converged[block.index(l)] = lanes[l].converged;
    }
  }
};

template <class T>
using InvertLMJob = SearchJob<LevenbergMarquardt, InvertLMProblem, T>;

}  // namespace MICFAST_ISA
}  // namespace micfast
