// Training: the whole loop of episodes for one block of modules, a module per lane. Weights, Adam's
// moments and the tape stay in cache from the first episode to the last.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
struct Trainer {
  using V = Vec<T>;
  static constexpr int64_t row = kLanes<T>;
  const TrainProblem<T>& p;
  Sizes s;  // with the steps of the episode at hand
  PackedWeights<LaneWeights, T> weights;
  SequenceState<T> state;
  WeightGradient<T> gradient;
  T* gate_b;                       // [4H] unscaled, interleaved by unit; the packed bias is scaled
  T* first_b;                      // [4H] as gate_b: what the first step adds, if it does
  T *moment1, *moment2;            // lane rows in the order of the gradient
  T *target, *residual;            // [T, O]
  T *x, *d_x;                      // [K]
  T *noise_in, *noise_out, *loss;  // one lane row each, as all below
  T* scale;       // 2 / number of values of the type shown: makes a gradient of the mean
  double* curve;  // sum of the losses of the point being collected, each in units of `most` values
  double* share;  // those units of the loss at hand: most / its number of values
  int64_t* most;  // the largest number of values of the lane's types
  PhiloxLanes<kLanes<T>> philox;
  int64_t first_type[kLanes<T>];  // of each lane's set, where all types [S, K, V] are numbered

  Trainer(const TrainProblem<T>& problem, Arena& arena)
      : p(problem),
        s(problem.sizes),
        gradient((weights.take(arena, s, p.initial),
                  state.take(arena, s, WeightGradient<T>::kSegment, p.initial), s),
                 arena, p.initial) {
    const int64_t n_rows = gradient.n_all;
    first_b = arena.take<T>(p.initial.b_first ? 4 * s.hidden_size * row : 0);
    gate_b = arena.take<T>(4 * s.hidden_size * row);
    moment1 = arena.take<T>(n_rows * row);
    moment2 = arena.take<T>(n_rows * row);
    target = arena.take<T>(s.n_steps * s.output_size * row);
    residual = arena.take<T>(s.n_steps * s.output_size * row);
    x = arena.take<T>(s.input_size * row);
    d_x = arena.take<T>(s.input_size * row);
    noise_in = arena.take<T>(row);
    noise_out = arena.take<T>(row);
    loss = arena.take<T>(row);
    scale = arena.take<T>(row);
    curve = arena.take<double>(row);
    share = arena.take<double>(row);
    most = arena.take<int64_t>(row);
  }

  int64_t module_at(int64_t position) const { return p.order ? p.order[position] : position; }
  // Steps and values of a type.
  int64_t length(int64_t type) const { return p.lengths ? p.lengths[type] : p.sizes.n_steps; }
  int64_t count(int64_t type) const {
    return p.counts ? p.counts[type] : p.sizes.n_steps * p.sizes.output_size;
  }

  static bool any(const T* lanes) {
    bool result = false;
    for (int l = 0; l < kLanes<T>; ++l) result |= lanes[l] != 0;
    return result;
  }

  // A random word as a whole number below n.
  static int64_t below(uint32_t word, int64_t n) {
    return static_cast<int64_t>((static_cast<uint64_t>(word) * static_cast<uint64_t>(n)) >> 32);
  }

  // values[j] += sigma times normal number j of the stream, for j < n.
  void add_noise(T* values, int64_t n, const T* sigma, Stream stream, int64_t episode) const {
    T normal[4][kLanes<T>];
    for (int64_t j = 0; j < n; j += 4) {
      normals(philox, static_cast<uint32_t>(j / 4), stream, static_cast<uint64_t>(episode), normal);
      const int64_t last = n - j < 4 ? n - j : 4;
      for (int64_t q = 0; q < last; ++q)
        for (int l = 0; l < kLanes<T>; ++l) values[(j + q) * row + l] += sigma[l] * normal[q][l];
    }
  }

  // Draws each lane's type and variant, its noisy input and its noisy target. The episode has as
  // many steps as the longest of these types.
  void draw(int64_t episode) {
    const int64_t K = s.input_size, O = s.output_size;
    int64_t shown[kLanes<T>];
    uint32_t words[4][kLanes<T>];
    philox.words(0, kTypeStream, static_cast<uint64_t>(episode), words);
    clear(x, K);
    s.n_steps = 1;
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      const int64_t type = below(words[0][lane], K), variant = below(words[1][lane], p.n_variants);
      x[type * row + lane] = 1;
      shown[lane] = first_type[lane] + type * p.n_variants + variant;
      const int64_t n_steps = length(shown[lane]), n_values = count(shown[lane]);
      if (n_steps > s.n_steps) s.n_steps = n_steps;
      scale[lane] = static_cast<T>(2. / static_cast<double>(n_values));
      share[lane] = static_cast<double>(most[lane]) / static_cast<double>(n_values);
    }
    const int64_t size = s.n_steps * O;
    for (int lane = 0; lane < kLanes<T>; ++lane)
      gather_lane(p.type_sets + shown[lane] * p.sizes.n_steps * O, length(shown[lane]) * O, size,
                  lane, target);
    if (any(noise_in)) {
      add_noise(x, K, noise_in, kInputStream, episode);
      for (int64_t j = 0; j < K * row; ++j) x[j] = x[j] < 0 ? 0 : x[j] > 1 ? 1 : x[j];
    }
    if (any(noise_out)) add_noise(target, size, noise_out, kTargetStream, episode);
  }

  // Losses (sums of squares) and gradients of this episode. The gradients are those of half the sum
  // of squares; the factor 2 / (number of values) is left to the step.
  void differentiate() {
    forward<true>(s, weights, x, state, residual);
    if (p.counts)
      subtract_and_sum_squares<true>(residual, target, s.n_steps * s.output_size, loss);
    else
      subtract_and_sum_squares<false>(residual, target, s.n_steps * s.output_size, loss);
    gradient.start();
    backward(s, weights, residual, d_x, state,
             [&](int64_t t, const T*) { gradient.after_step(t, residual, x, state); });
    gradient.add_entry(x, state);
  }

  void step(T lr, T correction2) {
    const int64_t H = s.hidden_size, O = s.output_size, R = entry_rows(s, weights.decoder);
    const AdamStep<T> adam{p.adam, lr, correction2, scale, gradient.gate_h, moment1, moment2};
    // torch trains two bias vectors with equal gradients: their sum moves twice as far.
    adam.apply_to_gates(p.sizes, weights, gate_b, gradient, 2 * lr);
    adam.apply(weights.out_h_t, gradient.out_h, O, H, lr, [&](int64_t o, int64_t k, int v, V w) {
      w.store(weights.out_h + (k * O + o) * row + v * V::kWidth);
    });
    const auto nowhere = [](int64_t, int64_t, int, V) {};
    adam.apply(weights.out_b, gradient.out_b, O, 1, lr, nowhere);
    if (gradient.state_b) adam.apply(weights.state_b, gradient.state_b, R, 1, lr, nowhere);
    if (gradient.first_b)
      adam.apply(first_b, gradient.first_b, 4 * H, 1, lr, [&](int64_t r, int64_t, int v, V w) {
        const int64_t at = r * row + v * V::kWidth;
        const V scaled = V::broadcast((r & 3) == 2 ? kTanhScale<T> : kSigmoidScale<T>);
        ((V::load(gate_b + at) + w) * scaled).store(weights.first_b + at);
      });
  }

  void run(int64_t item, Monitor* monitor) {
    const int64_t M = s.n_modules, first = item * kLanes<T>;
    const int64_t n_types = s.input_size * p.n_variants;
    const int n_lanes = static_cast<int>(M - first < kLanes<T> ? M - first : kLanes<T>);
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      // Lanes past the last module repeat it: they compute, and nobody reads them.
      const int64_t module = module_at(first + (lane < n_lanes ? lane : n_lanes - 1));
      weights.pack(s, p.initial, module, lane);
      gather_gate_biases(s, p.initial.b, module, lane, gate_b);
      if (p.initial.b_first) gather_gate_biases(s, p.initial.b_first, module, lane, first_b);
      philox.set_seed(lane, p.seeds[module]);
      noise_in[lane] = static_cast<T>(p.noise_in[module]);
      noise_out[lane] = static_cast<T>(p.noise_out[module]);
      first_type[lane] = p.set_index[module] * n_types;
      most[lane] = 1;
      for (int64_t j = 0; j < n_types; ++j) {
        const int64_t n_values = count(first_type[lane] + j);
        if (n_values > most[lane]) most[lane] = n_values;
      }
    }
    clear(moment1, gradient.n_all);
    clear(moment2, gradient.n_all);
    for (int l = 0; l < kLanes<T>; ++l) curve[l] = 0;

    double power1 = 1, power2 = 1;
    int64_t point = 0, in_point = 0;
    for (int64_t episode = 0; episode < p.n_episodes; ++episode) {
      draw(episode);
      differentiate();
      power1 *= p.adam.beta1;
      power2 *= p.adam.beta2;
      step(static_cast<T>(p.adam.lr / (1. - power1)),
           static_cast<T>(1. / __builtin_sqrt(1. - power2)));

      for (int l = 0; l < kLanes<T>; ++l) curve[l] += static_cast<double>(loss[l]) * share[l];
      ++in_point;
      if ((episode + 1) * p.n_curve / p.n_episodes > point) {
        for (int l = 0; l < n_lanes; ++l)
          p.loss_curve[module_at(first + l) * p.n_curve + point] =
              static_cast<T>(curve[l] / static_cast<double>(in_point * most[l]));
        for (int l = 0; l < kLanes<T>; ++l) curve[l] = 0;
        ++point;
        in_point = 0;
      }
      if (!monitor->tick(monitor, 1)) return;
    }
    for (int lane = 0; lane < n_lanes; ++lane)
      scatter_weights(p.sizes, weights, gate_b, first_b, lane, module_at(first + lane), p.trained);
  }
};

template <class T>
int64_t train_items(const TrainProblem<T>& p) {
  return (p.sizes.n_modules + kLanes<T> - 1) / kLanes<T>;
}
template <class T>
int64_t train_units(const TrainProblem<T>& p) {
  return p.n_episodes;
}
template <class T>
int64_t train_workspace(const TrainProblem<T>& p) {
  Arena arena{nullptr};
  Trainer<T>(p, arena);
  return arena.used;
}
template <class T>
void train_item(const TrainProblem<T>& p, int64_t item, void* workspace, Monitor* monitor) {
  Arena arena{static_cast<char*>(workspace)};
  Trainer<T>(p, arena).run(item, monitor);
}

}  // namespace MICFAST_ISA
}  // namespace micfast
