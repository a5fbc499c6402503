// Every job of every instruction set, under a sanitizer (MICFAST_SANITIZE in CMakeLists.txt),
// without Python: buffers of their exact sizes; several callers at once, each with several threads,
// on shared weights; jobs stopped halfway. All callers must get what one thread alone gets, bit for
// bit.
//
//   stress_kernels [rounds [callers]]
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "../../csrc/cpu/dispatch.h"

using namespace micfast;

namespace {

int n_callers = 4;
constexpr int kThreads = 3;

template <class T>
using Array = std::vector<T>;

enum Kind {
  kPlain,
  kWild,  // weights that saturate every gate, infinite and huge targets
  kGaps   // sequences of several lengths with missing values, one target without any
};

// Lengths, counts and order of sequences with missing values, as micfast/ops.py makes them.
struct Extents {
  Array<int64_t> lengths, counts, order;

  template <class T>
  Extents(const Array<T>& sequences, int64_t n_steps, int64_t n_outputs) {
    for (std::size_t at = 0; at < sequences.size(); at += std::size_t(n_steps * n_outputs)) {
      lengths.push_back(0);
      counts.push_back(0);
      for (int64_t i = 0; i < n_steps * n_outputs; ++i)
        if (!std::isnan(sequences[at + std::size_t(i)])) {
          lengths.back() = i / n_outputs + 1;
          ++counts.back();
        }
    }
  }
  // The longest first.
  void sort(const Array<int64_t>& work) {
    order.resize(work.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return work[std::size_t(a)] > work[std::size_t(b)];
    });
  }
};

constexpr int64_t kInvertIterations = 7;

// What jobs read; one per problem, shared by all callers.
template <class T>
struct Inputs {
  Sizes s;
  int64_t n_starts, n_variants;
  Array<T> W_ih, W_hh, b, W_out, b_out, latents, cotangent, targets, init, types, one_hot;
  Array<T> loss_weights;
  Array<int64_t> set_index, seeds, shown;
  Array<double> noise, row_weights, bounds, prior_mean, steps;
  std::unique_ptr<Extents> of_targets, of_types;  // or null

  Inputs(const Sizes& sizes, int64_t starts, int64_t variants, Kind kind)
      : s(sizes), n_starts(starts), n_variants(variants) {
    std::mt19937 generator(unsigned(s.hidden_size * 31 + s.n_targets));
    const int64_t M = s.n_modules, N = s.n_targets, P = s.n_steps;
    const int64_t H = s.hidden_size, K = s.input_size, O = s.output_size;
    const auto uniform = [&](int64_t n, double bound) {
      std::uniform_real_distribution<double> draw(-bound, bound);
      Array<T> values(static_cast<std::size_t>(n));
      for (T& v : values) v = static_cast<T>(draw(generator));
      return values;
    };
    const double bound = (kind == kWild ? 1e4 : 1) / std::sqrt(double(H));
    W_ih = uniform(M * 4 * H * K, bound);
    W_hh = uniform(M * 4 * H * H, bound);
    b = uniform(M * 4 * H, bound);
    W_out = uniform(M * O * H, bound);
    b_out = uniform(M * O, bound);
    latents = uniform(M * N * K, 1);
    cotangent = uniform(M * N * P * O, 1);
    targets = uniform(N * P * O, 1);
    if (kind == kWild && N > 2) {
      targets[0] = std::numeric_limits<T>::infinity();
      targets[std::size_t(2 * P * O)] = std::numeric_limits<T>::max();
    }
    init = uniform(n_starts * K, 1);
    loss_weights = uniform(P * O, 1);
    for (T& weight : loss_weights) weight = weight < 0 ? 0 : weight;
    bounds.resize(std::size_t(2 * K), 0.3);
    std::fill_n(bounds.begin(), K, -0.2);
    prior_mean.resize(std::size_t(K), 0.1);
    steps.resize(std::size_t(2 * kInvertIterations), 1e-2);
    types = uniform(2 * K * n_variants * P * O, 1);
    one_hot.resize(std::size_t(M * K * K));
    for (int64_t i = 0; i < M * K; ++i) one_hot[std::size_t(i * K + i % K)] = 1;
    for (int64_t k = 0; k < K; ++k) shown.push_back(k);
    row_weights.resize(std::size_t(2 * n_variants * K), 1. / double(K * P * O));
    for (int64_t m = 0; m < M; ++m) {
      set_index.push_back(m % 2);
      seeds.push_back(m * 7919 - 5);
      noise.push_back(m % 3 ? 0.1 : 0.0);
    }
    if (kind == kGaps) make_gaps(generator);
  }

  void make_gaps(std::mt19937& generator) {
    const int64_t P = s.n_steps, O = s.output_size;
    const auto omit = [&](Array<T>& sequences) {
      for (std::size_t at = 0; at < sequences.size(); at += std::size_t(P * O)) {
        const auto begin = sequences.begin() + std::ptrdiff_t(at);
        const auto first_missing = int64_t(1 + generator() % unsigned(P)) * O;
        std::fill(begin + first_missing, begin + P * O, std::numeric_limits<T>::quiet_NaN());
        // Never the first value: every type has one.
        for (int64_t i = 1; i < first_missing; ++i)
          if (generator() % 5 == 0) begin[i] = std::numeric_limits<T>::quiet_NaN();
      }
    };
    omit(targets);
    omit(types);
    if (s.n_targets > 1) std::fill_n(targets.begin(), P * O, std::numeric_limits<T>::quiet_NaN());
    of_targets = std::make_unique<Extents>(targets, P, O);
    of_targets->sort(of_targets->lengths);
    of_types = std::make_unique<Extents>(types, P, O);
    Array<int64_t> work;
    const auto per_set = std::ptrdiff_t(of_types->lengths.size() / 2);
    for (const int64_t set : set_index) {
      const auto begin = of_types->lengths.begin() + set * per_set;
      work.push_back(std::accumulate(begin, begin + per_set, int64_t(0)));
    }
    of_types->sort(work);
  }

  Weights<T> weights() const {
    return {W_ih.data(), W_hh.data(), b.data(), W_out.data(), b_out.data()};
  }
};

// What jobs write, in buffers that hold it and no byte more.
template <class T>
struct Outputs {
  std::vector<Array<T>> values;
  Array<int32_t> counts;
  Array<unsigned char> flags;

  T* add(int64_t n) {
    values.emplace_back(static_cast<std::size_t>(n), T(-77));
    return values.back().data();
  }
  bool operator==(const Outputs& other) const {
    if (values.size() != other.values.size() || counts != other.counts || flags != other.flags)
      return false;
    for (std::size_t i = 0; i < values.size(); ++i)
      if (values[i].size() != other.values[i].size() ||
          std::memcmp(values[i].data(), other.values[i].data(), values[i].size() * sizeof(T)) != 0)
        return false;
    return true;
  }
};

template <class T>
WeightOutputs<T> weight_outputs(Outputs<T>& out, const Inputs<T>& in) {
  const auto size = [](const Array<T>& w) { return int64_t(w.size()); };
  return {out.add(size(in.W_ih)), out.add(size(in.W_hh)), out.add(size(in.b)),
          out.add(size(in.W_out)), out.add(size(in.b_out))};
}

template <class P>
void point_to(P& problem, const Extents* extents) {
  if (!extents) return;
  problem.lengths = extents->lengths.data();
  problem.counts = extents->counts.data();
  problem.order = extents->order.data();
}

template <class T>
SearchProblem<T> search(Outputs<T>& out, const Inputs<T>& in, int64_t n_iter, double tol,
                        bool history) {
  SearchProblem<T> p{};
  p.sizes = in.s;
  p.sizes.n_targets *= in.n_starts;
  const int64_t pairs = p.sizes.n_modules * p.sizes.n_targets, K = p.sizes.input_size;
  p.weights = in.weights();
  p.targets = in.targets.data();
  p.init = in.init.data();
  p.init_strides[2] = K;
  p.n_starts = in.n_starts;
  p.n_iter = n_iter;
  p.tol = tol;
  p.errors = out.add(pairs);
  p.latents = out.add(pairs * K);
  out.counts.resize(std::size_t(pairs));
  out.flags.resize(std::size_t(pairs));
  p.n_iter_used = out.counts.data();
  p.converged = reinterpret_cast<bool*>(out.flags.data());
  if (history) {
    p.error_history = out.add((n_iter + 1) * pairs);
    p.latent_history = out.add((n_iter + 1) * pairs * K);
  } else {
    p.objective = {in.bounds.data(), in.loss_weights.data(), 0.1, in.prior_mean.data()};
  }
  point_to(p, in.of_targets.get());
  return p;
}

enum Job {
  kGenerate,
  kGenerateBackward,
  kInvert,
  kInvertLM,
  kTrainProjected,
  kTrainLM,
  kTrain,
  kJobs
};

template <class T>
Outputs<T> run(const KernelSet<T>& kernels, int job, const Inputs<T>& in, int n_threads,
               bool history, const Watch& watch) {
  Outputs<T> out;
  out.values.reserve(8);  // add() hands out addresses
  const Sizes& s = in.s;
  const int64_t drawn = s.n_modules * s.n_targets * s.n_steps * s.output_size;
  if (job == kGenerate) {
    GenerateProblem<T> p{};
    p.sizes = s;
    p.weights = in.weights();
    p.latents = in.latents.data();
    p.outputs = out.add(drawn);
    run_job(kernels.generate, p, n_threads, watch);
  } else if (job == kGenerateBackward) {
    GenerateBackwardProblem<T> p{};
    p.sizes = s;
    p.weights = in.weights();
    p.latents = in.latents.data();
    p.d_outputs = in.cotangent.data();
    p.d_latents = out.add(s.n_modules * s.n_targets * s.input_size);
    p.d_weights = weight_outputs(out, in);
    run_job(kernels.generate_backward, p, n_threads, watch);
  } else if (job == kInvert) {
    InvertProblem<T> p{};
    p.search = search(out, in, kInvertIterations, history ? 0 : 1e-2, history);
    p.adam = {0.05, 0.9, 0.99, 1e-8};
    p.unprojected_error = p.simplex = history;
    if (!history) p.steps = in.steps.data();
    run_job(kernels.invert, p, n_threads, watch);
  } else if (job == kInvertLM) {
    InvertLMProblem<T> p{};
    p.search = search(out, in, 4, history ? 0 : 1e-2, history);
    p.damping = 0.1;
    p.simplex = history;
    run_job(kernels.invert_lm, p, n_threads, watch);
  } else if (job == kTrainProjected) {
    TrainProjectedProblem<T> p{};
    p.sizes = s;
    p.initial = in.weights();
    p.type_sets = in.types.data();
    p.row_weights = in.row_weights.data();
    p.set_index = in.set_index.data();
    p.noise_in = p.noise_out = in.noise.data();
    p.seeds = in.seeds.data();
    p.n_train_steps = 5;
    p.adam = {0.01, 0.9, 0.999, 1e-8};
    p.clip_norm = 1;
    p.ridge = 1e-6;
    p.n_curve = 3;
    p.n_grams = in.of_types ? s.output_size : 1;
    p.trained = weight_outputs(out, in);
    p.loss_curve = out.add(s.n_modules * 3);
    p.errors = out.add(s.n_modules);
    if (in.of_types) {
      p.lengths = in.of_types->lengths.data();
      p.order = in.of_types->order.data();
    }
    run_job(kernels.train_projected, p, n_threads, watch);
  } else if (job == kTrainLM) {
    if (s.hidden_size > 8) return out;  // minutes under a sanitizer
    TrainLMProblem<T> p{};
    p.sizes = s;
    p.sizes.n_targets = s.input_size;
    p.initial = in.weights();
    p.type_sets = in.types.data();
    p.row_weights = in.row_weights.data();
    p.set_index = in.set_index.data();
    p.latents = in.one_hot.data();
    p.shown = in.shown.data();
    p.damping = 0.1;
    p.ridge = 1e-6;
    p.acceleration = history;
    p.max_jacobians = 2;
    p.n_grams = in.of_types ? s.output_size : 1;
    p.trained = weight_outputs(out, in);
    p.errors = out.add(s.n_modules);
    p.error_curve = out.add(s.n_modules * 3);
    out.counts.resize(std::size_t(2 * s.n_modules));
    p.n_jacobians = out.counts.data();
    p.stops = out.counts.data() + s.n_modules;
    if (in.of_types) p.lengths = in.of_types->lengths.data();
    run_job(kernels.train_lm, p, n_threads, watch);
  } else {
    TrainProblem<T> p{};
    p.sizes = s;
    p.initial = in.weights();
    p.type_sets = in.types.data();
    p.n_variants = in.n_variants;
    p.set_index = in.set_index.data();
    p.noise_in = p.noise_out = in.noise.data();
    p.seeds = in.seeds.data();
    p.n_episodes = 11;
    p.adam = {0.01, 0.9, 0.999, 1e-8};
    p.n_curve = 3;
    p.trained = weight_outputs(out, in);
    p.loss_curve = out.add(s.n_modules * 3);
    point_to(p, in.of_types.get());
    run_job(kernels.train, p, n_threads, watch);
  }
  return out;
}

// Several callers at once against one thread; answers the number of differing results.
template <class T>
int stress(const KernelSet<T>& kernels, const Inputs<T>& in) {
  std::atomic<int> n_different{0};
  for (int job = 0; job < kJobs; ++job)
    for (const bool history : {false, true}) {
      const Watch unwatched = [](double) {};
      const auto expected = run(kernels, job, in, 1, history, unwatched);
      std::vector<std::thread> callers;
      for (int i = 0; i < n_callers; ++i)
        callers.emplace_back([&, job, history] {
          if (!(run(kernels, job, in, kThreads, history, unwatched) == expected)) ++n_different;
        });
      for (std::thread& caller : callers) caller.join();
    }
  return n_different;
}

// Stops a job of minutes from its watch, as Ctrl-C does; answers whether the exception came back.
template <class T>
bool stops(const KernelSet<T>& kernels) {
  struct Stop : std::runtime_error {
    using std::runtime_error::runtime_error;
  };
  const Inputs<T> in(Sizes{3, 5, 9, 8, 4, 2}, 1, 1, kPlain);
  Outputs<T> out;
  out.values.reserve(8);
  TrainProblem<T> p{};
  p.sizes = in.s;
  p.initial = in.weights();
  p.type_sets = in.types.data();
  p.n_variants = 1;
  p.set_index = in.set_index.data();
  p.noise_in = p.noise_out = in.noise.data();
  p.seeds = in.seeds.data();
  p.n_episodes = 100000000;
  p.adam = {0.01, 0.9, 0.999, 1e-8};
  p.n_curve = 100;
  p.trained = weight_outputs(out, in);
  p.loss_curve = out.add(p.sizes.n_modules * p.n_curve);
  try {
    run_job(kernels.train, p, kThreads, [](double) { throw Stop("enough"); });
  } catch (const Stop&) {
    return true;
  }
  return false;
}

template <class T>
int check(const InstructionSet& set, const KernelSet<T>& kernels, const char* type) {
  int n_bad = 0, n_problems = 0;
  // Sizes of one, on and beside the widths of the vectors and of the row blocks.
  for (const Sizes& s :
       {Sizes{1, 1, 1, 1, 1, 1}, Sizes{2, 17, 3, 7, 5, 3}, Sizes{3, 5, 9, 8, 4, 2},
        Sizes{17, 2, 5, 13, 3, 21}, Sizes{2, 33, 2, 21, 21, 5}, Sizes{2, 3, 40, 10, 4, 28}})
    for (const Kind kind : {kPlain, kWild, kGaps}) {
      const bool plain = kind == kPlain;
      n_bad += stress(kernels, Inputs<T>(s, plain ? 1 : 3, plain ? 1 : 2, kind));
      ++n_problems;
    }
  const bool stopped = stops(kernels);
  std::printf("%-9s %s: %d problems, %d results of %d callers with %d threads differ%s\n", set.name,
              type, n_problems, n_bad, n_callers, kThreads, stopped ? "" : "; a job did not stop");
  return n_bad + !stopped;
}

}  // namespace

int main(int argc, char** argv) {
  const int n_rounds = argc > 1 ? std::atoi(argv[1]) : 1;
  if (argc > 2) n_callers = std::atoi(argv[2]);
  int n_bad = 0;
  for (int round = 0; round < n_rounds; ++round)
    for (const InstructionSet* set : available_instruction_sets()) {
      n_bad += check(*set, set->float32, "float32");
      n_bad += check(*set, set->float64, "float64");
    }
  return n_bad ? 1 : 0;
}
