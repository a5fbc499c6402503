// Training by the Levenberg-Marquardt method, one module per work item: damped Gauss-Newton steps
// of the gates' weights (jacobian.h, normal_equations.h), after each of which the read-out is
// solved anew.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// One module's weights, laid out as the caller's.
template <class T>
struct OwnWeights {
  Sizes s;
  T* values;

  void take(Arena& arena, const Sizes& sizes) {
    s = sizes;
    values = arena.take<T>(n_values());
  }
  int64_t n_gates() const { return 4 * s.hidden_size * (s.hidden_size + s.input_size + 1); }
  int64_t n_values() const { return n_gates() + s.output_size * (s.hidden_size + 1); }
  T* W_ih() const { return values; }
  T* W_hh() const { return values + 4 * s.hidden_size * s.input_size; }
  T* b() const { return W_hh() + 4 * s.hidden_size * s.hidden_size; }
  T* W_out() const { return values + n_gates(); }
  T* b_out() const { return W_out() + s.output_size * s.hidden_size; }
  Weights<T> view() const { return {W_ih(), W_hh(), b(), W_out(), b_out()}; }

  // Where the weight of that number (JacobianSums::weight_at) lies.
  T& gate_weight(int64_t p) const {
    const int64_t H = s.hidden_size, n_recurrent = 4 * H * (H + 1);
    if (p >= n_recurrent)
      return W_ih()[(p - n_recurrent) % (4 * H) * s.input_size + (p - n_recurrent) / (4 * H)];
    return p % (H + 1) < H ? W_hh()[p / (H + 1) * H + p % (H + 1)] : b()[p / (H + 1)];
  }
  void copy_of(const OwnWeights& other) const {
    for (int64_t j = 0; j < n_values(); ++j) values[j] = other.values[j];
  }
};

enum class LMStop : int32_t { kGoal, kJacobians, kStalled, kNoStep, kNotFinite, kGoOn };

template <class T>
struct LMTrainer {
  using V = Vec<T>;
  static constexpr int64_t row = kLanes<T>;
  static constexpr double kLeastDamping = 1e-9, kMostDamping = 1e8;
  // A search has stalled that gains less than this part of its error in so many Jacobians.
  static constexpr double kLeastGain = .01;
  static constexpr int64_t kPatience = 10;
  // Second derivatives: step of the difference in units of the step; most that an acceleration may
  // be of the step, squared.
  static constexpr double kDifference = .1, kMostAcceleration = .5;

  const TrainLMProblem<T>& p;
  const int64_t L;
  TypesInLanes<T> group;
  JacobianSums<T> sums;
  NormalEquations equations;
  GateGradient<T> gradient;
  OwnWeights<T> best, tried;
  T *residual, *curved;   // [blocks, T, O] lane rows: at the best point; its second derivative
  double *d, *a, *right;  // [n_padded]: step, acceleration, right side
  double *read_out_step, *onto;  // [O, H + 1]
  double* errors;                // [max_jacobians + 1]
  int64_t module = 0;
  double error = 0;

  LMTrainer(const TrainLMProblem<T>& problem, Arena& arena)
      : p(problem),
        L(p.sizes.n_targets),
        group(p.sizes, L, p.n_grams, p.lengths != nullptr,
              p.acceleration ? GateGradient<T>::kSegment : 2, arena) {
    const Sizes& s = p.sizes;
    sums.take(arena, s);
    equations.take(arena, s, p.n_grams);
    if (p.acceleration) gradient.take(arena, s);
    best.take(arena, s);
    tried.take(arena, s);
    const int64_t size = p.acceleration ? group.n_blocks * s.n_steps * s.output_size * row : 0;
    residual = arena.take<T>(size);
    curved = arena.take<T>(size);
    d = arena.take<double>(equations.n_padded);
    a = arena.take<double>(equations.n_padded);
    right = arena.take<double>(equations.n_padded);
    read_out_step = arena.take<double>(equations.n_onto());
    onto = arena.take<double>(equations.n_onto());
    errors = arena.take<double>(p.max_jacobians + 1);
  }

  int64_t length(int64_t sequence) const {
    const int64_t type = p.set_index[module] * p.sizes.input_size + p.shown[sequence];
    return p.lengths ? p.lengths[type] : p.sizes.n_steps;
  }

  void start(int64_t item) {
    const Sizes& s = p.sizes;
    const int64_t K = s.input_size, O = s.output_size, set = p.set_index[item];
    module = item;
    int64_t n_steps = 1;
    for (int64_t i = 0; i < L; ++i)
      if (length(i) > n_steps) n_steps = length(i);
    group.start(1, n_steps);
    for (int64_t b = 0; b < group.n_blocks; ++b) {
      TypeBlock<T>& block = group.blocks[b];
      for (int lane = 0; lane < row; ++lane) {
        const int64_t i = block.sequence[lane], type = set * K + p.shown[i];
        block.row_weight[lane] = p.row_weights[set * L + i];
        gather_lane(p.latents + (module * L + i) * K, K, lane, block.x);
        group.gather_target(block, lane, p.type_sets + type * s.n_steps * O, length(i));
      }
    }
    for (int64_t q = 0; q < equations.n; ++q) equations.scale[q] = 0;
    const Weights<T>& w = p.initial;
    const auto copy = [&](const T* from, T* to, int64_t n) {
      for (int64_t j = 0; j < n; ++j) to[j] = from[module * n + j];
    };
    copy(w.W_ih, best.W_ih(), 4 * s.hidden_size * K);
    copy(w.W_hh, best.W_hh(), 4 * s.hidden_size * s.hidden_size);
    copy(w.b, best.b(), 4 * s.hidden_size);
    for (int64_t j = best.n_gates(); j < best.n_values(); ++j) best.values[j] = 0;
    error = measure(best);
  }

  void pack(const OwnWeights<T>& weights) {
    for (int lane = 0; lane < row; ++lane) group.weights.pack(p.sizes, weights.view(), 0, lane);
  }

  // The error with the best read-out, which becomes that of the weights.
  double measure(const OwnWeights<T>& weights) {
    pack(weights);
    group.measure(p.ridge);
    scatter_lane(group.weights.out_h_t, p.sizes.output_size * p.sizes.hidden_size, 0,
                 weights.W_out());
    scatter_lane(group.weights.out_b, p.sizes.output_size, 0, weights.b_out());
    return group.loss[0];
  }

  // The model around the best point, which was measured last.
  void linearize() {
    equations.start(group.system);
    sums.start();
    for (int64_t i = 0; i < L; ++i) {
      const TypeBlock<T>& block = group.blocks[i / row];
      sums.add_sequence(block, static_cast<int>(i % row), best.view(), length(i), group.s,
                        p.n_grams);
      equations.add(sums, sums.n_shared, sums.n_blocks);
    }
    equations.add(sums, 0, sums.n_shared);
    equations.finish();
    if (p.acceleration) keep_residuals(residual);
  }

  // -- steps
  // ---------------------------------------------------------------------------------------

  void solve_for(const double* from, double sign, double* x) const {
    for (int64_t q = 0; q < equations.n_padded; ++q) x[q] = q < equations.n ? sign * from[q] : 0;
    solve(equations.damped, x);
  }

  // Tries steps of growing damping from the best point until one lowers the error.
  bool advance(double& damping) {
    for (double growth = 2; damping <= kMostDamping; damping *= growth, growth *= 2) {
      if (!equations.factor_damped(damping)) continue;
      solve_for(equations.gradient, -1, d);
      const double length = equations.length(d);
      double predicted = damping * length;
      for (int64_t q = 0; q < equations.n; ++q) predicted -= equations.gradient[q] * d[q];
      if (p.acceleration) accelerate(length);
      move_gates(1);
      const double found = measure(tried);
      if (!(found < error)) continue;
      const double ratio = (error - found) / predicted;
      damping *= ratio > .75 ? .2 : ratio > .25 ? .5 : 2;
      if (damping < kLeastDamping) damping = kLeastDamping;
      error = found;
      best.copy_of(tried);
      return true;
    }
    return false;
  }

  // `tried` becomes the best point moved by t steps, but for the read-out.
  void move_gates(double t) const {
    for (int64_t q = 0; q < equations.n; ++q)
      tried.gate_weight(q) = best.gate_weight(q) + static_cast<T>(t * d[q]);
  }

  // -- acceleration
  // --------------------------------------------------------------------------------

  void keep_residuals(T* to) const {
    const int64_t size = group.s.n_steps * p.sizes.output_size * row;
    for (int64_t b = 0; b < group.n_blocks; ++b)
      for (int64_t j = 0; j < size; ++j) to[b * size + j] = group.blocks[b].residual[j];
  }

  // The residuals where gates and read-out have moved by t steps.
  void draw_at(double t) {
    const int64_t H = p.sizes.hidden_size;
    move_gates(t);
    for (int64_t o = 0; o < p.sizes.output_size; ++o) {
      const double* step = read_out_step + o * (H + 1);
      for (int64_t u = 0; u < H; ++u)
        tried.W_out()[o * H + u] = best.W_out()[o * H + u] + static_cast<T>(t * step[u]);
      tried.b_out()[o] = best.b_out()[o] + static_cast<T>(t * step[H]);
    }
    pack(tried);
    group.draw();
    group.find_residuals();
  }

  // Adds to the step d, of that squared length, half its second-order correction (Transtrum and
  // Sethna, arXiv:1201.5885), if that is not too long.
  void accelerate(double length) {
    equations.answer(d, read_out_step);
    draw_at(kDifference);
    keep_residuals(curved);
    draw_at(-kDifference);
    pack(best);
    add_curvature();
    group.draw();
    pull_back();
    solve_for(right, -.5, a);
    if (!(equations.length(a) <= kMostAcceleration * length)) return;
    for (int64_t q = 0; q < equations.n; ++q) d[q] += a[q];
  }

  // The second derivative of the residuals, in the blocks' own.
  void add_curvature() const {
    const int64_t size = group.s.n_steps * p.sizes.output_size * row;
    const V two = V::broadcast(2);
    const V factor = V::broadcast(static_cast<T>(1 / (kDifference * kDifference)));
    for (int64_t b = 0; b < group.n_blocks; ++b)
      for (int64_t j = 0; j < size; j += V::kWidth) {
        T* own = group.blocks[b].residual + j;
        const V sides = V::load(own) + V::load(curved + b * size + j);
        (fnma(two, V::load(residual + b * size + j), sides) * factor).store(own);
      }
  }

  // right = J' r'' less what the read-out takes over, with r'' in the blocks' residuals.
  void pull_back() {
    const int64_t H = p.sizes.hidden_size, O = p.sizes.output_size;
    for (int64_t q = 0; q < equations.n_padded; ++q) right[q] = 0;
    for (int64_t j = 0; j < equations.n_onto(); ++j) onto[j] = 0;
    for (int64_t b = 0; b < group.n_blocks; ++b) {
      TypeBlock<T>& block = group.blocks[b];
      alignas(64) T weight[kLanes<T>];
      for (int l = 0; l < row; ++l) weight[l] = static_cast<T>(block.row_weight[l]);
      for (int64_t j = 0; j < group.s.n_steps * O * row; j += V::kWidth)
        (V::load(block.residual + j) * V::load(weight + j % row)).store(block.residual + j);
      const int last = group.last_lane(0, b);
      for (int64_t t = 0; t < group.s.n_steps; ++t)
        for (int64_t o = 0; o < O; ++o)
          for (int l = 0; l < last; ++l) {
            const double r = static_cast<double>(block.residual[(t * O + o) * row + l]);
            const T* phi = block.rows.states(t) + l;
            for (int64_t k = 0; k <= H; ++k)
              onto[o * (H + 1) + k] += r * static_cast<double>(phi[k * row]);
          }
      gradient.of_block(group.s, group.weights, block);
      for (int64_t q = 0; q < equations.n; ++q) {
        const T* lanes = gradient_of(q);
        for (int l = 0; l < last; ++l) right[q] += static_cast<double>(lanes[l]);
      }
    }
    equations.eliminate(onto, right);
  }

  // The gradient's lane row of a weight; gate rows there are interleaved by unit.
  const T* gradient_of(int64_t q) const {
    const int64_t H = p.sizes.hidden_size, K = p.sizes.input_size, n_recurrent = 4 * H * (H + 1);
    const auto interleaved = [&](int64_t gate_row) { return gate_row % H * 4 + gate_row / H; };
    if (q >= n_recurrent) {
      const int64_t at = q - n_recurrent;
      return gradient.gate_x + (interleaved(at % (4 * H)) * K + at / (4 * H)) * row;
    }
    const int64_t gate_row = interleaved(q / (H + 1)), j = q % (H + 1);
    return j < H ? gradient.gate_h + (gate_row * H + j) * row : gradient.gate_b + gate_row * row;
  }

  // -- the search
  // ----------------------------------------------------------------------------------

  LMStop stop_after(int64_t n_jacobians) const {
    if (error <= p.goal) return LMStop::kGoal;
    if (!(error < __builtin_inf())) return LMStop::kNotFinite;
    if (n_jacobians == p.max_jacobians) return LMStop::kJacobians;
    if (n_jacobians >= kPatience && error > (1 - kLeastGain) * errors[n_jacobians - kPatience])
      return LMStop::kStalled;
    return LMStop::kGoOn;
  }

  void run(int64_t item, Monitor* monitor) {
    start(item);
    double damping = p.damping;
    int64_t n = 0;
    errors[0] = error;
    LMStop stop = stop_after(0);
    while (stop == LMStop::kGoOn) {
      linearize();
      const bool moved = advance(damping);
      errors[++n] = error;
      stop = moved ? stop_after(n) : LMStop::kNoStep;
      if (!monitor->tick(monitor, 1)) return;
    }
    if (n < p.max_jacobians && !monitor->tick(monitor, p.max_jacobians - n)) return;
    write(n, stop);
  }

  void write(int64_t n_jacobians, LMStop stop) const {
    const Sizes& s = p.sizes;
    const auto copy = [&](const T* from, T* to, int64_t n) {
      for (int64_t j = 0; j < n; ++j) to[module * n + j] = from[j];
    };
    copy(best.W_ih(), p.trained.W_ih, 4 * s.hidden_size * s.input_size);
    copy(best.W_hh(), p.trained.W_hh, 4 * s.hidden_size * s.hidden_size);
    copy(best.b(), p.trained.b, 4 * s.hidden_size);
    copy(best.W_out(), p.trained.W_out, s.output_size * s.hidden_size);
    copy(best.b_out(), p.trained.b_out, s.output_size);
    p.errors[module] = static_cast<T>(error);
    p.n_jacobians[module] = static_cast<int32_t>(n_jacobians);
    p.stops[module] = static_cast<int32_t>(stop);
    for (int64_t i = 0; i <= p.max_jacobians; ++i)
      p.error_curve[module * (p.max_jacobians + 1) + i] =
          static_cast<T>(errors[i < n_jacobians ? i : n_jacobians]);
  }
};

template <class T>
int64_t train_lm_items(const TrainLMProblem<T>& p) {
  return p.sizes.n_modules;
}
template <class T>
int64_t train_lm_units(const TrainLMProblem<T>& p) {
  return p.max_jacobians;
}
template <class T>
int64_t train_lm_workspace(const TrainLMProblem<T>& p) {
  Arena arena{nullptr};
  LMTrainer<T>(p, arena);
  return arena.used;
}
template <class T>
void train_lm_item(const TrainLMProblem<T>& p, int64_t item, void* workspace, Monitor* monitor) {
  Arena arena{static_cast<char*>(workspace)};
  LMTrainer<T>(p, arena).run(item, monitor);
}

}  // namespace MICFAST_ISA
}  // namespace micfast
