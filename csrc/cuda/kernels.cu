// The launches of the CUDA kernels, and every kernel instantiated. float32 has kernels for the two
// common numbers of hidden units, 10 and 20, with the recurrent weights in registers; every other
// number, and float64, goes through the one that reads them from memory.
#define MICFAST_ISA cuda

#include "device.h"

#include "../compiler.h"
#include "../problem.h"
#include "vec.h"
#include "../activations.h"
#include "../lstm_cell.h"
#include "../philox.h"
#include "../levenberg_marquardt.h"
#include "tile.h"
#include "sequence.h"
#include "weight_gradient.h"
#include "generate.h"
#include "search.h"
#include "invert.h"
#include "invert_lm.h"
#include "train.h"
#include "cuda.h"

namespace micfast {
namespace cuda {
namespace {

// At most this much shared memory a block, so that two of them fit a multiprocessor.
constexpr int64_t kSharedBytes = 100 * 1024;

// Counts what a block takes, which take(space) asks for, and sets the plan's sizes.
template <class Take>
void measure(Plan& plan, Take take) {
  const int64_t limit = shared_memory_limit();
  plan.shared_limit = limit < kSharedBytes ? limit : kSharedBytes;
  Space space{nullptr, plan.shared_limit, nullptr};
  take(space);
  plan.shared_bytes = space.shared_used;
  plan.global_bytes = space.global_used;
}

template <class... Parameters>
void set_blocks(void (*kernel)(Parameters...), Plan& plan) {
  const int64_t resident = resident_blocks(kernel, plan.threads, plan.shared_bytes);
  plan.n_blocks = resident < plan.n_items ? resident : plan.n_items;
}

template <class T>
int64_t packed_bytes(const Sizes& s) {
  return s.n_modules * PackedModules<T>(nullptr, s).stride;
}

template <class T>
void pack(const Sizes& s, const Weights<T>& weights, const Launch& at) {
  launch(pack_kernel<T>, s.n_modules, 128, 0, static_cast<LaunchStream>(at.stream), s, weights,
         at.workspace);
}

// A tile of one pair for every part of the work.
inline Plan single_plan(const Sizes& s, int64_t n_items) {
  Plan plan{};
  plan.pairs = 1;
  plan.threads_per_pair = static_cast<int>(s.hidden_size < 128 ? s.hidden_size : 128);
  plan.threads = (plan.threads_per_pair + 31) / 32 * 32;
  plan.segment = 4;
  plan.n_items = n_items;
  return plan;
}

// Whether a kernel with its number of units as a template parameter can have the shared memory that
// it needs: not with very many inputs or outputs.
inline bool fits(const Plan& plan) { return plan.shared_bytes <= shared_memory_limit(); }

template <class T, template <class, int> class Solver, int kHidden, class Problem>
int64_t run_search(const Problem& p, const Launch& at) {
  const auto kernel = search_kernel<T, Solver, kHidden, Problem>;
  const Sizes& s = p.search.sizes;
  Plan plan = search_plan(s);
  measure(plan, [&](Space& space) { Solver<T, kHidden>(p, plan, 0, space); });
  if (!fits(plan)) return -1;
  set_blocks(kernel, plan);
  const int64_t packed = packed_bytes<T>(s);
  if (at.workspace) {
    pack(s, p.search.weights, at);
    launch(kernel, plan.n_blocks, plan.threads, plan.shared_bytes,
           static_cast<LaunchStream>(at.stream), p, plan, at.workspace, at.workspace + packed);
  }
  return packed + plan.n_blocks * plan.global_bytes;
}

template <template <class, int> class Solver, class Problem>
int64_t run_search_float32(const Problem& p, const Launch& at) {
  const DeviceGuard guard(at.device);
  const int64_t H = p.search.sizes.hidden_size;
  const int64_t bytes = H == 10   ? run_search<float, Solver, 10>(p, at)
                        : H == 20 ? run_search<float, Solver, 20>(p, at)
                                  : -1;
  return bytes >= 0 ? bytes : run_search<float, Solver, 0>(p, at);
}

template <class T, int kHidden>
int64_t run_train(const TrainProblem<T>& p, int64_t begin, int64_t end, const Launch& at) {
  Plan plan = single_plan(p.sizes, p.sizes.n_modules);
  measure(plan, [&](Space& space) { Trainer<T, kHidden>(p, plan, 0, space); });
  if (!fits(plan)) return -1;
  set_blocks(train_kernel<T, kHidden>, plan);
  Space kept{nullptr, 0, nullptr};
  const TrainState<T> state(p.sizes, kept);
  if (at.workspace) {
    Episodes episodes{begin, end, 1, 1};
    for (int64_t e = 0; e < begin; ++e) {
      episodes.power1 *= p.adam.beta1;
      episodes.power2 *= p.adam.beta2;
    }
    launch(train_kernel<T, kHidden>, plan.n_blocks, plan.threads, plan.shared_bytes,
           static_cast<LaunchStream>(at.stream), p, plan, episodes, at.workspace,
           at.workspace + kept.global_used);
  }
  return kept.global_used + plan.n_blocks * plan.global_bytes;
}

}  // namespace

template <class T>
int64_t run(const GenerateProblem<T>& p, const Launch& at) {
  const DeviceGuard guard(at.device);
  Plan plan = search_plan(p.sizes);
  measure(plan, [&](Space& space) {
    Sequence<T, 0>(p.sizes, Place<0>(plan, p.sizes, 0), plan, false, space);
  });
  set_blocks(generate_kernel<T>, plan);
  const int64_t packed = packed_bytes<T>(p.sizes);
  if (at.workspace) {
    pack(p.sizes, p.weights, at);
    launch(generate_kernel<T>, plan.n_blocks, plan.threads, plan.shared_bytes,
           static_cast<LaunchStream>(at.stream), p, plan, at.workspace, at.workspace + packed);
  }
  return packed + plan.n_blocks * plan.global_bytes;
}

template <class T>
int64_t run(const GenerateBackwardProblem<T>& p, const Launch& at) {
  const DeviceGuard guard(at.device);
  const Sizes& s = p.sizes;
  Plan plan = single_plan(s, s.n_modules * n_gradient_parts(s));
  measure(plan, [&](Space& space) { GeneratorBackward<T>(p, plan, 0, space); });
  set_blocks(generate_backward_kernel<T>, plan);
  const int64_t packed = packed_bytes<T>(s);
  const int64_t parts = Space::bytes_of<T>(plan.n_items * WeightArrays<T>::stride(s));
  if (at.workspace) {
    const auto stream = static_cast<LaunchStream>(at.stream);
    T* sums = reinterpret_cast<T*>(at.workspace + packed);
    pack(s, p.weights, at);
    launch(generate_backward_kernel<T>, plan.n_blocks, plan.threads, plan.shared_bytes, stream, p,
           plan, at.workspace, sums, at.workspace + packed + parts);
    launch(sum_parts_kernel<T>, s.n_modules, 128, 0, stream, s, p.d_weights,
           static_cast<const T*>(sums));
  }
  return packed + parts + plan.n_blocks * plan.global_bytes;
}

template <>
int64_t run(const InvertProblem<float>& p, const Launch& at) {
  return run_search_float32<Inverter>(p, at);
}
template <>
int64_t run(const InvertProblem<double>& p, const Launch& at) {
  const DeviceGuard guard(at.device);
  return run_search<double, Inverter, 0>(p, at);
}

template <>
int64_t run(const InvertLMProblem<float>& p, const Launch& at) {
  return run_search_float32<LevenbergMarquardt>(p, at);
}
template <>
int64_t run(const InvertLMProblem<double>& p, const Launch& at) {
  const DeviceGuard guard(at.device);
  return run_search<double, LevenbergMarquardt, 0>(p, at);
}

template <>
int64_t run(const TrainProblem<float>& p, int64_t begin, int64_t end, const Launch& at) {
  const DeviceGuard guard(at.device);
  const int64_t H = p.sizes.hidden_size;
  const int64_t bytes = H == 10   ? run_train<float, 10>(p, begin, end, at)
                        : H == 20 ? run_train<float, 20>(p, begin, end, at)
                                  : -1;
  return bytes >= 0 ? bytes : run_train<float, 0>(p, begin, end, at);
}
template <>
int64_t run(const TrainProblem<double>& p, int64_t begin, int64_t end, const Launch& at) {
  const DeviceGuard guard(at.device);
  return run_train<double, 0>(p, begin, end, at);
}

template int64_t run(const GenerateProblem<float>&, const Launch&);
template int64_t run(const GenerateProblem<double>&, const Launch&);
template int64_t run(const GenerateBackwardProblem<float>&, const Launch&);
template int64_t run(const GenerateBackwardProblem<double>&, const Launch&);

}  // namespace cuda
}  // namespace micfast
