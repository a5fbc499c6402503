// What the kernels need of a compiler: gcc's vector types, builtins and attributes, which clang has
// too, or nvcc.
#pragma once

#if defined(__CUDACC__)
#define MICFAST_INLINE __device__ __forceinline__
#define MICFAST_DEVICE __device__
#else
#define MICFAST_INLINE inline __attribute__((always_inline))
#define MICFAST_DEVICE
#endif
#define MICFAST_LAMBDA_INLINE __attribute__((always_inline))
// Of what runs once a job: one copy of it, instead of one in each of its callers.
#define MICFAST_NOINLINE __attribute__((noinline))
