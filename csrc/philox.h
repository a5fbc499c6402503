// Random numbers of the training: Philox4x32-10 (Salmon et al., SC 2011), one stream per module.
// A counter-based generator makes every number a pure function of (seed, episode, stream, index),
// so a module's training does not depend on its lane, its neighbours or the number of threads.
// Counter and conversions: docs/conventions.md. Plain loops over lanes: the compiler vectorises
// them.
#pragma once

#include <cmath>
#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

enum Stream : uint32_t { kTypeStream = 0, kInputStream = 1, kTargetStream = 2 };

template <int kLanes>
struct PhiloxLanes {
  uint32_t key0[kLanes], key1[kLanes];

  MICFAST_DEVICE void set_seed(int lane, int64_t seed) {
    const uint64_t bits = static_cast<uint64_t>(seed);
    key0[lane] = static_cast<uint32_t>(bits);
    key1[lane] = static_cast<uint32_t>(bits >> 32);
  }

  // The four words of one counter value, for every lane.
  MICFAST_DEVICE void words(uint32_t block, Stream stream, uint64_t episode,
                            uint32_t (&x)[4][kLanes]) const {
    for (int l = 0; l < kLanes; ++l) {
      uint32_t x0 = block, x1 = stream;
      uint32_t x2 = static_cast<uint32_t>(episode), x3 = static_cast<uint32_t>(episode >> 32);
      uint32_t k0 = key0[l], k1 = key1[l];
      for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * x0;
        const uint64_t p1 = static_cast<uint64_t>(0xCD9E8D57u) * x2;
        x0 = static_cast<uint32_t>(p1 >> 32) ^ x1 ^ k0;
        x2 = static_cast<uint32_t>(p0 >> 32) ^ x3 ^ k1;
        x1 = static_cast<uint32_t>(p1);
        x3 = static_cast<uint32_t>(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
      }
      x[0][l] = x0;
      x[1][l] = x1;
      x[2][l] = x2;
      x[3][l] = x3;
    }
  }
};

// ln(m 2^-24) for m in 1 .. 2^24, relative error below 2e-7.
MICFAST_INLINE float log_of_uniform(uint32_t m) {
  // m = 2^e z with z in [sqrt(1/2), sqrt(2)), by the exponent field of the float, which holds m
  // exactly.
  const float value = static_cast<float>(static_cast<int32_t>(m));
  int32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  const int32_t shifted = bits - 0x3F3504F3;
  const int32_t e = shifted >> 23;
  const int32_t z_bits = (shifted & 0x007FFFFF) + 0x3F3504F3;
  float z;
  __builtin_memcpy(&z, &z_bits, 4);
  // ln z = 2 artanh(s), s = (z - 1) / (z + 1), |s| <= 0.1716
  const float s = (z - 1.f) / (z + 1.f);
  const float q = s * s;
  const float p = 2.f + q * (0.66666667f + q * (0.4f + q * (0.28571429f + q * 0.22222222f)));
  return static_cast<float>(e - 24) * 0.69314718f + s * p;
}

// cos and sin of 2 pi m 2^-24 for m below 2^24, absolute error below 2e-7.
MICFAST_INLINE void cos_sin_of_turn(uint32_t m, float& c, float& s) {
  // Quarter turn and the rest in [-1/8, 1/8) of a turn, exact in integers.
  const int32_t quarter = static_cast<int32_t>((m + 0x200000u) >> 22);
  const int32_t rest = static_cast<int32_t>(m) - (quarter << 22);
  const float a = static_cast<float>(rest) * (6.28318531f * 5.9604645e-8f);
  const float q = a * a;
  const float sa = a * (1.f + q * (-0.16666667f + q * (8.3333333e-3f + q * -1.9841270e-4f)));
  const float ca =
      1.f + q * (-0.5f + q * (4.1666667e-2f + q * (-1.3888889e-3f + q * 2.4801587e-5f)));
  const bool swap = quarter & 1;
  const float c0 = swap ? sa : ca, s0 = swap ? ca : sa;
  c = ((quarter + 1) & 2) ? -c0 : c0;
  s = (quarter & 2) ? -s0 : s0;
}

// Standard normal numbers 4 block .. 4 block + 3 of a stream, by Box and Muller's method. float32
// uses the polynomials above; float64, which only serves checks, the library's functions.
template <int kLanes>
MICFAST_DEVICE inline void normals(const PhiloxLanes<kLanes>& philox, uint32_t block, Stream stream,
                                   uint64_t episode, float (&out)[4][kLanes]) {
  uint32_t x[4][kLanes];
  philox.words(block, stream, episode, x);
  for (int pair = 0; pair < 4; pair += 2) {
    for (int l = 0; l < kLanes; ++l) {
      const float radius = __builtin_sqrtf(-2.f * log_of_uniform((x[pair][l] >> 8) + 1u));
      float c, s;
      cos_sin_of_turn(x[pair + 1][l] >> 8, c, s);
      out[pair][l] = radius * c;
      out[pair + 1][l] = radius * s;
    }
  }
}

template <int kLanes>
MICFAST_DEVICE inline void normals(const PhiloxLanes<kLanes>& philox, uint32_t block, Stream stream,
                                   uint64_t episode, double (&out)[4][kLanes]) {
  uint32_t x[4][kLanes];
  philox.words(block, stream, episode, x);
  for (int pair = 0; pair < 4; pair += 2) {
    for (int l = 0; l < kLanes; ++l) {
      const double u = ((x[pair][l] >> 8) + 1u) * 0x1p-24;
      const double radius = ::sqrt(-2. * ::log(u));
      const double angle = 6.283185307179586476925 * (x[pair + 1][l] >> 8) * 0x1p-24;
      out[pair][l] = radius * ::cos(angle);
      out[pair + 1][l] = radius * ::sin(angle);
    }
  }
}

}  // namespace MICFAST_ISA
}  // namespace micfast
