// The launches of the CUDA kernels, and every kernel instantiated. float32 has kernels for the two
// common numbers of hidden units, 10 and 20, with the recurrent weights in registers, and for
// inversions of very many targets others with a thread to one or two targets; every other number,
// and float64, goes through the one that reads the weights from memory.
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
#include "place.h"
#include "products.h"
#include "sequence.h"
#include "backward.h"
#include "weight_gradient.h"
#include "generate.h"
#include "search.h"
#include "adam.h"
#include "invert.h"
#include "thread_sequence.h"
#include "invert_by_threads.h"
#include "invert_lm.h"
#include "train.h"
#include "launches.h"
#include "cuda.h"

#include <mutex>
#include <set>

namespace micfast {
namespace cuda {
namespace {

template <class T>
int64_t packed_bytes(const Sizes& s) {
  return s.n_modules * PackedModules<T>(nullptr, s).stride;
}

template <class T>
void pack(const Sizes& s, const Weights<T>& weights, const Launch& at) {
  launch(pack_kernel<T>, s.n_modules, 128, 0, static_cast<LaunchStream>(at.stream), s, weights,
         at.workspace);
}

template <class T, template <class, int> class Solver, int kHidden, class Problem>
int64_t launch_search(const Problem& p, const Plan& plan, const Launch& at) {
  const auto kernel = search_kernel<T, Solver, kHidden, Problem>;
  const Sizes& s = p.search.sizes;
  const int64_t packed = packed_bytes<T>(s);
  if (at.workspace) {
    pack(s, p.search.weights, at);
    const double passes = static_cast<double>(p.search.n_iter + 2) * Solver<T, kHidden>::kWork;
    in_rounds(plan, static_cast<double>(s.n_steps) * passes * seconds_of_step(s), [&](Plan part) {
      launch(kernel, plan.n_blocks, plan.threads, plan.shared_bytes,
             static_cast<LaunchStream>(at.stream), p, part, at.workspace, at.workspace + packed);
    });
  }
  return packed + plan.n_blocks * plan.global_bytes;
}

template <class T, template <class, int> class Solver, int kHidden, class Problem>
int64_t run_search(const Problem& p, const Launch& at) {
  const auto kernel = search_kernel<T, Solver, kHidden, Problem>;
  const Sizes& s = p.search.sizes;
  const auto take = [&](const Plan& plan, Space& space) { Solver<T, kHidden>(p, plan, 0, space); };
  Plan plan;
  if constexpr (kHidden > 0) {
    plan = search_plan<kHidden>(s, 128);
    measure(plan, kernel, Solver<T, kHidden>::kBlocksAtOnce, take);
    if (!suffices(plan)) return -1;
  } else {
    plan = plan_with_room(s, search_plan<0>, kernel, take);
  }
  return launch_search<T, Solver, kHidden>(p, plan, at);
}

// By a thread to whole targets, or -1 where that would leave a part of the device idle: each module
// has at least four tiles of targets, so that few are not full, and all blocks that the device
// holds at once have a tile, and room for its tape.
template <int kHidden>
int64_t run_by_threads(const InvertProblem<float>& p, const Launch& at) {
  use_device(at.device);
  using Solver = ThreadInverter<float, kHidden>;
  const auto kernel = search_kernel<float, ThreadInverter, kHidden, InvertProblem<float>>;
  Plan plan = thread_plan<kHidden>(p.search.sizes);
  measure(plan, kernel, Solver::kBlocksAtOnce,
          [&](const Plan& of, Space& space) { Solver(p, of, 0, space); });
  if (p.search.sizes.n_targets < 4 * plan.pairs || plan.n_blocks == 0) return -1;
  if (plan.n_blocks < resident_blocks(kernel, plan.threads, plan.shared_bytes)) return -1;
  return launch_search<float, ThreadInverter, kHidden>(p, plan, at);
}

template <template <class, int> class Solver, class Problem>
int64_t run_search_float32(const Problem& p, const Launch& at) {
  use_device(at.device);
  const int64_t H = p.search.sizes.hidden_size;
  const int64_t bytes = H == 10   ? run_search<float, Solver, 10>(p, at)
                        : H == 20 ? run_search<float, Solver, 20>(p, at)
                                  : -1;
  return bytes >= 0 ? bytes : run_search<float, Solver, 0>(p, at);
}

template <class T, int kHidden>
int64_t run_train(const TrainProblem<T>& p, int64_t begin, int64_t end, const Launch& at) {
  const auto kernel = train_kernel<T, kHidden>;
  const Sizes& s = p.sizes;
  const auto take = [&](const Plan& plan, Space& space) { Trainer<T, kHidden>(p, plan, 0, space); };
  Plan plan;
  if constexpr (kHidden > 0) {
    plan = single_plan(s, s.n_modules);
    measure(plan, kernel, 2, take);
    if (!suffices(plan)) return -1;
  } else {
    plan = plan_with_room(
        s, [](const Sizes& of, int) { return single_plan(of, of.n_modules); }, kernel, take);
  }
  Space kept{nullptr, 0, nullptr};
  const TrainState<T> state(s, kept);
  if (at.workspace && plan.n_items > 0) {
    const int64_t n_rounds = (plan.n_items + plan.n_blocks - 1) / plan.n_blocks;
    const double seconds = static_cast<double>(n_rounds * s.n_steps) * 2 * seconds_of_step(s);
    plan.end = plan.n_items;
    Episodes episodes{0, 0, 1, 1};
    in_parts(end - begin, seconds, [&](int64_t first, int64_t last) {
      for (; episodes.begin < begin + first; ++episodes.begin) {
        episodes.power1 *= p.adam.beta1;
        episodes.power2 *= p.adam.beta2;
      }
      episodes.end = begin + last;
      launch(kernel, plan.n_blocks, plan.threads, plan.shared_bytes,
             static_cast<LaunchStream>(at.stream), p, plan, episodes, at.workspace,
             at.workspace + kept.global_used);
    });
    if (end == 0)  // no episode: the weights come back as they are
      launch(kernel, plan.n_blocks, plan.threads, plan.shared_bytes,
             static_cast<LaunchStream>(at.stream), p, plan, episodes, at.workspace,
             at.workspace + kept.global_used);
  }
  return kept.global_used + plan.n_blocks * plan.global_bytes;
}

// Every kernel that a device must be able to run.
template <class T>
void load_kernels_of() {
  const auto load = [](auto* kernel) { load_kernel(reinterpret_cast<const void*>(kernel)); };
  load(pack_kernel<T>);
  load(sum_parts_kernel<T>);
  load(generate_kernel<T>);
  load(generate_backward_kernel<T>);
  load(search_kernel<T, Inverter, 0, InvertProblem<T>>);
  load(search_kernel<T, LevenbergMarquardt, 0, InvertLMProblem<T>>);
  load(train_kernel<T, 0>);
}
template <int kHidden>
void load_kernels_with() {
  const auto load = [](auto* kernel) { load_kernel(reinterpret_cast<const void*>(kernel)); };
  load(search_kernel<float, Inverter, kHidden, InvertProblem<float>>);
  load(search_kernel<float, ThreadInverter, kHidden, InvertProblem<float>>);
  load(search_kernel<float, LevenbergMarquardt, kHidden, InvertLMProblem<float>>);
  load(train_kernel<float, kHidden>);
}

}  // namespace

void prepare(int device) {
  static std::mutex mutex;
  static std::set<int> prepared;
  const std::lock_guard<std::mutex> lock(mutex);
  if (prepared.count(device)) return;
  use_device(device);
  load_kernels_of<float>();
  load_kernels_of<double>();
  load_kernels_with<10>();
  load_kernels_with<20>();
  workspace_limit();
  prepared.insert(device);
}

template <class T>
int64_t run(const GenerateProblem<T>& p, const Launch& at) {
  use_device(at.device);
  const Plan plan = plan_with_room(
      p.sizes, search_plan<0>, generate_kernel<T>, [&](const Plan& of, Space& space) {
        Sequence<T, 0>(p.sizes, Place<0>(of, p.sizes, 0), of, Keep::kNothing, space);
      });
  const int64_t packed = packed_bytes<T>(p.sizes);
  if (at.workspace) {
    pack(p.sizes, p.weights, at);
    const double seconds = static_cast<double>(p.sizes.n_steps) * seconds_of_step(p.sizes);
    in_rounds(plan, seconds, [&](Plan part) {
      launch(generate_kernel<T>, plan.n_blocks, plan.threads, plan.shared_bytes,
             static_cast<LaunchStream>(at.stream), p, part, at.workspace, at.workspace + packed);
    });
  }
  return packed + plan.n_blocks * plan.global_bytes;
}

// Some modules at a time, whose parts' sums have room; and some targets of each part at a time.
template <class T>
int64_t run(const GenerateBackwardProblem<T>& p, const Launch& at) {
  use_device(at.device);
  const Sizes& s = p.sizes;
  const int64_t n_parts = n_gradient_parts(s), stride = WeightArrays<T>::stride(s);
  const int64_t per_module = Space::bytes_of<T>(n_parts * stride);
  const int64_t fit = per_module > 0 ? workspace_limit() / per_module : s.n_modules;
  const int64_t n_at_once = fit >= s.n_modules ? s.n_modules : fit >= 1 ? fit : 1;
  Plan plan = plan_with_room(
      s, [&](const Sizes& of, int) { return single_plan(of, n_at_once * n_parts); },
      generate_backward_kernel<T>,
      [&](const Plan& of, Space& space) { GeneratorBackward<T>(p, of, 0, space); });
  const int64_t packed = packed_bytes<T>(s);
  const int64_t parts = Space::bytes_of<T>(n_at_once * n_parts * stride);
  if (at.workspace) {
    const auto stream = static_cast<LaunchStream>(at.stream);
    T* sums = reinterpret_cast<T*>(at.workspace + packed);
    pack(s, p.weights, at);
    for (int64_t first = 0; first < s.n_modules; first += n_at_once) {
      const Modules modules{first, least(first + n_at_once, s.n_modules)};
      plan.end = (modules.end - first) * n_parts;
      const int64_t n_rounds =
          plan.n_blocks > 0 ? (plan.end + plan.n_blocks - 1) / plan.n_blocks : 0;
      const double seconds = static_cast<double>(n_rounds * s.n_steps) * 2 * seconds_of_step(s);
      const int64_t n_of_part = n_parts > 0 ? (s.n_targets + n_parts - 1) / n_parts : 0;
      in_parts(n_of_part, seconds, [&](int64_t begin, int64_t end) {
        launch(generate_backward_kernel<T>, plan.n_blocks, plan.threads, plan.shared_bytes, stream,
               p, plan, modules, Turns{begin, end}, at.workspace, sums,
               at.workspace + packed + parts);
      });
      launch(sum_parts_kernel<T>, modules.end - first, 128, 0, stream, s, modules, p.d_weights,
             static_cast<const T*>(sums));
    }
  }
  return packed + parts + plan.n_blocks * plan.global_bytes;
}

template <>
int64_t run(const InvertProblem<float>& p, const Launch& at) {
  const int64_t H = p.search.sizes.hidden_size;
  const int64_t bytes = H == 10   ? run_by_threads<10>(p, at)
                        : H == 20 ? run_by_threads<20>(p, at)
                                  : -1;
  return bytes >= 0 ? bytes : run_search_float32<Inverter>(p, at);
}
template <>
int64_t run(const InvertProblem<double>& p, const Launch& at) {
  use_device(at.device);
  return run_search<double, Inverter, 0>(p, at);
}

template <>
int64_t run(const InvertLMProblem<float>& p, const Launch& at) {
  return run_search_float32<LevenbergMarquardt>(p, at);
}
template <>
int64_t run(const InvertLMProblem<double>& p, const Launch& at) {
  use_device(at.device);
  return run_search<double, LevenbergMarquardt, 0>(p, at);
}

template <>
int64_t run(const TrainProblem<float>& p, int64_t begin, int64_t end, const Launch& at) {
  use_device(at.device);
  const int64_t H = p.sizes.hidden_size;
  const int64_t bytes = H == 10   ? run_train<float, 10>(p, begin, end, at)
                        : H == 20 ? run_train<float, 20>(p, begin, end, at)
                                  : -1;
  return bytes >= 0 ? bytes : run_train<float, 0>(p, begin, end, at);
}
template <>
int64_t run(const TrainProblem<double>& p, int64_t begin, int64_t end, const Launch& at) {
  use_device(at.device);
  return run_train<double, 0>(p, begin, end, at);
}

template int64_t run(const GenerateProblem<float>&, const Launch&);
template int64_t run(const GenerateProblem<double>&, const Launch&);
template int64_t run(const GenerateBackwardProblem<float>&, const Launch&);
template int64_t run(const GenerateBackwardProblem<double>&, const Launch&);

}  // namespace cuda
}  // namespace micfast
