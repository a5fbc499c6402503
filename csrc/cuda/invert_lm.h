// Inversion by the Levenberg-Marquardt method: the whole loop of damped Gauss-Newton steps for a
// tile of pairs. One pass draws the sequences and carries their derivatives along D directions of
// the input; between two passes the first thread of a pair does its K x K algebra
// (levenberg_marquardt.h). Nothing is kept over time.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T, int kHidden>
struct LevenbergMarquardt {
  // Of an iteration, in passes through the sequence: it and its derivatives along K directions.
  static constexpr double kWork = 5;
  // Measured (bench/NOTES.md): for 10 units, more warps are worth some spilled registers.
  static constexpr int kBlocksAtOnce = kHidden == 10 ? 6 : kHidden == 20 ? 3 : 2;

  const InvertLMProblem<T>& p;
  const Sizes& s;
  const int K, D, n_sums;  // D directions
  Place<kHidden> place;
  Sequence<T, kHidden> sequence;  // its weights and sizes; the pass below is of its own
  // "Member" 0 of a pair is the sequence itself, member 1 + d its derivative along direction d.
  T* h;                    // [2, 1 + D, P, row]: states of even and odd steps
  T* c;                    // [1 + D, P, H]
  T* y;                    // [P, 1 + D, O]: residuals, and derivatives of the outputs
  T* sums;                 // [P, n_sums]: over steps and outputs, of y[a] y[b] for members a, b
  int* members;            // [2, n_sums]: a and b, first the squares, then 0 with d, then the rest
  T* x;                    // [P, K]: the input to measure next
  T* scratch;              // [P, G]
  DampedSearch* searches;  // [P]
  double* numbers;         // [P, 2 K K + 6 K]: the searches' arrays

  MICFAST_BOTH LevenbergMarquardt(const InvertLMProblem<T>& problem, const Plan& plan, int thread,
                                  Space& space)
      : p(problem),
        s(problem.search.sizes),
        K(static_cast<int>(problem.search.sizes.input_size)),
        D(problem.search.n_iter > 0 ? K - (problem.simplex ? 1 : 0) : 0),
        n_sums(1 + D + D * (D + 1) / 2),
        place(plan, problem.search.sizes, thread),
        sequence(problem.search.sizes, place, plan, Keep::kNothing, space) {
    using S = Sequence<T, kHidden>;
    const int64_t P = plan.pairs;
    h = S::template take_hot<T>(space, 2 * (1 + D) * P * sequence.row);
    c = S::template take_hot<T>(space, (1 + D) * P * place.H);
    y = S::template take_hot<T>(space, P * (1 + D) * s.output_size);
    sums = S::template take_hot<T>(space, P * n_sums);
    members = S::template take_hot<int>(space, 2 * n_sums);
    x = S::template take_hot<T>(space, P * K);
    scratch = S::template take_hot<T>(space, P * place.G);
    searches = S::template take_hot<DampedSearch>(space, P);
    numbers = space.take<double>(P * n_numbers());
  }
  MICFAST_BOTH int64_t n_numbers() const { return int64_t{2} * K * K + 6 * K; }

  // The number arrays of this pair: A, g, z, the step, and the scratch of the algebra.
  MICFAST_INLINE double* numbers_of_pair() const { return numbers + place.pair * n_numbers(); }
  MICFAST_INLINE StepScratch step_scratch() const {
    double* at = numbers_of_pair() + K * K + 3 * K;
    return {at, at + K * K, at + K * K + K, reinterpret_cast<int64_t*>(at + K * K + 2 * K)};
  }

  // By all threads, once: which members each sum multiplies.
  MICFAST_INLINE void number_sums() {
    for (int a = thread_index(); a <= D; a += n_threads()) {
      members[a] = 0;
      members[n_sums + a] = a;
      for (int b = 1; b <= a; ++b) {
        const int e = 1 + D + a * (a - 1) / 2 + b - 1;
        members[e] = a;
        members[n_sums + e] = b;
      }
    }
  }

  // Draws the sequence of x, measures it and its derivatives along the first n_directions: `sums`,
  // those of the derivatives only where there are any. Ends with a barrier.
  MICFAST_INLINE void measure(const T* target, int length, int n_directions) {
    const GateRows<T, kHidden> rows(sequence.w, place.lane, place.H);
    const PackedWeights<T>& w = sequence.w;
    const int H = place.H, O = sequence.O, row = sequence.row;
    const int h_member = place.P * row, c_member = place.P * H, h_step = (1 + D) * h_member;
    const int n_used = n_directions == 0 ? 1 : n_sums;
    T* const h_pair = h + place.pair * row;
    T* const c_pair = c + place.pair * H;
    T* const y_pair = y + place.pair * (1 + D) * O;
    T* const sums_pair = sums + place.pair * n_sums;
    const T* const x_pair = x + place.pair * K;
    place.for_share(n_used, [&](int e) { sums_pair[e] = 0; });

    for (int t = 0; t < sequence.n_steps; ++t) {
      T* const now = h_pair + (t & 1) * h_step;
      const T* const before = h_pair + ((t + 1) & 1) * h_step;
      place.for_units([&](int u) {
        using V = Vec<T>;
        Quad<T> a = w.gate_b[u];
        if (t == 0)
          a = sequence.first_gates(x_pair, u);
        else
          rows.add_to(a, before, u);
        CellTape<T> tape;
        const CellState<T> next = sequence.step(a, t == 0 ? T(0) : c_pair[u], tape);
        now[u] = next.h.v;
        c_pair[u] = next.c.v;
        const CellSlopes<T> slopes = cell_slopes(tape);
#pragma unroll 1
        for (int d = 0; d < n_directions; ++d) {
          T* const c_d = c_pair + (1 + d) * c_member;
          if (t == 0) {
            // On the simplex the directions lead from its last corner to each of the others.
            a = w.gate_x[d * H + u];
            if (p.simplex) add_scaled(a, w.gate_x[(K - 1) * H + u], T(-1));
          } else {
            a = {0, 0, 0, 0};
            rows.add_to(a, before + (1 + d) * h_member, u);
          }
          const CellState<T> tangent =
              cell_tangent(V{a.i}, V{a.f}, V{a.g}, V{a.o}, V{t == 0 ? T(0) : c_d[u]}, slopes);
          now[(1 + d) * h_member + u] = tangent.h.v;
          c_d[u] = tangent.c.v;
        }
      });
      place.sync();
      place.for_share((1 + n_directions) * O, [&](int j) {
        const int member = j / O, o = j - member * O;
        const T wanted = t < length ? target[t * O + o] : T(NAN);
        const bool missing = p.search.counts && !(wanted - wanted == 0);
        const T drawn = sequence.output(now + member * h_member, o);
        y_pair[j] = missing ? T(0) : member == 0 ? sequence.b_out[o] + drawn - wanted : drawn;
      });
      place.sync();
      place.for_share(n_used, [&](int e) {
        const T *const a = y_pair + members[e] * O, *const b = y_pair + members[n_sums + e] * O;
        T sum = sums_pair[e];
        for (int o = 0; o < O; ++o) sum = fused(a[o], b[o], sum);
        sums_pair[e] = sum;
      });
    }
    place.sync();
  }

  // Makes what was measured at x the model of the pair's search.
  MICFAST_INLINE void accept(DampedSearch& search) const {
    const T* const measured = sums + place.pair * n_sums;
    double* A = search.model.A;
    for (int i = 0; i < K * K; ++i) A[i] = 0;
    for (int i = 0; i < D; ++i)
      for (int j = 0; j <= i; ++j)
        A[i * K + j] = A[j * K + i] = static_cast<double>(measured[1 + D + (i + 1) * i / 2 + j]);
    for (int k = 0; k < K; ++k) {
      search.model.g[k] = k < D ? static_cast<double>(measured[1 + k]) : 0;
      search.model.z[k] = static_cast<double>(x[place.pair * K + k]);
    }
  }

  MICFAST_INLINE void run(const Plan& plan, int64_t item, const PackedModules<T>& packed) {
    const SearchProblem<T>& search = p.search;
    const SearchTile<T> tile(search, plan, item, place.pair);
    const int64_t H = s.hidden_size, O = s.output_size;
    const bool first = place.works && place.lane == 0;
    T* const x_pair = x + place.pair * K;
    DampedSearch& state = searches[place.pair];
    sequence.n_steps = tile.longest(plan);
    sequence.template set_weights<Keep::kNothing>(packed.of(tile.module),
                                                  search.weights.W_out + tile.module * O * H,
                                                  search.weights.b_out + tile.module * O);
    place.for_share(K, [&](int k) { x_pair[k] = tile.start()[k]; });
    const double scale = error_scale(tile, place, scratch);
    if (first) {
      double* at = numbers_of_pair();
      state = {{at, at + K * K, at + K * K + K},
               at + K * K + 2 * K,
               0,
               p.damping,
               2,
               0,
               scale,
               0,
               false,
               false};
      if (p.simplex) project(x_pair, K);
    }
    number_sums();
    block_sync();

    for (int64_t i = 0; i <= search.n_iter; ++i) {
      // Nothing follows the last point, so its derivatives are left out.
      const int n_wanted = i < search.n_iter ? D : 0;
      measure(tile.target_values(), tile.length(), n_wanted);
      if (first) {
        if (judge(state, static_cast<double>(sums[place.pair * n_sums]), i, search.tol))
          accept(state);
        if (n_wanted && !state.finished) {
          propose(state, K, p.simplex, step_scratch());
          for (int k = 0; k < K; ++k) x_pair[k] = static_cast<T>(state.step[k]);
        }
      }
      const bool any_moves = place.any(first && !state.finished);
      record_history(tile, place, i, static_cast<T>(state.error), state.model.z, K);
      // A history wants every row, also where nothing moves.
      if (!any_moves && !search.error_history) break;
    }
    if (tile.counts) {
      record_pair(place, search.errors, search.latents, tile.index(), static_cast<T>(state.error),
                  state.model.z, K);
      if (first) {
        search.n_iter_used[tile.index()] = state.n_iter_used;
        search.converged[tile.index()] = state.converged;
      }
    }
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
