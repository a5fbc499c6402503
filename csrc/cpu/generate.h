// Generation, and its gradients for autograd.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class Layout, class T, class Cell>
struct Generator {
  static constexpr int64_t row = kLanes<T>;
  const GenerateProblem<T>& p;
  PackedWeights<Layout, T, Cell> weights;
  typename StateOf<Layout, T, Cell>::Sequence state;
  T *z, *y;  // [K], [T, O]

  Generator(const GenerateProblem<T>& problem, Arena& arena) : p(problem) {
    weights.take(arena, p.sizes, p.weights);
    state.take(arena, p.sizes, 0, p.weights);
    z = arena.take<T>(p.sizes.input_size * row);
    y = arena.take<T>(p.sizes.n_steps * p.sizes.output_size * row);
  }

  void run(int64_t item, Monitor* monitor) {
    const Blocks<T> blocks(p.sizes);
    const int64_t N = p.sizes.n_targets, K = p.sizes.input_size;
    const int64_t size = p.sizes.n_steps * p.sizes.output_size;
    pack_block(blocks, item, p.sizes, p.weights, weights);
    set_targets(state, blocks.n_lanes(item));
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      const Pair at = blocks.pair(item, lane);
      gather_lane(p.latents + (at.module * N + at.target) * K, K, lane, z);
    }
    forward<false>(p.sizes, weights, z, state, y);
    for (int lane = 0; lane < blocks.n_lanes(item); ++lane) {
      const Pair at = blocks.pair(item, lane);
      scatter_lane(y, size, lane, p.outputs + (at.module * N + at.target) * size);
    }
    monitor->tick(monitor, 1);
  }
};

template <class T>
int64_t generate_items(const GenerateProblem<T>& p) {
  return Blocks<T>(p.sizes).n_items;
}
template <class T>
int64_t generate_units(const GenerateProblem<T>&) {
  return 1;
}
template <class T>
int64_t generate_workspace(const GenerateProblem<T>& p) {
  return largest_workspace<Generator, T>(p, p.weights.decoder);
}
template <class T>
void generate_item(const GenerateProblem<T>& p, int64_t item, void* workspace, Monitor* monitor) {
  run_by_layout<Generator, T>(p, p.sizes, p.weights.decoder, item, workspace, monitor);
}

// One module is one work item: its weights' gradients are summed over its targets in a fixed order.
template <class T, class Cell>
struct GeneratorBackward {
  static constexpr int64_t row = kLanes<T>;
  const GenerateBackwardProblem<T>& p;
  PackedWeights<SharedWeights, T, Cell> weights;
  SequenceState<T, Cell> state;
  WeightGradient<T, Cell> gradient;
  T *z, *d_z;  // [K]
  T *y, *d_y;  // [T, O]

  GeneratorBackward(const GenerateBackwardProblem<T>& problem, Arena& arena)
      : p(problem),
        gradient(
            (weights.take(arena, p.sizes, p.weights),
             state.take(arena, p.sizes, WeightGradient<T, Cell>::kSegment, p.weights), p.sizes),
            arena, p.weights) {
    const Sizes& s = p.sizes;
    z = arena.take<T>(s.input_size * row);
    d_z = arena.take<T>(s.input_size * row);
    y = arena.take<T>(s.n_steps * s.output_size * row);
    d_y = arena.take<T>(s.n_steps * s.output_size * row);
  }

  void run(int64_t module, Monitor* monitor) {
    const Sizes& s = p.sizes;
    const int64_t N = s.n_targets, H = s.hidden_size, K = s.input_size, O = s.output_size;
    const int64_t size = s.n_steps * O;
    weights.pack(s, p.weights, module, 0);
    gradient.start();
    for (int64_t first = 0; first < N; first += kLanes<T>) {
      const int n_lanes = static_cast<int>(N - first < kLanes<T> ? N - first : kLanes<T>);
      for (int lane = 0; lane < kLanes<T>; ++lane) {
        const bool used = lane < n_lanes;
        const int64_t index = module * N + first + (used ? lane : 0);
        gather_lane(p.latents + index * K, K, lane, z);
        gather_lane(p.d_outputs + index * size, size, lane, d_y);
        if (!used)
          for (int64_t j = 0; j < size; ++j) d_y[j * row + lane] = 0;
      }
      forward<true>(s, weights, z, state, y);
      backward(s, weights, d_y, d_z, state,
               [&](int64_t t, const T*) { gradient.after_step(t, d_y, z, state); });
      gradient.add_entry(z, state);
      for (int lane = 0; lane < n_lanes; ++lane)
        scatter_lane(d_z, K, lane, p.d_latents + (module * N + first + lane) * K);
      if (!monitor->tick(monitor, 1)) return;
    }
    const auto over_lanes = [](const T* lanes) {
      T sum = 0;
      for (int lane = 0; lane < kLanes<T>; ++lane) sum += lanes[lane];
      return sum;
    };
    const WeightOutputs<T>& out = p.d_weights;
    const Decoder& decoder = p.weights.decoder;
    const int64_t n_entry = entry_rows(s, decoder);
    for (int64_t r = 0; r < n_entry; ++r) {
      // Gates lie side by side, the rows of an initial state in their order.
      const int64_t to = module * n_entry + (sets_state(decoder) ? r : r % 4 * H + r / 4);
      for (int64_t k = 0; k < K; ++k)
        out.W_ih[to * K + k] = over_lanes(gradient.gate_x + (r * K + k) * row);
      if (out.b_state) out.b_state[to] = over_lanes(gradient.state_b + r * row);
    }
    for (int64_t u = 0; u < H; ++u)
      for (int64_t gate = 0; gate < 4; ++gate) {
        const int64_t from = 4 * u + gate, to = module * 4 * H + gate * H + u;
        out.b[to] = over_lanes(gradient.gate_b + from * row);
        if (out.b_first) out.b_first[to] = over_lanes(gradient.first_b + from * row);
        for (int64_t k = 0; k < H; ++k)
          out.W_hh[to * H + k] = over_lanes(gradient.gate_h + (from * H + k) * row);
      }
    for (int64_t o = 0; o < O; ++o) {
      out.b_out[module * O + o] = over_lanes(gradient.out_b + o * row);
      for (int64_t k = 0; k < H; ++k)
        out.W_out[(module * O + o) * H + k] = over_lanes(gradient.out_h + (o * H + k) * row);
    }
  }
};

template <class T>
int64_t generate_backward_items(const GenerateBackwardProblem<T>& p) {
  return p.sizes.n_modules;
}
template <class T>
int64_t generate_backward_units(const GenerateBackwardProblem<T>& p) {
  return (p.sizes.n_targets + kLanes<T> - 1) / kLanes<T>;
}
template <class T>
int64_t generate_backward_workspace(const GenerateBackwardProblem<T>& p) {
  return with_cell(p.weights.decoder, [&](auto cell) {
    Arena arena{nullptr};
    GeneratorBackward<T, decltype(cell)>(p, arena);
    return arena.used;
  });
}
template <class T>
void generate_backward_item(const GenerateBackwardProblem<T>& p, int64_t item, void* workspace,
                            Monitor* monitor) {
  with_cell(p.weights.decoder, [&](auto cell) {
    Arena arena{static_cast<char*>(workspace)};
    GeneratorBackward<T, decltype(cell)>(p, arena).run(item, monitor);
  });
}

}  // namespace MICFAST_ISA
}  // namespace micfast
