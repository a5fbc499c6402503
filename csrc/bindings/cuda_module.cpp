// Python's way to the CUDA kernels: addresses of device memory and sizes in, nothing checked
// (micfast/ops.py checks). Every job is called twice: with a null workspace it answers the bytes it
// wants, with one it is launched.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../cuda/cuda.h"
#include "arguments.h"

namespace py = pybind11;
using namespace micfast;

namespace {

// device, stream, workspace
using LaunchArguments = std::tuple<int, std::uintptr_t, std::uintptr_t>;

cuda::Launch launch_of(const LaunchArguments& a) {
  const auto& [device, stream, workspace] = a;
  return {device, pointer<void>(stream), pointer<char>(workspace)};
}

template <class T>
void bind(py::module_& m, const std::string& suffix) {
  const py::call_guard<py::gil_scoped_release> no_gil;
  m.def(("generate_" + suffix).c_str(),
        [](const GenerateArguments& a, const LaunchArguments& at) {
          return cuda::run(generate_of<T>(a), launch_of(at));
        },
        no_gil);
  m.def(("generate_backward_" + suffix).c_str(),
        [](const GenerateBackwardArguments& a, const LaunchArguments& at) {
          return cuda::run(generate_backward_of<T>(a), launch_of(at));
        },
        no_gil);
  m.def(("invert_" + suffix).c_str(),
        [](const InvertArguments& a, const LaunchArguments& at) {
          return cuda::run(invert_of<T>(a), launch_of(at));
        },
        no_gil);
  m.def(("invert_lm_" + suffix).c_str(),
        [](const InvertLMArguments& a, const LaunchArguments& at) {
          return cuda::run(invert_lm_of<T>(a), launch_of(at));
        },
        no_gil);
  m.def(("train_" + suffix).c_str(),
        [](const TrainArguments& a, int64_t begin, int64_t end, const LaunchArguments& at) {
          return cuda::run(train_of<T>(a), begin, end, launch_of(at));
        },
        no_gil);
}

}  // namespace

PYBIND11_MODULE(MICFAST_CUDA_MODULE, m, py::mod_gil_not_used()) {
  m.doc() = "micfast's CUDA kernels; use them through micfast.ops";
  m.def("prepare", &cuda::prepare, py::call_guard<py::gil_scoped_release>());
  bind<float>(m, "float32");
  bind<double>(m, "float64");
  m.attr("compiler") = MICFAST_CUDA_COMPILER;
  m.attr("version") = MICFAST_VERSION;
}
