#define MICFAST_ISA neon
#include "../compiler.h"
#include "../problem.h"
#include "vec_neon.h"
#include "kernels.inl"
