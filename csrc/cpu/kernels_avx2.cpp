#define MICFAST_ISA avx2
#include "../compiler.h"
#include "../problem.h"
#include "vec_avx2.h"
#include "kernels.inl"
