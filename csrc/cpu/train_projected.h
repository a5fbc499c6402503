// Training by projected Adam: at every step all types of a module are drawn, the read-out is solved
// (read_out.h), and the gradient of what is left moves the LSTM's weights.
//
// A lane is one type of one module. A work item is as many whole modules as fit one block of lanes,
// or one module on several blocks. Sums over a module's types run in their order, so its result
// does not depend on the number of lanes, its place in them or its company.
#pragma once

#include <cmath>
#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// Gradients of the gates' weights, lane rows in the order of the arrays in memory.
template <class T>
struct GateGradient {
  static constexpr int64_t row = kLanes<T>;
  static constexpr int64_t kSegment = 8;  // steps collected before they are multiplied
  T* gate_h;                              // [4H, H]
  T* gate_x;                              // [4H, K]
  T* gate_b;                              // [4H]

  static int64_t n_rows(const Sizes& s) {
    return 4 * s.hidden_size * (s.hidden_size + s.input_size + 1);
  }
  void take(Arena& arena, const Sizes& s) {
    gate_h = arena.take<T>(n_rows(s) * row);
    gate_x = gate_h + 4 * s.hidden_size * s.hidden_size * row;
    gate_b = gate_x + 4 * s.hidden_size * s.input_size * row;
  }

  // backward()'s hook for step t.
  void after_step(const Sizes& s, int64_t t, const T* x, const StateRows<T>& rows,
                  const SequenceState<T>& state) const {
    // Slots of state.d_a run with t modulo kSegment: a segment ends where t is a multiple of it.
    if (t % kSegment != 0) return;
    const int64_t H = s.hidden_size, step = 4 * H * row;
    const int64_t n = s.n_steps - t < kSegment ? s.n_steps - t : kSegment;
    add_outer(gate_h, 4 * H, H, state.d_a, step, rows.states(t - 1), rows.step(), n);
    add_rows(gate_b, 4 * H, state.d_a, step, n);
    if (t == 0) add_outer(gate_x, 4 * H, s.input_size, state.d_a, step, x, step, 1);
  }
};

template <class T>
struct ProjectedTrainer {
  using V = Vec<T>;
  static constexpr int64_t row = kLanes<T>;
  static constexpr int64_t kWarmUpSteps = 100;

  // What one block of lanes needs of its own.
  struct Block {
    SequenceState<T> state;
    StateRows<T> rows;
    ReadOutSums<T> sums;
    PhiloxLanes<kLanes<T>> philox;
    T* known;     // [T, n_grams]: 1 or 0; null if no value is missing
    T* residual;  // [T, O]; then the gradients of the outputs
    T* x;         // [K]
    T *d_x, *squares, *noise_in, *noise_out, *slope;  // [K], then one lane row each
    // (module of the item) * K + type, and the type alone; idle lanes repeat the last one.
    int64_t place[kLanes<T>], type[kLanes<T>];
  };

  const TrainProjectedProblem<T>& p;
  const int64_t K, n_blocks;
  Sizes s;       // with the steps of the item at hand
  Sizes hidden;  // the same without outputs, which the forward pass is to leave out
  int64_t first_module, n_modules;
  PackedWeights<LaneWeights, T> weights;
  T* gate_b;  // [4H] unscaled; the packed bias is scaled
  GateGradient<T> gradient, total;
  T *moment1, *moment2, *clip;
  ReadOutSystem system;
  Block* blocks;
  double *loss, *curve;  // one per module of the item

  static int64_t modules_per_item(const Sizes& s) {
    return s.input_size < row ? row / s.input_size : 1;
  }
  static int64_t blocks_per_item(const Sizes& s) { return (s.input_size + row - 1) / row; }

  ProjectedTrainer(const TrainProjectedProblem<T>& problem, Arena& arena)
      : p(problem),
        K(problem.sizes.input_size),
        n_blocks(blocks_per_item(problem.sizes)),
        s(problem.sizes) {
    const int64_t n_rows = GateGradient<T>::n_rows(s);
    weights.take(arena, s);
    gate_b = arena.take<T>(4 * s.hidden_size * row);
    gradient.take(arena, s);
    total = gradient;
    if (n_blocks > 1) total.take(arena, s);
    moment1 = arena.take<T>(n_rows * row);
    moment2 = arena.take<T>(n_rows * row);
    clip = arena.take<T>(row);
    system.take(arena, s, p.n_grams);
    loss = arena.take<double>(row);
    curve = arena.take<double>(row);
    blocks = arena.take<Block>(n_blocks);
    for (int64_t b = 0; b < n_blocks; ++b) {
      Block block{};
      take_block(block, arena);
      if (arena.base) blocks[b] = block;
    }
  }

  void take_block(Block& block, Arena& arena) const {
    block.state.take(arena, s, GateGradient<T>::kSegment);
    block.rows.take(arena, s);
    block.sums.take(arena, s, p.n_grams);
    block.known = p.lengths ? arena.take<T>(s.n_steps * p.n_grams * row) : nullptr;
    block.residual = arena.take<T>(s.n_steps * s.output_size * row);
    block.x = arena.take<T>(K * row);
    block.d_x = arena.take<T>(K * row);
    block.squares = arena.take<T>(row);
    block.noise_in = arena.take<T>(row);
    block.noise_out = arena.take<T>(row);
    block.slope = arena.take<T>(row);
  }

  int64_t module_at(int64_t j) const {
    return p.order ? p.order[first_module + j] : first_module + j;
  }
  // Number of a place's type where all types [S, K] are numbered.
  int64_t type_at(int64_t place) const { return p.set_index[module_at(place / K)] * K + place % K; }
  int64_t length(int64_t type) const { return p.lengths ? p.lengths[type] : p.sizes.n_steps; }

  // Lanes of a block that hold types of module j: [first, last).
  int first_lane(int64_t j, int64_t b) const {
    return static_cast<int>(j * K > b * row ? j * K - b * row : 0);
  }
  int last_lane(int64_t j, int64_t b) const {
    const int64_t last = (j + 1) * K - b * row;
    return static_cast<int>(last < row ? last : row);
  }

  // -- one item's data
  // -----------------------------------------------------------------------------

  void start(int64_t item) {
    const int64_t per_item = modules_per_item(p.sizes), left = p.sizes.n_modules - item * per_item;
    first_module = item * per_item;
    n_modules = left < per_item ? left : per_item;
    s.n_steps = 1;
    for (int64_t place = 0; place < n_modules * K; ++place)
      if (length(type_at(place)) > s.n_steps) s.n_steps = length(type_at(place));
    hidden = s;
    hidden.output_size = 0;
    for (int64_t b = 0; b < n_blocks; ++b) start_block(blocks[b], b);
    for (int lane = 0; lane < row; ++lane) {
      const int64_t module = module_at(blocks[0].place[lane] / K);
      weights.pack(s, p.initial, module, lane);
      gather_gate_biases(s, p.initial.b, module, lane, gate_b);
    }
    clear(moment1, GateGradient<T>::n_rows(s));
    clear(moment2, GateGradient<T>::n_rows(s));
  }

  void start_block(Block& block, int64_t b) const {
    block.rows.start(s.n_steps);
    for (int lane = 0; lane < row; ++lane) {
      const int64_t n_places = n_modules * K, place = b * row + lane;
      block.place[lane] = place < n_places ? place : n_places - 1;
      block.type[lane] = block.place[lane] % K;
      const int64_t module = module_at(block.place[lane] / K), type = type_at(block.place[lane]);
      block.philox.set_seed(lane, p.seeds[module]);
      block.noise_in[lane] = static_cast<T>(p.noise_in[module]);
      block.noise_out[lane] = static_cast<T>(p.noise_out[module]);
      block.slope[lane] = static_cast<T>(2 * p.row_weights[type]);
      gather_target(block, lane, type);
    }
    set_one_hot(block);
  }

  void set_one_hot(Block& block) const {
    clear(block.x, K);
    for (int lane = 0; lane < row; ++lane) block.x[block.type[lane] * row + lane] = 1;
  }

  // One lane's target without noise, and where it has values.
  void gather_target(Block& block, int lane, int64_t type) const {
    const int64_t O = s.output_size, G = p.n_grams;
    const T* from = p.type_sets + type * p.sizes.n_steps * O;
    const int64_t n_steps = length(type);
    for (int64_t t = 0; t < s.n_steps; ++t)
      for (int64_t o = 0; o < O; ++o) {
        const bool there = t < n_steps && !(block.known && from[t * O + o] != from[t * O + o]);
        block.rows.targets(t)[o * row + lane] = there ? from[t * O + o] : 0;
        if (block.known && o < G) block.known[(t * G + o) * row + lane] = there ? 1 : 0;
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
  // values(j). A type's episode is its own, so that all types' numbers are drawn in every lane.
  template <class Values>
  void add_noise(const Block& block, int64_t n, const T* sigma, Stream stream, int64_t step,
                 Values values) const {
    T normal[4][kLanes<T>];
    for (int64_t k = 0; k < K; ++k)
      for (int64_t j = 0; j < n; j += 4) {
        normals(block.philox, static_cast<uint32_t>(j / 4), stream,
                static_cast<uint64_t>(step * K + k), normal);
        for (int64_t q = 0; q < 4 && j + q < n; ++q)
          for (int l = 0; l < row; ++l)
            if (block.type[l] == k) values(j + q)[l] += sigma[l] * normal[q][l];
      }
  }

  void draw_noise(Block& block, int64_t step) const {
    const int64_t O = s.output_size;
    if (any(block.noise_in)) {
      set_one_hot(block);
      add_noise(block, K, block.noise_in, kInputStream, step,
                [&](int64_t j) { return block.x + j * row; });
      for (int64_t j = 0; j < K * row; ++j)
        block.x[j] = block.x[j] < 0 ? 0 : block.x[j] > 1 ? 1 : block.x[j];
    }
    if (any(block.noise_out)) {
      for (int lane = 0; lane < row; ++lane) gather_target(block, lane, type_at(block.place[lane]));
      add_noise(block, s.n_steps * O, block.noise_out, kTargetStream, step,
                [&](int64_t j) { return block.rows.targets(j / O) + j % O * row; });
      if (block.known) clear_missing(block);
    }
  }

  void clear_missing(Block& block) const {
    const int64_t O = s.output_size, G = p.n_grams;
    for (int64_t t = 0; t < s.n_steps; ++t)
      for (int64_t o = 0; o < O; ++o)
        for (int l = 0; l < row; ++l)
          if (block.known[(t * G + (G > 1 ? o : 0)) * row + l] == 0)
            block.rows.targets(t)[o * row + l] = 0;
  }

  // -- one step
  // ------------------------------------------------------------------------------------

  // Draws all types, solves the modules' read-outs and measures what is left.
  void measure() {
    for (int64_t b = 0; b < n_blocks; ++b) {
      Block& block = blocks[b];
      forward<true>(hidden, weights, block.x, block.state, block.residual);
      block.rows.read_states(s, block.state);
      block.sums.sum_over(s.n_steps, block.rows, block.known);
    }
    for (int64_t j = 0; j < n_modules; ++j) solve_read_out(j);
    for (int64_t j = 0; j < n_modules; ++j) loss[j] = 0;
    for (int64_t b = 0; b < n_blocks; ++b) {
      Block& block = blocks[b];
      residuals_of(s, weights, block.rows, block.known, p.n_grams, block.residual, block.squares);
      for (int64_t j = 0; j < n_modules; ++j)
        for (int l = first_lane(j, b); l < last_lane(j, b); ++l)
          loss[j] += p.row_weights[type_at(block.place[l])] * static_cast<double>(block.squares[l]);
    }
  }

  void solve_read_out(int64_t j) {
    system.clear();
    for (int64_t b = 0; b < n_blocks; ++b)
      for (int l = first_lane(j, b); l < last_lane(j, b); ++l)
        system.add_lane(blocks[b].sums, l, p.row_weights[type_at(blocks[b].place[l])]);
    system.solve(p.ridge);
    for (int l = 0; l < row; ++l)
      if (blocks[0].place[l] / K == j) system.write(weights, l);
  }

  // The gradient of the modules' losses, the same in all lanes of a module.
  void differentiate() {
    for (int64_t b = 0; b < n_blocks; ++b) {
      Block& block = blocks[b];
      for (int64_t i = 0; i < s.n_steps * s.output_size * row; i += V::kWidth)
        (V::load(block.residual + i) * V::load(block.slope + i % row)).store(block.residual + i);
      clear(gradient.gate_h, GateGradient<T>::n_rows(s));
      backward(s, weights, block.residual, block.d_x, block.state, [&](int64_t t, const T*) {
        gradient.after_step(s, t, block.x, block.rows, block.state);
      });
      collect(b);
    }
  }

  // Sums a block's gradients over each module's lanes, after those of earlier blocks.
  void collect(int64_t b) {
    const int64_t n_rows = GateGradient<T>::n_rows(s);
    for (int64_t r = 0; r < n_rows; ++r) {
      const T* lanes = gradient.gate_h + r * row;
      T* sums = total.gate_h + r * row;
      T sum[kLanes<T>];
      for (int64_t j = 0; j < n_modules; ++j) {
        sum[j] = b > 0 ? sums[j] : 0;
        for (int l = first_lane(j, b); l < last_lane(j, b); ++l) sum[j] += lanes[l];
      }
      for (int l = 0; l < row; ++l) sums[l] = sum[blocks[b].place[l] / K];
    }
  }

  void step(int64_t i, double power1, double power2) {
    const int64_t n_rows = GateGradient<T>::n_rows(s);
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
    adam.apply_to_gates(s, weights, gate_b, total, lr);
  }

  void run(int64_t item, Monitor* monitor) {
    start(item);
    for (int64_t j = 0; j < n_modules; ++j) curve[j] = 0;
    double power1 = 1, power2 = 1;
    int64_t point = 0, in_point = 0;
    for (int64_t i = 0; i < p.n_train_steps; ++i) {
      for (int64_t b = 0; b < n_blocks; ++b) draw_noise(blocks[b], i);
      measure();
      differentiate();
      power1 *= p.adam.beta1;
      power2 *= p.adam.beta2;
      step(i, power1, power2);
      ++in_point;
      for (int64_t j = 0; j < n_modules; ++j) curve[j] += loss[j];
      if ((i + 1) * p.n_curve / p.n_train_steps > point) {
        for (int64_t j = 0; j < n_modules; ++j) {
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
    for (int64_t b = 0; b < n_blocks; ++b) {
      set_one_hot(blocks[b]);
      if (!any(blocks[b].noise_out)) continue;
      for (int lane = 0; lane < row; ++lane)
        gather_target(blocks[b], lane, type_at(blocks[b].place[lane]));
    }
    measure();
    for (int64_t j = 0; j < n_modules; ++j) {
      scatter_weights(p.sizes, weights, gate_b, {}, first_lane(j, 0), module_at(j), p.trained);
      p.errors[module_at(j)] = static_cast<T>(loss[j]);
    }
  }
};

template <class T>
int64_t train_projected_items(const TrainProjectedProblem<T>& p) {
  const int64_t per_item = ProjectedTrainer<T>::modules_per_item(p.sizes);
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
