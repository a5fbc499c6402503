// A whole sequence for one block of lanes: weights packed for the inner loop, the forward pass and
// the backward pass through time.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// Hands out 64-byte aligned pieces of a work item's scratch memory; with a null base it only
// counts.
struct Arena {
  char* base;
  int64_t used = 0;
  template <class T>
  T* take(int64_t n) {
    T* p = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += (n * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return p;
  }
};

// Weights of one block. Gate rows are interleaved by unit (row 4u + gate), so that a run of
// consecutive rows holds all gates of some units; `gate_*` are scaled for the activations
// (activations.h). Every matrix is stored as the loop that reads it walks.
template <class Layout, class T, class Cell = Lstm>
struct PackedWeights {
  static constexpr int kGates = Cell::kGates;
  static constexpr int64_t stride = Layout::template kStride<T>;

  Decoder decoder;
  bool maps;    // whether outputs are mapped
  T* gate_x;    // [K, 4H] scaled: latent to gates; or [n_states, K, H]: latent to initial state
  T* gate_h;    // [H, 4H] scaled: state to gates
  T* gate_b;    // [4H]    scaled
  T* first_b;   // [4H]    scaled: of the first step; gate_b itself where that has none of its own
  T* state_b;   // [R]     of the initial state
  T* out_h;     // [H, O]  state to outputs
  T* out_b;     // [O]
  T* scale;     // [O]     of the mapped outputs
  T* shift;     // [O]
  T* gate_h_t;  // [4H, H] gate gradients to state gradient
  T* gate_x_t;  // [R, K]  gradients of what the latent enters to those of the latent
  T* out_h_t;   // [O, H]  output gradients to state gradient

  MICFAST_NOINLINE void take(Arena& arena, const Sizes& s, const Weights<T>& w = {}) {
    const int64_t H = s.hidden_size, K = s.input_size, O = s.output_size;
    decoder = w.decoder;
    maps = maps_outputs(w);
    const int64_t R = entry_rows(s, decoder);
    gate_x = arena.take<T>(K * R * stride);
    gate_h = arena.take<T>(H * kGates * H * stride);
    gate_b = arena.take<T>(kGates * H * stride);
    first_b = w.b_first ? arena.take<T>(kGates * H * stride) : gate_b;
    state_b = arena.take<T>(sets_state(decoder) ? R * stride : 0);
    out_h = arena.take<T>(H * O * stride);
    out_b = arena.take<T>(O * stride);
    scale = arena.take<T>(maps ? O * stride : 0);
    shift = arena.take<T>(maps ? O * stride : 0);
    gate_h_t = arena.take<T>(kGates * H * H * stride);
    gate_x_t = arena.take<T>(R * K * stride);
    out_h_t = arena.take<T>(O * H * stride);
  }

  // Writes one module's weights; `lane` is 0 for shared weights.
  MICFAST_NOINLINE void pack(const Sizes& s, const Weights<T>& w, int64_t module, int lane) {
    const int64_t H = s.hidden_size, K = s.input_size, O = s.output_size;
    const int64_t R = entry_rows(s, decoder);
    const T* W_ih = w.W_ih + module * R * K;
    const T* W_hh = w.W_hh + module * kGates * H * H;
    const T* b = w.b + module * kGates * H;
    const T* W_out = w.W_out + module * O * H;
    const T* b_out = w.b_out + module * O;
    for (int64_t u = 0; u < H; ++u)
      for (int64_t gate = 0; gate < kGates; ++gate) {
        const T factor = Cell::template scale<T>(gate);
        const int64_t from = gate * H + u, to = kGates * u + gate;
        gate_b[to * stride + lane] = factor * b[from];
        if (w.b_first)
          first_b[to * stride + lane] = factor * (b[from] + w.b_first[module * kGates * H + from]);
        for (int64_t k = 0; k < K && !sets_state(decoder); ++k) {
          gate_x[(k * kGates * H + to) * stride + lane] = factor * W_ih[from * K + k];
          gate_x_t[(to * K + k) * stride + lane] = W_ih[from * K + k];
        }
        for (int64_t k = 0; k < H; ++k) {
          gate_h[(k * kGates * H + to) * stride + lane] = factor * W_hh[from * H + k];
          gate_h_t[(to * H + k) * stride + lane] = W_hh[from * H + k];
        }
      }
    for (int64_t r = 0; r < R && sets_state(decoder); ++r) {
      state_b[r * stride + lane] = w.b_state ? w.b_state[module * R + r] : 0;
      for (int64_t k = 0; k < K; ++k) {
        gate_x[((r / H * K + k) * H + r % H) * stride + lane] = W_ih[r * K + k];
        gate_x_t[(r * K + k) * stride + lane] = W_ih[r * K + k];
      }
    }
    for (int64_t o = 0; o < O; ++o) {
      out_b[o * stride + lane] = b_out[o];
      if (maps) scale[o * stride + lane] = w.scale ? w.scale[module * O + o] : 1;
      if (maps) shift[o * stride + lane] = w.shift ? w.shift[module * O + o] : 0;
      for (int64_t k = 0; k < H; ++k) {
        out_h[(k * O + o) * stride + lane] = W_out[o * H + k];
        out_h_t[(o * H + k) * stride + lane] = W_out[o * H + k];
      }
    }
  }
};

// Scratch of the two passes, all lane rows.
template <class T, class Cell = Lstm>
struct SequenceState {
  T* h;  // [H] each: states, in two places that take turns, or of all steps
  int64_t h_step, h_mask;
  T* c;        // [H]: a GRU's is h once more
  T* start;    // [R]: the initial state, if the latent sets it
  T* drive;    // [4H]: what a latent that enters every step adds to the gates, with their bias
  T* tape;     // [T, H, kTapeRows]
  T* slopes;   // [T, O]: of the outputs' map
  T* d_a;      // [n_slots, 4H]: gate gradients, step t in slot t % n_slots
  T* d_c;      // [H]
  T* d_entry;  // [R]: gradients of what the latent enters, if that is not the first gates alone
  int64_t n_slots;

  // `slots`: steps whose gate gradients are kept; 2 are enough for backward() itself, 0 is for a
  // forward pass without tape.
  void take(Arena& arena, const Sizes& s, int64_t slots, const Weights<T>& w = {}) {
    n_slots = slots;
    const int64_t row = kLanes<T>, H = s.hidden_size;
    const int64_t entry = w.decoder.latent == Latent::kFirst ? 0 : entry_rows(s, w.decoder);
    h = arena.take<T>(2 * H * row);
    h_step = H * row;
    h_mask = 1;
    c = arena.take<T>(H * row);
    start = drive = arena.take<T>(entry * row);
    tape = arena.take<T>(slots ? s.n_steps * H * Cell::kTapeRows * row : 0);
    slopes = arena.take<T>(slots && maps_outputs(w) ? s.n_steps * s.output_size * row : 0);
    d_a = arena.take<T>(slots * Cell::kGates * H * row);
    d_c = arena.take<T>(slots ? H * row : 0);
    d_entry = arena.take<T>(slots ? entry * row : 0);
  }
  // Lets forward() write the states of all steps, `step` values apart.
  void write_states(T* to, int64_t step) {
    h = to;
    h_step = step;
    h_mask = -1;
  }
  T* h_of(int64_t t) const { return h + (t & h_mask) * h_step; }
  T* tape_of(int64_t t, int64_t unit, const Sizes& s) const {
    return tape + (t * s.hidden_size + unit) * Cell::kTapeRows * kLanes<T>;
  }
};

// What the latent z [K] does before the first step: it sets the initial state, or what it adds to
// the gates of every later step.
template <class Layout, class T, class Cell>
void enter(const Sizes& s, const PackedWeights<Layout, T, Cell>& w, const T* z,
           const SequenceState<T, Cell>& state) {
  constexpr int64_t row = kLanes<T>;
  constexpr int64_t stride = Layout::template kStride<T>;
  const int64_t H = s.hidden_size, K = s.input_size, n_gates = Cell::kGates * H;
  clear(state.c, H);
  if (w.decoder.latent == Latent::kEvery) {
    copy_rows<Layout>(state.drive, w.gate_b, n_gates);
    multiply_add<Layout>(state.drive, n_gates, w.gate_x, z, K);
  }
  if (!sets_state(w.decoder)) return;
  for (int64_t part = 0; part < w.decoder.n_states; ++part) {
    copy_rows<Layout>(state.start + part * H * row, w.state_b + part * H * stride, H);
    multiply_add<Layout>(state.start + part * H * row, H, w.gate_x + part * K * H * stride, z, K);
  }
  if (w.decoder.latent == Latent::kTanhState)
    tanh_rows<T>(state.start, nullptr, w.decoder.n_states * H);
  if (Cell::kCellIsState) copy_rows<LaneWeights>(state.c, state.start, H);
  if (w.decoder.n_states == 2) copy_rows<LaneWeights>(state.c, state.start + H * row, H);
}

// Runs the generator on the latent z [K] and writes the outputs y [T, O]. Keeps the tape that
// backward() needs where kKeepTape.
template <bool kKeepTape, class Layout, class T, class Cell>
void forward(const Sizes& s, const PackedWeights<Layout, T, Cell>& w, const T* z,
             const SequenceState<T, Cell>& state, T* y) {
  using V = Vec<T>;
  constexpr int64_t row = kLanes<T>;
  constexpr int64_t stride = Layout::template kStride<T>;
  constexpr int kGates = Cell::kGates, kMaxUnits = kMaxRows<T> / kGates;
  const int64_t H = s.hidden_size, O = s.output_size;
  enter(s, w, z, state);

  for (int64_t t = 0; t < s.n_steps; ++t, y += O * row) {
    // The first step sees the latent, or the state it has set; every later one the state before.
    const bool sees_latent = t == 0 && !sets_state(w.decoder);
    const T* x = sees_latent ? z : t == 0 ? state.start : state.h_of(t - 1);
    const T* w_x = sees_latent ? w.gate_x : w.gate_h;
    const int64_t n_x = sees_latent ? s.input_size : H;
    const T* bias = t == 0 ? w.first_b : w.gate_b;
    const T* drive = t > 0 && w.decoder.latent == Latent::kEvery ? state.drive : nullptr;
    T* h = state.h_of(t);

    for_row_blocks<kMaxUnits>(H, [&](auto units, int64_t first_unit) MICFAST_LAMBDA_INLINE {
      constexpr int kUnits = decltype(units)::value;
      Rows<T, kGates * kUnits> a;
      if (drive)
        load_rows<LaneWeights>(a, drive + kGates * first_unit * row);
      else
        load_rows<Layout>(a, bias + kGates * first_unit * stride);
      accumulate<Layout>(a, w_x + kGates * first_unit * stride, kGates * H, x, n_x);
#pragma GCC unroll 8
      for (int u = 0; u < kUnits; ++u)
#pragma GCC unroll 8
        for (int v = 0; v < kVectorsPerBlock; ++v) {
          const int64_t unit = first_unit + u, at = unit * row + v * V::kWidth;
          typename Cell::template Tape<T> tape;
          const auto gate = [&](int g) MICFAST_LAMBDA_INLINE { return a.v[kGates * u + g][v]; };
          const CellState<T> next = Cell::forward(gate, V::load(state.c + at), tape);
          next.h.store(h + at);
          next.c.store(state.c + at);
          if (kKeepTape) Cell::template store<row>(state.tape_of(t, unit, s) + v * V::kWidth, tape);
        }
    });
    copy_rows<Layout>(y, w.out_b, O);
    multiply_add<Layout>(y, O, w.out_h, h, H);
    if (w.maps)
      map_outputs<Layout>(w.decoder.output, w.scale, w.shift, O, y,
                          kKeepTape ? state.slopes + t * O * row : nullptr);
  }
}

struct NoStepHook {
  template <class T>
  void operator()(int64_t, const T*) const {}
};

// Back through time from the gradients d_y [T, O] of the outputs, after forward() with the tape
// kept. Writes the gradient of the latent to d_z [K]; d_y becomes the gradient of what the outputs'
// map was given. After each step t, once its gate gradients lie in state.d_a, calls after_step(t,
// gate gradients of step t [4H]).
template <class Layout, class T, class Cell, class AfterStep>
void backward(const Sizes& s, const PackedWeights<Layout, T, Cell>& w, T* d_y, T* d_z,
              const SequenceState<T, Cell>& state, AfterStep after_step) {
  using V = Vec<T>;
  constexpr int64_t row = kLanes<T>;
  constexpr int64_t stride = Layout::template kStride<T>;
  const int64_t H = s.hidden_size, O = s.output_size, n_gates = Cell::kGates * H;
  const int64_t n_entry = entry_rows(s, w.decoder);
  const bool enters_every = w.decoder.latent == Latent::kEvery;
  clear(state.d_c, H);
  if (w.maps) multiply_rows(d_y, state.slopes, s.n_steps * O);
  if (enters_every) clear(state.d_entry, n_entry);

  const T* d_a_next = nullptr;
  for (int64_t t = s.n_steps - 1; t >= 0; --t) {
    T* d_a = state.d_a + (t % state.n_slots) * n_gates * row;
    for_row_blocks<kMaxRows<T>>(H, [&](auto rows, int64_t first) MICFAST_LAMBDA_INLINE {
      constexpr int kRows = decltype(rows)::value;
      Rows<T, kRows> d_h;
      clear_rows(d_h);
      accumulate<Layout>(d_h, w.out_h_t + first * stride, H, d_y + t * O * row, O);
      if (d_a_next) accumulate<Layout>(d_h, w.gate_h_t + first * stride, H, d_a_next, n_gates);
#pragma GCC unroll 32
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kVectorsPerBlock; ++v) {
          const int64_t unit = first + r, at = unit * row + v * V::kWidth;
          const auto tape = Cell::template load<row>(state.tape_of(t, unit, s) + v * V::kWidth);
          T* d_a_unit = d_a + Cell::kGates * unit * row + v * V::kWidth;
          Cell::backward(d_h.v[r][v], V::load(state.d_c + at), tape,
                         [&](int gate, V d)
                             MICFAST_LAMBDA_INLINE { d.store(d_a_unit + gate * row); })
              .store(state.d_c + at);
        }
    });
    if (enters_every)
      for (int64_t j = 0; j < n_gates * row; ++j) state.d_entry[j] += d_a[j];
    after_step(t, d_a);
    d_a_next = d_a;
  }

  const T* d_entry = w.decoder.latent == Latent::kFirst ? d_a_next : state.d_entry;
  if (sets_state(w.decoder)) {
    if (Cell::kCellIsState)
      copy_rows<LaneWeights>(state.d_entry, state.d_c, H);
    else
      clear(state.d_entry, H);
    multiply_add<Layout>(state.d_entry, H, w.gate_h_t, d_a_next, n_gates);
    if (w.decoder.n_states == 2) copy_rows<LaneWeights>(state.d_entry + H * row, state.d_c, H);
    if (w.decoder.latent == Latent::kTanhState)
      for (int64_t j = 0; j < n_entry * row; ++j)
        state.d_entry[j] *= 1 - state.start[j] * state.start[j];
  }
  clear(d_z, s.input_size);
  multiply_add<Layout>(d_z, s.input_size, w.gate_x_t, d_entry, n_entry);
}

}  // namespace MICFAST_ISA
}  // namespace micfast
