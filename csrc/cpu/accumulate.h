// The one inner loop of the kernel: a small matrix times the state of a block of lanes.
//
// A *block* is kLanes sequences carried side by side; a *lane row* is one value for each of them,
// kLanes consecutive scalars, aligned. Lanes never mix, so a sequence's result does not depend on
// the block it lands in.
#pragma once

#include <cstdint>
#include <type_traits>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
constexpr int kLanes = kVectorsPerBlock * Vec<T>::kWidth;

// How a weight meets the lanes. Both do the same arithmetic in the same order, so a sequence's
// result is the same to the last bit either way.
struct SharedWeights {  // all lanes belong to one module: a weight is one scalar, broadcast
  template <class T>
  static constexpr int kStride = 1;
  template <class T>
  static MICFAST_INLINE Vec<T> load(const T* w, int) {
    return Vec<T>::broadcast(*w);
  }
};
struct LaneWeights {  // every lane has a module of its own: a weight is a lane row
  template <class T>
  static constexpr int kStride = kLanes<T>;
  template <class T>
  static MICFAST_INLINE Vec<T> load(const T* w, int vector) {
    return Vec<T>::load(w + vector * Vec<T>::kWidth);
  }
};

template <int R>
using RowCount = std::integral_constant<int, R>;

template <class T, int R>
struct Rows {
  Vec<T> v[R][kVectorsPerBlock];
};

template <class Layout, class T, int R>
MICFAST_INLINE void load_rows(Rows<T, R>& acc, const T* w) {
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectorsPerBlock; ++v)
      acc.v[r][v] = Layout::load(w + r * Layout::template kStride<T>, v);
}

template <class T, int R>
MICFAST_INLINE void store_rows(const Rows<T, R>& acc, T* y) {
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectorsPerBlock; ++v)
      acc.v[r][v].store(y + r * kLanes<T> + v * Vec<T>::kWidth);
}

template <class T, int R>
MICFAST_INLINE void clear_rows(Rows<T, R>& acc) {
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectorsPerBlock; ++v) acc.v[r][v] = Vec<T>::broadcast(0);
}

// acc[r] += sum over j < n of w[j, r] x[j], for R consecutive rows. w has n rows of `row_stride`
// weights; x has n lane rows.
template <class Layout, class T, int R>
MICFAST_INLINE void accumulate(Rows<T, R>& acc, const T* w, int64_t row_stride, const T* x,
                               int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    Vec<T> xj[kVectorsPerBlock];
#pragma GCC unroll 8
    for (int v = 0; v < kVectorsPerBlock; ++v) xj[v] = Vec<T>::load(x + v * Vec<T>::kWidth);
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < kVectorsPerBlock; ++v)
        acc.v[r][v] = fma(Layout::load(w + r * Layout::template kStride<T>, v), xj[v], acc.v[r][v]);
    w += row_stride * Layout::template kStride<T>;
    x += kLanes<T>;
  }
}

// Calls body(RowCount<R>, first row) on consecutive blocks of at most kMax rows, of even size.
template <int kMax, class Body>
MICFAST_INLINE void call_with_row_count(int rows, int64_t first, Body& body) {
  if constexpr (kMax > 0) {
    if (rows == kMax)
      body(RowCount<kMax>{}, first);
    else
      call_with_row_count<kMax - 1>(rows, first, body);
  }
}

template <int kMax, class Body>
MICFAST_INLINE void for_row_blocks(int64_t n, Body body) {
  // At most one division, of small numbers: this stands in the loops over time.
  const auto rows = static_cast<uint32_t>(n), n_blocks = (rows + kMax - 1) / kMax;
  const uint32_t smaller = n_blocks > 1 ? rows / n_blocks : rows;
  const uint32_t n_larger = rows - smaller * n_blocks;
  int64_t first = 0;
  for (uint32_t b = 0; b < n_blocks; ++b) {
    const int size = static_cast<int>(smaller + (b < n_larger ? 1 : 0));
    call_with_row_count<kMax>(size, first, body);
    first += size;
  }
}

// y[r] += sum over j < n of w[j, r] x[j] for `rows` lane rows y, in memory.
template <class Layout, class T>
void multiply_add(T* y, int64_t rows, const T* w, const T* x, int64_t n) {
  for_row_blocks<kMaxRows<T>>(rows, [&](auto count, int64_t first) MICFAST_LAMBDA_INLINE {
    Rows<T, decltype(count)::value> acc;
    load_rows<LaneWeights>(acc, y + first * kLanes<T>);
    accumulate<Layout>(acc, w + first * Layout::template kStride<T>, rows, x, n);
    store_rows(acc, y + first * kLanes<T>);
  });
}

// y[r] = w[r]
template <class Layout, class T>
MICFAST_INLINE void copy_rows(T* y, const T* w, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r)
    for (int v = 0; v < kVectorsPerBlock; ++v)
      Layout::load(w + r * Layout::template kStride<T>, v)
          .store(y + r * kLanes<T> + v * Vec<T>::kWidth);
}

template <class T>
MICFAST_INLINE void clear(T* y, int64_t rows) {
  for (int64_t j = 0; j < rows * kLanes<T>; ++j) y[j] = 0;
}

}  // namespace MICFAST_ISA
}  // namespace micfast
