// What both ways of inversion do around their loops: the (module, target, start) triples of one
// block of lanes, where their numbers come from and where they go.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
struct SearchBlock {
  static constexpr int64_t row = kLanes<T>;

  const SearchProblem<T>& p;
  const Blocks<T> blocks;
  const int64_t item;
  int64_t n_steps;  // to run: as many as the block's longest target has

  SearchBlock(const SearchProblem<T>& problem, int64_t item_index)
      : p(problem), blocks(problem.sizes), item(item_index), n_steps(problem.sizes.n_steps) {
    if (!p.lengths) return;
    n_steps = 1;
    for (int lane = 0; lane < n_lanes(); ++lane) {
      const int64_t length = p.lengths[target_of(pair(lane))];
      if (length > n_steps) n_steps = length;
    }
  }

  int n_lanes() const { return blocks.n_lanes(item); }

  // A lane's module, and its target and start as one number n * S + s.
  Pair pair(int lane) const {
    Pair at = blocks.pair(item, lane);
    if (p.order) {
      const int64_t n = at.target / p.n_starts;
      at.target += (p.order[n] - n) * p.n_starts;
    }
    return at;
  }

  // The place of a pair's target among all of them.
  int64_t target_of(const Pair& at) const {
    return at.module * p.target_stride + at.target / p.n_starts;
  }

  // Where a lane's results belong in an array [M, N * S].
  int64_t index(int lane) const {
    const Pair at = pair(lane);
    return at.module * p.sizes.n_targets + at.target;
  }

  // What the first `size` values of a target count together, those that are not missing.
  double total_weight(const T* target, int64_t size) const {
    double total = 0;
    for (int64_t j = 0; j < size; ++j)
      if (!p.counts || target[j] == target[j]) total += p.objective.weights[j];
    return total;
  }

  // Copies a lane's target to lane rows [n_steps, O], NaN after its end, and its start to lane rows
  // [K]. Answers what the sum of squares is to be multiplied by to be its error: one over the
  // number of values, or over the sum of their weights; NaN for a target without any or one that is
  // not finite.
  MICFAST_NOINLINE double gather(int lane, T* target, T* z) const {
    const Pair at = pair(lane);
    const int64_t n = at.target / p.n_starts, s = at.target % p.n_starts;
    const int64_t O = p.sizes.output_size, size = p.sizes.n_steps * O;
    gather_lane(
        p.init + at.module * p.init_strides[0] + n * p.init_strides[1] + s * p.init_strides[2],
        p.sizes.input_size, lane, z);
    const int64_t i = target_of(at);
    const T* from = p.targets + i * size;
    T poison = 0;
    if (!p.counts) {
      gather_lane(from, size, lane, target);
      for (int64_t j = 0; j < size; ++j) poison += from[j] * 0;
      const double total =
          p.objective.weights ? total_weight(from, size) : static_cast<double>(size);
      return 1. / total + static_cast<double>(poison);
    }
    gather_lane(from, p.lengths[i] * O, n_steps * O, lane, target);
    for (int64_t j = 0; j < p.lengths[i] * O; ++j)
      if (from[j] == from[j]) poison += from[j] * 0;
    if (p.counts[i] == 0) poison = static_cast<T>(__builtin_nan(""));
    const double total = p.objective.weights ? total_weight(from, p.lengths[i] * O)
                                             : static_cast<double>(p.counts[i]);
    return 1. / total + static_cast<double>(poison);
  }

  // Writes lane rows of errors and inputs to row `iteration` of the history, if there is one.
  void record_history(int64_t iteration, const T* error, const T* z) const {
    if (!p.error_history) return;
    const int64_t first = iteration * p.sizes.n_modules * p.sizes.n_targets;
    record(p.error_history + first, p.latent_history + first * p.sizes.input_size, error, z);
  }
  void record_result(const T* error, const T* z) const { record(p.errors, p.latents, error, z); }

 private:
  MICFAST_NOINLINE void record(T* errors, T* latents, const T* error, const T* z) const {
    const int64_t K = p.sizes.input_size;
    for (int lane = 0; lane < n_lanes(); ++lane) {
      errors[index(lane)] = error[lane];
      scatter_lane(z, K, lane, latents + index(lane) * K);
    }
  }
};

// The four functions of a JobKernel for a `Solver` with run(item, monitor).
template <template <class, class, class> class Solver, template <class> class Problem, class T>
struct SearchJob {
  static int64_t items(const Problem<T>& p) { return Blocks<T>(p.search.sizes).n_items; }
  static int64_t units(const Problem<T>& p) { return p.search.n_iter + 1; }
  static int64_t workspace(const Problem<T>& p) {
    return largest_workspace<Solver, T>(p, p.search.weights.decoder);
  }
  static void run_item(const Problem<T>& p, int64_t item, void* workspace, Monitor* monitor) {
    run_by_layout<Solver, T>(p, p.search.sizes, p.search.weights.decoder, item, workspace, monitor);
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
