#define MICFAST_ISA avx512
#include "../compiler.h"
#include "../problem.h"
#include "vec_avx512.h"
#include "kernels.inl"
