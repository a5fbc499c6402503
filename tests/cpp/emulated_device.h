// A CUDA device played by the CPU, for the sources in csrc/cuda: the threads of a block are fibres
// that run from barrier to barrier, the blocks of a launch run one after the other. Slow, but every
// line of the kernels runs, on real numbers, where there is no GPU.
//
// A fibre runs alone until its next barrier, so a missing one does not show in a race but in the
// order: who reads what another thread should have written, or overwrites what another one should
// have read, gets another value in some order of the fibres. Environment variables choose it, and
// make the device small:
//
//   MICFAST_EMULATED_ORDER       between barriers: forward, backward, ahead (the first thread that
//                                can run, so that no one waits without need), shuffle:SEED
//   MICFAST_EMULATED_WITHOUT     file:line of a barrier that is passed over (for the tests)
//   MICFAST_EMULATED_SHARED      bytes of shared memory a block
//   MICFAST_EMULATED_BLOCKS      at work at once
//   MICFAST_EMULATED_WORKSPACE   bytes that all blocks together may take
//   MICFAST_EMULATED_LAUNCH_MICROSECONDS   a launch may take
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#define MICFAST_KERNEL
#define MICFAST_BOTH
#define MICFAST_LAUNCH_BOUNDS(threads, blocks)

namespace micfast {
namespace cuda {

using LaunchStream = void*;

inline int64_t emulated_setting(const char* name, int64_t otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? std::atoll(value) : otherwise;
}

struct EmulatedBlock {
  static constexpr std::size_t kStackBytes = 128 * 1024;
  struct Fibre {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool done;
    int waits;  // at a barrier of this many threads; 0: it can run
    bool vote;
  };
  ucontext_t scheduler;
  std::vector<Fibre> fibres;
  std::vector<char> shared;
  int64_t index = 0, count = 0;
  int current = 0;
  std::function<void()> body;
  std::string without;  // MICFAST_EMULATED_WITHOUT

  static EmulatedBlock& now() {
    static thread_local EmulatedBlock block;
    return block;
  }
  static void enter() {
    EmulatedBlock& block = now();
    block.body();
    block.fibres[static_cast<std::size_t>(block.current)].done = true;
  }
  Fibre& fibre(int i) { return fibres[static_cast<std::size_t>(i)]; }
  int size() const { return static_cast<int>(fibres.size()); }

  // Of the n threads around this one; whether any of them votes.
  bool barrier(int n, bool vote, const char* file, int line) {
    Fibre& mine = fibre(current);
    mine.vote = vote;
    if (without.empty() || !is_at(file, line)) {
      mine.waits = n;
      swapcontext(&mine.context, &scheduler);
    }
    return mine.vote;
  }
  bool is_at(const char* file, int line) const {
    const std::string site = std::string(file) + ":" + std::to_string(line);
    return site.size() > without.size() &&
           site.compare(site.size() - without.size() - 1, std::string::npos, "/" + without) == 0;
  }
  // Lets n threads go on if all are at the same barrier.
  bool release(int first, int n) {
    bool vote = false;
    for (int j = first; j < first + n; ++j) {
      if (j >= size() || fibre(j).waits != n) return false;
      vote = vote || fibre(j).vote;
    }
    for (int j = first; j < first + n; ++j) {
      fibre(j).waits = 0;
      fibre(j).vote = vote;
    }
    return true;
  }
  bool run_one(int i) {
    if (fibre(i).done || fibre(i).waits != 0) return false;
    current = i;
    swapcontext(&scheduler, &fibre(i).context);
    return true;
  }
  void start(Fibre& f) {
    if (!f.stack) f.stack.reset(new char[kStackBytes]);
    f.done = f.vote = false;
    f.waits = 0;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = kStackBytes;
    f.context.uc_link = &scheduler;
    makecontext(&f.context, &EmulatedBlock::enter, 0);
  }
  void run(int n_threads, const std::string& order) {
    fibres.resize(static_cast<std::size_t>(n_threads));
    std::vector<int> turns;
    for (int i = 0; i < n_threads; ++i) {
      start(fibre(i));
      turns.push_back(order == "backward" ? n_threads - 1 - i : i);
    }
    const bool shuffles = order.compare(0, 8, "shuffle:") == 0;
    std::minstd_rand random(
        static_cast<unsigned>((shuffles ? std::atoll(order.c_str() + 8) : 0) * 1000 + index + 1));
    for (;;) {
      if (shuffles) std::shuffle(turns.begin(), turns.end(), random);
      bool any_ran = false, any_left = false, any_released = false;
      for (const int i : turns) {
        any_ran = run_one(i) || any_ran;
        if (order == "ahead" && any_ran) break;
      }
      for (int i = 0; i < n_threads; ++i) {
        const int n = fibre(i).waits;
        if (n != 0 && i % n == 0) any_released = release(i, n) || any_released;
        any_left = any_left || !fibre(i).done;
      }
      if (!any_left) return;
      if (!any_ran && !any_released) {
        fibres.clear();
        throw std::runtime_error("emulated CUDA: threads of a block wait at different barriers");
      }
    }
  }
};

inline int thread_index() { return EmulatedBlock::now().current; }
inline int n_threads() { return EmulatedBlock::now().size(); }
inline int64_t block_index() { return EmulatedBlock::now().index; }
inline int64_t n_blocks() { return EmulatedBlock::now().count; }
inline void block_sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  EmulatedBlock& block = EmulatedBlock::now();
  block.barrier(block.size(), false, file, line);
}
inline bool any_in_block(bool value, const char* file = __builtin_FILE(),
                         int line = __builtin_LINE()) {
  EmulatedBlock& block = EmulatedBlock::now();
  return block.barrier(block.size(), value, file, line);
}
struct Site {
  const char* file;
  int line;
  static Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};
template <int kTeam>
void team_sync(int n, Site site) {
  EmulatedBlock& block = EmulatedBlock::now();
  block.barrier(kTeam == 0 ? block.size() : n, false, site.file, site.line);
}
template <int kTeam>
bool any_in_team(bool value, int n, Site site) {
  EmulatedBlock& block = EmulatedBlock::now();
  return block.barrier(kTeam == 0 ? block.size() : n, value, site.file, site.line);
}
inline char* shared_memory() {
  char* base = EmulatedBlock::now().shared.data();
  return base + (64 - reinterpret_cast<std::uintptr_t>(base) % 64) % 64;
}
template <class T>
T kept(T value) {
  return value;
}
template <class T>
T* opaque(T* address) {
  return address;
}
inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
inline double fused(double a, double b, double c) { return std::fma(a, b, c); }
inline void prefetch(const void*) {}
inline float quotient(float a, float b) { return a / b; }
inline double quotient(double a, double b) { return a / b; }

inline int64_t shared_memory_limit() {
  return emulated_setting("MICFAST_EMULATED_SHARED", 227 * 1024);
}
inline int64_t shared_memory_of_multiprocessor() { return 228 * 1024; }
inline int n_multiprocessors() { return 2; }
inline int64_t workspace_limit() {
  return emulated_setting("MICFAST_EMULATED_WORKSPACE", int64_t{1} << 30);
}
inline double launch_seconds() {
  return static_cast<double>(emulated_setting("MICFAST_EMULATED_LAUNCH_MICROSECONDS", 500000)) *
         1e-6;
}
inline void use_device(int) {}

inline std::set<const void*>& loaded_kernels() {
  static std::set<const void*> kernels;
  return kernels;
}
inline void load_kernel(const void* kernel) { loaded_kernels().insert(kernel); }

template <class... Parameters>
int64_t resident_blocks(void (*)(Parameters...), int, int64_t) {
  return emulated_setting("MICFAST_EMULATED_BLOCKS", 3);
}

template <class... Parameters>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared_bytes,
            LaunchStream, Parameters... parameters) {
  if (!loaded_kernels().count(reinterpret_cast<const void*>(kernel)))
    throw std::runtime_error("emulated CUDA: this kernel is missing in prepare()");
  if (blocks == 0) return;
  EmulatedBlock& block = EmulatedBlock::now();
  const char *order = std::getenv("MICFAST_EMULATED_ORDER"),
             *without = std::getenv("MICFAST_EMULATED_WITHOUT");
  block.without = without ? without : "";
  block.body = [=] { kernel(parameters...); };
  block.count = blocks;
  for (int64_t i = 0; i < blocks; ++i) {
    block.index = i;
    // Garbage, so that nothing relies on zeros.
    block.shared.assign(static_cast<std::size_t>(shared_bytes) + 64, '\x7f');
    block.run(threads, order ? order : "forward");
  }
}

}  // namespace cuda
}  // namespace micfast
