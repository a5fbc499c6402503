#include "dispatch.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>

namespace micfast {

#if defined(MICFAST_HAVE_AVX512_KERNELS)
namespace avx512 {
extern const InstructionSet kInstructionSet;
}
#endif
#if defined(MICFAST_HAVE_AVX2_KERNELS)
namespace avx2 {
extern const InstructionSet kInstructionSet;
}
#endif
#if defined(MICFAST_HAVE_NEON_KERNELS)
namespace neon {
extern const InstructionSet kInstructionSet;
}
#endif
namespace baseline {
extern const InstructionSet kInstructionSet;
}

const std::vector<const InstructionSet*>& available_instruction_sets() {
  static const std::vector<const InstructionSet*> sets = [] {
    std::vector<const InstructionSet*> found;
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
#if defined(MICFAST_HAVE_AVX512_KERNELS)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
      found.push_back(&avx512::kInstructionSet);
#endif
#if defined(MICFAST_HAVE_AVX2_KERNELS)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      found.push_back(&avx2::kInstructionSet);
#endif
#if defined(MICFAST_HAVE_NEON_KERNELS)
    found.push_back(&neon::kInstructionSet);
#endif
    found.push_back(&baseline::kInstructionSet);
    return found;
  }();
  return sets;
}

const InstructionSet& active_instruction_set() {
  const auto& sets = available_instruction_sets();
  const char* wanted = std::getenv("MICFAST_ISA");
  if (!wanted || !*wanted) return *sets.front();
  std::string names;
  for (const InstructionSet* set : sets) {
    if (std::string(set->name) == wanted) return *set;
    names += names.empty() ? set->name : std::string(", ") + set->name;
  }
  throw std::invalid_argument("MICFAST_ISA must be one of " + names + " on this machine, got '" +
                              wanted + "'");
}

namespace {

struct JobMonitor : Monitor {
  std::atomic<int64_t> units{0};
  std::atomic<bool> stopped{false};
  JobMonitor() {
    tick = [](Monitor* self, int64_t n) {
      auto* monitor = static_cast<JobMonitor*>(self);
      monitor->units.fetch_add(n, std::memory_order_relaxed);
      return !monitor->stopped.load(std::memory_order_relaxed);
    };
  }
};

struct AlignedDelete {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t{64}); }
};

}  // namespace

// Threads live as long as the job: starting one costs some 20 microseconds, a job milliseconds to
// minutes, and nothing is left behind that a fork could break.
template <class T, template <class> class Problem>
void run_job(const JobKernel<T, Problem>& kernel, const Problem<T>& problem, int n_threads,
             const Watch& watch) {
  const int64_t n_items = kernel.n_items(problem);
  if (n_items == 0) return;
  const double total = static_cast<double>(n_items) *
                       static_cast<double>(std::max<int64_t>(1, kernel.units_per_item(problem)));
  const auto workspace_bytes = static_cast<std::size_t>(kernel.workspace_bytes(problem));

  JobMonitor monitor;
  std::atomic<int64_t> next_item{0};
  std::mutex mutex;
  std::condition_variable finished;
  std::exception_ptr failure;
  int n_running = static_cast<int>(std::clamp<int64_t>(n_threads, 1, n_items));

  auto work = [&] {
    try {
      const std::unique_ptr<void, AlignedDelete> workspace(
          ::operator new(workspace_bytes, std::align_val_t{64}));
      for (int64_t item; !monitor.stopped && (item = next_item.fetch_add(1)) < n_items;)
        kernel.run_item(problem, item, workspace.get(), &monitor);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      failure = std::current_exception();
      monitor.stopped = true;
    }
    const std::lock_guard<std::mutex> lock(mutex);
    if (--n_running == 0) finished.notify_one();
  };

  std::vector<std::thread> threads;
  const int n_started = n_running;
  try {
    threads.reserve(static_cast<std::size_t>(n_started));
    for (int i = 0; i < n_started; ++i) threads.emplace_back(work);
  } catch (...) {  // no more threads to be had: go on with those there are
    const std::lock_guard<std::mutex> lock(mutex);
    n_running -= n_started - static_cast<int>(threads.size());
    if (threads.empty()) throw;
  }

  {
    std::unique_lock<std::mutex> lock(mutex);
    const auto period = std::chrono::milliseconds(100);
    while (!finished.wait_for(lock, period, [&] { return n_running == 0; })) {
      lock.unlock();
      try {
        if (!monitor.stopped) watch(static_cast<double>(monitor.units) / total);
      } catch (...) {
        const std::lock_guard<std::mutex> guard(mutex);
        failure = std::current_exception();
        monitor.stopped = true;
      }
      lock.lock();
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

#define MICFAST_INSTANTIATE(T, Problem)                                                   \
  template void run_job<T, Problem>(const JobKernel<T, Problem>&, const Problem<T>&, int, \
                                    const Watch&);
MICFAST_INSTANTIATE(float, GenerateProblem)
MICFAST_INSTANTIATE(double, GenerateProblem)
MICFAST_INSTANTIATE(float, GenerateBackwardProblem)
MICFAST_INSTANTIATE(double, GenerateBackwardProblem)
MICFAST_INSTANTIATE(float, InvertProblem)
MICFAST_INSTANTIATE(double, InvertProblem)
MICFAST_INSTANTIATE(float, InvertLMProblem)
MICFAST_INSTANTIATE(double, InvertLMProblem)
MICFAST_INSTANTIATE(float, TrainProblem)
MICFAST_INSTANTIATE(double, TrainProblem)
MICFAST_INSTANTIATE(float, TrainProjectedProblem)
MICFAST_INSTANTIATE(double, TrainProjectedProblem)
MICFAST_INSTANTIATE(float, TrainLMProblem)
MICFAST_INSTANTIATE(double, TrainLMProblem)
MICFAST_INSTANTIATE(double, MixturesProblem)

}  // namespace micfast
