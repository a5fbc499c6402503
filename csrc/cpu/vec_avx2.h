// Register wrapper: AVX2 with FMA. All intrinsics of this instruction set live here.
#pragma once

#include <immintrin.h>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr int kWidth = 8;
  __m256 v;
  static Vec load(const float* p) { return {_mm256_load_ps(p)}; }
  static Vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
  void store(float* p) const { _mm256_store_ps(p, v); }
};

template <>
struct Vec<double> {
  static constexpr int kWidth = 4;
  __m256d v;
  static Vec load(const double* p) { return {_mm256_load_pd(p)}; }
  static Vec broadcast(double x) { return {_mm256_set1_pd(x)}; }
  void store(double* p) const { _mm256_store_pd(p, v); }
};

constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

using VecF = Vec<float>;
using VecD = Vec<double>;

MICFAST_INLINE VecF operator+(VecF a, VecF b) { return {_mm256_add_ps(a.v, b.v)}; }
MICFAST_INLINE VecF operator-(VecF a, VecF b) { return {_mm256_sub_ps(a.v, b.v)}; }
MICFAST_INLINE VecF operator*(VecF a, VecF b) { return {_mm256_mul_ps(a.v, b.v)}; }
MICFAST_INLINE VecF operator/(VecF a, VecF b) { return {_mm256_div_ps(a.v, b.v)}; }
MICFAST_INLINE VecF fma(VecF a, VecF b, VecF c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
MICFAST_INLINE VecF fnma(VecF a, VecF b, VecF c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
MICFAST_INLINE VecF sqrt(VecF a) { return {_mm256_sqrt_ps(a.v)}; }
// max and min return their second argument where either is NaN.
MICFAST_INLINE VecF max(VecF a, VecF b) { return {_mm256_max_ps(a.v, b.v)}; }
MICFAST_INLINE VecF min(VecF a, VecF b) { return {_mm256_min_ps(a.v, b.v)}; }
MICFAST_INLINE VecF if_zero(VecF x, VecF then, VecF otherwise) {
  const __m256 m = _mm256_cmp_ps(x.v, _mm256_setzero_ps(), _CMP_EQ_OQ);
  return {_mm256_blendv_ps(otherwise.v, then.v, m)};
}
// Keeps 2^x and a factor near 1 a normal number; NaN passes.
MICFAST_INLINE VecF clamp_exp2(VecF x) {
  return min(VecF::broadcast(125.f), max(VecF::broadcast(-125.f), x));
}
// x - n for n = x rounded to the nearest integer
MICFAST_INLINE VecF fraction(VecF x) {
  return {_mm256_sub_ps(x.v, _mm256_round_ps(x.v, kNearest))};
}
// p * 2^n for p near 1 and whole n as clamp_exp2 leaves it: adds n to p's exponent.
MICFAST_INLINE VecF scale_by_pow2(VecF p, VecF n) {
  const __m256i shifted = _mm256_slli_epi32(_mm256_cvtps_epi32(n.v), 23);
  const __m256i bits = _mm256_add_epi32(_mm256_castps_si256(p.v), shifted);
  return {_mm256_castsi256_ps(bits)};
}

MICFAST_INLINE VecD operator+(VecD a, VecD b) { return {_mm256_add_pd(a.v, b.v)}; }
MICFAST_INLINE VecD operator-(VecD a, VecD b) { return {_mm256_sub_pd(a.v, b.v)}; }
MICFAST_INLINE VecD operator*(VecD a, VecD b) { return {_mm256_mul_pd(a.v, b.v)}; }
MICFAST_INLINE VecD operator/(VecD a, VecD b) { return {_mm256_div_pd(a.v, b.v)}; }
MICFAST_INLINE VecD fma(VecD a, VecD b, VecD c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
MICFAST_INLINE VecD fnma(VecD a, VecD b, VecD c) { return {_mm256_fnmadd_pd(a.v, b.v, c.v)}; }
MICFAST_INLINE VecD sqrt(VecD a) { return {_mm256_sqrt_pd(a.v)}; }
MICFAST_INLINE VecD max(VecD a, VecD b) { return {_mm256_max_pd(a.v, b.v)}; }
MICFAST_INLINE VecD min(VecD a, VecD b) { return {_mm256_min_pd(a.v, b.v)}; }
MICFAST_INLINE VecD if_zero(VecD x, VecD then, VecD otherwise) {
  const __m256d m = _mm256_cmp_pd(x.v, _mm256_setzero_pd(), _CMP_EQ_OQ);
  return {_mm256_blendv_pd(otherwise.v, then.v, m)};
}
MICFAST_INLINE VecD clamp_exp2(VecD x) {
  return min(VecD::broadcast(1021.), max(VecD::broadcast(-1021.), x));
}
MICFAST_INLINE VecD fraction(VecD x) {
  return {_mm256_sub_pd(x.v, _mm256_round_pd(x.v, kNearest))};
}
MICFAST_INLINE VecD scale_by_pow2(VecD p, VecD n) {
  const __m256i shifted = _mm256_slli_epi64(_mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(n.v)), 52);
  const __m256i bits = _mm256_add_epi64(_mm256_castpd_si256(p.v), shifted);
  return {_mm256_castsi256_pd(bits)};
}

// 16 registers: 4 gates of one unit in two vectors make 8 accumulators; a broadcast weight serves
// both vectors, which keeps the load ports below the multiply-add ports.
constexpr int kVectorsPerBlock = 2;
template <class T>
constexpr int kMaxRows = 5;
template <>
constexpr int kMaxRows<double> = 4;  // only for checks: fewer variants to compile

}  // namespace MICFAST_ISA
}  // namespace micfast
