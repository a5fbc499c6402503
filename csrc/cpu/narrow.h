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

constexpr int kTileTargets = 4;

// Scratch of the two passes for a tile, all [units] per target.
template <class T, class Cell = Lstm>
struct NarrowState {
  T* h[2];     // [tile, units]: state of even and odd steps
  T* c;        // [tile, units]
  T* start;    // [tile, n_states, units]: the initial state, if the latent sets it
  T* drive;    // [tile, unit vectors, 4, W]: what a latent of every step adds to the gates
  T* tape;     // [T, tile, unit vectors, kTapeRows, W]
  T* slopes;   // [T, O] lane rows: of the outputs' map
  T* d_a[2];   // [tile, 4, units]: gate gradients of even and odd steps
  T* d_c;      // [tile, units]
  T* d_entry;  // [tile, 4 or n_states, units]: gradients of what the latent enters
  T* x;        // [tile, K]: the latents, dense
  T* y;        // [output vectors W]
  int64_t units;
  int n_targets;  // of the tile at work

  void take(Arena& arena, const Sizes& s, int64_t slots, const Weights<T>& w = {}) {
    constexpr int kGates = Cell::kGates;
    units = vectors_of<T>(s.hidden_size) * Vec<T>::kWidth;
    const int64_t size = kTileTargets * units;
    const int64_t entry = w.decoder.latent == Latent::kFirst ? 0
                          : sets_state(w.decoder)            ? w.decoder.n_states
                                                             : kGates;
    h[0] = arena.take<T>(size);
    h[1] = arena.take<T>(size);
    c = arena.take<T>(size);
    start = drive = arena.take<T>(entry * size);
    tape = arena.take<T>(slots ? s.n_steps * size * Cell::kTapeRows : 0);
    slopes = arena.take<T>(slots && maps_outputs(w) ? s.n_steps * s.output_size * kLanes<T> : 0);
    d_a[0] = arena.take<T>(slots ? kGates * size : 0);
    d_a[1] = arena.take<T>(slots ? kGates * size : 0);
    d_c = arena.take<T>(slots ? size : 0);
    d_entry = arena.take<T>(slots ? entry * size : 0);
    x = arena.take<T>(kTileTargets * s.input_size);
    y = arena.take<T>(vectors_of<T>(s.output_size > s.input_size ? s.output_size : s.input_size) *
                      Vec<T>::kWidth);
    n_targets = kTileTargets;
  }
  T* tape_of(int64_t t, int64_t target, int64_t vector) const {
    return tape + ((t * kTileTargets + target) * units + vector * Vec<T>::kWidth) * Cell::kTapeRows;
  }
};

// Which state a layout's passes use; how many of the lanes are targets matters to a tile alone.
template <class Layout, class T, class Cell>
struct StateOf {
  using Sequence = SequenceState<T, Cell>;
};
template <class T, class Cell>
struct StateOf<UnitLanes, T, Cell> {
  using Sequence = NarrowState<T, Cell>;
};
template <class T, class Cell>
MICFAST_INLINE void set_targets(SequenceState<T, Cell>&, int) {}
template <class T, class Cell>
MICFAST_INLINE void set_targets(NarrowState<T, Cell>& state, int n) {
  state.n_targets = n;
}

template <class T>
MICFAST_INLINE void clear_values(T* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = 0;
}

// acc[r][u][gate] += sum over j < n of w[u][j, gate] x[r][j]: the gates of kVectors vectors of
// units for kMembers states, whose values x lie `stride` apart.
template <int kMembers, int kVectors, int kGates, class T>
MICFAST_INLINE void accumulate_gates(Vec<T> (&acc)[kMembers][kVectors][kGates], const T* w,
                                     const T* x, int64_t stride, int64_t n) {
  constexpr int64_t W = Vec<T>::kWidth;
  for (int64_t j = 0; j < n; ++j) {
    Vec<T> xj[kMembers];
#pragma GCC unroll 8
    for (int r = 0; r < kMembers; ++r) xj[r] = Vec<T>::broadcast(x[r * stride + j]);
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u)
#pragma GCC unroll 4
      for (int gate = 0; gate < kGates; ++gate) {
        const Vec<T> weight = Vec<T>::load(w + u * n * kGates * W + (j * kGates + gate) * W);
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

// acc[r][u][gate] = the bias at w, the same for all members.
template <int kMembers, int kVectors, int kGates, class T>
MICFAST_INLINE void load_gates(Vec<T> (&acc)[kMembers][kVectors][kGates], const T* w,
                               int64_t stride) {
  constexpr int64_t W = Vec<T>::kWidth;
#pragma GCC unroll 8
  for (int r = 0; r < kMembers; ++r)
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u)
#pragma GCC unroll 4
      for (int gate = 0; gate < kGates; ++gate)
        acc[r][u][gate] = Vec<T>::load(w + r * stride + (u * kGates + gate) * W);
}

// Initial states of one member, [n_states, units] each: the map of x [K] with the bias b, or
// without one where it is null.
template <class T, class Cell>
inline void multiply_start(const PackedWeights<UnitLanes, T, Cell>& w, const T* b, const T* x,
                           int64_t K, int64_t units, T* start) {
  for (int64_t part = 0; part < w.decoder.n_states; ++part)
    multiply_dense(start + part * units, b ? b + part * units : b, w.gate_x + part * K * units, x,
                   K, units / Vec<T>::kWidth);
}

// As sequence.h's enter(), for the tile's targets.
template <class T, class Cell>
void enter(const Sizes& s, const PackedWeights<UnitLanes, T, Cell>& w, const T* z,
           const NarrowState<T, Cell>& state) {
  constexpr int64_t W = Vec<T>::kWidth, row = kLanes<T>;
  constexpr int kGates = Cell::kGates;
  const int64_t K = s.input_size, units = state.units, n = state.n_targets;
  const int64_t n_vectors = units / W, n_states = w.decoder.n_states;
  clear_values(state.c, n * units);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t k = 0; k < K; ++k) state.x[r * K + k] = z[k * row + r];
  if (w.decoder.latent == Latent::kEvery)
    for (int64_t r = 0; r < n; ++r)
      for (int64_t v = 0; v < n_vectors; ++v) {
        Vec<T> a[1][1][kGates];
        load_gates(a, w.gate_b + v * kGates * W, 0);
        accumulate_gates(a, w.gate_x + v * K * kGates * W, state.x + r * K, K, K);
        for (int gate = 0; gate < kGates; ++gate)
          a[0][0][gate].store(state.drive + ((r * n_vectors + v) * kGates + gate) * W);
      }
  if (!sets_state(w.decoder)) return;
  for (int64_t r = 0; r < n; ++r) {
    T* start = state.start + r * n_states * units;
    multiply_start<T>(w, w.state_b, state.x + r * K, K, units, start);
    if (w.decoder.latent == Latent::kTanhState)
      for (int64_t j = 0; j < n_states * units; j += W)
        TanhMap::at(Vec<T>::load(start + j)).value.store(start + j);
    const T* cell = Cell::kCellIsState ? start : n_states == 2 ? start + units : nullptr;
    for (int64_t j = 0; cell && j < units; ++j) state.c[r * units + j] = cell[j];
  }
}

// As sequence.h's forward(), for the tile's targets.
template <bool kKeepTape, class T, class Cell>
void forward(const Sizes& s, const PackedWeights<UnitLanes, T, Cell>& w, const T* z,
             const NarrowState<T, Cell>& state, T* y) {
  using V = Vec<T>;
  constexpr int64_t W = V::kWidth, row = kLanes<T>;
  constexpr int kGates = Cell::kGates;
  const int64_t H = s.hidden_size, O = s.output_size, K = s.input_size;
  const int64_t units = state.units, n_vectors = vectors_of<T>(H), n = state.n_targets;
  enter(s, w, z, state);

  for (int64_t t = 0; t < s.n_steps; ++t, y += O * row) {
    const bool sees_latent = t == 0 && !sets_state(w.decoder);
    const T* x = sees_latent ? state.x : t == 0 ? state.start : state.h[(t - 1) & 1];
    const T* w_x = sees_latent ? w.gate_x : w.gate_h;
    const int64_t n_x = sees_latent ? K : H;
    const int64_t stride = sees_latent ? K : t == 0 ? w.decoder.n_states * units : units;
    const bool driven = t > 0 && w.decoder.latent == Latent::kEvery;
    const T* bias = driven ? state.drive : t == 0 ? w.first_b : w.gate_b;
    const int64_t bias_stride = driven ? kGates * units : 0;
    T* h = state.h[t & 1];

    for_gate_blocks(
        n, n_vectors,
        [&](auto members, auto vectors, int64_t first, int64_t vector) MICFAST_LAMBDA_INLINE {
          constexpr int kMembers = decltype(members)::value, kVectors = decltype(vectors)::value;
          V a[kMembers][kVectors][kGates];
          load_gates(a, bias + first * bias_stride + vector * kGates * W, bias_stride);
          accumulate_gates(a, w_x + vector * n_x * kGates * W, x + first * stride, stride, n_x);
#pragma GCC unroll 8
          for (int r = 0; r < kMembers; ++r)
#pragma GCC unroll 8
            for (int u = 0; u < kVectors; ++u) {
              const int64_t at = (first + r) * units + (vector + u) * W;
              typename Cell::template Tape<T> tape;
              const auto gate = [&](int g) MICFAST_LAMBDA_INLINE { return a[r][u][g]; };
              const CellState<T> next = Cell::forward(gate, V::load(state.c + at), tape);
              next.h.store(h + at);
              next.c.store(state.c + at);
              if (kKeepTape) Cell::template store<W>(state.tape_of(t, first + r, vector + u), tape);
            }
        });
    clear(y, O);
    for (int64_t r = 0; r < n; ++r) {
      multiply_dense(state.y, w.out_b, w.out_h, h + r * units, H, vectors_of<T>(O));
      for (int64_t o = 0; o < O; ++o) y[o * row + r] = state.y[o];
    }
    if (w.maps)
      map_outputs<UnitLanes>(w.decoder.output, w.scale, w.shift, O, y,
                             kKeepTape ? state.slopes + t * O * row : nullptr);
  }
}

// d_h[u] += what the gate gradients `from` [4, units] of one target add to kVectors vectors of
// units.
template <int kGates, int kVectors, class T>
MICFAST_INLINE void add_from_gates(Vec<T> (&d_h)[kVectors], const T* w_h, const T* from, int64_t H,
                                   int64_t units) {
  constexpr int64_t W = Vec<T>::kWidth;
  for (int64_t j = 0; j < H; ++j)
#pragma GCC unroll 4
    for (int64_t gate = 0; gate < kGates; ++gate) {
      const Vec<T> d = Vec<T>::broadcast(from[gate * units + j]);
#pragma GCC unroll 8
      for (int u = 0; u < kVectors; ++u)
        d_h[u] = fma(Vec<T>::load(w_h + ((kGates * j + gate) * kVectors + u) * W), d, d_h[u]);
    }
}

// As sequence.h's backward(), for the tile's targets.
template <class T, class Cell, class AfterStep>
void backward(const Sizes& s, const PackedWeights<UnitLanes, T, Cell>& w, T* d_y, T* d_z,
              const NarrowState<T, Cell>& state, AfterStep) {
  using V = Vec<T>;
  constexpr int64_t W = V::kWidth, row = kLanes<T>;
  constexpr int kChunk = PackedWeights<UnitLanes, T, Cell>::kChunk, kGates = Cell::kGates;
  const int64_t H = s.hidden_size, O = s.output_size, K = s.input_size;
  const int64_t units = state.units, n_vectors = vectors_of<T>(H), n = state.n_targets;
  const bool enters_every = w.decoder.latent == Latent::kEvery;
  clear_values(state.d_c, n * units);
  if (w.maps) multiply_rows(d_y, state.slopes, s.n_steps * O);
  if (enters_every) clear_values(state.d_entry, n * kGates * units);

  // Calls body(vectors, target, first vector, weights of the state) for every chunk of units.
  const auto for_chunks = [&](auto body) MICFAST_LAMBDA_INLINE {
    for (int64_t first = 0; first < n_vectors; first += kChunk) {
      const int64_t left = n_vectors - first;
      const T* w_h = w.gate_h_t + first * kGates * H * W;
      for (int64_t r = 0; r < n; ++r) {
        auto of_chunk = [&](auto vectors, int64_t)
                            MICFAST_LAMBDA_INLINE { body(vectors, r, first, w_h); };
        call_with_row_count<kChunk>(static_cast<int>(left < kChunk ? left : kChunk), 0, of_chunk);
      }
    }
  };

  const T* d_a_next = nullptr;
  for (int64_t t = s.n_steps - 1; t >= 0; --t) {
    T* d_a = state.d_a[t & 1];
    for_chunks([&](auto vectors, int64_t r, int64_t first, const T* w_h) MICFAST_LAMBDA_INLINE {
      constexpr int kVectors = decltype(vectors)::value;
      const T* w_y = w.out_h_t + first * O * W;
      V d_h[kVectors];
#pragma GCC unroll 8
      for (int u = 0; u < kVectors; ++u) d_h[u] = V::broadcast(0);
      for (int64_t o = 0; o < O; ++o) {
        const V d = V::broadcast(d_y[(t * O + o) * row + r]);
#pragma GCC unroll 8
        for (int u = 0; u < kVectors; ++u)
          d_h[u] = fma(V::load(w_y + (o * kVectors + u) * W), d, d_h[u]);
      }
      if (d_a_next) add_from_gates<kGates>(d_h, w_h, d_a_next + r * kGates * units, H, units);
#pragma GCC unroll 8
      for (int u = 0; u < kVectors; ++u) {
        const int64_t unit = (first + u) * W, at = r * units + unit;
        const auto tape = Cell::template load<W>(state.tape_of(t, r, first + u));
        T* to = d_a + r * kGates * units + unit;
        Cell::backward(d_h[u], V::load(state.d_c + at), tape,
                       [&](int gate, V d) MICFAST_LAMBDA_INLINE { d.store(to + gate * units); })
            .store(state.d_c + at);
      }
    });
    if (enters_every)
      for (int64_t j = 0; j < n * kGates * units; ++j) state.d_entry[j] += d_a[j];
    d_a_next = d_a;
  }

  const T* d_entry = w.decoder.latent == Latent::kFirst ? d_a_next : state.d_entry;
  const int64_t n_states = w.decoder.n_states;
  if (sets_state(w.decoder)) {
    for_chunks([&](auto vectors, int64_t r, int64_t first, const T* w_h) MICFAST_LAMBDA_INLINE {
      constexpr int kVectors = decltype(vectors)::value;
      V d_h[kVectors];
#pragma GCC unroll 8
      for (int u = 0; u < kVectors; ++u)
        d_h[u] =
            Cell::kCellIsState ? V::load(state.d_c + r * units + (first + u) * W) : V::broadcast(0);
      add_from_gates<kGates>(d_h, w_h, d_a_next + r * kGates * units, H, units);
      for (int u = 0; u < kVectors; ++u)
        d_h[u].store(state.d_entry + r * n_states * units + (first + u) * W);
    });
    for (int64_t r = 0; r < n && n_states == 2; ++r)
      for (int64_t j = 0; j < units; ++j)
        state.d_entry[(2 * r + 1) * units + j] = state.d_c[r * units + j];
    if (w.decoder.latent == Latent::kTanhState)
      for (int64_t j = 0; j < n * n_states * units; ++j)
        state.d_entry[j] *= 1 - state.start[j] * state.start[j];
  }

  clear(d_z, K);
  const int64_t n_inputs = vectors_of<T>(K);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t v = 0; v < n_inputs; ++v) {
      V acc = V::broadcast(0);
      const auto add = [&](int64_t weight_row, const T* d) MICFAST_LAMBDA_INLINE {
        acc = fma(V::load(w.gate_x_t + (weight_row * n_inputs + v) * W), V::broadcast(*d), acc);
      };
      if (sets_state(w.decoder)) {
        for (int64_t part = 0; part < n_states; ++part)
          for (int64_t j = 0; j < H; ++j)
            add(part * H + j, d_entry + (r * n_states + part) * units + j);
      } else {
        for (int64_t j = 0; j < H; ++j)
          for (int64_t gate = 0; gate < kGates; ++gate)
            add(kGates * j + gate, d_entry + (r * kGates + gate) * units + j);
      }
      acc.store(state.y);
      for (int64_t k = v * W; k < K && k < (v + 1) * W; ++k) d_z[k * row + r] = state.y[k - v * W];
    }
}

}  // namespace MICFAST_ISA
}  // namespace micfast
