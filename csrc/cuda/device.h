// The little of CUDA that the kernels use, under plain names. Compiled without nvcc, the names come
// from the header that MICFAST_EMULATED_DEVICE names: tests/cpp/emulated_device.h runs the same
// sources on the CPU, thread by thread, so that their logic is tested where there is no GPU.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <array>
#include <atomic>
#include <stdexcept>
#include <string>

#define MICFAST_KERNEL __global__
#define MICFAST_BOTH __host__ __device__
#define MICFAST_LAUNCH_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)

namespace micfast {
namespace cuda {

using LaunchStream = cudaStream_t;

__device__ __forceinline__ int thread_index() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int n_threads() { return static_cast<int>(blockDim.x); }
__device__ __forceinline__ int64_t block_index() { return blockIdx.x; }
__device__ __forceinline__ int64_t n_blocks() { return gridDim.x; }
__device__ __forceinline__ void block_sync() { __syncthreads(); }
// Whether the value holds in any thread of the block; a block_sync() too.
__device__ __forceinline__ bool any_in_block(bool value) { return __syncthreads_or(value) != 0; }
// Where a barrier stands: only the emulation asks.
struct Site {
  __device__ __forceinline__ static Site here() { return {}; }
};
// The same among the n threads of a team, kTeam at most: a warp, some warps, or the block if it is
// 0.
template <int kTeam>
__device__ __forceinline__ void team_sync(int n, Site) {
  if constexpr (kTeam == 0) {
    __syncthreads();
  } else if constexpr (kTeam == 32) {
    __syncwarp();
  } else {
    asm volatile("bar.sync %0, %1;" ::"r"(1 + thread_index() / kTeam), "r"(n) : "memory");
  }
}
template <int kTeam>
__device__ __forceinline__ bool any_in_team(bool value, int n, Site) {
  if constexpr (kTeam == 0) {
    return any_in_block(value);
  } else if constexpr (kTeam == 32) {
    __syncwarp();
    return __any_sync(0xffffffffu, value) != 0;
  } else {
    unsigned result;
    asm volatile(
        "{ .reg .pred p, q; setp.ne.u32 p, %3, 0; bar.red.or.pred q, %1, %2, p; "
        "selp.u32 %0, 1, 0, q; }"
        : "=r"(result)
        : "r"(1 + thread_index() / kTeam), "r"(n), "r"(static_cast<unsigned>(value))
        : "memory");
    return result != 0;
  }
}
__device__ __forceinline__ char* shared_memory() {
  extern __shared__ __align__(64) char memory[];
  return memory;
}
__device__ __forceinline__ float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
// Two units in the last place; 0 where b is beyond 2^126. A constant 1 costs no product.
__device__ __forceinline__ float quotient(float a, float b) {
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(b));
  return a == 1 ? reciprocal : a * reciprocal;
}
__device__ __forceinline__ double quotient(double a, double b) { return a / b; }

// Has what lies there brought into the L2 cache, without waiting for it; nothing happens where it
// lies in shared memory.
__device__ __forceinline__ void prefetch(const void* address) {
  asm volatile("prefetch.L2 [%0];" ::"l"(address));
}

// The same address, which the compiler then keeps rather than computes again wherever it is used.
template <class T>
__device__ __forceinline__ T* opaque(T* address) {
  asm volatile("" : "+l"(address));
  return address;
}

// The same value, there before what follows: so short a branch as a store then is a predicate.
__device__ __forceinline__ float kept(float value) {
  asm volatile("" : "+f"(value));
  return value;
}
__device__ __forceinline__ double kept(double value) { return value; }

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // forgets it: else this thread's next launch would be blamed
  throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

// Makes the device current that torch has made current for its own runtime; this library's is
// linked statically. Nothing is set back: that is torch's, and would create a context on device 0.
inline void use_device(int device) { check(cudaSetDevice(device), "cudaSetDevice"); }

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}
inline int64_t shared_memory_limit() {
  return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}
inline int64_t shared_memory_of_multiprocessor() {
  return device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
}
inline int n_multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }
// What the parts of all blocks together may take of the workspace: a sixteenth of the device's
// memory, or 1 GiB if that is more.
inline int64_t workspace_limit() {
  static std::array<std::atomic<int64_t>, 64> known;  // of devices; asked once, by prepare()
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  std::atomic<int64_t>& limit = known[static_cast<size_t>(device) % known.size()];
  if (limit == 0) {
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    const auto share = static_cast<int64_t>(total / 16);
    limit = share > int64_t{1} << 30 ? share : int64_t{1} << 30;
  }
  return limit;
}
// A display's watchdog ends kernels that run for a few seconds.
inline double launch_seconds() { return 0.5; }

// Loads a kernel and lets it have all shared memory that a block can have: always the same amount,
// so that no thread takes away what another one's launch needs.
inline void load_kernel(const void* kernel) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_memory_limit())),
        "the kernels do not run on this GPU");
}

// Blocks that are at work at once on the whole device.
template <class... Parameters>
int64_t resident_blocks(void (*kernel)(Parameters...), int threads, int64_t shared_bytes) {
  int per_multiprocessor = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, kernel, threads,
                                                      static_cast<size_t>(shared_bytes)),
        "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  return static_cast<int64_t>(per_multiprocessor > 0 ? per_multiprocessor : 1) *
         n_multiprocessors();
}

template <class... Parameters>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared_bytes,
            LaunchStream stream, Parameters... parameters) {
  if (blocks == 0) return;
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads),
           static_cast<size_t>(shared_bytes), stream>>>(parameters...);
  check(cudaGetLastError(), "kernel launch");
}

}  // namespace cuda
}  // namespace micfast

#else
#include MICFAST_EMULATED_DEVICE
#endif
