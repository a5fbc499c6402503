// What Python hands over, as tuples of numbers and addresses, made into the kernels' structs.
#pragma once

#include <array>
#include <cstdint>
#include <tuple>

#include "../problem.h"

namespace micfast {

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// W_ih, W_hh, b, W_out, b_out, b_first, b_state, scale, shift, 0 where there is none; latent,
// output, n_states and cell of Decoder
using WeightArguments = std::tuple<std::array<std::uintptr_t, 9>, std::array<int64_t, 4>>;
// the first seven of them
using WeightOutputAddresses = std::array<std::uintptr_t, 7>;
using SizeArray = std::array<int64_t, 6>;
using AdamArray = std::array<double, 4>;
// lengths, counts, order; 0 where nothing may be missing
using Extents = std::array<std::uintptr_t, 3>;

inline Sizes sizes_of(const SizeArray& s) { return {s[0], s[1], s[2], s[3], s[4], s[5]}; }
inline AdamSettings adam_of(const AdamArray& a) { return {a[0], a[1], a[2], a[3]}; }

template <class T>
Weights<T> weights_of(const WeightArguments& arguments) {
  const auto& [a, decoder] = arguments;
  return {pointer<const T>(a[0]),
          pointer<const T>(a[1]),
          pointer<const T>(a[2]),
          pointer<const T>(a[3]),
          pointer<const T>(a[4]),
          pointer<const T>(a[5]),
          pointer<const T>(a[6]),
          pointer<const T>(a[7]),
          pointer<const T>(a[8]),
          {static_cast<Latent>(decoder[0]), static_cast<Output>(decoder[1]), decoder[2],
           static_cast<CellKind>(decoder[3])}};
}
template <class T>
WeightOutputs<T> weight_outputs_of(const WeightOutputAddresses& a) {
  return {pointer<T>(a[0]), pointer<T>(a[1]), pointer<T>(a[2]), pointer<T>(a[3]),
          pointer<T>(a[4]), pointer<T>(a[5]), pointer<T>(a[6])};
}

// sizes; weights; latents, outputs
using GenerateArguments = std::tuple<SizeArray, WeightArguments, std::array<std::uintptr_t, 2>>;

template <class T>
GenerateProblem<T> generate_of(const GenerateArguments& a) {
  const auto& [sizes, weights, tensors] = a;
  return {sizes_of(sizes), weights_of<T>(weights), pointer<const T>(tensors[0]),
          pointer<T>(tensors[1])};
}

// sizes; weights; latents, d_outputs, d_latents; d_weights
using GenerateBackwardArguments =
    std::tuple<SizeArray, WeightArguments, std::array<std::uintptr_t, 3>, WeightOutputAddresses>;

template <class T>
GenerateBackwardProblem<T> generate_backward_of(const GenerateBackwardArguments& a) {
  const auto& [sizes, weights, tensors, d_weights] = a;
  return {sizes_of(sizes),
          weights_of<T>(weights),
          pointer<const T>(tensors[0]),
          pointer<const T>(tensors[1]),
          pointer<T>(tensors[2]),
          weight_outputs_of<T>(d_weights)};
}

// bounds, weights, prior_mean; prior_weight, radius, huber; 0 where there is none
using ObjectiveArguments = std::tuple<std::array<std::uintptr_t, 3>, std::array<double, 3>>;
// sizes; weights; targets, init; its strides and that of targets; n_starts, n_iter; tol; errors,
// latents, n_iter_used, converged, error_history, latent_history; extents; objective
using SearchArguments = std::tuple<SizeArray, WeightArguments, std::array<std::uintptr_t, 2>,
                                   std::array<int64_t, 4>, std::array<int64_t, 2>, double,
                                   std::array<std::uintptr_t, 6>, Extents, ObjectiveArguments>;

template <class T>
SearchProblem<T> search_of(const SearchArguments& a) {
  const auto& [sizes, weights, in, strides, counts, tol, out, extents, objective] = a;
  const auto& [terms, numbers] = objective;
  return {sizes_of(sizes),
          weights_of<T>(weights),
          pointer<const T>(in[0]),
          strides[3],
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
          pointer<T>(out[5]),
          pointer<const int64_t>(extents[0]),
          pointer<const int64_t>(extents[1]),
          pointer<const int64_t>(extents[2]),
          {pointer<const double>(terms[0]), pointer<const T>(terms[1]), numbers[0],
           pointer<const double>(terms[2]), numbers[1], numbers[2]}};
}

// search; Adam's settings; unprojected_error, simplex; steps, 0 where there is none
using InvertArguments = std::tuple<SearchArguments, AdamArray, std::array<bool, 2>, std::uintptr_t>;

template <class T>
InvertProblem<T> invert_of(const InvertArguments& a) {
  const auto& [search, adam, flags, steps] = a;
  return {search_of<T>(search), adam_of(adam), flags[0], flags[1], pointer<const double>(steps)};
}

// search; damping; simplex
using InvertLMArguments = std::tuple<SearchArguments, double, bool>;

template <class T>
InvertLMProblem<T> invert_lm_of(const InvertLMArguments& a) {
  const auto& [search, damping, simplex] = a;
  return {search_of<T>(search), damping, simplex};
}

// sizes; initial weights; type_sets, set_index, noise_in, noise_out, seeds, loss_curve; n_variants,
// n_episodes, n_curve; Adam's settings; trained weights; extents
using TrainArguments =
    std::tuple<SizeArray, WeightArguments, std::array<std::uintptr_t, 6>, std::array<int64_t, 3>,
               AdamArray, WeightOutputAddresses, Extents>;

template <class T>
TrainProblem<T> train_of(const TrainArguments& a) {
  const auto& [sizes, initial, tensors, counts, adam, trained, extents] = a;
  return {sizes_of(sizes),
          weights_of<T>(initial),
          pointer<const T>(tensors[0]),
          counts[0],
          pointer<const int64_t>(tensors[1]),
          pointer<const double>(tensors[2]),
          pointer<const double>(tensors[3]),
          pointer<const int64_t>(tensors[4]),
          counts[1],
          adam_of(adam),
          counts[2],
          weight_outputs_of<T>(trained),
          pointer<T>(tensors[5]),
          pointer<const int64_t>(extents[0]),
          pointer<const int64_t>(extents[1]),
          pointer<const int64_t>(extents[2])};
}

// sizes; initial weights; type_sets, row_weights, set_index, noise_in, noise_out, seeds,
// loss_curve, errors; n_train_steps, n_curve, n_grams; Adam's settings; clip_norm, ridge; trained
// weights; lengths, order (or 0)
using TrainProjectedArguments =
    std::tuple<SizeArray, WeightArguments, std::array<std::uintptr_t, 8>, std::array<int64_t, 3>,
               AdamArray, std::array<double, 2>, WeightOutputAddresses,
               std::array<std::uintptr_t, 2>>;

template <class T>
TrainProjectedProblem<T> train_projected_of(const TrainProjectedArguments& a) {
  const auto& [sizes, initial, tensors, counts, adam, numbers, trained, missing] = a;
  return {sizes_of(sizes),
          weights_of<T>(initial),
          pointer<const T>(tensors[0]),
          pointer<const double>(tensors[1]),
          pointer<const int64_t>(tensors[2]),
          pointer<const double>(tensors[3]),
          pointer<const double>(tensors[4]),
          pointer<const int64_t>(tensors[5]),
          counts[0],
          adam_of(adam),
          numbers[0],
          numbers[1],
          counts[1],
          counts[2],
          weight_outputs_of<T>(trained),
          pointer<T>(tensors[6]),
          pointer<T>(tensors[7]),
          pointer<const int64_t>(missing[0]),
          pointer<const int64_t>(missing[1])};
}

// sizes; initial weights; type_sets, row_weights, set_index, latents, shown, errors, error_curve,
// n_jacobians, stops; goal, damping, ridge; acceleration; max_jacobians, n_grams; trained weights;
// lengths (or 0)
using TrainLMArguments =
    std::tuple<SizeArray, WeightArguments, std::array<std::uintptr_t, 9>, std::array<double, 3>,
               bool, std::array<int64_t, 2>, WeightOutputAddresses, std::uintptr_t>;

template <class T>
TrainLMProblem<T> train_lm_of(const TrainLMArguments& a) {
  const auto& [sizes, initial, tensors, numbers, acceleration, counts, trained, lengths] = a;
  return {sizes_of(sizes),
          weights_of<T>(initial),
          pointer<const T>(tensors[0]),
          pointer<const double>(tensors[1]),
          pointer<const int64_t>(tensors[2]),
          pointer<const T>(tensors[3]),
          pointer<const int64_t>(tensors[4]),
          numbers[0],
          numbers[1],
          numbers[2],
          acceleration,
          counts[0],
          counts[1],
          weight_outputs_of<T>(trained),
          pointer<T>(tensors[5]),
          pointer<T>(tensors[6]),
          pointer<int32_t>(tensors[7]),
          pointer<int32_t>(tensors[8]),
          pointer<const int64_t>(lengths)};
}

// C, P, K, N, n_grams, n_faces, n_kept; grams, products, squares, factors, gone, faces; most_gain;
// errors, poses, shares; 0 where there is none
using MixturesArguments = std::tuple<std::array<int64_t, 7>, std::array<std::uintptr_t, 6>, double,
                                     std::array<std::uintptr_t, 3>>;

inline MixturesProblem<double> mixtures_of(const MixturesArguments& a) {
  const auto& [sizes, in, most_gain, out] = a;
  return {sizes[0],
          sizes[1],
          sizes[2],
          sizes[3],
          sizes[4],
          pointer<const double>(in[0]),
          pointer<const double>(in[1]),
          pointer<const double>(in[2]),
          pointer<const double>(in[3]),
          pointer<const bool>(in[4]),
          pointer<const int64_t>(in[5]),
          sizes[5],
          most_gain,
          sizes[6],
          pointer<double>(out[0]),
          pointer<int64_t>(out[1]),
          pointer<double>(out[2])};
}

}  // namespace micfast
