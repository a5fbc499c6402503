// Weights of one module for narrow.h, where the lanes are its units.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

struct UnitLanes {
  template <class T>
  static constexpr int kStride = 1;
  template <class T>
  static MICFAST_INLINE Vec<T> load(const T* w, int) {  // of lane rows, as SharedWeights
    return Vec<T>::broadcast(*w);
  }
};

template <class T>
constexpr int64_t vectors_of(int64_t n) {
  return (n + Vec<T>::kWidth - 1) / Vec<T>::kWidth;
}

// Weights of one module, padded with zeros to whole vectors, each matrix stored as its loop walks.
// Units of the padding have zero state whatever happens.
template <class T, class Cell>
struct PackedWeights<UnitLanes, T, Cell> {
  static constexpr int64_t kWidth = Vec<T>::kWidth;
  static constexpr int kGates = Cell::kGates;
  // Vectors of units whose sums run side by side, enough to hide the latency of a multiply-add.
  static constexpr int kChunk = 8;

  Decoder decoder;
  bool maps;    // as in sequence.h
  T* gate_x;    // [unit vectors, K, 4, W] scaled: latent to gates; or [n_states, K, unit vectors W]
  T* gate_h;    // [unit vectors, H, 4, W] scaled: state to gates
  T* gate_b;    // [unit vectors, 4, W]    scaled
  T* first_b;   // [unit vectors, 4, W]    scaled: of the first step
  T* state_b;   // [n_states, unit vectors W] of the initial state
  T* out_h;     // [H, output vectors W]   state to outputs
  T* out_b;     // [output vectors W]
  T* scale;     // [O]                     of the mapped outputs
  T* shift;     // [O]
  T* gate_h_t;  // [chunks of unit vectors; 4H, vectors of the chunk W] gate gradients to state
  T* gate_x_t;  // [R, input vectors W]    gradients of what the latent enters to the latent's
  T* out_h_t;   // [chunks of unit vectors; O, vectors of the chunk W] output gradients to state

  MICFAST_NOINLINE void take(Arena& arena, const Sizes& s, const Weights<T>& w = {}) {
    const int64_t H = s.hidden_size, K = s.input_size, O = s.output_size;
    const int64_t units = vectors_of<T>(H) * kWidth, outputs = vectors_of<T>(O) * kWidth;
    decoder = w.decoder;
    maps = maps_outputs(w);
    const int64_t n_states = sets_state(decoder) ? decoder.n_states : 0;
    gate_x = arena.take<T>(K * (n_states ? n_states : kGates) * units);
    gate_h = arena.take<T>(H * kGates * units);
    gate_b = arena.take<T>(kGates * units);
    first_b = w.b_first ? arena.take<T>(kGates * units) : gate_b;
    state_b = arena.take<T>(n_states * units);
    out_h = arena.take<T>(H * outputs);
    out_b = arena.take<T>(outputs);
    scale = arena.take<T>(maps ? O : 0);
    shift = arena.take<T>(maps ? O : 0);
    gate_h_t = arena.take<T>(kGates * H * units);
    gate_x_t = arena.take<T>(entry_rows(s, decoder) * vectors_of<T>(K) * kWidth);
    out_h_t = arena.take<T>(O * units);
  }

  // Where row r of a matrix in chunks has its value of a unit.
  static int64_t in_chunks(int64_t n_rows, int64_t r, int64_t unit, int64_t n_vectors) {
    const int64_t first = unit / kWidth / kChunk * kChunk;
    const int64_t left = n_vectors - first, vectors = left < kChunk ? left : kChunk;
    return (first * n_rows + r * vectors) * kWidth + unit - first * kWidth;
  }

  MICFAST_NOINLINE void pack(const Sizes& s, const Weights<T>& w, int64_t module, int) {
    const int64_t H = s.hidden_size, K = s.input_size, O = s.output_size;
    const int64_t n_vectors = vectors_of<T>(H), units = n_vectors * kWidth;
    const int64_t outputs = vectors_of<T>(O) * kWidth, inputs = vectors_of<T>(K) * kWidth;
    const int64_t R = entry_rows(s, decoder);
    const T* W_ih = w.W_ih + module * R * K;
    const T* W_hh = w.W_hh + module * kGates * H * H;
    const T* b = w.b + module * kGates * H;
    const T* W_out = w.W_out + module * O * H;
    const T* b_out = w.b_out + module * O;
    for (int64_t u = 0; u < units; ++u)
      for (int64_t gate = 0; gate < kGates; ++gate) {
        const bool real = u < H;
        const T factor = Cell::template scale<T>(gate);
        const int64_t from = gate * H + u, vector = u / kWidth, lane = u % kWidth;
        const int64_t to = (vector * kGates + gate) * kWidth + lane;
        gate_b[to] = real ? factor * b[from] : 0;
        if (w.b_first)
          first_b[to] = real ? factor * (b[from] + w.b_first[module * kGates * H + from]) : 0;
        for (int64_t k = 0; k < K && !sets_state(decoder); ++k)
          gate_x[((vector * K + k) * kGates + gate) * kWidth + lane] =
              real ? factor * W_ih[from * K + k] : 0;
        for (int64_t k = 0; k < H; ++k)
          gate_h[((vector * H + k) * kGates + gate) * kWidth + lane] =
              real ? factor * W_hh[from * H + k] : 0;
        if (!real) continue;
        const int64_t row = kGates * u + gate;
        for (int64_t k = 0; k < units; ++k)
          gate_h_t[in_chunks(kGates * H, row, k, n_vectors)] = k < H ? W_hh[from * H + k] : 0;
        for (int64_t k = 0; k < inputs && !sets_state(decoder); ++k)
          gate_x_t[row * inputs + k] = k < K ? W_ih[from * K + k] : 0;
      }
    for (int64_t part = 0; part < decoder.n_states && sets_state(decoder); ++part)
      for (int64_t u = 0; u < units; ++u) {
        const bool real = u < H;
        const int64_t r = part * H + u;
        state_b[part * units + u] = real && w.b_state ? w.b_state[module * R + r] : 0;
        for (int64_t k = 0; k < K; ++k)
          gate_x[(part * K + k) * units + u] = real ? W_ih[r * K + k] : 0;
        for (int64_t k = 0; k < inputs && real; ++k)
          gate_x_t[r * inputs + k] = k < K ? W_ih[r * K + k] : 0;
      }
    for (int64_t o = 0; o < outputs; ++o) {
      out_b[o] = o < O ? b_out[o] : 0;
      for (int64_t k = 0; k < H; ++k) out_h[k * outputs + o] = o < O ? W_out[o * H + k] : 0;
    }
    for (int64_t o = 0; o < O; ++o) {
      if (maps) scale[o] = w.scale ? w.scale[module * O + o] : 1;
      if (maps) shift[o] = w.shift ? w.shift[module * O + o] : 0;
      for (int64_t k = 0; k < units; ++k)
        out_h_t[in_chunks(O, o, k, n_vectors)] = k < H ? W_out[o * H + k] : 0;
    }
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
