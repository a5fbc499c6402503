// What differs between compilers.
#pragma once

#if defined(__GNUC__)
#define MICFAST_INLINE inline __attribute__((always_inline))
#define MICFAST_LAMBDA_INLINE __attribute__((always_inline))
#else
#define MICFAST_INLINE inline
#define MICFAST_LAMBDA_INLINE
#endif
