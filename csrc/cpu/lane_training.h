// What all trainings do to weights that lie one module per lane: Adam's step, and taking the
// weights out of the lanes.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// One step of Adam. Gradients and moments are lane rows in one order, so that a gradient's place
// tells where its moments lie.
template <class T>
struct AdamStep {
  using V = Vec<T>;
  AdamSettings settings;
  T lr, correction2;
  const T* scale;  // one lane row: what the gradients are to be multiplied by
  const T* gradient;
  T *moment1, *moment2;

  // Steps a matrix of weights whose gradients lie in g. `copy(r, c, v, w)` stores vector v of the
  // new value wherever else the packed weights hold it.
  template <class Copy>
  MICFAST_INLINE void apply(T* weight, const T* g, int64_t rows, int64_t columns, T rate,
                            Copy copy) const {
    T* m = moment1 + (g - gradient);
    T* u = moment2 + (g - gradient);
    V scales[kVectorsPerBlock];
    for (int v = 0; v < kVectorsPerBlock; ++v) scales[v] = V::load(scale + v * V::kWidth);
    const V beta1 = V::broadcast(static_cast<T>(settings.beta1));
    const V beta2 = V::broadcast(static_cast<T>(settings.beta2));
    const V rest1 = V::broadcast(static_cast<T>(1. - settings.beta1));
    const V rest2 = V::broadcast(static_cast<T>(1. - settings.beta2));
    const V eps = V::broadcast(static_cast<T>(settings.eps));
    int64_t at = 0;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        for (int v = 0; v < kVectorsPerBlock; ++v, at += V::kWidth) {
          const V d = V::load(g + at) * scales[v];
          const V m_new = fma(beta1, V::load(m + at), rest1 * d);
          const V u_new = fma(beta2, V::load(u + at), rest2 * (d * d));
          m_new.store(m + at);
          u_new.store(u + at);
          const V denominator = fma(sqrt(u_new), V::broadcast(correction2), eps);
          const V w = V::load(weight + at) - V::broadcast(rate) * m_new / denominator;
          w.store(weight + at);
          copy(r, c, v, w);
        }
  }

  // Steps the weights of gates and latent, whose gradients are g.gate_h, g.gate_x and g.gate_b.
  template <class Gradient>
  void apply_to_gates(const Sizes& s, const PackedWeights<LaneWeights, T>& weights, T* gate_b,
                      const Gradient& g, T bias_rate) const {
    constexpr int64_t row = kLanes<T>;
    const int64_t H = s.hidden_size, K = s.input_size;
    const auto scaled = [](int64_t gate_row, V w) {
      return w * V::broadcast((gate_row & 3) == 2 ? kTanhScale<T> : kSigmoidScale<T>);
    };
    apply(weights.gate_h_t, g.gate_h, 4 * H, H, lr, [&](int64_t r, int64_t k, int v, V w) {
      scaled(r, w).store(weights.gate_h + (k * 4 * H + r) * row + v * V::kWidth);
    });
    const bool is_state = sets_state(weights.decoder);
    apply(weights.gate_x_t, g.gate_x, entry_rows(s, weights.decoder), K, lr,
          [&](int64_t r, int64_t k, int v, V w) {
            if (is_state)
              w.store(weights.gate_x + ((r / H * K + k) * H + r % H) * row + v * V::kWidth);
            else
              scaled(r, w).store(weights.gate_x + (k * 4 * H + r) * row + v * V::kWidth);
          });
    apply(gate_b, g.gate_b, 4 * H, 1, bias_rate, [&](int64_t r, int64_t, int v, V w) {
      scaled(r, w).store(weights.gate_b + r * row + v * V::kWidth);
    });
  }
};

// A module's biases b [M, 4H] into its lane, unscaled and interleaved by unit.
template <class T>
inline void gather_gate_biases(const Sizes& s, const T* b, int64_t module, int lane, T* gate_b) {
  const int64_t H = s.hidden_size;
  for (int64_t r = 0; r < 4 * H; ++r)
    gate_b[r * kLanes<T> + lane] = b[(module * 4 + (r & 3)) * H + (r >> 2)];
}

// A lane's weights, as its module's. first_b: as gate_b, if the modules have it.
template <class T>
inline void scatter_weights(const Sizes& s, const PackedWeights<LaneWeights, T>& weights,
                            const T* gate_b, const T* first_b, int lane, int64_t module,
                            const WeightOutputs<T>& out) {
  constexpr int64_t row = kLanes<T>;
  const int64_t H = s.hidden_size, K = s.input_size, O = s.output_size;
  for (int64_t u = 0; u < H; ++u)
    for (int64_t gate = 0; gate < 4; ++gate) {
      const int64_t from = 4 * u + gate, to = module * 4 * H + gate * H + u;
      out.b[to] = gate_b[from * row + lane];
      if (out.b_first) out.b_first[to] = first_b[from * row + lane];
      scatter_lane(weights.gate_h_t + from * H * row, H, lane, out.W_hh + to * H);
    }
  const int64_t R = entry_rows(s, weights.decoder);
  for (int64_t r = 0; r < R; ++r) {
    const int64_t to = module * R + (sets_state(weights.decoder) ? r : r % 4 * H + r / 4);
    scatter_lane(weights.gate_x_t + r * K * row, K, lane, out.W_ih + to * K);
    if (out.b_state) out.b_state[to] = weights.state_b[r * row + lane];
  }
  scatter_lane(weights.out_h_t, O * H, lane, out.W_out + module * O * H);
  scatter_lane(weights.out_b, O, lane, out.b_out + module * O);
}

}  // namespace MICFAST_ISA
}  // namespace micfast
