// Holds every instruction set of the machine it runs on against the baseline, without Python: for
// processors that CI has only under emulation. tests/test_kernel.py holds the baseline itself
// against PyTorch.
//
//   g++ -std=c++17 -O2 -pthread tests/cpp/compare_isas.cpp <objects of csrc/cpu> && ./a.out
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/cpu/dispatch.h"

using namespace micfast;

namespace {

template <class T>
std::vector<T> uniform(std::size_t n, double bound, std::mt19937& generator) {
  std::uniform_real_distribution<double> draw(-bound, bound);
  std::vector<T> values(n);
  for (T& v : values) v = static_cast<T>(draw(generator));
  return values;
}

template <class T>
double largest_difference(const std::vector<T>& a, const std::vector<T>& b) {
  double difference = 0, largest = 1e-30;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference = std::fmax(difference, std::fabs(double(a[i]) - double(b[i])));
    largest = std::fmax(largest, std::fabs(double(b[i])));
    if (!std::isfinite(double(a[i])) || !std::isfinite(double(b[i]))) return INFINITY;
  }
  return difference / largest;
}

const Watch kUnwatched = [](double) {};

// Makes values of sequences [n, T, O] missing where asked for: the ends of most, and every fifth.
struct Extents {
  std::vector<int64_t> lengths, counts;

  template <class T>
  Extents(const Sizes& s, std::vector<T>& sequences, bool missing) {
    const auto P = std::size_t(s.n_steps), O = std::size_t(s.output_size);
    for (std::size_t i = 0; missing && i < sequences.size() / (P * O); ++i) {
      T* one = sequences.data() + i * P * O;
      for (std::size_t j = 1; j < P * O; ++j)
        if (j / O > (i * 7) % P || j % 5 == 4) one[j] = T(NAN);
      int64_t length = 0, count = 0;
      for (std::size_t j = 0; j < P * O; ++j)
        if (one[j] == one[j]) {
          length = int64_t(j / O) + 1;
          ++count;
        }
      lengths.push_back(length);
      counts.push_back(count);
    }
  }
  const int64_t* lengths_or_null() const { return lengths.empty() ? nullptr : lengths.data(); }
  const int64_t* counts_or_null() const { return counts.empty() ? nullptr : counts.data(); }
};

// What the jobs give on one problem: outputs, errors of both solvers, recurrent weights, losses.
template <class T>
std::vector<std::vector<T>> run_all(const KernelSet<T>& kernels, const Sizes& s, bool missing) {
  std::mt19937 generator(7);
  const auto M = std::size_t(s.n_modules), N = std::size_t(s.n_targets), P = std::size_t(s.n_steps);
  const auto H = std::size_t(s.hidden_size), K = std::size_t(s.input_size);
  const auto O = std::size_t(s.output_size);
  const double bound = 1 / std::sqrt(double(H));
  const auto W_ih = uniform<T>(M * 4 * H * K, bound, generator);
  const auto W_hh = uniform<T>(M * 4 * H * H, bound, generator);
  const auto b = uniform<T>(M * 4 * H, bound, generator);
  const auto W_out = uniform<T>(M * O * H, bound, generator);
  const auto b_out = uniform<T>(M * O, bound, generator);
  const auto latents = uniform<T>(M * N * K, 1, generator);
  auto targets = uniform<T>(N * P * O, 1, generator);
  auto types = uniform<T>(K * P * O, 1, generator);
  const Extents of_targets(s, targets, missing), of_types(s, types, missing);
  std::vector<int64_t> order(N), module_order(M);  // the other way round
  for (std::size_t n = 0; n < N; ++n) order[n] = int64_t(N - 1 - n);
  for (std::size_t m = 0; m < M; ++m) module_order[m] = int64_t(M - 1 - m);
  const std::vector<T> init(K, T(1) / T(K));
  const Weights<T> weights{W_ih.data(), W_hh.data(), b.data(), W_out.data(), b_out.data()};

  std::vector<T> outputs(M * N * P * O);
  run_job(kernels.generate, GenerateProblem<T>{s, weights, latents.data(), outputs.data()}, 2,
          kUnwatched);

  std::vector<T> errors[2], found[2];
  std::vector<int32_t> n_iter_used(M * N);
  const auto converged = std::make_unique<bool[]>(M * N);
  const auto search = [&](int solver) {
    errors[solver].resize(M * N);
    found[solver].resize(M * N * K);
    return SearchProblem<T>{s,
                            weights,
                            targets.data(),
                            0,
                            init.data(),
                            {0, 0, 0},
                            1,
                            5,
                            0,
                            errors[solver].data(),
                            found[solver].data(),
                            n_iter_used.data(),
                            converged.get(),
                            nullptr,
                            nullptr,
                            of_targets.lengths_or_null(),
                            of_targets.counts_or_null(),
                            missing ? order.data() : nullptr};
  };
  run_job(kernels.invert, InvertProblem<T>{search(0), {0.05, 0.9, 0.99, 1e-8}, false}, 2,
          kUnwatched);
  run_job(kernels.invert_lm, InvertLMProblem<T>{search(1), 0.1, true}, 2, kUnwatched);

  std::vector<T> t_ih(W_ih.size()), t_hh(W_hh.size()), t_b(b.size()), t_out(W_out.size()),
      t_b_out(b_out.size()), curve(M * 2);
  const std::vector<int64_t> zeros(M, 0);
  std::vector<int64_t> seeds(M);
  for (std::size_t m = 0; m < M; ++m) seeds[m] = int64_t(m) * 7919 - 5;
  const std::vector<double> noise(M, 0.1);
  run_job(kernels.train,
          TrainProblem<T>{s,
                          weights,
                          types.data(),
                          1,
                          zeros.data(),
                          noise.data(),
                          noise.data(),
                          seeds.data(),
                          6,
                          {0.01, 0.9, 0.999, 1e-3},
                          2,
                          {t_ih.data(), t_hh.data(), t_b.data(), t_out.data(), t_b_out.data()},
                          curve.data(),
                          of_types.lengths_or_null(),
                          of_types.counts_or_null(),
                          missing ? module_order.data() : nullptr},
          2, kUnwatched);

  const WeightOutputs<T> trained{t_ih.data(), t_hh.data(), t_b.data(), t_out.data(),
                                 t_b_out.data()};
  const auto after_adam = t_hh;
  const std::vector<double> row_weights(K, 1. / double(K * P * O));
  std::vector<T> projected(M), losses(M), searched(M), steps(M * 2);
  run_job(kernels.train_projected,
          TrainProjectedProblem<T>{s,
                                   weights,
                                   types.data(),
                                   row_weights.data(),
                                   zeros.data(),
                                   noise.data(),
                                   noise.data(),
                                   seeds.data(),
                                   3,
                                   {0.01, 0.9, 0.999, 1e-3},
                                   1,
                                   0.1,
                                   1,
                                   missing ? int64_t(O) : 1,
                                   trained,
                                   losses.data(),
                                   projected.data(),
                                   of_types.lengths_or_null(),
                                   missing ? module_order.data() : nullptr},
          2, kUnwatched);
  Sizes of_latents = s;
  of_latents.n_targets = int64_t(K);
  std::vector<T> one_hot(M * K * K, T(0));
  std::vector<int64_t> shown(K);
  for (std::size_t k = 0; k < K; ++k) shown[k] = int64_t(k);
  for (std::size_t i = 0; i < M * K; ++i) one_hot[i * K + i % K] = 1;
  std::vector<int32_t> n_jacobians(M), stops(M);
  // In float64, where rounding cannot turn a step down; wide modules take minutes under emulation.
  if (H <= 10 && sizeof(T) == 8)
    run_job(kernels.train_lm,
            TrainLMProblem<T>{of_latents, weights, types.data(), row_weights.data(), zeros.data(),
                              one_hot.data(), shown.data(), 0, 10, 1e-3, false, 1,
                              missing ? int64_t(O) : 1, trained, searched.data(), steps.data(),
                              n_jacobians.data(), stops.data(), of_types.lengths_or_null()},
            2, kUnwatched);
  // One value is drawn exactly, but for rounding: differences count against 1.
  for (auto* values : {&losses, &projected, &searched, &steps})
    for (T& value : *values) value += 1;
  return {outputs, errors[0], errors[1], after_adam, curve, losses, projected, searched, steps};
}

template <class T>
bool compare(const InstructionSet& set, const KernelSet<T>& kernels, const KernelSet<T>& baseline,
             double tolerance, const char* type) {
  double worst = 0;
  for (const Sizes& s : {Sizes{1, 1, 1, 1, 1, 1}, Sizes{3, 37, 12, 10, 4, 2},
                         Sizes{2, 9, 17, 13, 7, 3}, Sizes{19, 2, 8, 20, 4, 28}}) {
    for (const bool missing : {false, true}) {
      const auto got = run_all(kernels, s, missing), wanted = run_all(baseline, s, missing);
      for (std::size_t i = 0; i < got.size(); ++i)
        worst = std::fmax(worst, largest_difference(got[i], wanted[i]));
    }
  }
  std::printf("%-9s %s: largest relative difference to the baseline %.1e (allowed %.0e)\n",
              set.name, type, worst, tolerance);
  return worst <= tolerance;
}

// The nearest mixtures of 5 types in the best 2 of 3 poses: errors and shares.
std::vector<double> mixtures(const InstructionSet& set) {
  constexpr int64_t C = 4, P = 3, K = 5, N = 21, D = 9;
  std::mt19937 generator(0);
  const auto types = uniform<double>(C * P * K * D, 1, generator);
  const auto sequences = uniform<double>(N * D, 1, generator);
  std::vector<double> grams, products, squares, factors{1, 1.1, 1.2};
  for (int64_t i = 0; i < C * P * K; ++i) {
    const double* one = types.data() + i * D;
    const auto inner = [&](const double* other) {
      double sum = 0;
      for (int64_t d = 0; d < D; ++d) sum += one[d] * other[d];
      return sum;
    };
    for (int64_t j = 0; j < K; ++j) grams.push_back(inner(types.data() + (i / K * K + j) * D));
    for (int64_t n = 0; n < N; ++n) products.push_back(inner(sequences.data() + n * D));
  }
  for (int64_t n = 0; n < N; ++n) {
    squares.push_back(0);
    for (int64_t d = 0; d < D; ++d) squares[n] += sequences[n * D + d] * sequences[n * D + d];
  }
  std::vector<int64_t> faces;
  for (int64_t size = 1; size <= K; ++size)
    for (unsigned subset = 1; subset < 1u << K; ++subset) {
      if (__builtin_popcount(subset) != size) continue;
      faces.push_back(size);
      for (int64_t type = 0; type < K; ++type)
        if (subset >> type & 1) faces.push_back(type);
      faces.resize((faces.size() + K) / (1 + K) * (1 + K));
    }
  std::vector<double> errors(C * N), shares(C * N * K);
  std::vector<int64_t> poses(C * N);
  run_job(set.mixtures,
          MixturesProblem<double>{C, P, K, N, 1, grams.data(), products.data(), squares.data(),
                                  factors.data(), nullptr, faces.data(),
                                  int64_t(faces.size()) / (1 + K), 1.2, 2, errors.data(),
                                  poses.data(), shares.data()},
          2, kUnwatched);
  errors.insert(errors.end(), shares.begin(), shares.end());
  errors.insert(errors.end(), poses.begin(), poses.end());
  return errors;
}

}  // namespace

int main() {
  std::vector<const InstructionSet*> others = available_instruction_sets();
  const InstructionSet& baseline = *others.back();
  others.pop_back();
  bool equal = !others.empty();
  for (const InstructionSet* set : others) {
    equal &= compare(*set, set->float32, baseline.float32, 1e-5, "float32");
    equal &= compare(*set, set->float64, baseline.float64, 1e-12, "float64");
    const bool same = mixtures(*set) == mixtures(baseline);
    std::printf("%-9s mixtures: %s\n", set->name, same ? "the same bits" : "other bits");
    equal &= same;
  }
  return equal ? 0 : 1;
}
