// The Gauss-Newton matrix J' J of one module's outputs by its gates' weights.
//
// The derivatives go forward through time. With k_i = i (1 - i) g, k_f = f (1 - f) c', k_g =
// i (1 - g^2), k_o = o (1 - o) tanh c and e = o (1 - tanh^2 c) of each unit:
//
//   dC = f dC + (k_i W_i + k_f W_f + k_g W_g) dH,   dH = e dC + k_o W_o dH of the step before
//
// two products of H x H matrices a step, and then for the weight itself, by which unit u's gate is
// moved by its input in: dC_u += k in, dH_u += e k in (or k_o in to dH_u alone). Lanes are weights
// here. Inputs are the states before, 1, and at the first step the latent: only weights of its
// values that are not 0 have derivatives at all.
//
// Time is cut into segments. Each block of weights passes through one on its own, so that its
// states stay in the first cache, and leaves the outputs' derivatives; then all pairs of blocks
// are multiplied.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
struct JacobianSums {
  using V = Vec<T>;
  static constexpr int64_t row = kLanes<T>;
  static constexpr int64_t kSegmentRows = 128;

  int64_t H, K, O, segment;       // segment: steps
  int64_t n_recurrent, n_shared;  // weights of states and 1: number, and blocks of lanes
  int64_t n_blocks;               // with those of the sequence's latent
  int64_t n_live;
  int64_t* live;  // [K]: which values of the latent are not 0
  struct Group {  // the weights of one gate row in a block: where they begin, perhaps before it
    int64_t gate_row, unit, lane;
  };
  Group* groups;                // in the order of the blocks
  int64_t* first_group;         // [shared blocks + 1]
  T* W_hh;                      // [H, 4, H]: by the state it reads, gate and unit
  T* slopes;                    // [4, H]: k_i, k_f, k_g, k_o of a step
  T* products;                  // [segment, H, 2H]: the two matrices, rows of units in pairs
  T* leaks;                     // [segment, H, 2]: f, e
  T* gains;                     // [segment, 4H, 2]: what an input adds to dC and dH
  T* inputs;                    // [segment, row + H + 1 + row]: states before and 1 between zeros
  T* read_out;                  // [H, O] times the square root of the sequence's weight
  T *d_h, *d_c;                 // [blocks, 2, H], [blocks, H]
  T* outputs;                   // [O] lane rows
  int64_t *row_at, *first_row;  // [segment, O]: row of a value, -1 if it is missing; [O + 1]
  T* panel;                     // [blocks, rows, lanes]: the segment's rows of J
  T* right;                     // [rows, H + 2]: phi and the residual
  T* tiles;                     // [pairs of blocks, lanes, lanes]
  T* onto;                      // [blocks, O, H + 2] lane rows: J' (phi, r)

  int64_t max_blocks() const { return n_shared + (4 * H * K + row - 1) / row; }
  int64_t max_rows() const { return segment * O; }

  void take(Arena& arena, const Sizes& s) {
    H = s.hidden_size, K = s.input_size, O = s.output_size;
    segment = O < kSegmentRows ? kSegmentRows / O : 1;
    n_recurrent = 4 * H * (H + 1);
    n_shared = (n_recurrent + row - 1) / row;
    n_live = 0;
    const int64_t most = max_blocks();
    live = arena.take<int64_t>(K);
    groups = arena.take<Group>(4 * H + n_shared);
    first_group = arena.take<int64_t>(n_shared + 1);
    if (arena.base) find_groups();
    W_hh = arena.take<T>(4 * H * H);
    slopes = arena.take<T>(4 * H);
    products = arena.take<T>(segment * 2 * H * H);
    leaks = arena.take<T>(segment * 2 * H);
    gains = arena.take<T>(segment * 8 * H);
    inputs = arena.take<T>(segment * (2 * row + H + 1));
    read_out = arena.take<T>(H * O);
    d_h = arena.take<T>(most * 2 * H * row);
    d_c = arena.take<T>(most * H * row);
    outputs = arena.take<T>(O * row);
    row_at = arena.take<int64_t>(max_rows());
    first_row = arena.take<int64_t>(O + 1);
    panel = arena.take<T>(most * max_rows() * row);
    right = arena.take<T>(max_rows() * (H + 2));
    tiles = arena.take<T>(most * (most + 1) / 2 * row * row);
    onto = arena.take<T>(most * O * (H + 2) * row);
  }

  void find_groups() const {
    int64_t n = 0;
    for (int64_t b = 0; b < n_shared; ++b) {
      first_group[b] = n;
      for (int64_t g = b * row / (H + 1); g < 4 * H && g * (H + 1) < (b + 1) * row; ++g)
        groups[n++] = {g, g % H, g * (H + 1) - b * row};
    }
    first_group[n_shared] = n;
  }

  T* tile(int64_t i, int64_t j) const { return tiles + (j * (j + 1) / 2 + i) * row * row; }
  T* onto_of(int64_t block, int64_t o) const { return onto + (block * O + o) * (H + 2) * row; }

  void clear_blocks(int64_t first, int64_t last) const {
    clear(tile(0, first), (last * (last + 1) - first * (first + 1)) / 2 * row);
    clear(onto_of(first, 0), (last - first) * O * (H + 2));
  }

  void start() {
    n_blocks = n_shared;
    clear_blocks(0, n_shared);
  }

  // Number of the weight in a lane: rows of (W_hh, b), gate by gate, then columns of W_ih; -1 for
  // lanes without one.
  int64_t weight_at(int64_t block, int64_t lane) const {
    const int64_t at = block * row + lane;
    if (block < n_shared) return at < n_recurrent ? at : -1;
    const int64_t q = at - n_shared * row;
    return q < n_live * 4 * H ? n_recurrent + live[q / (4 * H)] * 4 * H + q % (4 * H) : -1;
  }

  // Adds a sequence, which lies in a lane of a block drawn last. `w` holds the module's W_hh and
  // W_out. The blocks of its latent then hold it alone.
  void add_sequence(const TypeBlock<T>& block, int lane, const Weights<T>& w, int64_t n_steps,
                    const Sizes& s, int64_t n_grams) {
    n_live = 0;
    for (int64_t k = 0; k < K; ++k)
      if (block.x[k * row + lane] != 0) live[n_live++] = k;
    n_blocks = n_shared + (4 * H * n_live + row - 1) / row;
    clear_blocks(n_shared, n_blocks);
    clear(d_h, n_blocks * 2 * H);
    clear(d_c, n_blocks * H);
    const double root = __builtin_sqrt(block.row_weight[lane]);
    for (int64_t u = 0; u < H; ++u)
      for (int64_t o = 0; o < O; ++o)
        read_out[u * O + o] = static_cast<T>(root) * w.W_out[o * H + u];
    for (int64_t gate = 0; gate < 4; ++gate)
      for (int64_t u = 0; u < H; ++u)
        for (int64_t j = 0; j < H; ++j)
          W_hh[(j * 4 + gate) * H + u] = w.W_hh[(gate * H + u) * H + j];
    for (int64_t t = 0; t < n_steps; t += segment) {
      const int64_t n = n_steps - t < segment ? n_steps - t : segment;
      for (int64_t i = 0; i < n; ++i) prepare_step(block, lane, t + i, i, s);
      number_rows(block, lane, static_cast<T>(root), t, n, n_grams);
      for (int64_t b = 0; b < n_blocks; ++b) {
        for (int64_t i = 0; i < n; ++i) {
          T* h = d_h + (2 * b + ((t + i) & 1)) * H * row;
          step(b, i, d_h + (2 * b + ((t + i + 1) & 1)) * H * row, h);
          if (t + i == 0 && b >= n_shared) add_latent(b, block.x + lane, h);
          write_rows(b, i, h);
        }
      }
      multiply();
    }
  }

  void prepare_step(const TypeBlock<T>& block, int lane, int64_t t, int64_t i,
                    const Sizes& s) const {
    T* gain = gains + i * 8 * H;
    T* in = inputs + i * (2 * row + H + 1);
    for (int64_t j = 0; j < 2 * row + H + 1; ++j) in[j] = 0;
    for (int64_t j = 0; j < H; ++j) in[row + j] = block.rows.states(t - 1)[j * row + lane];
    in[row + H] = 1;
    for (int64_t u = 0; u < H; ++u) {
      const T* tape = block.state.tape_of(t, u, s) + lane;
      const T gi = tape[0], f = tape[row], g = tape[2 * row], o = tape[3 * row];
      const T c_prev = tape[4 * row], tanh_c = tape[5 * row];
      const T k[4] = {gi * (1 - gi) * g, f * (1 - f) * c_prev, gi * (1 - g * g),
                      o * (1 - o) * tanh_c};
      const T e = o * (1 - tanh_c * tanh_c);
      leaks[(i * H + u) * 2] = f;
      leaks[(i * H + u) * 2 + 1] = e;
      for (int64_t gate = 0; gate < 4; ++gate) {
        slopes[gate * H + u] = k[gate];
        gain[(gate * H + u) * 2] = gate < 3 ? k[gate] : 0;
        gain[(gate * H + u) * 2 + 1] = gate < 3 ? e * k[gate] : k[3];
      }
    }
    T* product = products + i * 2 * H * H;
    const T *k_i = slopes, *k_f = slopes + H, *k_g = slopes + 2 * H, *k_o = slopes + 3 * H;
    for (int64_t j = 0; j < H; ++j, product += 2 * H) {
      const T* w = W_hh + j * 4 * H;
      for (int64_t u = 0; u < H; ++u) {
        product[2 * u] = k_i[u] * w[u] + k_f[u] * w[H + u] + k_g[u] * w[2 * H + u];
        product[2 * u + 1] = k_o[u] * w[3 * H + u];
      }
    }
  }

  // Rows of J lie channel by channel, without those of missing values.
  void number_rows(const TypeBlock<T>& block, int lane, T root, int64_t t, int64_t n,
                   int64_t n_grams) const {
    int64_t r = 0;
    for (int64_t o = 0; o < O; ++o) {
      first_row[o] = r;
      for (int64_t i = 0; i < n; ++i) {
        const int64_t channel = n_grams > 1 ? o : 0;
        const bool there =
            !block.known || block.known[((t + i) * n_grams + channel) * row + lane] != 0;
        row_at[i * O + o] = there ? r : -1;
        if (!there) continue;
        T* values = right + r * (H + 2);
        for (int64_t j = 0; j < H; ++j) values[j] = root * block.rows.states(t + i)[j * row + lane];
        values[H] = root;
        values[H + 1] = root * block.residual[((t + i) * O + o) * row + lane];
        ++r;
      }
    }
    first_row[O] = r;
  }

  // One step of a block of weights, from the derivatives of h before to those after.
  void step(int64_t b, int64_t i, const T* h_before, T* h) const {
    const T* product = products + i * 2 * H * H;
    const T* leak = leaks + i * 2 * H;
    T* c = d_c + b * H * row;
    for_row_blocks<(kMaxRows<T> + 1) / 2>(H, [&](auto units, int64_t first) MICFAST_LAMBDA_INLINE {
      constexpr int kUnits = decltype(units)::value;
      Rows<T, 2 * kUnits> a;
      clear_rows(a);
      accumulate<SharedWeights>(a, product + 2 * first, 2 * H, h_before, H);
#pragma GCC unroll 8
      for (int u = 0; u < kUnits; ++u)
#pragma GCC unroll 8
        for (int v = 0; v < kVectorsPerBlock; ++v) {
          const int64_t at = (first + u) * row + v * V::kWidth;
          const T* own = leak + 2 * (first + u);
          const V dc = fma(V::broadcast(own[0]), V::load(c + at), a.v[2 * u][v]);
          dc.store(c + at);
          fma(V::broadcast(own[1]), dc, a.v[2 * u + 1][v]).store(h + at);
        }
    });
    if (b < n_shared) add_inputs(b, i, c, h);
  }

  // What the weights of a block add to the derivatives by themselves.
  void add_inputs(int64_t b, int64_t i, T* c, T* h) const {
    for (int64_t g = first_group[b]; g < first_group[b + 1]; ++g) {
      const int64_t unit = groups[g].unit;
      const T* gain = gains + (i * 4 * H + groups[g].gate_row) * 2;
      const T* from = inputs + i * (2 * row + H + 1) + row - groups[g].lane;
      alignas(64) T lanes[kLanes<T>];
      __builtin_memcpy(lanes, from, sizeof lanes);
      for (int v = 0; v < kVectorsPerBlock; ++v) {
        const V input = V::load(lanes + v * V::kWidth);
        T* c_at = c + unit * row + v * V::kWidth;
        T* h_at = h + unit * row + v * V::kWidth;
        fma(V::broadcast(gain[0]), input, V::load(c_at)).store(c_at);
        fma(V::broadcast(gain[1]), input, V::load(h_at)).store(h_at);
      }
    }
  }

  // The same for the weights of the latent, x [K] (one lane), at the first step.
  void add_latent(int64_t b, const T* x, T* h) const {
    for (int64_t l = 0; l < row; ++l) {
      const int64_t q = (b - n_shared) * row + l;
      if (q >= n_live * 4 * H) return;
      const int64_t gate_row = q % (4 * H), unit = gate_row % H;
      const T value = x[live[q / (4 * H)] * row];
      d_c[(b * H + unit) * row + l] += gains[gate_row * 2] * value;
      h[unit * row + l] += gains[gate_row * 2 + 1] * value;
    }
  }

  void write_rows(int64_t b, int64_t i, const T* h) const {
    clear(outputs, O);
    multiply_add<SharedWeights>(outputs, O, read_out, h, H);
    for (int64_t o = 0; o < O; ++o) {
      if (row_at[i * O + o] < 0) continue;
      T* to = panel + (b * max_rows() + row_at[i * O + o]) * row;
      for (int64_t l = 0; l < row; ++l) to[l] = outputs[o * row + l];
    }
  }

  void multiply() const {
    const int64_t stride = max_rows() * row;
    for (int64_t j = 0; j < n_blocks; ++j) {
      const T* own = panel + j * stride;
      for (int64_t i = 0; i <= j; ++i)
        multiply_add<SharedWeights>(tile(i, j), row, panel + i * stride, own, first_row[O]);
      for (int64_t o = 0; o < O; ++o)
        multiply_add<SharedWeights>(onto_of(j, o), H + 2, right + first_row[o] * (H + 2),
                                    own + first_row[o] * row, first_row[o + 1] - first_row[o]);
    }
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
