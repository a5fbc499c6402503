// How a job is cut for the device: a plan whose blocks have room, and launches that end in time.
// Nothing of it changes a result.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace micfast {
namespace MICFAST_ISA {

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Counts what a block takes, which take(plan, space) asks for, and how many blocks have room: as
// many as the device holds at once, the workspace's limit allows and there are tiles. It takes no
// more shared memory than lets `at_once` of them fit a multiprocessor, which keeps 1 KB for each.
template <class Take, class... Parameters>
void measure(Plan& plan, void (*kernel)(Parameters...), int at_once, Take take) {
  plan.shared_limit =
      least(shared_memory_limit(), shared_memory_of_multiprocessor() / at_once - 1024);
  Space space{nullptr, plan.shared_limit, nullptr};
  take(plan, space);
  plan.shared_bytes = space.shared_used;
  plan.global_bytes = space.global_used;
  plan.n_blocks = 0;
  // Not with very many inputs or outputs, where the number of units is a template parameter.
  if (plan.shared_bytes > shared_memory_limit()) return;
  plan.n_blocks = least(plan.n_items, resident_blocks(kernel, plan.threads, plan.shared_bytes));
  if (plan.global_bytes > 0)
    plan.n_blocks = least(plan.n_blocks, workspace_limit() / plan.global_bytes);
}
// Whether the device has work, fewer blocks than it holds at once or not.
inline bool suffices(const Plan& plan) {
  return plan.n_blocks >= least(plan.n_items, n_multiprocessors());
}

// A plan for a kernel with any number of units: with too little room for the whole tape, its parts
// are about as long as they are many; with too little for a tile even then, a tile is one pair.
template <class MakePlan, class Take, class... Parameters>
Plan plan_with_room(const Sizes& s, MakePlan make_plan, void (*kernel)(Parameters...), Take take) {
  Plan plan = make_plan(s, 128);
  measure(plan, kernel, 2, take);
  if (suffices(plan)) return plan;
  while (plan.tape_steps > 2 && plan.tape_steps * plan.tape_steps > s.n_steps)
    plan.tape_steps = plan.tape_steps / 2 + 1;
  measure(plan, kernel, 2, take);
  if (plan.n_blocks == 0 && plan.n_items > 0) {
    const int64_t tape_steps = plan.tape_steps;
    plan = make_plan(s, 1);
    plan.tape_steps = tape_steps;
    measure(plan, kernel, 2, take);
  }
  if (plan.n_blocks == 0 && plan.n_items > 0)
    throw std::runtime_error("CUDA: one sequence of this job needs " +
                             std::to_string(plan.global_bytes) +
                             " bytes of workspace, but all blocks together may take " +
                             std::to_string(workspace_limit()));
  return plan;
}

// Seconds that a block takes at most for one step of its sequences, forward and backward: the
// instructions of a thread at one in ten clocks of 1 GHz. A device that is full and slow gives each
// warp that much; an estimate, which no measurement supports yet.
inline double seconds_of_step(const Sizes& s) {
  const auto H = static_cast<double>(s.hidden_size), O = static_cast<double>(s.output_size);
  const double units = H < 128 ? 1 : H / 128;
  return units * (150 + 30 * H + 16 * O) * 1e-8;
}

// Calls launch(first, end) for parts of n things, each taking at most these seconds, so that a
// launch takes about launch_seconds(); a thing alone may take longer.
template <class F>
void in_parts(int64_t n, double seconds, F launch) {
  const double fits = launch_seconds() / seconds;
  const int64_t step = fits >= static_cast<double>(n) ? n
                       : fits >= 1                    ? static_cast<int64_t>(fits)
                                                      : 1;
  for (int64_t first = 0; first < n; first += step) launch(first, least(first + step, n));
}

// The same for tiles, of which all blocks take one at a time.
template <class F>
void in_rounds(Plan plan, double seconds_of_tile, F launch) {
  if (plan.n_items == 0) return;
  const int64_t n_rounds = (plan.n_items + plan.n_blocks - 1) / plan.n_blocks;
  in_parts(n_rounds, seconds_of_tile, [&](int64_t first, int64_t end) {
    plan.first = first * plan.n_blocks;
    plan.end = least(end * plan.n_blocks, plan.n_items);
    launch(plan);
  });
}

}  // namespace MICFAST_ISA
}  // namespace micfast
