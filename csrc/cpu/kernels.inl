// The whole CPU kernel for one instruction set. A file per instruction set defines MICFAST_ISA (its
// namespace and name), includes its register wrapper and then this. Nothing here may use the C++
// library's inline functions: compiled for this instruction set, the linker could hand them to code
// that runs on an older processor.
#include "../activations.h"
#include "../lstm_cell.h"
#include "../gru_cell.h"
#include "../philox.h"
#include "../levenberg_marquardt.h"
#include "accumulate.h"
#include "outputs.h"
#include "sequence.h"
#include "narrow_weights.h"
#include "narrow.h"
#include "blocks.h"
#include "weight_gradient.h"
#include "generate.h"
#include "search.h"
#include "invert.h"
#include "tangent.h"
#include "narrow_tangent.h"
#include "invert_lm.h"
#include "lane_training.h"
#include "train.h"
#include "cholesky.h"
#include "read_out.h"
#include "types_in_lanes.h"
#include "train_projected.h"
#include "jacobian.h"
#include "normal_equations.h"
#include "train_lm.h"
#include "mixtures.h"

namespace micfast {
namespace MICFAST_ISA {

// Subnormal numbers cost dozens of cycles each and mean nothing here: backward passes through
// saturated gates decay into them. Flushed to zero while a work item runs.
struct FlushSubnormals {
#if defined(__SSE__)
  unsigned saved = __builtin_ia32_stmxcsr();
  FlushSubnormals() { __builtin_ia32_ldmxcsr(saved | 0x8040); }
  ~FlushSubnormals() { __builtin_ia32_ldmxcsr(saved); }
#elif defined(__aarch64__)
  // Assembly, since gcc and clang have different builtins for it.
  static uint64_t get() {
    uint64_t value;
    __asm__ volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void set(uint64_t value) { __asm__ volatile("msr fpcr, %0" : : "r"(value) : "memory"); }
  uint64_t saved = get();
  FlushSubnormals() { set(saved | (1u << 24)); }
  ~FlushSubnormals() { set(saved); }
#endif
};

template <class T, template <class> class Problem,
          void (*kItem)(const Problem<T>&, int64_t, void*, Monitor*)>
void run_flushed(const Problem<T>& p, int64_t item, void* workspace, Monitor* monitor) {
  const FlushSubnormals flush;
  kItem(p, item, workspace, monitor);
}

// y[i] = f(x[i]) through one block of lanes at a time.
template <class T, Vec<T> (*kFunction)(Vec<T>)>
void map(const T* x, T* y, int64_t n) {
  alignas(64) T lanes[Vec<T>::kWidth];
  for (int64_t i = 0; i < n; i += Vec<T>::kWidth) {
    const int count = static_cast<int>(n - i < Vec<T>::kWidth ? n - i : Vec<T>::kWidth);
    for (int l = 0; l < Vec<T>::kWidth; ++l) lanes[l] = x[i + (l < count ? l : 0)];
    kFunction(Vec<T>::load(lanes)).store(lanes);
    for (int l = 0; l < count; ++l) y[i + l] = lanes[l];
  }
}
template <class T>
Vec<T> sigmoid(Vec<T> x) {
  return sigmoid_of_scaled(x * Vec<T>::broadcast(kSigmoidScale<T>));
}
template <class T>
Vec<T> tanh(Vec<T> x) {
  return tanh_of_scaled(x * Vec<T>::broadcast(kTanhScale<T>));
}

template <class T>
constexpr KernelSet<T> kernel_set() {
  return {{generate_items<T>, generate_units<T>, generate_workspace<T>,
           run_flushed<T, GenerateProblem, generate_item<T>>},
          {generate_backward_items<T>, generate_backward_units<T>, generate_backward_workspace<T>,
           run_flushed<T, GenerateBackwardProblem, generate_backward_item<T>>},
          {InvertJob<T>::items, InvertJob<T>::units, InvertJob<T>::workspace,
           run_flushed<T, InvertProblem, InvertJob<T>::run_item>},
          {InvertLMJob<T>::items, InvertLMJob<T>::units, InvertLMJob<T>::workspace,
           run_flushed<T, InvertLMProblem, InvertLMJob<T>::run_item>},
          {train_items<T>, train_units<T>, train_workspace<T>,
           run_flushed<T, TrainProblem, train_item<T>>},
          {train_projected_items<T>, train_projected_units<T>, train_projected_workspace<T>,
           run_flushed<T, TrainProjectedProblem, train_projected_item<T>>},
          {train_lm_items<T>, train_lm_units<T>, train_lm_workspace<T>,
           run_flushed<T, TrainLMProblem, train_lm_item<T>>},
          map<T, sigmoid<T>>,
          map<T, tanh<T>>};
}

#define MICFAST_STRING_OF(x) #x
#define MICFAST_STRING(x) MICFAST_STRING_OF(x)

extern const InstructionSet kInstructionSet;
const InstructionSet kInstructionSet = {MICFAST_STRING(MICFAST_ISA),
                                        kLanes<float>,
                                        kLanes<double>,
                                        kernel_set<float>(),
                                        kernel_set<double>(),
                                        {Mixtures<double>::items, Mixtures<double>::units,
                                         Mixtures<double>::workspace, Mixtures<double>::run_item}};

}  // namespace MICFAST_ISA
}  // namespace micfast
