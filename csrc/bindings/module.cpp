// Python's way to the kernels: raw addresses and sizes in, nothing checked (micfast/ops.py checks),
// the GIL released while a job runs.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../cpu/dispatch.h"

namespace py = pybind11;
using namespace micfast;

namespace {

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

using WeightAddresses = std::array<std::uintptr_t, 5>;
using SizeArray = std::array<int64_t, 6>;
using AdamArray = std::array<double, 4>;

Sizes sizes_of(const SizeArray& s) { return {s[0], s[1], s[2], s[3], s[4], s[5]}; }
AdamSettings adam_of(const AdamArray& a) { return {a[0], a[1], a[2], a[3]}; }

template <class T>
Weights<T> weights_of(const WeightAddresses& a) {
  return {pointer<const T>(a[0]), pointer<const T>(a[1]), pointer<const T>(a[2]),
          pointer<const T>(a[3]), pointer<const T>(a[4])};
}
template <class T>
WeightOutputs<T> weight_outputs_of(const WeightAddresses& a) {
  return {pointer<T>(a[0]), pointer<T>(a[1]), pointer<T>(a[2]), pointer<T>(a[3]), pointer<T>(a[4])};
}

// sizes; weights; targets, init; its strides; n_starts, n_iter; tol; errors, latents, n_iter_used,
// converged, error_history, latent_history
using SearchArguments =
    std::tuple<SizeArray, WeightAddresses, std::array<std::uintptr_t, 2>, std::array<int64_t, 3>,
               std::array<int64_t, 2>, double, std::array<std::uintptr_t, 6>>;

template <class T>
SearchProblem<T> search_of(const SearchArguments& a) {
  const auto& [sizes, weights, in, strides, counts, tol, out] = a;
  return {sizes_of(sizes),
          weights_of<T>(weights),
          pointer<const T>(in[0]),
          pointer<const T>(in[1]),
          {strides[0], strides[1], strides[2]},
          counts[0],
          counts[1],
          tol,
          pointer<T>(out[0]),
          pointer<T>(out[1]),
          pointer<int32_t>(out[2]),
          pointer<bool>(out[3]),
          pointer<T>(out[4]),
          pointer<T>(out[5])};
}

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
        [](const SizeArray& sizes, const WeightAddresses& weights, std::uintptr_t latents,
           std::uintptr_t outputs, int n_threads) {
          const GenerateProblem<T> p{sizes_of(sizes), weights_of<T>(weights),
                                     pointer<const T>(latents), pointer<T>(outputs)};
          run(kernels<T>().generate, p, n_threads, py::none());
        });
  m.def(("generate_backward_" + suffix).c_str(),
        [](const SizeArray& sizes, const WeightAddresses& weights, std::uintptr_t latents,
           std::uintptr_t d_outputs, std::uintptr_t d_latents, const WeightAddresses& d_weights,
           int n_threads) {
          const GenerateBackwardProblem<T> p{
              sizes_of(sizes),           weights_of<T>(weights),
              pointer<const T>(latents), pointer<const T>(d_outputs),
              pointer<T>(d_latents),     weight_outputs_of<T>(d_weights)};
          run(kernels<T>().generate_backward, p, n_threads, py::none());
        });
  m.def(("invert_" + suffix).c_str(),
        [](const SearchArguments& search, const AdamArray& adam, bool unprojected_error,
           int n_threads, const py::object& progress) {
          const InvertProblem<T> p{search_of<T>(search), adam_of(adam), unprojected_error};
          run(kernels<T>().invert, p, n_threads, progress);
        });
  m.def(("invert_lm_" + suffix).c_str(),
        [](const SearchArguments& search, double damping, bool simplex, int n_threads,
           const py::object& progress) {
          const InvertLMProblem<T> p{search_of<T>(search), damping, simplex};
          run(kernels<T>().invert_lm, p, n_threads, progress);
        });
  m.def(("train_" + suffix).c_str(),
        [](const SizeArray& sizes, const WeightAddresses& initial, std::uintptr_t type_sets,
           int64_t n_variants, std::uintptr_t set_index, std::uintptr_t noise_in,
           std::uintptr_t noise_out, std::uintptr_t seeds, int64_t n_episodes,
           const AdamArray& adam, int64_t n_curve, const WeightAddresses& trained,
           std::uintptr_t loss_curve, int n_threads, const py::object& progress) {
          const TrainProblem<T> p{sizes_of(sizes),
                                  weights_of<T>(initial),
                                  pointer<const T>(type_sets),
                                  n_variants,
                                  pointer<const int64_t>(set_index),
                                  pointer<const double>(noise_in),
                                  pointer<const double>(noise_out),
                                  pointer<const int64_t>(seeds),
                                  n_episodes,
                                  adam_of(adam),
                                  n_curve,
                                  weight_outputs_of<T>(trained),
                                  pointer<T>(loss_curve)};
          run(kernels<T>().train, p, n_threads, progress);
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
