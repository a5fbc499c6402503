// A CUDA device played by the CPU, for the sources in csrc/cuda: the threads of a block are fibres
// that run in turn from barrier to barrier, the blocks of a launch run one after the other. Slow,
// and no proof of freedom from races (a fibre runs alone), but every line of the kernels runs, on
// real numbers, where there is no GPU. Environment variables make the device small:
// MICFAST_EMULATED_SHARED (bytes of shared memory a block), MICFAST_EMULATED_BLOCKS (at work at
// once), MICFAST_EMULATED_ORDER=backward (fibres in falling order between barriers).
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#define MICFAST_KERNEL
#define MICFAST_BOTH
#define MICFAST_LAUNCH_BOUNDS(threads, blocks)

namespace micfast {
namespace cuda {

using LaunchStream = void*;

struct EmulatedBlock {
  static constexpr std::size_t kStackBytes = 128 * 1024;
  struct Fibre {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool done;
  };
  ucontext_t scheduler;
  std::vector<Fibre> fibres;
  std::vector<char> shared;
  int64_t index = 0, count = 0;
  int current = 0;
  bool vote = false, last_vote = false;
  std::function<void()> body;

  static EmulatedBlock& now() {
    static thread_local EmulatedBlock block;
    return block;
  }
  static void enter() {
    EmulatedBlock& block = now();
    block.body();
    block.fibres[static_cast<std::size_t>(block.current)].done = true;
  }
  void barrier() {
    Fibre& fibre = fibres[static_cast<std::size_t>(current)];
    swapcontext(&fibre.context, &scheduler);
  }
  void run(int n_threads, bool backward) {
    fibres.resize(static_cast<std::size_t>(n_threads));
    for (Fibre& fibre : fibres) {
      if (!fibre.stack) fibre.stack.reset(new char[kStackBytes]);
      fibre.done = false;
      getcontext(&fibre.context);
      fibre.context.uc_stack.ss_sp = fibre.stack.get();
      fibre.context.uc_stack.ss_size = kStackBytes;
      fibre.context.uc_link = &scheduler;
      makecontext(&fibre.context, &EmulatedBlock::enter, 0);
    }
    for (int n_done = 0; n_done < n_threads;) {
      vote = false;
      n_done = 0;
      for (int i = 0; i < n_threads; ++i) {
        current = backward ? n_threads - 1 - i : i;
        Fibre& fibre = fibres[static_cast<std::size_t>(current)];
        if (!fibre.done) swapcontext(&scheduler, &fibre.context);
        n_done += fibre.done;
      }
      if (n_done != 0 && n_done != n_threads) {
        fibres.clear();
        throw std::runtime_error("emulated CUDA: some threads of a block ended before a barrier");
      }
      last_vote = vote;
    }
  }
};

inline int thread_index() { return EmulatedBlock::now().current; }
inline int n_threads() { return static_cast<int>(EmulatedBlock::now().fibres.size()); }
inline int64_t block_index() { return EmulatedBlock::now().index; }
inline int64_t n_blocks() { return EmulatedBlock::now().count; }
inline void block_sync() { EmulatedBlock::now().barrier(); }
inline bool any_in_block(bool value) {
  EmulatedBlock& block = EmulatedBlock::now();
  block.vote = block.vote || value;
  block.barrier();
  return block.last_vote;
}
inline char* shared_memory() {
  char* base = EmulatedBlock::now().shared.data();
  return base + (64 - reinterpret_cast<std::uintptr_t>(base) % 64) % 64;
}
inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
inline double fused(double a, double b, double c) { return std::fma(a, b, c); }
inline float quotient(float a, float b) { return a / b; }
inline double quotient(double a, double b) { return a / b; }

inline int64_t emulated_setting(const char* name, int64_t otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? std::atoll(value) : otherwise;
}
inline int64_t shared_memory_limit() {
  return emulated_setting("MICFAST_EMULATED_SHARED", 227 * 1024);
}
inline int n_multiprocessors() { return 2; }
struct DeviceGuard {
  explicit DeviceGuard(int) {}
};

template <class... Parameters>
int64_t resident_blocks(void (*)(Parameters...), int, int64_t) {
  return emulated_setting("MICFAST_EMULATED_BLOCKS", 3);
}

template <class... Parameters>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared_bytes,
            LaunchStream, Parameters... parameters) {
  EmulatedBlock& block = EmulatedBlock::now();
  const char* order = std::getenv("MICFAST_EMULATED_ORDER");
  const bool backward = order && std::string(order) == "backward";
  block.body = [=] { kernel(parameters...); };
  block.count = blocks;
  for (int64_t i = 0; i < blocks; ++i) {
    block.index = i;
    // Garbage, so that nothing relies on zeros.
    block.shared.assign(static_cast<std::size_t>(shared_bytes) + 64, '\x7f');
    block.run(threads, backward);
  }
}

}  // namespace cuda
}  // namespace micfast
