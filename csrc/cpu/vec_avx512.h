// Register wrapper: AVX-512 (F, DQ). All intrinsics of this instruction set live here.
#pragma once

#include <immintrin.h>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr int kWidth = 16;
  __m512 v;
  static Vec load(const float* p) { return {_mm512_load_ps(p)}; }
  static Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
  void store(float* p) const { _mm512_store_ps(p, v); }
};

template <>
struct Vec<double> {
  static constexpr int kWidth = 8;
  __m512d v;
  static Vec load(const double* p) { return {_mm512_load_pd(p)}; }
  static Vec broadcast(double x) { return {_mm512_set1_pd(x)}; }
  void store(double* p) const { _mm512_store_pd(p, v); }
};

using VecF = Vec<float>;
using VecD = Vec<double>;

MICFAST_INLINE VecF operator+(VecF a, VecF b) { return {_mm512_add_ps(a.v, b.v)}; }
MICFAST_INLINE VecF operator-(VecF a, VecF b) { return {_mm512_sub_ps(a.v, b.v)}; }
MICFAST_INLINE VecF operator*(VecF a, VecF b) { return {_mm512_mul_ps(a.v, b.v)}; }
MICFAST_INLINE VecF operator/(VecF a, VecF b) { return {_mm512_div_ps(a.v, b.v)}; }
MICFAST_INLINE VecF fma(VecF a, VecF b, VecF c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
MICFAST_INLINE VecF fnma(VecF a, VecF b, VecF c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
MICFAST_INLINE VecF sqrt(VecF a) { return {_mm512_sqrt_ps(a.v)}; }
// max and min return their second argument where either is NaN.
MICFAST_INLINE VecF max(VecF a, VecF b) { return {_mm512_max_ps(a.v, b.v)}; }
MICFAST_INLINE VecF min(VecF a, VecF b) { return {_mm512_min_ps(a.v, b.v)}; }
MICFAST_INLINE VecF if_zero(VecF x, VecF then, VecF otherwise) {
  const __mmask16 m = _mm512_cmp_ps_mask(x.v, _mm512_setzero_ps(), _CMP_EQ_OQ);
  return {_mm512_mask_blend_ps(m, otherwise.v, then.v)};
}
// Saturation of 2^x lies in scale_by_pow2 here, so the argument passes as it is.
MICFAST_INLINE VecF clamp_exp2(VecF x) { return x; }
// x - n for n = x rounded to the nearest integer; 0 for infinity
MICFAST_INLINE VecF fraction(VecF x) { return {_mm512_reduce_ps(x.v, 0)}; }
// p * 2^n for whole n: infinity above and zero below the range
MICFAST_INLINE VecF scale_by_pow2(VecF p, VecF n) { return {_mm512_scalef_ps(p.v, n.v)}; }

MICFAST_INLINE VecD operator+(VecD a, VecD b) { return {_mm512_add_pd(a.v, b.v)}; }
MICFAST_INLINE VecD operator-(VecD a, VecD b) { return {_mm512_sub_pd(a.v, b.v)}; }
MICFAST_INLINE VecD operator*(VecD a, VecD b) { return {_mm512_mul_pd(a.v, b.v)}; }
MICFAST_INLINE VecD operator/(VecD a, VecD b) { return {_mm512_div_pd(a.v, b.v)}; }
MICFAST_INLINE VecD fma(VecD a, VecD b, VecD c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
MICFAST_INLINE VecD fnma(VecD a, VecD b, VecD c) { return {_mm512_fnmadd_pd(a.v, b.v, c.v)}; }
MICFAST_INLINE VecD sqrt(VecD a) { return {_mm512_sqrt_pd(a.v)}; }
MICFAST_INLINE VecD max(VecD a, VecD b) { return {_mm512_max_pd(a.v, b.v)}; }
MICFAST_INLINE VecD min(VecD a, VecD b) { return {_mm512_min_pd(a.v, b.v)}; }
MICFAST_INLINE VecD if_zero(VecD x, VecD then, VecD otherwise) {
  const __mmask8 m = _mm512_cmp_pd_mask(x.v, _mm512_setzero_pd(), _CMP_EQ_OQ);
  return {_mm512_mask_blend_pd(m, otherwise.v, then.v)};
}
MICFAST_INLINE VecD clamp_exp2(VecD x) { return x; }
MICFAST_INLINE VecD fraction(VecD x) { return {_mm512_reduce_pd(x.v, 0)}; }
MICFAST_INLINE VecD scale_by_pow2(VecD p, VecD n) { return {_mm512_scalef_pd(p.v, n.v)}; }

// 32 registers: 20 accumulators of one vector each leave room for operands, and 20 independent
// chains hide the latency of the multiply-add on one or two ports.
constexpr int kVectorsPerBlock = 1;
template <class T>
constexpr int kMaxRows = 20;
template <>
constexpr int kMaxRows<double> = 8;  // only for checks: fewer variants to compile

}  // namespace MICFAST_ISA
}  // namespace micfast
