// The kernels need gcc's vector types, builtins and attributes, which clang has too.
#pragma once

#define MICFAST_INLINE inline __attribute__((always_inline))
#define MICFAST_LAMBDA_INLINE __attribute__((always_inline))
