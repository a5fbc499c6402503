// Python's way to the kernels: raw addresses and sizes in, nothing checked
// (micfast/kernels/operators.py checks), the GIL released while a job runs.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../cpu/dispatch.h"
#include "arguments.h"

namespace py = pybind11;
using namespace micfast;

namespace {

template <class T>
const KernelSet<T>& kernels();
template <>
const KernelSet<float>& kernels<float>() {
  return active_instruction_set().float32;
}
template <>
const KernelSet<double>& kernels<double>() {
  return active_instruction_set().float64;
}

// Runs the job and, some ten times a second, Python's signal handlers and the progress callback.
template <class T, template <class> class Problem>
void run(const JobKernel<T, Problem>& kernel, const Problem<T>& problem, int n_threads,
         const py::object& progress) {
  const Watch watch = [&progress](double fraction) {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (!progress.is_none()) progress(fraction);
  };
  const py::gil_scoped_release no_gil;
  run_job<T, Problem>(kernel, problem, n_threads, watch);
}

template <class T>
void bind(py::module_& m, const std::string& suffix) {
  m.def(("generate_" + suffix).c_str(),
        [](const GenerateArguments& a, int n_threads, const py::object& progress) {
          run(kernels<T>().generate, generate_of<T>(a), n_threads, progress);
        });
  m.def(("generate_backward_" + suffix).c_str(),
        [](const GenerateBackwardArguments& a, int n_threads, const py::object& progress) {
          run(kernels<T>().generate_backward, generate_backward_of<T>(a), n_threads, progress);
        });
  m.def(("invert_" + suffix).c_str(),
        [](const InvertArguments& a, int n_threads, const py::object& progress) {
          run(kernels<T>().invert, invert_of<T>(a), n_threads, progress);
        });
  m.def(("invert_lm_" + suffix).c_str(),
        [](const InvertLMArguments& a, int n_threads, const py::object& progress) {
          run(kernels<T>().invert_lm, invert_lm_of<T>(a), n_threads, progress);
        });
  m.def(("train_" + suffix).c_str(),
        [](const TrainArguments& a, int n_threads, const py::object& progress) {
          run(kernels<T>().train, train_of<T>(a), n_threads, progress);
        });
  m.def(("train_projected_" + suffix).c_str(),
        [](const TrainProjectedArguments& a, int n_threads, const py::object& progress) {
          run(kernels<T>().train_projected, train_projected_of<T>(a), n_threads, progress);
        });
  m.def(("train_lm_" + suffix).c_str(),
        [](const TrainLMArguments& a, int n_threads, const py::object& progress) {
          run(kernels<T>().train_lm, train_lm_of<T>(a), n_threads, progress);
        });
  m.def(("sigmoid_" + suffix).c_str(), [](std::uintptr_t x, std::uintptr_t y, int64_t n) {
    kernels<T>().sigmoid(pointer<const T>(x), pointer<T>(y), n);
  });
  m.def(("tanh_" + suffix).c_str(), [](std::uintptr_t x, std::uintptr_t y, int64_t n) {
    kernels<T>().tanh(pointer<const T>(x), pointer<T>(y), n);
  });
}

}  // namespace

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "micfast's compiled kernels; use them through micfast.ops";
  bind<float>(m, "float32");
  bind<double>(m, "float64");
  m.def("mixtures", [](const MixturesArguments& a, int n_threads) {
    run(active_instruction_set().mixtures, mixtures_of(a), n_threads, py::none());
  });
  m.def("available_isas", [] {
    std::vector<std::string> names;
    for (const InstructionSet* set : available_instruction_sets()) names.emplace_back(set->name);
    return names;
  });
  m.def("active_isa", [] { return std::string(active_instruction_set().name); });
  m.def("lanes", [] {
    const InstructionSet& set = active_instruction_set();
    return std::make_pair(set.lanes_float32, set.lanes_float64);
  });
  m.attr("compiler") = MICFAST_COMPILER;
  m.attr("version") = MICFAST_VERSION;
}
