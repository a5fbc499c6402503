// The read-out that draws targets best from given states: a linear least-squares problem, since the
// outputs are linear in W_out and b_out. With phi = (h, 1), summed over a module's sequences and
// their steps with weights w:
//
//   G = sum of w phi phi',  R = sum of w phi y',  (W_out, b_out)' = (G + ridge)^-1 R
//
// Each lane sums the products of its sequence over short segments in T and over segments in double;
// the sums of a module's lanes and the solution are double.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// Rows (h, 1, y) of one sequence per lane: [1 + T, H + 1 + O] lane rows. Row 0 belongs to the state
// before the first step, 0. Missing y are 0 here.
template <class T>
struct StateRows {
  static constexpr int64_t row = kLanes<T>;
  int64_t n_states, n_outputs, n_columns;
  T* base;

  void take(Arena& arena, const Sizes& s) {
    n_states = s.hidden_size;
    n_outputs = s.output_size;
    n_columns = n_states + 1 + n_outputs;
    base = arena.take<T>((1 + s.n_steps) * n_columns * row);
  }
  int64_t step() const { return n_columns * row; }
  T* states(int64_t t) const { return base + (1 + t) * step(); }  // t = -1: before the first
  T* targets(int64_t t) const { return states(t) + (n_states + 1) * row; }

  // All that does not change with the weights, but for the targets.
  void start(int64_t n_steps) const {
    clear(states(-1), n_states);
    for (int64_t t = 0; t < n_steps; ++t)
      for (int64_t l = 0; l < row; ++l) states(t)[n_states * row + l] = 1;
  }
};

// The sums of phi (phi, y)' over time, lane by lane.
template <class T>
struct ReadOutSums {
  static constexpr int64_t row = kLanes<T>;
  static constexpr int64_t kSegment = 32;
  int64_t n_rows, n_columns;  // H + 1, H + 1 + O
  int64_t n_grams;            // 1, or one per channel where a step may miss some of its channels
  T* masked;                  // [kSegment, H + 1]
  T* part;                    // [H + 1, H + 1 + O], of a segment
  double* total;              // [n_grams, H + 1, H + 1 + O] lane rows; from the diagonal on

  void take(Arena& arena, const Sizes& s, int64_t grams) {
    n_rows = s.hidden_size + 1;
    n_columns = n_rows + s.output_size;
    n_grams = grams;
    masked = arena.take<T>(kSegment * n_rows * row);
    part = arena.take<T>(n_rows * n_columns * row);
    total = arena.take<double>(n_grams * n_rows * n_columns * row);
  }

  // `known` [T, n_grams]: 1 or 0 where a value is missing; null if none is.
  void sum_over(int64_t n_steps, const StateRows<T>& rows, const T* known) const {
    const int64_t size = n_rows * n_columns * row;
    for (int64_t j = 0; j < n_grams * size; ++j) total[j] = 0;
    for (int64_t t = 0; t < n_steps; t += kSegment) {
      const int64_t n = n_steps - t < kSegment ? n_steps - t : kSegment;
      for (int64_t gram = 0; gram < n_grams; ++gram) {
        clear(part, n_rows * n_columns);
        if (known) {
          mask(rows, t, n, known + gram * row);
          add_products_of(masked, n_rows * row, rows.states(t), n);
        } else {
          add_products_of(rows.states(t), n_columns * row, rows.states(t), n);
        }
        double* sum = total + gram * size;
        for (int64_t j = 0; j < size; ++j) sum[j] += static_cast<double>(part[j]);
      }
    }
  }

  void mask(const StateRows<T>& rows, int64_t t, int64_t n, const T* known) const {
    using V = Vec<T>;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n_rows * row; j += V::kWidth)
        (V::load(rows.states(t + i) + j) * V::load(known + (t + i) * n_grams * row + j % row))
            .store(masked + i * n_rows * row + j);
  }

  // Adds what lies on and right of the diagonal, in register tiles.
  void add_products_of(const T* a, int64_t a_step, const T* b, int64_t n) const {
    constexpr int kTileRows = kMaxRows<T> >= 12 ? 4 : 2;
    constexpr int kTileColumns = kMaxRows<T> >= 5 ? 5 : 4;
    for_row_blocks<kTileRows>(n_rows, [&](auto tile_rows, int64_t r) MICFAST_LAMBDA_INLINE {
      constexpr int R = decltype(tile_rows)::value;
      for_row_blocks<kTileColumns>(
          n_columns - r, [&](auto tile_columns, int64_t c) MICFAST_LAMBDA_INLINE {
            constexpr int C = decltype(tile_columns)::value;
            add_outer_products<R, C>(part + (r * n_columns + r + c) * row, n_columns, a + r * row,
                                     a_step, b + (r + c) * row, n_columns * row, n);
          });
    });
  }
};

// One module's normal equations in double, and their solution.
struct ReadOutSystem {
  // Keeps the system of a channel without any value solvable; too small to be seen otherwise.
  static constexpr double kLeastBiasCurvature = 1e-30;
  int64_t n_states, n_outputs, n_grams;
  double* G;         // [n_grams, H + 1, H + 1], lower triangle
  double* solution;  // [O, H + 1]: first R, then W_out and b_out
  double* diagonal;  // [H + 1], scratch

  void take(Arena& arena, const Sizes& s, int64_t grams) {
    n_states = s.hidden_size;
    n_outputs = s.output_size;
    n_grams = grams;
    G = arena.take<double>(n_grams * (n_states + 1) * (n_states + 1));
    solution = arena.take<double>(n_outputs * (n_states + 1));
    diagonal = arena.take<double>(n_states + 1);
  }

  void clear() const {
    const int64_t n = n_states + 1;
    for (int64_t j = 0; j < n_grams * n * n; ++j) G[j] = 0;
    for (int64_t j = 0; j < n_outputs * n; ++j) solution[j] = 0;
  }

  template <class T>
  void add_lane(const ReadOutSums<T>& sums, int lane, double weight) const {
    const int64_t n = n_states + 1, columns = sums.n_columns;
    const auto at = [&](int64_t gram, int64_t r, int64_t c) {
      return weight * sums.total[((gram * n + r) * columns + c) * kLanes<T> + lane];
    };
    for (int64_t gram = 0; gram < n_grams; ++gram)
      for (int64_t r = 0; r < n; ++r)
        for (int64_t c = 0; c <= r; ++c) G[(gram * n + r) * n + c] += at(gram, c, r);
    for (int64_t o = 0; o < n_outputs; ++o)
      for (int64_t r = 0; r < n; ++r) solution[o * n + r] += at(n_grams > 1 ? o : 0, r, n + o);
  }

  // Leaves the factor in G. Of sums in T over nearly dependent states, as those of constant types
  // are, rounding can be all that is left of a pivot: then the ridge grows until it is not.
  template <class T>
  void solve(double ridge) const {
    constexpr double kRounding = sizeof(T) == 4 ? 0x1p-21 : 0x1p-50;  // of a sum, as a part of it
    constexpr int kMostAttempts = 6;
    const int64_t n = n_states + 1;
    for (int64_t gram = 0; gram < n_grams; ++gram) {
      double* A = G + gram * n * n;
      double largest = 0;
      for (int64_t r = 0; r < n; ++r) {
        diagonal[r] = A[r * n + r];
        if (diagonal[r] > largest) largest = diagonal[r];
        for (int64_t c = 0; c < r; ++c) A[c * n + r] = A[r * n + c];  // kept above the diagonal
      }
      double added = ridge;
      for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
        for (int64_t r = 0; r < n; ++r) {
          for (int64_t c = 0; c < r; ++c) A[r * n + c] = A[c * n + r];
          A[r * n + r] = diagonal[r] + (r < n_states ? added : kLeastBiasCurvature);
        }
        factor_small(A, n);
        bool holds = true;
        for (int64_t r = 0; r < n; ++r) {
          const double root = A[r * n + r];
          holds = holds && root * root > kRounding * diagonal[r];
        }
        if (holds) break;
        added = 16 * (added > kRounding * largest ? added : kRounding * largest);
      }
    }
    for (int64_t o = 0; o < n_outputs; ++o) {
      solve_lower_small(G + (n_grams > 1 ? o : 0) * n * n, n, solution + o * n);
      solve_upper_small(G + (n_grams > 1 ? o : 0) * n * n, n, solution + o * n);
    }
  }

  // Into a lane of packed weights.
  template <class T>
  void write(const PackedWeights<LaneWeights, T>& w, int lane) const {
    const int64_t H = n_states, O = n_outputs;
    for (int64_t o = 0; o < O; ++o) {
      for (int64_t u = 0; u < H; ++u) {
        const T value = static_cast<T>(solution[o * (H + 1) + u]);
        w.out_h[(u * O + o) * kLanes<T> + lane] = value;
        w.out_h_t[(o * H + u) * kLanes<T> + lane] = value;
      }
      w.out_b[o * kLanes<T> + lane] = static_cast<T>(solution[o * (H + 1) + H]);
    }
  }
};

// Residuals [T, O] (0 where a value is missing) and, lane by lane, the sum of their squares.
template <class T>
void residuals_of(const Sizes& s, const PackedWeights<LaneWeights, T>& w, const StateRows<T>& rows,
                  const T* known, int64_t n_grams, T* residual, T* squares) {
  using V = Vec<T>;
  constexpr int64_t row = kLanes<T>;
  const int64_t O = s.output_size;
  clear(squares, 1);
  for (int64_t t = 0; t < s.n_steps; ++t, residual += O * row) {
    copy_rows<LaneWeights>(residual, w.out_b, O);
    multiply_add<LaneWeights>(residual, O, w.out_h, rows.states(t), s.hidden_size);
    for (int64_t o = 0; o < O; ++o)
      for (int64_t j = 0; j < row; j += V::kWidth) {
        V r = V::load(residual + o * row + j) - V::load(rows.targets(t) + o * row + j);
        if (known) r = r * V::load(known + (t * n_grams + (n_grams > 1 ? o : 0)) * row + j);
        r.store(residual + o * row + j);
        fma(r, r, V::load(squares + j)).store(squares + j);
      }
  }
}

}  // namespace MICFAST_ISA
}  // namespace micfast
