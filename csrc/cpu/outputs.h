// What may follow the read-out: a map of every output, then an affine map by constants.
#pragma once

#include <cstdint>

#include "../output_map.h"

namespace micfast {
namespace MICFAST_ISA {

struct IdentityMap {
  template <class T>
  static MICFAST_INLINE Mapped<T> at(Vec<T> x) {
    return {x, Vec<T>::broadcast(1)};
  }
};

// x *= y over n lane rows
template <class T>
MICFAST_INLINE void multiply_rows(T* x, const T* y, int64_t n) {
  for (int64_t j = 0; j < n * kLanes<T>; ++j) x[j] *= y[j];
}

template <class Map, class Layout, class T>
inline void map_rows(const T* scale, const T* shift, int64_t n_outputs, T* y, T* slopes) {
  constexpr int64_t stride = Layout::template kStride<T>;
  for (int64_t o = 0; o < n_outputs; ++o)
    for (int v = 0; v < kVectorsPerBlock; ++v) {
      const int64_t at = o * kLanes<T> + v * Vec<T>::kWidth;
      const Mapped<T> mapped = Map::at(Vec<T>::load(y + at));
      const Vec<T> factor = Layout::load(scale + o * stride, v);
      fma(factor, mapped.value, Layout::load(shift + o * stride, v)).store(y + at);
      if (slopes) (factor * mapped.slope).store(slopes + at);
    }
}

// The map of one step's outputs y [O], in place; writes its slopes [O] unless they are null.
template <class Layout, class T>
void map_outputs(Output kind, const T* scale, const T* shift, int64_t n_outputs, T* y, T* slopes) {
  switch (kind) {
    case Output::kIdentity:
      return map_rows<IdentityMap, Layout>(scale, shift, n_outputs, y, slopes);
    case Output::kTanh:
      return map_rows<TanhMap, Layout>(scale, shift, n_outputs, y, slopes);
    case Output::kSigmoid:
      return map_rows<SigmoidMap, Layout>(scale, shift, n_outputs, y, slopes);
    case Output::kExp:
      return map_rows<ExpMap, Layout>(scale, shift, n_outputs, y, slopes);
    case Output::kSoftplus:
      return map_rows<SoftplusMap, Layout>(scale, shift, n_outputs, y, slopes);
  }
}

// x = tanh(x); slopes [n], unless they are null, become 1 - tanh(x)^2.
template <class T>
void tanh_rows(T* x, T* slopes, int64_t n) {
  for (int64_t j = 0; j < n * kLanes<T>; j += Vec<T>::kWidth) {
    const Mapped<T> mapped = TanhMap::at(Vec<T>::load(x + j));
    mapped.value.store(x + j);
    if (slopes) mapped.slope.store(slopes + j);
  }
}

}  // namespace MICFAST_ISA
}  // namespace micfast
