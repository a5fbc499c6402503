// Few targets of one module: the lanes are hidden units, not targets.
//
// Where a block of targets would leave most lanes idle, one target alone still fills the vectors
// with the units of its module: a state value is broadcast, a row of weights is loaded. Every sum
// runs over the same terms in the same order as in sequence.h, so a target's result is the same to
// the last bit. A *tile* is up to kTileTargets targets of one module, which share the loads of the
// weights. What surrounds the passes (invert.h, ...) keeps its lane rows: lane l belongs to target
// l of the tile, and the other lanes hold zeros.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

struct UnitLanes {
  template <class T>
  static constexpr int kStride = 1;
};

constexpr int kTileTargets = 4;

template <class T>
constexpr int64_t vectors_of(int64_t n) {
  return (n + Vec<T>::kWidth - 1) / Vec<T>::kWidth;
}

// Weights of one module, padded with zeros to whole vectors, each matrix stored as its loop walks.
// Units of the padding have zero state whatever happens.
template <class T>
struct PackedWeights<UnitLanes, T> {
  static constexpr int64_t kWidth = Vec<T>::kWidth;
  // Vectors of units whose sums run side by side, enough to hide the latency of a multiply-add.
  static constexpr int kChunk = 8;

  T* gate_x;    // [unit vectors, K, 4, W] scaled: input to gates
  T* gate_h;    // [unit vectors, H, 4, W] scaled: state to gates
  T* gate_b;    // [unit vectors, 4, W]    scaled
  T* out_h;     // [H, output vectors W]   state to outputs
  T* out_b;     // [output vectors W]
  T* gate_h_t;  // [chunks of unit vectors; 4H, vectors of the chunk W] gate gradients to state
  T* gate_x_t;  // [4H, input vectors W]   gate gradients to input gradient
  T* out_h_t;   // [chunks of unit vectors; O, vectors of the chunk W] output gradients to state

  void take(Arena& arena, const Sizes& s) {
    const int64_t H = s.hidden_size, K = s.input_size, O = s.output_size;
    const int64_t units = vectors_of<T>(H) * kWidth, outputs = vectors_of<T>(O) * kWidth;
    gate_x = arena.take<T>(K * 4 * units);
    gate_h = arena.take<T>(H * 4 * units);
    gate_b = arena.take<T>(4 * units);
    out_h = arena.take<T>(H * outputs);
    out_b = arena.take<T>(outputs);
    gate_h_t = arena.take<T>(4 * H * units);
    gate_x_t = arena.take<T>(4 * H * vectors_of<T>(K) * kWidth);
    out_h_t = arena.take<T>(O * units);
  }

  // Where row r of a matrix in chunks has its value of a unit.
  static int64_t in_chunks(int64_t n_rows, int64_t r, int64_t unit, int64_t n_vectors) {
    const int64_t first = unit / kWidth / kChunk * kChunk;
    const int64_t left = n_vectors - first, vectors = left < kChunk ? left : kChunk;
    return (first * n_rows + r * vectors) * kWidth + unit - first * kWidth;
  }

  void pack(const Sizes& s, const Weights<T>& w, int64_t module, int) {
    const int64_t H = s.hidden_size, K = s.input_size, O = s.output_size;
    const int64_t n_vectors = vectors_of<T>(H), units = n_vectors * kWidth;
    const int64_t outputs = vectors_of<T>(O) * kWidth, inputs = vectors_of<T>(K) * kWidth;
    const T* W_ih = w.W_ih + module * 4 * H * K;
    const T* W_hh = w.W_hh + module * 4 * H * H;
    const T* b = w.b + module * 4 * H;
    const T* W_out = w.W_out + module * O * H;
    const T* b_out = w.b_out + module * O;
    for (int64_t u = 0; u < units; ++u)
      for (int64_t gate = 0; gate < 4; ++gate) {
        const bool real = u < H;
        const T scale = gate == 2 ? kTanhScale<T> : kSigmoidScale<T>;
        const int64_t from = gate * H + u, vector = u / kWidth, lane = u % kWidth;
        gate_b[(vector * 4 + gate) * kWidth + lane] = real ? scale * b[from] : 0;
        for (int64_t k = 0; k < K; ++k)
          gate_x[((vector * K + k) * 4 + gate) * kWidth + lane] =
              real ? scale * W_ih[from * K + k] : 0;
        for (int64_t k = 0; k < H; ++k)
          gate_h[((vector * H + k) * 4 + gate) * kWidth + lane] =
              real ? scale * W_hh[from * H + k] : 0;
        if (!real) continue;
        const int64_t row = 4 * u + gate;
        for (int64_t k = 0; k < units; ++k)
          gate_h_t[in_chunks(4 * H, row, k, n_vectors)] = k < H ? W_hh[from * H + k] : 0;
        for (int64_t k = 0; k < inputs; ++k)
          gate_x_t[row * inputs + k] = k < K ? W_ih[from * K + k] : 0;
      }
    for (int64_t o = 0; o < outputs; ++o) {
      out_b[o] = o < O ? b_out[o] : 0;
      for (int64_t k = 0; k < H; ++k) out_h[k * outputs + o] = o < O ? W_out[o * H + k] : 0;
    }
    for (int64_t o = 0; o < O; ++o)
      for (int64_t k = 0; k < units; ++k)
        out_h_t[in_chunks(O, o, k, n_vectors)] = k < H ? W_out[o * H + k] : 0;
  }
};

// Scratch of the two passes for a tile, all [units] per target.
template <class T>
struct NarrowState {
  static constexpr int kTapeRows = 6;  // of CellTape
  T* h[2];                             // [tile, units]: state of even and odd steps
  T* c;                                // [tile, units]
  T* tape;                             // [T, tile, unit vectors, 6, W]
  T* d_a[2];                           // [tile, 4, units]: gate gradients of even and odd steps
  T* d_c;                              // [tile, units]
  T* x;                                // [tile, K]: the inputs, dense
  T* y;                                // [output vectors W]
  int64_t units;
  int n_targets;  // of the tile at work

  void take(Arena& arena, const Sizes& s, int64_t slots) {
    units = vectors_of<T>(s.hidden_size) * Vec<T>::kWidth;
    const int64_t size = kTileTargets * units;
    h[0] = arena.take<T>(size);
    h[1] = arena.take<T>(size);
    c = arena.take<T>(size);
    tape = arena.take<T>(slots ? s.n_steps * size * kTapeRows : 0);
    d_a[0] = arena.take<T>(slots ? 4 * size : 0);
    d_a[1] = arena.take<T>(slots ? 4 * size : 0);
    d_c = arena.take<T>(slots ? size : 0);
    x = arena.take<T>(kTileTargets * s.input_size);
    y = arena.take<T>(vectors_of<T>(s.output_size > s.input_size ? s.output_size : s.input_size) *
                      Vec<T>::kWidth);
    n_targets = kTileTargets;
  }
  T* tape_of(int64_t t, int64_t target, int64_t vector) const {
    return tape + ((t * kTileTargets + target) * units + vector * Vec<T>::kWidth) * kTapeRows;
  }
};

// Which state a layout's passes use; how many of the lanes are targets matters to a tile alone.
template <class Layout, class T>
struct StateOf {
  using Sequence = SequenceState<T>;
};
template <class T>
struct StateOf<UnitLanes, T> {
  using Sequence = NarrowState<T>;
};
template <class T>
MICFAST_INLINE void set_targets(SequenceState<T>&, int) {}
template <class T>
MICFAST_INLINE void set_targets(NarrowState<T>& state, int n) {
  state.n_targets = n;
}

template <class T>
MICFAST_INLINE void clear_values(T* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = 0;
}

// acc[r][u][gate] += sum over j < n of w[u][j, gate] x[r][j]: the gates of kVectors vectors of
// units for kMembers states, whose values x lie `stride` apart.
template <int kMembers, int kVectors, class T>
MICFAST_INLINE void accumulate_gates(Vec<T> (&acc)[kMembers][kVectors][4], const T* w, const T* x,
                                     int64_t stride, int64_t n) {
  constexpr int64_t W = Vec<T>::kWidth;
  for (int64_t j = 0; j < n; ++j) {
    Vec<T> xj[kMembers];
#pragma GCC unroll 8
    for (int r = 0; r < kMembers; ++r) xj[r] = Vec<T>::broadcast(x[r * stride + j]);
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u)
#pragma GCC unroll 4
      for (int gate = 0; gate < 4; ++gate) {
        const Vec<T> weight = Vec<T>::load(w + u * n * 4 * W + (j * 4 + gate) * W);
#pragma GCC unroll 8
        for (int r = 0; r < kMembers; ++r) acc[r][u][gate] = fma(weight, xj[r], acc[r][u][gate]);
      }
  }
}

// Calls body(members, vectors, first member, first vector) until all pairs of a member and a vector
// of units are covered: two members of one vector at a time, or two vectors of the last member.
template <class Body>
MICFAST_INLINE void for_gate_blocks(int64_t n_members, int64_t n_vectors, Body body) {
  for (int64_t v = 0; v < n_vectors; v += 2) {
    const bool both = v + 1 < n_vectors;
    int64_t m = 0;
    for (; m + 1 < n_members; m += 2) {
      body(RowCount<2>{}, RowCount<1>{}, m, v);
      if (both) body(RowCount<2>{}, RowCount<1>{}, m, v + 1);
    }
    if (m == n_members) continue;
    if (both)
      body(RowCount<1>{}, RowCount<2>{}, m, v);
    else
      body(RowCount<1>{}, RowCount<1>{}, m, v);
  }
}

// y[i] = b[i] + sum over j < n of w[j, i] x[j], i < n_vectors W
template <class T>
MICFAST_INLINE void multiply_dense(T* y, const T* b, const T* w, const T* x, int64_t n,
                                   int64_t n_vectors) {
  constexpr int64_t W = Vec<T>::kWidth;
  for (int64_t v = 0; v < n_vectors; ++v) {
    Vec<T> acc = b ? Vec<T>::load(b + v * W) : Vec<T>::broadcast(0);
    for (int64_t j = 0; j < n; ++j)
      acc = fma(Vec<T>::load(w + (j * n_vectors + v) * W), Vec<T>::broadcast(x[j]), acc);
    acc.store(y + v * W);
  }
}

// As sequence.h's forward(), for the tile's targets.
template <bool kKeepTape, class T>
void forward(const Sizes& s, const PackedWeights<UnitLanes, T>& w, const T* z,
             const NarrowState<T>& state, T* y) {
  using V = Vec<T>;
  constexpr int64_t W = V::kWidth, row = kLanes<T>;
  const int64_t H = s.hidden_size, O = s.output_size, K = s.input_size;
  const int64_t units = state.units, n_vectors = vectors_of<T>(H), n = state.n_targets;
  clear_values(state.c, n * units);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t k = 0; k < K; ++k) state.x[r * K + k] = z[k * row + r];

  for (int64_t t = 0; t < s.n_steps; ++t, y += O * row) {
    const T* x = t == 0 ? state.x : state.h[(t - 1) & 1];
    const T* w_x = t == 0 ? w.gate_x : w.gate_h;
    const int64_t n_x = t == 0 ? K : H, stride = t == 0 ? K : units;
    T* h = state.h[t & 1];

    for_gate_blocks(
        n, n_vectors,
        [&](auto members, auto vectors, int64_t first, int64_t vector) MICFAST_LAMBDA_INLINE {
          constexpr int kMembers = decltype(members)::value, kVectors = decltype(vectors)::value;
          V a[kMembers][kVectors][4];
#pragma GCC unroll 8
          for (int r = 0; r < kMembers; ++r)
#pragma GCC unroll 8
            for (int u = 0; u < kVectors; ++u)
#pragma GCC unroll 4
              for (int gate = 0; gate < 4; ++gate)
                a[r][u][gate] = V::load(w.gate_b + ((vector + u) * 4 + gate) * W);
          accumulate_gates(a, w_x + vector * n_x * 4 * W, x + first * stride, stride, n_x);
#pragma GCC unroll 8
          for (int r = 0; r < kMembers; ++r)
#pragma GCC unroll 8
            for (int u = 0; u < kVectors; ++u) {
              const int64_t at = (first + r) * units + (vector + u) * W;
              CellTape<T> tape;
              const CellState<T> next = cell_forward(a[r][u][0], a[r][u][1], a[r][u][2], a[r][u][3],
                                                     V::load(state.c + at), tape);
              next.h.store(h + at);
              next.c.store(state.c + at);
              if (kKeepTape) store_tape<W>(state.tape_of(t, first + r, vector + u), tape);
            }
        });
    clear(y, O);
    for (int64_t r = 0; r < n; ++r) {
      multiply_dense(state.y, w.out_b, w.out_h, h + r * units, H, vectors_of<T>(O));
      for (int64_t o = 0; o < O; ++o) y[o * row + r] = state.y[o];
    }
  }
}

// As sequence.h's backward(), for the tile's targets.
template <class T, class AfterStep>
void backward(const Sizes& s, const PackedWeights<UnitLanes, T>& w, const T* d_y, T* d_z,
              const NarrowState<T>& state, AfterStep) {
  using V = Vec<T>;
  constexpr int64_t W = V::kWidth, row = kLanes<T>;
  constexpr int kChunk = PackedWeights<UnitLanes, T>::kChunk;
  const int64_t H = s.hidden_size, O = s.output_size, K = s.input_size;
  const int64_t units = state.units, n_vectors = vectors_of<T>(H), n = state.n_targets;
  clear_values(state.d_c, n * units);

  const T* d_a_next = nullptr;
  for (int64_t t = s.n_steps - 1; t >= 0; --t) {
    T* d_a = state.d_a[t & 1];
    for (int64_t first = 0; first < n_vectors; first += kChunk) {
      const int64_t left = n_vectors - first;
      const T* w_y = w.out_h_t + first * O * W;
      const T* w_h = w.gate_h_t + first * 4 * H * W;
      for (int64_t r = 0; r < n; ++r) {
        auto body = [&](auto vectors, int64_t) MICFAST_LAMBDA_INLINE {
          constexpr int kVectors = decltype(vectors)::value;
          V d_h[kVectors];
#pragma GCC unroll 8
          for (int u = 0; u < kVectors; ++u) d_h[u] = V::broadcast(0);
          for (int64_t o = 0; o < O; ++o) {
            const V d = V::broadcast(d_y[(t * O + o) * row + r]);
#pragma GCC unroll 8
            for (int u = 0; u < kVectors; ++u)
              d_h[u] = fma(V::load(w_y + (o * kVectors + u) * W), d, d_h[u]);
          }
          if (d_a_next) {
            const T* from = d_a_next + r * 4 * units;
            for (int64_t j = 0; j < H; ++j)
#pragma GCC unroll 4
              for (int64_t gate = 0; gate < 4; ++gate) {
                const V d = V::broadcast(from[gate * units + j]);
#pragma GCC unroll 8
                for (int u = 0; u < kVectors; ++u)
                  d_h[u] = fma(V::load(w_h + ((4 * j + gate) * kVectors + u) * W), d, d_h[u]);
              }
          }
#pragma GCC unroll 8
          for (int u = 0; u < kVectors; ++u) {
            const int64_t unit = (first + u) * W, at = r * units + unit;
            const CellTape<T> tape = load_tape<W>(state.tape_of(t, r, first + u));
            const CellGradient<T> d = cell_backward(d_h[u], V::load(state.d_c + at), tape);
            d.c_prev.store(state.d_c + at);
            T* to = d_a + r * 4 * units + unit;
            d.a_i.store(to);
            d.a_f.store(to + units);
            d.a_g.store(to + 2 * units);
            d.a_o.store(to + 3 * units);
          }
        };
        call_with_row_count<kChunk>(static_cast<int>(left < kChunk ? left : kChunk), 0, body);
      }
    }
    d_a_next = d_a;
  }

  clear(d_z, K);
  const int64_t n_inputs = vectors_of<T>(K);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t v = 0; v < n_inputs; ++v) {
      V acc = V::broadcast(0);
      for (int64_t j = 0; j < H; ++j)
        for (int64_t gate = 0; gate < 4; ++gate)
          acc = fma(V::load(w.gate_x_t + ((4 * j + gate) * n_inputs + v) * W),
                    V::broadcast(d_a_next[(r * 4 + gate) * units + j]), acc);
      acc.store(state.y);
      for (int64_t k = v * W; k < K && k < (v + 1) * W; ++k) d_z[k * row + r] = state.y[k - v * W];
    }
}

}  // namespace MICFAST_ISA
}  // namespace micfast
