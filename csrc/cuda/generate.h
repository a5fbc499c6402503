// Drawing sequences, and its gradients: one sequence after the other, for use under autograd.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
MICFAST_KERNEL void MICFAST_LAUNCH_BOUNDS(128, 2)
    generate_kernel(GenerateProblem<T> p, Plan plan, char* packed_weights, char* workspace) {
  const Sizes& s = p.sizes;
  const int64_t N = s.n_targets, K = s.input_size, O = s.output_size;
  const Place<0> place(plan, s, thread_index());
  Space space{shared_memory(), plan.shared_limit, workspace + block_index() * plan.global_bytes};
  Sequence<T, 0> sequence(s, place, plan, Keep::kNothing, space);
  const PackedModules<T> packed(packed_weights, s);
  const int64_t per_module = (N + plan.pairs - 1) / plan.pairs;
  for (int64_t item = plan.first + block_index(); item < plan.end; item += n_blocks()) {
    const int64_t m = item / per_module, n = item % per_module * plan.pairs + place.pair;
    sequence.template set_weights<Keep::kNothing>(
        packed.of(m), p.weights.W_out + m * O * s.hidden_size, p.weights.b_out + m * O);
    const int64_t index = m * N + (n < N ? n : N - 1);
    T* outputs = p.outputs + index * s.n_steps * O;
    sequence.template forward<Keep::kNothing>(p.latents + index * K, [&](int, int at, T y) {
      if (n < N) outputs[at] = y;
    });
  }
}

// The targets of a module are dealt to a fixed number of parts, so that the sums over them have the
// same order on every device.
constexpr int64_t kGradientParts = 64;
MICFAST_BOTH inline int64_t n_gradient_parts(const Sizes& s) {
  return s.n_targets < kGradientParts ? s.n_targets : kGradientParts;
}

// What a launch does of it: some modules, and of each of their parts some targets, by turns.
struct Modules {
  int64_t begin, end;
};
struct Turns {
  int64_t begin, end;
};

template <class T>
struct GeneratorBackward {
  const GenerateBackwardProblem<T>& p;
  const Sizes& s;
  Place<0> place;
  Sequence<T, 0> sequence;

  MICFAST_BOTH GeneratorBackward(const GenerateBackwardProblem<T>& problem, const Plan& plan,
                                 int thread, Space& space)
      : p(problem),
        s(problem.sizes),
        place(plan, problem.sizes, thread),
        sequence(problem.sizes, place, plan, Keep::kTapeAndStates, space) {
    sequence.take_tape(space, true);
  }

  // d_weights [n_values]: the sum over this part's targets, from turn to turn.
  MICFAST_INLINE void run(int64_t module, int64_t part, const Turns& turns,
                          const PackedModules<T>& packed, T* d_weights) {
    const int64_t N = s.n_targets, H = s.hidden_size, K = s.input_size, O = s.output_size;
    WeightGradient<T, 0> gradient;
    gradient.sum = WeightArrays<T>::in(d_weights, s);
    const int64_t n_values = turns.begin == 0 ? WeightArrays<T>::n_values(s) : 0;
    for (int64_t j = thread_index(); j < n_values; j += n_threads()) d_weights[j] = 0;
    sequence.template set_weights<Keep::kTapeAndStates>(
        packed.of(module), p.weights.W_out + module * O * H, p.weights.b_out + module * O);
    const int64_t n_parts = n_gradient_parts(s), end = turns.end * n_parts;
    for (int64_t n = turns.begin * n_parts + part; n < end && n < N; n += n_parts) {
      const int64_t index = module * N + n;
      const T* z = p.latents + index * K;
      const T* d_y = p.d_outputs + index * s.n_steps * O;
      const auto d_output = [&](int at) { return d_y[at]; };
      sequence.template forward<Keep::kTapeAndStates>(z, [](int, int, T) {});
      gradient.start();
      sequence.template backward<true, Keep::kTapeAndStates>(
          z, p.weights.W_ih + module * 4 * H * K, d_output, p.d_latents + index * K,
          [&](int t, int u, const Quad<T>& d, const T* h) { gradient.on_step(s, z, t, u, d, h); });
      gradient.finish(sequence, d_output);
    }
  }
};

// `parts` [modules, n_gradient_parts, stride].
template <class T>
MICFAST_KERNEL void MICFAST_LAUNCH_BOUNDS(128, 2)
    generate_backward_kernel(GenerateBackwardProblem<T> p, Plan plan, Modules modules, Turns turns,
                             char* packed_weights, T* parts, char* workspace) {
  Space space{shared_memory(), plan.shared_limit, workspace + block_index() * plan.global_bytes};
  GeneratorBackward<T> backward(p, plan, thread_index(), space);
  const PackedModules<T> packed(packed_weights, p.sizes);
  const int64_t n_parts = n_gradient_parts(p.sizes), n = WeightArrays<T>::stride(p.sizes);
  for (int64_t item = plan.first + block_index(); item < plan.end; item += n_blocks())
    backward.run(modules.begin + item / n_parts, item % n_parts, turns, packed, parts + item * n);
}

// The sums over the parts, in their order, to torch's tensors.
template <class T>
MICFAST_KERNEL void sum_parts_kernel(Sizes s, Modules modules, WeightOutputs<T> out,
                                     const T* parts) {
  const int64_t n_parts = n_gradient_parts(s), n = WeightArrays<T>::stride(s);
  for (int64_t m = modules.begin + block_index(); m < modules.end; m += n_blocks())
    for_weights(s, [&](int64_t j, int64_t at, int which) {
      T sum = 0;
      for (int64_t part = 0; part < n_parts; ++part)
        sum += parts[((m - modules.begin) * n_parts + part) * n + j];
      weight_tensor(out, s, m, which)[at] = sum;
    });
}

}  // namespace MICFAST_ISA
}  // namespace micfast
