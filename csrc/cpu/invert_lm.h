// Inversion by the Levenberg-Marquardt method: damped Gauss-Newton steps of the input vectors of
// one block of lanes. The lanes share the passes through the generators (tangent.h); what comes
// between two passes (levenberg_marquardt.h) is done for each lane alone.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class Layout, class T, class Cell>
struct LevenbergMarquardt {
  static constexpr int64_t row = kLanes<T>;

  const InvertLMProblem<T>& p;
  Sizes s;  // with the steps of the block at work
  const int64_t K, n_directions;
  PackedWeights<Layout, T, Cell> weights;
  typename TangentStateOf<Layout, T>::Tangent state;
  LeastSquares<T> sums;
  StepScratch scratch;
  T* target;            // [T, O]
  T* x;                 // [1 + D, K]: the input to measure next, and the directions
  T *error, *latent;    // one lane row, [K]: as the results are given
  DampedSearch* lanes;  // [row]

  LevenbergMarquardt(const InvertLMProblem<T>& problem, Arena& arena)
      : p(problem),
        s(problem.search.sizes),
        K(s.input_size),
        n_directions(problem.search.n_iter > 0 ? K - (problem.simplex ? 1 : 0) : 0) {
    weights.take(arena, s, p.search.weights);
    state.take(arena, s, n_directions, p.search.weights);
    sums.take(arena, n_directions);
    scratch = {arena.take<double>(K * K), arena.take<double>(K), arena.take<double>(K),
               arena.take<int64_t>(K)};
    target = arena.take<T>(s.n_steps * s.output_size * row);
    x = arena.take<T>((1 + n_directions) * K * row);
    error = arena.take<T>(row);
    latent = arena.take<T>(K * row);
    lanes = arena.take<DampedSearch>(row);
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
    set_targets(state, block.n_lanes());
    for (int l = 0; l < row; ++l) lanes[l].error_scale = block.gather(l, target, x);
    constrain(x, p.simplex, p.search.objective, K);
    // On the simplex the directions lead from its last corner to each of the others.
    clear(x + K * row, n_directions * K);
    for (int64_t d = 0; d < n_directions; ++d)
      for (int l = 0; l < row; ++l) {
        T* direction = x + (1 + d) * K * row + l;
        direction[d * row] = 1;
        if (p.simplex) direction[(K - 1) * row] = -1;
      }
  }

  // Half the prior's curvature, in the units of the sum of squares; 0 without a prior.
  double prior_curvature(int l) const {
    const double weight = p.search.objective.prior_weight;
    return weight == 0 ? 0 : weight / lanes[l].error_scale;
  }

  // The sum of squares at x, with the prior as further residuals.
  double sum_of_squares(int l) const {
    double sum = static_cast<double>(sums.squares[l]);
    if (p.search.objective.prior_weight == 0) return sum;
    for (int64_t k = 0; k < K; ++k) {
      const double d = static_cast<double>(x[k * row + l]) - p.search.objective.prior_mean[k];
      sum += prior_curvature(l) * d * d;
    }
    return sum;
  }

  // Takes what was measured at x as the lane's best point.
  void accept(DampedSearch& lane, int l) {
    double* A = lane.model.A;
    for (int64_t i = 0; i < K * K; ++i) A[i] = 0;
    const T* normal = sums.normal + l;
    for (int64_t i = 0; i < n_directions; ++i)
      for (int64_t j = 0; j <= i; ++j, normal += row)
        A[i * K + j] = A[j * K + i] = static_cast<double>(*normal);
    for (int64_t k = 0; k < K; ++k) {
      lane.model.g[k] = k < n_directions ? static_cast<double>(sums.gradient[k * row + l]) : 0;
      lane.model.z[k] = static_cast<double>(x[k * row + l]);
      if (p.search.objective.prior_weight == 0) continue;
      A[k * K + k] += prior_curvature(l);
      lane.model.g[k] += prior_curvature(l) * (lane.model.z[k] - p.search.objective.prior_mean[k]);
    }
  }

  void write_results(int n_lanes) {
    for (int l = 0; l < n_lanes; ++l) {
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
      const Wanted<T> wanted = {target, search.objective.weights, search.counts != nullptr};
      measure_with_tangents(s, weights, x, n_wanted, wanted, state, sums);
      bool finished = true;
      for (int l = 0; l < block.n_lanes(); ++l) {
        DampedSearch& lane = lanes[l];
        if (judge(lane, sum_of_squares(l), i, search.tol)) accept(lane, l);
        finished = finished && lane.finished;
        if (!n_wanted || lane.finished) continue;
        propose(lane, K, p.simplex, scratch, search.objective.bounds);
        for (int64_t k = 0; k < K; ++k) x[k * row + l] = static_cast<T>(lane.step[k]);
      }
      write_results(block.n_lanes());
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
