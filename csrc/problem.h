// The contract between the kernels and whoever calls them: plain structs of sizes and pointers.
//
// Letters (docs/conventions.md): M modules, N targets, T steps, H hidden units, K inputs, O
// outputs. Every array is dense, row-major and owned by the caller. Nothing is checked here:
// micfast/kernels/operators.py checks. Inputs are never written and may alias one another; outputs
// alias nothing. Outputs need no initialisation.
#pragma once

#include <cstdint>

namespace micfast {

struct Sizes {
  int64_t n_modules;    // M
  int64_t n_targets;    // N
  int64_t n_steps;      // T
  int64_t hidden_size;  // H
  int64_t input_size;   // K
  int64_t output_size;  // O
};

// What surrounds the recurrent cell. All of it is branched on once a step or a block, never in the
// inner loop.
enum class Latent : int64_t {
  kFirst,      // input of the first step, zeros after it
  kEvery,      // input of every step
  kState,      // the initial state, by an affine map
  kTanhState,  // the same through tanh
};
enum class Output : int64_t { kIdentity, kTanh, kSigmoid, kExp, kSoftplus };
enum class CellKind : int64_t { kLstm, kGru };

struct Decoder {
  Latent latent = Latent::kFirst;
  Output output = Output::kIdentity;
  int64_t n_states = 1;  // of the initial state: 1 is h_0 (c_0 is zero), 2 is h_0 and c_0
  CellKind cell = CellKind::kLstm;
};

constexpr bool sets_state(const Decoder& d) {
  return d.latent == Latent::kState || d.latent == Latent::kTanhState;
}

// Rows R of W_ih: what the latent enters.
constexpr int64_t entry_rows(const Sizes& s, const Decoder& d) {
  return (sets_state(d) ? d.n_states : 4) * s.hidden_size;
}

// Weights of M modules. Gate blocks in the order i, f, g, o; b is the sum of torch's two biases. Of
// a GRU r, z, n_x, n_h (gru_cell.h).
template <class T>
struct Weights {
  const T* W_ih;   // [M, R, K]
  const T* W_hh;   // [M, 4H, H]
  const T* b;      // [M, 4H]
  const T* W_out;  // [M, O, H]
  const T* b_out;  // [M, O]
  // Each null where a module has none.
  const T* b_first = nullptr;  // [M, 4H] added to b in the first step
  const T* b_state = nullptr;  // [M, R]  added to the initial state, before tanh
  const T* scale = nullptr;    // [M, O]  of the mapped outputs
  const T* shift = nullptr;    // [M, O]
  Decoder decoder = {};
};

template <class T>
constexpr bool maps_outputs(const Weights<T>& w) {
  return w.decoder.output != Output::kIdentity || w.scale != nullptr;
}

template <class T>
struct WeightOutputs {
  T* W_ih;
  T* W_hh;
  T* b;
  T* W_out;
  T* b_out;
  T* b_first = nullptr;  // as in Weights
  T* b_state = nullptr;
};

struct AdamSettings {
  double lr;
  double beta1;
  double beta2;
  double eps;
};

template <class T>
struct GenerateProblem {
  Sizes sizes;
  Weights<T> weights;
  const T* latents;  // in  [M, N, K]
  T* outputs;        // out [M, N, T, O]
};

// Gradients of sum(d_outputs * outputs): of the latents, and of the weights summed over N.
template <class T>
struct GenerateBackwardProblem {
  Sizes sizes;
  Weights<T> weights;
  const T* latents;            // in  [M, N, K]
  const T* d_outputs;          // in  [M, N, T, O]
  T* d_latents;                // out [M, N, K]
  WeightOutputs<T> d_weights;  // out
};

// What a search minimises beside the mean squared error, and where it stays. Branched on once an
// iteration, or once a step of the sequence. Levenberg-Marquardt knows no sphere and no Huber loss.
template <class T>
struct Objective {
  const double* bounds = nullptr;      // [2, K] lowest and highest latents, or null: no box
  const T* weights = nullptr;          // [T, O] what a squared difference counts, or null: 1
  double prior_weight = 0;             // of |z - prior_mean|^2, which is added to the error
  const double* prior_mean = nullptr;  // [K], read where prior_weight is not 0
  double radius = 0;                   // of the sphere |z| = radius, or 0: no sphere
  double huber = 0;                    // Huber loss with this delta, or 0: squared differences
};

// What both ways of inversion share. Every target is searched from S starts, each a pair (n, s) of
// its own; sizes.n_targets counts the pairs, N * S.
template <class T>
struct SearchProblem {
  Sizes sizes;
  Weights<T> weights;
  const T* targets;         // in  [N, T, O], or [M, N, T, O]
  int64_t target_stride;    // targets from one module's to the next one's: N, or 0 where shared
  const T* init;            // in  element (m, n, s, k) at the strides' sum + k
  int64_t init_strides[3];  // of m, n and s; 0 where all of them share a start
  int64_t n_starts;         // S
  int64_t n_iter;           // I
  double tol;               // a pair stops once an iteration gains less than this; 0: never
  T* errors;                // out [M, N * S]
  T* latents;               // out [M, N * S, K]
  int32_t* n_iter_used;     // out [M, N * S]
  bool* converged;          // out [M, N * S], stopped by tol
  T* error_history;         // out [I + 1, M, N * S], or null
  T* latent_history;        // out [I + 1, M, N * S, K], or null
  // All null; or NaN in targets is a missing value, and an error is the mean over the others.
  const int64_t* lengths = nullptr;  // in, as targets: steps up to each one's last value
  const int64_t* counts = nullptr;   // in, as targets: values of each one that are not NaN
  const int64_t* order = nullptr;    // in [N], a permutation: those side by side share a block,
                                     // which runs as far as the longest
  Objective<T> objective = {};
};

// By projected Adam.
template <class T>
struct InvertProblem {
  SearchProblem<T> search;
  AdamSettings adam;       // used without bias correction
  bool unprojected_error;  // measure the final error before the last projection
  bool simplex = true;     // keep the inputs non-negative with sum 1
  // in [I, 2], lr and eps of every iteration, which also express bias correction; or null: adam's
  const double* steps = nullptr;
};

// By the Levenberg-Marquardt method.
template <class T>
struct InvertLMProblem {
  SearchProblem<T> search;
  double damping;  // at the start, relative to the mean curvature
  bool simplex;    // keep the inputs non-negative with sum 1
};

template <class T>
struct TrainProblem {
  Sizes sizes;  // n_targets is not used
  Weights<T> initial;
  const T* type_sets;        // in  [S, K, V, T, O]: V variants of every type
  int64_t n_variants;        // V
  const int64_t* set_index;  // in  [M], below S
  const double* noise_in;    // in  [M], standard deviation
  const double* noise_out;   // in  [M], standard deviation
  const int64_t* seeds;      // in  [M]
  int64_t n_episodes;        // E
  AdamSettings adam;         // used with bias correction
  int64_t n_curve;           // points of the loss curve, at most E
  WeightOutputs<T> trained;  // out
  T* loss_curve;             // out [M, n_curve]
  // As in SearchProblem, of the types.
  const int64_t* lengths = nullptr;  // in [S, K, V], or null
  const int64_t* counts = nullptr;   // in [S, K, V], or null
  const int64_t* order = nullptr;    // in [M], or null
};

// Training with the read-out solved at every step, by projected Adam.
template <class T>
struct TrainProjectedProblem {
  Sizes sizes;                // n_targets is not used
  Weights<T> initial;         // W_out and b_out are not read
  const T* type_sets;         // in  [S, K, T, O]
  const double* row_weights;  // in  [S, K], what a squared residual of the type counts
  const int64_t* set_index;   // in  [M], below S
  const double* noise_in;     // in  [M], standard deviation
  const double* noise_out;    // in  [M], standard deviation
  const int64_t* seeds;       // in  [M]
  int64_t n_train_steps;
  AdamSettings adam;  // used with bias correction
  double clip_norm;   // largest norm of a module's gradient
  double ridge;
  int64_t n_curve;           // points of the loss curve, at most n_train_steps
  int64_t n_grams;           // O where some step misses a part of its values, otherwise 1
  WeightOutputs<T> trained;  // out
  T* loss_curve;             // out [M, n_curve]
  T* errors;                 // out [M]
  // Both null; or NaN in the types is a missing value.
  const int64_t* lengths = nullptr;  // in [S, K], steps up to each type's last value
  const int64_t* order = nullptr;    // in [M], a permutation: as in SearchProblem
};

// The same by the Levenberg-Marquardt method; sizes.n_targets is L, the latents of each module.
template <class T>
struct TrainLMProblem {
  Sizes sizes;
  Weights<T> initial;         // W_out and b_out are not read
  const T* type_sets;         // in  [S, K, T, O]
  const double* row_weights;  // in  [S, L], what a squared residual of the latent's type counts
  const int64_t* set_index;   // in  [M], below S
  const T* latents;           // in  [M, L, K]
  const int64_t* shown;       // in  [L], the type that a latent is to draw
  double goal;                // error at which a module is done
  double damping;             // at the start
  double ridge;
  bool acceleration;  // add second-order corrections
  int64_t max_jacobians;
  int64_t n_grams;                   // as in TrainProjectedProblem
  WeightOutputs<T> trained;          // out
  T* errors;                         // out [M]
  T* error_curve;                    // out [M, max_jacobians + 1]
  int32_t* n_jacobians;              // out [M]
  int32_t* stops;                    // out [M], micfast/kernels/reference_lm.py's Stop
  const int64_t* lengths = nullptr;  // as in TrainProjectedProblem
};

// The nearest mixtures of K types for sequences: shares that are not negative, and whose sum is
// from 1 / most_gain to most_gain. Each class has its types in P poses, of which the best is found;
// T is double (micfast/kernels/mixtures.py).
template <class T>
struct MixturesProblem {
  int64_t n_classes;     // C
  int64_t n_poses;       // P
  int64_t n_types;       // K
  int64_t n_sequences;   // N
  int64_t n_grams;       // N, or 1 where all sequences share one
  const T* grams;        // in  [C, P, K, K, n_grams], inner products of the types
  const T* products;     // in  [C, P, K, N], of types and sequences
  const T* squares;      // in  [N], of the sequences
  const T* factors;      // in  [P], what an error in a pose counts
  const bool* gone;      // in  [C, K, N], types without a share, or null
  const int64_t* faces;  // in [n_faces, 1 + K]: of how many types (at most 8), and of which
  int64_t n_faces;
  double most_gain;
  // Poses looked at, of those that are best where shares may be negative; P: all. Below P, the last
  // face is of all types.
  int64_t n_kept;
  T* errors;       // out [C, N], sums of squares times the pose's factor
  int64_t* poses;  // out [C, N]
  T* shares;       // out [C, N, K]
};

// How a running job is watched and stopped. `units` counts finished iterations or episodes of a
// work item; the kernel returns early, its outputs incomplete, once tick() answers false.
struct Monitor {
  bool (*tick)(Monitor*, int64_t units);
};

// One job, cut into independent work items whose results do not depend on their order.
template <class T, template <class> class Problem>
struct JobKernel {
  int64_t (*n_items)(const Problem<T>&);
  int64_t (*units_per_item)(const Problem<T>&);
  int64_t (*workspace_bytes)(const Problem<T>&);  // scratch for one item at a time, 64-byte aligned
  void (*run_item)(const Problem<T>&, int64_t item, void* workspace, Monitor*);
};

template <class T>
struct KernelSet {
  JobKernel<T, GenerateProblem> generate;
  JobKernel<T, GenerateBackwardProblem> generate_backward;
  JobKernel<T, InvertProblem> invert;
  JobKernel<T, InvertLMProblem> invert_lm;
  JobKernel<T, TrainProblem> train;
  JobKernel<T, TrainProjectedProblem> train_projected;
  JobKernel<T, TrainLMProblem> train_lm;
  // y[i] = sigmoid(x[i]) or tanh(x[i]): the kernel's own activations, for the accuracy test.
  void (*sigmoid)(const T* x, T* y, int64_t n);
  void (*tanh)(const T* x, T* y, int64_t n);
};

struct InstructionSet {
  const char* name;
  int lanes_float32;  // sequences carried at once by one work item
  int lanes_float64;
  KernelSet<float> float32;
  KernelSet<double> float64;
  JobKernel<double, MixturesProblem> mixtures;
};

}  // namespace micfast
