#define MICFAST_ISA baseline
#include "../compiler.h"
#include "../problem.h"
#include "vec_baseline.h"
#include "kernels.inl"
