// Whole modules with everything they are to draw: a lane is one sequence of one module. A group is
// as many modules as fit one block of lanes, or one module on several blocks. Sums over a module's
// sequences run in their order, so its results do not depend on the number of lanes, its place in
// them or its company.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// What one block of lanes needs of its own.
template <class T>
struct TypeBlock {
  SequenceState<T> state;
  StateRows<T> rows;
  ReadOutSums<T> sums;
  T* known;     // [T, n_grams]: 1 or 0; null if no value is missing
  T* residual;  // [T, O]
  T* x;         // [K]
  T *d_x, *squares;
  // (module of the group) * L + sequence, and the sequence alone; idle lanes repeat the last one.
  int64_t place[kLanes<T>], sequence[kLanes<T>];
  double row_weight[kLanes<T>];  // what a squared residual counts
};

template <class T>
struct TypesInLanes {
  static constexpr int64_t row = kLanes<T>;
  const int64_t n_sequences;  // L, of each module
  const int64_t n_blocks, n_grams;
  Sizes s;  // with the steps of the group at hand
  int64_t n_modules = 0;
  PackedWeights<LaneWeights, T> weights;
  ReadOutSystem system;
  TypeBlock<T>* blocks;
  double* loss;  // one per module of the group

  static int64_t modules_per_group(int64_t n_sequences) {
    return n_sequences < row ? row / n_sequences : 1;
  }

  // `slots`: as SequenceState::take's.
  TypesInLanes(const Sizes& sizes, int64_t sequences, int64_t grams, bool missing, int64_t slots,
               Arena& arena)
      : n_sequences(sequences), n_blocks((sequences + row - 1) / row), n_grams(grams), s(sizes) {
    weights.take(arena, s);
    system.take(arena, s, n_grams);
    loss = arena.take<double>(row);
    blocks = arena.take<TypeBlock<T>>(n_blocks);
    for (int64_t b = 0; b < n_blocks; ++b) {
      TypeBlock<T> block{};
      block.state.take(arena, s, slots);
      block.rows.take(arena, s);
      block.sums.take(arena, s, n_grams);
      block.known = missing ? arena.take<T>(s.n_steps * n_grams * row) : nullptr;
      block.residual = arena.take<T>(s.n_steps * s.output_size * row);
      block.x = arena.take<T>(s.input_size * row);
      block.d_x = arena.take<T>(s.input_size * row);
      block.squares = arena.take<T>(row);
      if (!arena.base) continue;
      block.state.write_states(block.rows.states(0), block.rows.step());
      blocks[b] = block;
    }
  }

  // A group of so many modules and steps.
  void start(int64_t modules, int64_t n_steps) {
    n_modules = modules;
    s.n_steps = n_steps;
    for (int64_t b = 0; b < n_blocks; ++b) {
      blocks[b].rows.start(n_steps);
      for (int lane = 0; lane < row; ++lane) {
        const int64_t n_places = n_modules * n_sequences, place = b * row + lane;
        blocks[b].place[lane] = place < n_places ? place : n_places - 1;
        blocks[b].sequence[lane] = blocks[b].place[lane] % n_sequences;
      }
    }
  }

  // Lanes of a block that hold sequences of module j: [first, last).
  int first_lane(int64_t j, int64_t b) const {
    return static_cast<int>(j * n_sequences > b * row ? j * n_sequences - b * row : 0);
  }
  int last_lane(int64_t j, int64_t b) const {
    const int64_t last = (j + 1) * n_sequences - b * row;
    return static_cast<int>(last < row ? last : row);
  }

  // One lane's target of so many steps, and where it has values.
  void gather_target(TypeBlock<T>& block, int lane, const T* from, int64_t n_steps) const {
    const int64_t O = s.output_size;
    for (int64_t t = 0; t < s.n_steps; ++t)
      for (int64_t o = 0; o < O; ++o) {
        const bool there = t < n_steps && !(block.known && from[t * O + o] != from[t * O + o]);
        block.rows.targets(t)[o * row + lane] = there ? from[t * O + o] : 0;
        if (block.known && o < n_grams) block.known[(t * n_grams + o) * row + lane] = there ? 1 : 0;
      }
  }

  // The states of all sequences.
  void draw() {
    Sizes hidden = s;
    hidden.output_size = 0;
    for (int64_t b = 0; b < n_blocks; ++b)
      forward<true>(hidden, weights, blocks[b].x, blocks[b].state, blocks[b].residual);
  }

  // Draws, solves the modules' read-outs and measures what is left.
  void measure(double ridge) {
    draw();
    for (int64_t b = 0; b < n_blocks; ++b)
      blocks[b].sums.sum_over(s.n_steps, blocks[b].rows, blocks[b].known);
    for (int64_t j = 0; j < n_modules; ++j) {
      system.clear();
      for (int64_t b = 0; b < n_blocks; ++b)
        for (int l = first_lane(j, b); l < last_lane(j, b); ++l)
          system.add_lane(blocks[b].sums, l, blocks[b].row_weight[l]);
      system.solve<T>(ridge);
      for (int l = 0; l < row; ++l)
        if (blocks[0].place[l] / n_sequences == j) system.write(weights, l);
    }
    find_residuals();
    for (int64_t j = 0; j < n_modules; ++j) {
      loss[j] = 0;
      for (int64_t b = 0; b < n_blocks; ++b)
        for (int l = first_lane(j, b); l < last_lane(j, b); ++l)
          loss[j] += blocks[b].row_weight[l] * static_cast<double>(blocks[b].squares[l]);
    }
  }

  // Of the states drawn last, with the read-out that the weights hold.
  void find_residuals() {
    for (int64_t b = 0; b < n_blocks; ++b)
      residuals_of(s, weights, blocks[b].rows, blocks[b].known, n_grams, blocks[b].residual,
                   blocks[b].squares);
  }
};

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

  // Of a block drawn last, from gradients of the outputs that lie in its residuals.
  void of_block(const Sizes& s, const PackedWeights<LaneWeights, T>& weights,
                TypeBlock<T>& block) const {
    clear(gate_h, n_rows(s));
    backward(s, weights, block.residual, block.d_x, block.state, [&](int64_t t, const T*) {
      // Slots of state.d_a run with t modulo kSegment: a segment ends where t is a multiple of it.
      if (t % kSegment != 0) return;
      const int64_t H = s.hidden_size, step = 4 * H * row;
      const int64_t n = s.n_steps - t < kSegment ? s.n_steps - t : kSegment;
      const T* d_a = block.state.d_a;
      add_outer(gate_h, 4 * H, H, d_a, step, block.rows.states(t - 1), block.rows.step(), n);
      add_rows(gate_b, 4 * H, d_a, step, n);
      if (t == 0) add_outer(gate_x, 4 * H, s.input_size, d_a, step, block.x, step, 1);
    });
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
