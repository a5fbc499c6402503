// Register wrapper: NEON (aarch64). All intrinsics of this instruction set live here.
#pragma once

#include <arm_neon.h>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr int kWidth = 4;
  float32x4_t v;
  static Vec load(const float* p) { return {vld1q_f32(p)}; }
  static Vec broadcast(float x) { return {vdupq_n_f32(x)}; }
  void store(float* p) const { vst1q_f32(p, v); }
};

template <>
struct Vec<double> {
  static constexpr int kWidth = 2;
  float64x2_t v;
  static Vec load(const double* p) { return {vld1q_f64(p)}; }
  static Vec broadcast(double x) { return {vdupq_n_f64(x)}; }
  void store(double* p) const { vst1q_f64(p, v); }
};

using VecF = Vec<float>;
using VecD = Vec<double>;

MICFAST_INLINE VecF operator+(VecF a, VecF b) { return {vaddq_f32(a.v, b.v)}; }
MICFAST_INLINE VecF operator-(VecF a, VecF b) { return {vsubq_f32(a.v, b.v)}; }
MICFAST_INLINE VecF operator*(VecF a, VecF b) { return {vmulq_f32(a.v, b.v)}; }
MICFAST_INLINE VecF operator/(VecF a, VecF b) { return {vdivq_f32(a.v, b.v)}; }
MICFAST_INLINE VecF fma(VecF a, VecF b, VecF c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
MICFAST_INLINE VecF fnma(VecF a, VecF b, VecF c) { return {vfmsq_f32(c.v, a.v, b.v)}; }
MICFAST_INLINE VecF sqrt(VecF a) { return {vsqrtq_f32(a.v)}; }
// max and min return NaN where either argument is NaN.
MICFAST_INLINE VecF max(VecF a, VecF b) { return {vmaxq_f32(a.v, b.v)}; }
MICFAST_INLINE VecF min(VecF a, VecF b) { return {vminq_f32(a.v, b.v)}; }
MICFAST_INLINE VecF if_zero(VecF x, VecF then, VecF otherwise) {
  return {vbslq_f32(vceqzq_f32(x.v), then.v, otherwise.v)};
}
// Keeps 2^x and a factor near 1 a normal number; NaN passes.
MICFAST_INLINE VecF clamp_exp2(VecF x) {
  return min(VecF::broadcast(125.f), max(VecF::broadcast(-125.f), x));
}
// x - n for n = x rounded to the nearest integer
MICFAST_INLINE VecF fraction(VecF x) { return {vsubq_f32(x.v, vrndnq_f32(x.v))}; }
// p * 2^n for p near 1 and whole n as clamp_exp2 leaves it: adds n to p's exponent.
MICFAST_INLINE VecF scale_by_pow2(VecF p, VecF n) {
  const int32x4_t shifted = vshlq_n_s32(vcvtnq_s32_f32(n.v), 23);
  return {vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p.v), shifted))};
}

MICFAST_INLINE VecD operator+(VecD a, VecD b) { return {vaddq_f64(a.v, b.v)}; }
MICFAST_INLINE VecD operator-(VecD a, VecD b) { return {vsubq_f64(a.v, b.v)}; }
MICFAST_INLINE VecD operator*(VecD a, VecD b) { return {vmulq_f64(a.v, b.v)}; }
MICFAST_INLINE VecD operator/(VecD a, VecD b) { return {vdivq_f64(a.v, b.v)}; }
MICFAST_INLINE VecD fma(VecD a, VecD b, VecD c) { return {vfmaq_f64(c.v, a.v, b.v)}; }
MICFAST_INLINE VecD fnma(VecD a, VecD b, VecD c) { return {vfmsq_f64(c.v, a.v, b.v)}; }
MICFAST_INLINE VecD sqrt(VecD a) { return {vsqrtq_f64(a.v)}; }
MICFAST_INLINE VecD max(VecD a, VecD b) { return {vmaxq_f64(a.v, b.v)}; }
MICFAST_INLINE VecD min(VecD a, VecD b) { return {vminq_f64(a.v, b.v)}; }
MICFAST_INLINE VecD if_zero(VecD x, VecD then, VecD otherwise) {
  return {vbslq_f64(vceqzq_f64(x.v), then.v, otherwise.v)};
}
MICFAST_INLINE VecD clamp_exp2(VecD x) {
  return min(VecD::broadcast(1021.), max(VecD::broadcast(-1021.), x));
}
MICFAST_INLINE VecD fraction(VecD x) { return {vsubq_f64(x.v, vrndnq_f64(x.v))}; }
MICFAST_INLINE VecD scale_by_pow2(VecD p, VecD n) {
  const int64x2_t shifted = vshlq_n_s64(vcvtnq_s64_f64(n.v), 52);
  return {vreinterpretq_f64_s64(vaddq_s64(vreinterpretq_s64_f64(p.v), shifted))};
}

// 32 registers of 4 floats: 3 units' gates in two vectors are 24 accumulators.
constexpr int kVectorsPerBlock = 2;
template <class T>
constexpr int kMaxRows = 12;
template <>
constexpr int kMaxRows<double> = 8;  // only for checks: fewer variants to compile

}  // namespace MICFAST_ISA
}  // namespace micfast
