// Which instruction set runs, and the threads that run a job.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../problem.h"

namespace micfast {

// The instruction sets compiled in that this processor can run, best first.
const std::vector<const InstructionSet*>& available_instruction_sets();

// The best one, or the one that the environment variable MICFAST_ISA names. Throws
// std::invalid_argument where that one is unknown or cannot run here.
const InstructionSet& active_instruction_set();

// Watches a running job from the calling thread: called several times a second with the fraction
// done; an exception stops the job.
using Watch = std::function<void(double)>;

// Runs every work item of a job on `n_threads` threads. Throws what the watch throws, once all
// threads have stopped; the outputs are then incomplete.
template <class T, template <class> class Problem>
void run_job(const JobKernel<T, Problem>& kernel, const Problem<T>& problem, int n_threads,
             const Watch& watch);

}  // namespace micfast
