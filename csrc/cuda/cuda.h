// What the CUDA library offers to its Python module: for every job, the bytes of device memory it
// wants as a workspace, and its launches on a stream. Nothing waits and nothing is allocated, so
// they can be captured in a CUDA graph. A long job is cut into launches of at most half a second,
// if the model of it in launches.h holds: one tile, one sequence or one episode is not cut.
#pragma once

#include <cstdint>

#include "../problem.h"

namespace micfast {
namespace cuda {

// Where a job runs. The workspace is only read where the job is launched.
struct Launch {
  int device;
  void* stream;     // cudaStream_t
  char* workspace;  // 64-byte aligned
};

// Loads every kernel on a device; once, before anything else happens there. Throws
// std::runtime_error with CUDA's message where the GPU or its driver is too old.
void prepare(int device);

// Launches the job, or only returns the bytes of workspace it wants where `launch.workspace` is
// null. Throws std::runtime_error with CUDA's message, or if not even one pair has room.
template <class T>
int64_t run(const GenerateProblem<T>& p, const Launch& launch);
template <class T>
int64_t run(const GenerateBackwardProblem<T>& p, const Launch& launch);
template <class T>
int64_t run(const InvertProblem<T>& p, const Launch& launch);
template <class T>
int64_t run(const InvertLMProblem<T>& p, const Launch& launch);
// Episodes [begin, end): the launches of one training follow one another on the stream with the
// same workspace.
template <class T>
int64_t run(const TrainProblem<T>& p, int64_t begin, int64_t end, const Launch& launch);

}  // namespace cuda
}  // namespace micfast
