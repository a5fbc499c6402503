// Training by projected Adam: at every step all types of a module are drawn, the read-out is solved
// (read_out.h), and the gradient of what is left moves the LSTM's weights.
//
// A work item is a group of modules, all their types in lanes (types_in_lanes.h).
#pragma once

#include <cmath>
#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
struct ProjectedTrainer {
  using V = Vec<T>;
  static constexpr int64_t row = kLanes<T>;
  static constexpr int64_t kWarmUpSteps = 100;

  const TrainProjectedProblem<T>& p;
  const int64_t K;
  TypesInLanes<T> group;
  int64_t first_module;
  T* gate_b;  // [4H] unscaled; the packed bias is scaled
  GateGradient<T> gradient, total;
  T *moment1, *moment2, *clip;
  T *noise_in, *noise_out;         // one lane row of each block
  PhiloxLanes<kLanes<T>>* philox;  // one for each block
  double* curve;                   // one per module of the group

  ProjectedTrainer(const TrainProjectedProblem<T>& problem, Arena& arena)
      : p(problem),
        K(problem.sizes.input_size),
        group(p.sizes, K, p.n_grams, p.lengths != nullptr, GateGradient<T>::kSegment, arena) {
    const int64_t n_rows = GateGradient<T>::n_rows(p.sizes);
    gate_b = arena.take<T>(4 * p.sizes.hidden_size * row);
    gradient.take(arena, p.sizes);
    total = gradient;
    if (group.n_blocks > 1) total.take(arena, p.sizes);
    moment1 = arena.take<T>(n_rows * row);
    moment2 = arena.take<T>(n_rows * row);
    clip = arena.take<T>(row);
    noise_in = arena.take<T>(group.n_blocks * row);
    noise_out = arena.take<T>(group.n_blocks * row);
    philox = arena.take<PhiloxLanes<kLanes<T>>>(group.n_blocks);
    curve = arena.take<double>(row);
  }

  int64_t module_at(int64_t j) const {
    return p.order ? p.order[first_module + j] : first_module + j;
  }
  // Number of a place's type where all types [S, K] are numbered.
  int64_t type_at(int64_t place) const { return p.set_index[module_at(place / K)] * K + place % K; }
  int64_t length(int64_t type) const { return p.lengths ? p.lengths[type] : p.sizes.n_steps; }

  // -- one group's data
  // ----------------------------------------------------------------------------

  void start(int64_t item) {
    const int64_t per_item = TypesInLanes<T>::modules_per_group(K);
    const int64_t left = p.sizes.n_modules - item * per_item;
    const int64_t n_modules = left < per_item ? left : per_item;
    first_module = item * per_item;
    int64_t n_steps = 1;
    for (int64_t place = 0; place < n_modules * K; ++place)
      if (length(type_at(place)) > n_steps) n_steps = length(type_at(place));
    group.start(n_modules, n_steps);
    for (int64_t b = 0; b < group.n_blocks; ++b) start_block(b);
    for (int lane = 0; lane < row; ++lane) {
      const int64_t module = module_at(group.blocks[0].place[lane] / K);
      group.weights.pack(p.sizes, p.initial, module, lane);
      gather_gate_biases(p.sizes, p.initial.b, module, lane, gate_b);
    }
    clear(moment1, GateGradient<T>::n_rows(p.sizes));
    clear(moment2, GateGradient<T>::n_rows(p.sizes));
  }

  void start_block(int64_t b) {
    TypeBlock<T>& block = group.blocks[b];
    for (int lane = 0; lane < row; ++lane) {
      const int64_t module = module_at(block.place[lane] / K);
      philox[b].set_seed(lane, p.seeds[module]);
      noise_in[b * row + lane] = static_cast<T>(p.noise_in[module]);
      noise_out[b * row + lane] = static_cast<T>(p.noise_out[module]);
      block.row_weight[lane] = p.row_weights[type_at(block.place[lane])];
    }
    set_one_hot(block);
    gather_targets(block);
  }

  void set_one_hot(TypeBlock<T>& block) const {
    clear(block.x, K);
    for (int lane = 0; lane < row; ++lane) block.x[block.sequence[lane] * row + lane] = 1;
  }

  // Without noise.
  void gather_targets(TypeBlock<T>& block) const {
    for (int lane = 0; lane < row; ++lane) {
      const int64_t type = type_at(block.place[lane]);
      const int64_t size = p.sizes.n_steps * p.sizes.output_size;
      group.gather_target(block, lane, p.type_sets + type * size, length(type));
    }
  }

  // -- noise
  // ---------------------------------------------------------------------------------------

  static bool any(const T* lanes) {
    bool result = false;
    for (int l = 0; l < row; ++l) result |= lanes[l] != 0;
    return result;
  }

  // Adds sigma times the normal numbers of a stream to n values of every lane, which lie at
  // values(j). A type's episode is its own, so all types' numbers are drawn in every lane.
  template <class Values>
  void add_noise(int64_t b, int64_t n, const T* sigma, Stream stream, int64_t step,
                 Values values) const {
    T normal[4][kLanes<T>];
    for (int64_t k = 0; k < K; ++k)
      for (int64_t j = 0; j < n; j += 4) {
        normals(philox[b], static_cast<uint32_t>(j / 4), stream,
                static_cast<uint64_t>(step * K + k), normal);
        for (int64_t q = 0; q < 4 && j + q < n; ++q)
          for (int l = 0; l < row; ++l)
            if (group.blocks[b].sequence[l] == k)
              values(j + q)[l] += sigma[b * row + l] * normal[q][l];
      }
  }

  void draw_noise(int64_t b, int64_t step) const {
    TypeBlock<T>& block = group.blocks[b];
    const int64_t O = p.sizes.output_size;
    if (any(noise_in + b * row)) {
      set_one_hot(block);
      add_noise(b, K, noise_in, kInputStream, step, [&](int64_t j) { return block.x + j * row; });
      for (int64_t j = 0; j < K * row; ++j)
        block.x[j] = block.x[j] < 0 ? 0 : block.x[j] > 1 ? 1 : block.x[j];
    }
    if (any(noise_out + b * row)) {
      gather_targets(block);
      add_noise(b, group.s.n_steps * O, noise_out, kTargetStream, step,
                [&](int64_t j) { return block.rows.targets(j / O) + j % O * row; });
      if (block.known) clear_missing(block);
    }
  }

  void clear_missing(TypeBlock<T>& block) const {
    const int64_t O = p.sizes.output_size, G = p.n_grams;
    for (int64_t t = 0; t < group.s.n_steps; ++t)
      for (int64_t o = 0; o < O; ++o)
        for (int l = 0; l < row; ++l)
          if (block.known[(t * G + (G > 1 ? o : 0)) * row + l] == 0)
            block.rows.targets(t)[o * row + l] = 0;
  }

  // -- one step
  // ------------------------------------------------------------------------------------

  // The gradient of the modules' losses, the same in all lanes of a module.
  void differentiate() {
    for (int64_t b = 0; b < group.n_blocks; ++b) {
      TypeBlock<T>& block = group.blocks[b];
      alignas(64) T slope[kLanes<T>];
      for (int l = 0; l < row; ++l) slope[l] = static_cast<T>(2 * block.row_weight[l]);
      for (int64_t i = 0; i < group.s.n_steps * p.sizes.output_size * row; i += V::kWidth)
        (V::load(block.residual + i) * V::load(slope + i % row)).store(block.residual + i);
      gradient.of_block(group.s, group.weights, block);
      collect(b);
    }
  }

  // Sums a block's gradients over each module's lanes, after those of earlier blocks.
  void collect(int64_t b) {
    const int64_t n_rows = GateGradient<T>::n_rows(p.sizes);
    for (int64_t r = 0; r < n_rows; ++r) {
      const T* lanes = gradient.gate_h + r * row;
      T* sums = total.gate_h + r * row;
      T sum[kLanes<T>];
      for (int64_t j = 0; j < group.n_modules; ++j) {
        sum[j] = b > 0 ? sums[j] : 0;
        for (int l = group.first_lane(j, b); l < group.last_lane(j, b); ++l) sum[j] += lanes[l];
      }
      for (int l = 0; l < row; ++l) sums[l] = sum[group.blocks[b].place[l] / K];
    }
  }

  void step(int64_t i, double power1, double power2) {
    const int64_t n_rows = GateGradient<T>::n_rows(p.sizes);
    for (int v = 0; v < kVectorsPerBlock; ++v) {
      V squares = V::broadcast(0);
      for (int64_t j = v * V::kWidth; j < n_rows * row; j += row)
        squares = fma(V::load(total.gate_h + j), V::load(total.gate_h + j), squares);
      // Infinite where the gradient is 0.
      const V factor = V::broadcast(static_cast<T>(p.clip_norm)) / sqrt(squares);
      min(factor, V::broadcast(1)).store(clip + v * V::kWidth);
    }
    const double S = static_cast<double>(p.n_train_steps), at = static_cast<double>(i);
    const double warm = at / static_cast<double>(kWarmUpSteps) + .01;
    const double rate =
        p.adam.lr * (warm < 1 ? warm : 1) * (1 + ::cos(3.14159265358979323846 * at / S)) / 2;
    const T lr = static_cast<T>(rate / (1. - power1));
    const AdamStep<T> adam{p.adam, lr,           static_cast<T>(1. / __builtin_sqrt(1. - power2)),
                           clip,   total.gate_h, moment1,
                           moment2};
    adam.apply_to_gates(p.sizes, group.weights, gate_b, total, lr);
  }

  void run(int64_t item, Monitor* monitor) {
    start(item);
    for (int64_t j = 0; j < group.n_modules; ++j) curve[j] = 0;
    double power1 = 1, power2 = 1;
    int64_t point = 0, in_point = 0;
    for (int64_t i = 0; i < p.n_train_steps; ++i) {
      for (int64_t b = 0; b < group.n_blocks; ++b) draw_noise(b, i);
      group.measure(p.ridge);
      differentiate();
      power1 *= p.adam.beta1;
      power2 *= p.adam.beta2;
      step(i, power1, power2);
      ++in_point;
      for (int64_t j = 0; j < group.n_modules; ++j) curve[j] += group.loss[j];
      if ((i + 1) * p.n_curve / p.n_train_steps > point) {
        for (int64_t j = 0; j < group.n_modules; ++j) {
          p.loss_curve[module_at(j) * p.n_curve + point] =
              static_cast<T>(curve[j] / static_cast<double>(in_point));
          curve[j] = 0;
        }
        ++point;
        in_point = 0;
      }
      if (!monitor->tick(monitor, 1)) return;
    }
    finish();
  }

  // The read-out and the error of the trained weights, without noise.
  void finish() {
    for (int64_t b = 0; b < group.n_blocks; ++b) {
      set_one_hot(group.blocks[b]);
      gather_targets(group.blocks[b]);
    }
    group.measure(p.ridge);
    for (int64_t j = 0; j < group.n_modules; ++j) {
      scatter_weights<T>(p.sizes, group.weights, gate_b, nullptr, group.first_lane(j, 0),
                         module_at(j), p.trained);
      p.errors[module_at(j)] = static_cast<T>(group.loss[j]);
    }
  }
};

template <class T>
int64_t train_projected_items(const TrainProjectedProblem<T>& p) {
  const int64_t per_item = TypesInLanes<T>::modules_per_group(p.sizes.input_size);
  return (p.sizes.n_modules + per_item - 1) / per_item;
}
template <class T>
int64_t train_projected_units(const TrainProjectedProblem<T>& p) {
  return p.n_train_steps;
}
template <class T>
int64_t train_projected_workspace(const TrainProjectedProblem<T>& p) {
  Arena arena{nullptr};
  ProjectedTrainer<T>(p, arena);
  return arena.used;
}
template <class T>
void train_projected_item(const TrainProjectedProblem<T>& p, int64_t item, void* workspace,
                          Monitor* monitor) {
  Arena arena{static_cast<char*>(workspace)};
  ProjectedTrainer<T>(p, arena).run(item, monitor);
}

}  // namespace MICFAST_ISA
}  // namespace micfast
