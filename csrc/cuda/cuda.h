// What the CUDA library offers to its Python module: for every job, the bytes of device memory it
// wants as a workspace, and its launch on a stream. Nothing waits and nothing is allocated, so a
// launch can be captured in a CUDA graph.
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

// Launches the job, or only returns the bytes of workspace it wants where `launch.workspace` is
// null. Throws std::runtime_error with CUDA's message.
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
