// The products with W_hh and W_out: of a thread's unit where H is a template parameter, whose rows
// and columns then stay in registers; otherwise weights are read where they lie, units side by
// side.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
MICFAST_INLINE void add_scaled(Quad<T>& sum, const Quad<T>& w, T x) {
  sum.i = fused(w.i, x, sum.i);
  sum.f = fused(w.f, x, sum.f);
  sum.g = fused(w.g, x, sum.g);
  sum.o = fused(w.o, x, sum.o);
}
// Calls f(k, row[k]) for a padded row of n values, four of them read together.
template <int n, class T, class F>
MICFAST_INLINE void for_padded(const T* row, F f) {
  const Quad<T>* quads = reinterpret_cast<const Quad<T>*>(row);
#pragma unroll
  for (int k = 0; k < n; k += 4) {
    const Quad<T> four = quads[k / 4];
    f(k, four.i);
    if (k + 1 < n) f(k + 1 < n ? k + 1 : 0, four.f);
    if (k + 2 < n) f(k + 2 < n ? k + 2 : 0, four.g);
    if (k + 3 < n) f(k + 3 < n ? k + 3 : 0, four.o);
  }
}

// A state h, read once for several products with rows of W_out: in registers where H is a template
// parameter, else where it lies.
template <class T, int kHidden>
struct State {
  T value[kHidden];

  MICFAST_INLINE State(const T* h, int) {
    for_padded<kHidden>(h, [&](int k, T x) { value[k] = x; });
  }
  MICFAST_INLINE T times(const T* row) const {
    T sum = 0;
    for_padded<kHidden>(row, [&](int k, T w) { sum = fused(w, value[k], sum); });
    return sum;
  }
};
template <class T>
struct State<T, 0> {
  const T* value;
  int H;

  MICFAST_INLINE State(const T* h, int n_units) : value(h), H(n_units) {}
  MICFAST_INLINE T times(const T* row) const {
    T sum = 0;
    for (int k = 0; k < H; ++k) sum = fused(row[k], value[k], sum);
    return sum;
  }
};

// W_hh h for this thread's unit: its rows of W_hh in registers.
template <class T, int kHidden>
struct GateRows {
  Quad<T> weight[kHidden];

  MICFAST_INLINE GateRows(const PackedWeights<T>& w, int u, int) {
#pragma unroll
    for (int k = 0; k < kHidden; ++k) weight[k] = w.gate_h[k * kHidden + u];
  }
  MICFAST_INLINE void add_to(Quad<T>& a, const T* h, int) const {
    for_padded<kHidden>(h, [&](int k, T x) { add_scaled(a, weight[k], x); });
  }
};
// The same for any number of units, read where they lie.
template <class T>
struct GateRows<T, 0> {
  const Quad<T>* weight;
  int H;

  MICFAST_INLINE GateRows(const PackedWeights<T>& w, int, int n_units)
      : weight(w.gate_h), H(n_units) {}
  MICFAST_INLINE void add_to(Quad<T>& a, const T* h, int u) const {
    for (int k = 0; k < H; ++k) add_scaled(a, weight[k * H + u], h[k]);
  }
};

// start + W_hh' d for this thread's unit: the gradient of its state by those of all gates, and by
// what else it enters. In two sums, so that one instruction need not wait for the last one.
template <class T>
struct TwoSums {
  T i_f, g_o;

  MICFAST_INLINE void add(const Quad<T>& w, const Quad<T>& d) {
    i_f = fused(w.i, d.i, i_f);
    g_o = fused(w.g, d.g, g_o);
    i_f = fused(w.f, d.f, i_f);
    g_o = fused(w.o, d.o, g_o);
  }
  MICFAST_INLINE T total() const { return i_f + g_o; }
};
template <class T, int kHidden>
struct GateColumns {
  Quad<T> weight[kHidden];

  MICFAST_INLINE GateColumns(const PackedWeights<T>& w, int u, int) {
#pragma unroll
    for (int v = 0; v < kHidden; ++v) weight[v] = w.from_gate[v * kHidden + u];
  }
  MICFAST_INLINE T times(const Quad<T>* d, int, T start) const {
    TwoSums<T> sum{start, 0};
#pragma unroll
    for (int v = 0; v < kHidden; ++v) sum.add(weight[v], d[v]);
    return sum.total();
  }
};
template <class T>
struct GateColumns<T, 0> {
  const Quad<T>* weight;
  int H;

  MICFAST_INLINE GateColumns(const PackedWeights<T>& w, int, int n_units)
      : weight(w.from_gate), H(n_units) {}
  MICFAST_INLINE T times(const Quad<T>* d, int u, T start) const {
    TwoSums<T> sum{start, 0};
#pragma unroll 4
    for (int v = 0; v < H; ++v) sum.add(weight[v * H + u], d[v]);
    return sum.total();
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
