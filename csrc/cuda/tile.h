// Who does what in a block: a tile of P pairs (a module and one of its targets), each the work of G
// threads, one for every hidden unit where there are not too many. And where the block's arrays
// lie.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// Four values that are read together: one instruction of 16 bytes in float32.
template <class T>
struct alignas(4 * sizeof(T)) Quad {
  T i, f, g, o;
};
// As many as are read together, for rows padded to a multiple of them.
MICFAST_BOTH inline int64_t padded(int64_t n) { return (n + 3) / 4 * 4; }

// What the host decides before the launch; nothing of it changes a result.
struct Plan {
  int pairs;             // P
  int threads_per_pair;  // G
  int threads;           // of a block: P G, rounded up to whole warps
  int segment;           // steps between two rounds of outputs
  int64_t tape_steps;    // that the tape holds; the others are computed again (sequence.h)
  int64_t n_items;       // tiles
  int64_t first, end;    // tiles of this launch
  int64_t n_blocks;      // blocks, which take the tiles in turn
  int64_t shared_limit;  // what a block's arrays may take of shared memory
  int64_t shared_bytes;  // of a block
  int64_t global_bytes;  // of a block
};

// A tile of one pair for every part of the work.
inline Plan single_plan(const Sizes& s, int64_t n_items) {
  Plan plan{};
  plan.pairs = 1;
  plan.threads_per_pair = static_cast<int>(s.hidden_size < 128 ? s.hidden_size : 128);
  plan.threads = (plan.threads_per_pair + 31) / 32 * 32;
  plan.segment = 4;
  plan.tape_steps = s.n_steps;
  plan.n_items = plan.end = n_items;
  return plan;
}

// Hands out a block's arrays: in shared memory while it lasts, then in the block's part of the
// workspace. Host and device ask for the same arrays in the same order; the host only counts.
struct Space {
  char* shared;
  int64_t shared_limit;
  char* global;
  int64_t shared_used = 0;
  int64_t global_used = 0;

  template <class T>
  MICFAST_BOTH static int64_t bytes_of(int64_t n) {
    return (n * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  }
  // For arrays that must be in shared memory: the compiler then knows where they are.
  template <class T>
  MICFAST_BOTH T* take_shared(int64_t n) {
    char* at = shared + shared_used;
    shared_used += bytes_of<T>(n);
    return reinterpret_cast<T*>(at);
  }
  template <class T>
  MICFAST_BOTH T* take_global(int64_t n) {
    char* at = global + global_used;
    global_used += bytes_of<T>(n);
    return reinterpret_cast<T*>(at);
  }
  template <class T>
  MICFAST_BOTH T* take(int64_t n) {
    return shared_used + bytes_of<T>(n) <= shared_limit ? take_shared<T>(n) : take_global<T>(n);
  }
};

// The modules' weights as the threads read them: gates of a unit together, units side by side.
// `gate_*` are scaled for the activations (activations.h), `from_gate` is not.
template <class T>
struct PackedWeights {
  Quad<T>* gate_h;     // [H, H]: of state k to unit u at k H + u
  Quad<T>* gate_x;     // [K, H]
  Quad<T>* gate_b;     // [H]
  Quad<T>* from_gate;  // [H, H]: of unit v to state u at v H + u

  template <class S>
  MICFAST_BOTH void take(S& space, const Sizes& s) {
    const int64_t H = s.hidden_size;
    gate_h = space.template take<Quad<T>>(H * H);
    gate_x = space.template take<Quad<T>>(s.input_size * H);
    gate_b = space.template take<Quad<T>>(H);
    from_gate = space.template take<Quad<T>>(H * H);
  }
};

template <class T>
MICFAST_INLINE Quad<T> scaled(Quad<T> w) {
  return {w.i * kSigmoidScale<T>, w.f * kSigmoidScale<T>, w.g * kTanhScale<T>,
          w.o * kSigmoidScale<T>};
}
// The four gates' entries of a matrix [4H, columns].
template <class T>
MICFAST_INLINE Quad<T> gates_of(const T* w, int64_t H, int64_t columns, int64_t u, int64_t column) {
  const int64_t step = H * columns;
  const T* at = w + u * columns + column;
  return {at[0], at[step], at[2 * step], at[3 * step]};
}

// Packs one module by all threads of a block.
template <class T>
MICFAST_DEVICE void pack_module(const Sizes& s, const Weights<T>& w, int64_t module,
                                const PackedWeights<T>& packed) {
  const int64_t H = s.hidden_size, K = s.input_size;
  const T* W_hh = w.W_hh + module * 4 * H * H;
  const T* W_ih = w.W_ih + module * 4 * H * K;
  const T* b = w.b + module * 4 * H;
  for (int64_t j = thread_index(); j < H * H; j += n_threads()) {
    packed.gate_h[j] = scaled(gates_of(W_hh, H, H, j % H, j / H));
    packed.from_gate[j] = gates_of(W_hh, H, H, j / H, j % H);
  }
  for (int64_t j = thread_index(); j < K * H; j += n_threads())
    packed.gate_x[j] = scaled(gates_of(W_ih, H, K, j % H, j / H));
  for (int64_t u = thread_index(); u < H; u += n_threads())
    packed.gate_b[u] = scaled(gates_of(b, H, 1, u, 0));
}

// All modules' packed weights, at the start of the workspace.
template <class T>
struct PackedModules {
  PackedWeights<T> first;
  int64_t stride;  // bytes from module to module

  MICFAST_BOTH PackedModules(char* workspace, const Sizes& s) {
    Space space{nullptr, 0, workspace};
    first.take(space, s);
    stride = space.global_used;
  }
  MICFAST_BOTH PackedWeights<T> of(int64_t module) const {
    const auto shifted = [&](Quad<T>* p) {
      return reinterpret_cast<Quad<T>*>(reinterpret_cast<char*>(p) + module * stride);
    };
    return {shifted(first.gate_h), shifted(first.gate_x), shifted(first.gate_b),
            shifted(first.from_gate)};
  }
};

template <class T>
MICFAST_KERNEL void pack_kernel(Sizes s, Weights<T> w, char* workspace) {
  const PackedModules<T> packed(workspace, s);
  for (int64_t m = block_index(); m < s.n_modules; m += n_blocks())
    pack_module(s, w, m, packed.of(m));
}

}  // namespace MICFAST_ISA
}  // namespace micfast
