// The backward pass of a sequence through time, and the sum over a pair's threads.
#pragma once

namespace micfast {
namespace MICFAST_ISA {

template <class T, int kHidden>
template <bool kInputGradient, Keep kKept, class DOutput, class OnStep>
MICFAST_INLINE void Sequence<T, kHidden>::backward(const T* z, const T* W_ih, DOutput d_output,
                                                   T* d_z, OnStep on_step) {
  // Beside the gradients of 20 rows, which training collects in registers, 20 columns do not fit.
  constexpr bool kFits = kHidden <= 10 || kKept == Keep::kTape;
  const GateColumns<T, kFits ? kHidden : 0> columns(w, place.lane, place.H);
  const int h_step = place.P * row, d_y_step = place.P * out_row, d_step = place.P * place.H;
  const int first_value = place.pair * place.H;
  T* const h_pair = staged_h + place.pair * row;
  T* const d_y_pair = staged_d_y + place.pair * out_row;
  Quad<T>* const d_pair = d_gate + first_value;
  int at_tape = (n_steps - 1) % tape_steps * d_step + first_value;
  int half = 0;

  // Brings what the segment from `first` on needs of other threads into shared memory.
  const auto stage = [&](int first, int n) {
    if constexpr (kKept == Keep::kTapeAndStates) {
      place.for_units([&](int u) {
#pragma unroll 1
        for (int i = first == 0 ? 1 : 0; i < n; ++i)
          h_pair[(half + i) * h_step + u] = states[(first + i - 1) * d_step + first_value + u];
      });
    }
    if (!place.works) return;
    int i = staged_step, o = staged_output, at = first * O + place.lane;
    T* to = d_y_pair + (half + i) * d_y_step;
#pragma unroll 1
    while (i < n) {
      to[o] = d_output(at);
      at += place.G;
      if constexpr (kKept == Keep::kTape) {
        i += stride_step;
        to += stride_step * d_y_step;
        o += stride_output;
        if (o >= O) o -= O, ++i, to += d_y_step;
      } else {  // training has no registers for the strides
        for (o += place.G; o >= O; o -= O, ++i) to += d_y_step;
      }
    }
  };
  // What the step after the last one would have left.
  place.for_units([&](int u) {
    d_c[u] = 0;
    d_pair[(n_steps & 1) * d_step + u] = {0, 0, 0, 0};
  });
  int first = (n_steps - 1) / segment * segment, n = n_steps - first;
  stage(first, n);
  int d_at = (n_steps - 1) & 1 ? d_step : 0;  // of this step, in d_pair
  // What the tape holds of a step: read as soon as the step before has used its own, since global
  // memory is some hundred clocks away; that takes registers, which training does not have.
  constexpr bool kAhead = kHidden > 0 && kKept == Keep::kTape;
  Quad<T> q{};
  T c_now = 0, c_before = 0;
  const auto read_tape = [&](int u) {
    q = tape_gates[at_tape + u];
    c_before = tape_c[at_tape + u];
    if constexpr (kAhead && kFetches) {  // one step ahead is not far enough
      const int earlier = at_tape - 3 * d_step + u;
      if (earlier >= 0) prefetch(tape_gates + earlier), prefetch(tape_c + earlier);
    }
  };
  if constexpr (kAhead) {
    place.every_unit([&](int u) { c_now = tape_c[at_tape + d_step + u], read_tape(u); });
  }
  place.sync();
#pragma unroll 1
  for (; first >= 0; first -= segment, n = segment) {
    const T* d_y = d_y_pair + (half + n - 1) * d_y_step;
    const T* h_before = h_pair + (half + n - 1) * h_step;
    half = segment - half;
    if (first > 0) stage(first - segment, segment);
#pragma unroll 1
    for (int t = first + n - 1; t >= first; --t) {
      if constexpr (kHidden == 0) {
        if (t < n_steps - 1 && (t + 1) % tape_steps == 0) {
          draw<kKept, false>(z, t + 1 - tape_steps, t + 1, [](int, int, T) {});
          at_tape = (tape_steps - 1) * d_step + first_value;
        }
      }
      place.every_unit([&](int u) {
        using V = Vec<T>;
        if constexpr (!kAhead) c_now = tape_c[at_tape + d_step + u], read_tape(u);
        const V scaled_c{c_now * kTanhScale<T>};
        const CellTape<T> gates{V{q.i}, V{q.f},      V{q.g},
                                V{q.o}, V{c_before}, tanh_of_scaled(scaled_c)};
        const T by_outputs = gradient_by_outputs(u, d_y);
        const T dh = columns.times(d_pair + (d_step - d_at), u, by_outputs);
        const CellGradient<T> g = cell_backward(V{dh}, V{d_c[u]}, gates);
        d_c[u] = g.c_prev.v;
        Quad<T> d{g.a_i.v, g.a_f.v, g.a_g.v, g.a_o.v};
        if constexpr (kAhead) d = {kept(d.i), kept(d.f), kept(d.g), kept(d.o)};
        if (place.works) {
          d_pair[d_at + u] = d;
          on_step(t, u, d, t == 0 ? nullptr : h_before);
        }
      });
      at_tape -= d_step;
      if constexpr (kAhead) {
        c_now = c_before;
        if (at_tape < first_value) at_tape = first_value;  // after the last step, read in vain
        place.every_unit(read_tape);
      }
      d_at = d_step - d_at;
      d_y -= d_y_step;
      h_before -= h_step;
      place.sync();
    }
  }
  if constexpr (kInputGradient) {
    place.for_share(K, [&](int k) {
      T sum = 0;
#pragma unroll 1
      for (int u = 0; u < place.H; ++u) {
        const Quad<T> weight = gates_of(W_ih, place.H, K, u, k), d = d_pair[u];
        sum = fused(weight.i, d.i, sum);
        sum = fused(weight.f, d.f, sum);
        sum = fused(weight.g, d.g, sum);
        sum = fused(weight.o, d.o, sum);
      }
      d_z[k] = sum;
    });
    place.sync();
  }
}

// The sum over the threads of a pair, in their order; `scratch` [P, G]. Every thread gets it.
template <class T, int kHidden>
MICFAST_INLINE T pair_sum(const Place<kHidden>& place, T value, T* scratch) {
  T* mine = scratch + place.pair * place.G;
  place.sync();
  if (place.works) mine[place.lane] = value;
  place.sync();
  T sum = 0;
#pragma unroll 1
  for (int i = 0; i < place.G; ++i) sum += mine[i];
  return sum;
}

}  // namespace MICFAST_ISA
}  // namespace micfast
