// The nearest mixtures of a class's types, in closed form: on each face of the simplex, the minimum
// is the solution of a small linear system; the lowest of those that lie inside their face is the
// minimum on the simplex.
//
// Lanes are sequences, and every lane is computed by the same operations in the same order as by
// micfast/kernels/mixtures.py, without fused ones: the same bits, on every instruction set.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

template <class T>
struct Mixtures {
  using V = Vec<T>;
  static constexpr int kVectors = 2;
  static constexpr int kBlock = kVectors * V::kWidth;  // sequences side by side
  static constexpr int kMostOfFace = 8;
  static constexpr T kRidge = T(1e-9), kLeastRidge = T(1e-12), kLeastShare = T(-1e-9);

  struct alignas(64) Row {
    T lane[kBlock];
    V get(int i) const { return V::load(lane + i * V::kWidth); }
    void set(int i, V x) { x.store(lane + i * V::kWidth); }
  };

  const MixturesProblem<T>& p;
  const int64_t K;
  Row* gram;     // [K, K] in the pose at hand
  Row* product;  // [K]
  Row* share;    // [K] of a face's types
  Row* best_share;
  Row ridge, square, error, best;
  const int64_t* best_face[kBlock];

  Mixtures(const MixturesProblem<T>& problem, Arena& arena) : p(problem), K(problem.n_types) {
    gram = arena.take<Row>(K * K);
    product = arena.take<Row>(K);
    share = arena.take<Row>(K);
    best_share = arena.take<Row>(K);
  }

  // One lane's inner products with the types of class c in a pose; `n` is its sequence.
  void read(int64_t c, int64_t pose, int64_t n, int l) const {
    const int64_t at = c * p.n_poses + pose;
    const T* G = p.grams + at * K * K * p.n_grams + (p.n_grams > 1 ? n : 0);
    for (int64_t i = 0; i < K * K; ++i) gram[i].lane[l] = G[i * p.n_grams];
    const T* b = p.products + at * K * p.n_sequences + n;
    for (int64_t i = 0; i < K; ++i) product[i].lane[l] = b[i * p.n_sequences];
  }

  void set_ridge() {
    for (int r = 0; r < kVectors; ++r) {
      V trace = gram[0].get(r);
      for (int64_t i = 1; i < K; ++i) trace = trace + gram[i * K + i].get(r);
      ridge.set(r, V::broadcast(kRidge) * trace + V::broadcast(kLeastRidge));
    }
  }

  // What solves a face's linear systems: G = L D L' of k types.
  template <int kMost>
  struct Factors {
    V low[kMost][kMost], diagonal[kMost];
    MICFAST_INLINE void solve(int k, V* x) const {
      for (int i = 0; i < k; ++i)
        for (int m = 0; m < i; ++m) x[i] = x[i] - low[i][m] * x[m];
      for (int i = 0; i < k; ++i) x[i] = x[i] / diagonal[i];
      for (int i = k - 1; i >= 0; --i)
        for (int m = i + 1; m < k; ++m) x[i] = x[i] - low[m][i] * x[m];
    }
  };

  // The minimum on what a face spans: `error` and `share`. The size is kMost itself or, where that
  // is the largest of all, known at run time.
  template <int kMost>
  MICFAST_INLINE void minimum_of(const int64_t* face) {
    const int k = kMost < kMostOfFace ? kMost : static_cast<int>(face[0]);
    if (k < 1) __builtin_unreachable();  // or gcc warns of what a face without types leaves unset
    const int64_t* at = face + 1;
    const V least = V::broadcast(T(1 / p.most_gain)), most = V::broadcast(T(p.most_gain));
    for (int r = 0; r < kVectors; ++r) {
      Factors<kMost> factors;
      V b[kMost], free[kMost], ones[kMost];  // free: shares without a condition on their sum
      for (int j = 0; j < k; ++j)
        for (int i = j; i < k; ++i) {
          V value = gram[at[i] * K + at[j]].get(r);
          if (i == j) value = value + ridge.get(r);
          for (int m = 0; m < j; ++m)
            value = value - factors.low[i][m] * factors.low[j][m] * factors.diagonal[m];
          if (i == j)
            factors.diagonal[j] = value;
          else
            factors.low[i][j] = value / factors.diagonal[j];
        }
      for (int i = 0; i < k; ++i) {
        free[i] = b[i] = product[at[i]].get(r);
        ones[i] = V::broadcast(T(1));
      }
      factors.solve(k, free);
      factors.solve(k, ones);
      V total = free[0], norm = ones[0], explained = free[0] * b[0];
      for (int i = 1; i < k; ++i) {
        total = total + free[i];
        norm = norm + ones[i];
        explained = explained + free[i] * b[i];
      }
      const V away = min(max(total, least), most) - total, step = away / norm;
      error.set(r, square.get(r) - explained + away * step);
      for (int i = 0; i < k; ++i) share[i].set(r, free[i] + ones[i] * step);
    }
  }

  void minimum(const int64_t* face) {
    switch (face[0]) {
      case 1:
        return minimum_of<1>(face);
      case 2:
        return minimum_of<2>(face);
      case 3:
        return minimum_of<3>(face);
      case 4:
        return minimum_of<4>(face);
      default:
        return minimum_of<kMostOfFace>(face);
    }
  }

  // The minimum on the simplex, over all faces whose types are there.
  void minimum_on_simplex(int64_t c, int64_t first, int count) {
    for (int l = 0; l < kBlock; ++l) {
      best.lane[l] = T(__builtin_inf());
      best_face[l] = nullptr;
    }
    for (int64_t f = 0; f < p.n_faces; ++f) {
      const int64_t* face = p.faces + f * (1 + K);
      minimum(face);
      for (int l = 0; l < count; ++l) {
        const T found = error.lane[l] < T(0) ? T(0) : error.lane[l];
        if (!(found < best.lane[l])) continue;
        bool inside = true;
        for (int64_t i = 0; i < face[0]; ++i) {
          const int64_t type = (c * K + face[1 + i]) * p.n_sequences + first + l;
          inside = inside && share[i].lane[l] >= kLeastShare && !(p.gone && p.gone[type]);
        }
        if (!inside) continue;
        best.lane[l] = found;
        best_face[l] = face;
        for (int64_t i = 0; i < face[0]; ++i) best_share[i].lane[l] = share[i].lane[l];
      }
    }
  }

  // Each lane's poses in which the minimum on what all types span is lowest, the best first.
  void choose_poses(int64_t c, int64_t first, int count, int64_t (*kept)[kBlock], Row* bounds) {
    const int64_t* all = p.faces + (p.n_faces - 1) * (1 + K);
    for (int64_t j = 0; j < p.n_kept; ++j)
      for (int l = 0; l < kBlock; ++l) {
        kept[j][l] = j;
        bounds[j].lane[l] = T(__builtin_inf());
      }
    for (int64_t pose = 0; pose < p.n_poses; ++pose) {
      for (int l = 0; l < kBlock; ++l) read(c, pose, first + (l < count ? l : 0), l);
      set_ridge();
      minimum(all);
      for (int l = 0; l < count; ++l) {
        const T bound = (error.lane[l] < T(0) ? T(0) : error.lane[l]) * p.factors[pose];
        int64_t j = p.n_kept;
        for (; j > 0 && bound < bounds[j - 1].lane[l]; --j)
          if (j < p.n_kept) {
            bounds[j].lane[l] = bounds[j - 1].lane[l];
            kept[j][l] = kept[j - 1][l];
          }
        if (j == p.n_kept) continue;
        bounds[j].lane[l] = bound;
        kept[j][l] = pose;
      }
    }
  }

  static int64_t items(const MixturesProblem<T>& p) {
    return p.n_classes * ((p.n_sequences + kBlock - 1) / kBlock);
  }
  static int64_t units(const MixturesProblem<T>&) { return 1; }
  static int64_t workspace(const MixturesProblem<T>& p) {
    Arena arena{nullptr};
    Mixtures(p, arena);
    arena.take<int64_t[kBlock]>(p.n_kept);
    arena.take<Row>(p.n_kept);
    return arena.used;
  }

  static void run_item(const MixturesProblem<T>& p, int64_t item, void* workspace,
                       Monitor* monitor) {
    const int64_t K = p.n_types, N = p.n_sequences, n_blocks = (N + kBlock - 1) / kBlock;
    const int64_t c = item / n_blocks, first = item % n_blocks * kBlock;
    const int count = static_cast<int>(N - first < kBlock ? N - first : kBlock);
    Arena arena{static_cast<char*>(workspace)};
    Mixtures m(p, arena);
    auto* kept = arena.take<int64_t[kBlock]>(p.n_kept);
    Row* bounds = arena.take<Row>(p.n_kept);
    // The lanes beyond the last sequence repeat the first one.
    for (int l = 0; l < kBlock; ++l) m.square.lane[l] = p.squares[first + (l < count ? l : 0)];
    if (p.n_kept < p.n_poses) m.choose_poses(c, first, count, kept, bounds);
    for (int64_t j = 0; j < p.n_kept; ++j) {
      for (int l = 0; l < kBlock; ++l) {
        if (p.n_kept == p.n_poses) kept[j][l] = j;
        m.read(c, kept[j][l < count ? l : 0], first + (l < count ? l : 0), l);
      }
      m.set_ridge();
      m.minimum_on_simplex(c, first, count);
      for (int l = 0; l < count; ++l) {
        const int64_t at = c * N + first + l;
        const T error = m.best.lane[l] * p.factors[kept[j][l]];
        if (j > 0 && !(error < p.errors[at])) continue;
        p.errors[at] = error;
        p.poses[at] = kept[j][l];
        for (int64_t i = 0; i < K; ++i) p.shares[at * K + i] = T(0);
        const int64_t* face = m.best_face[l];
        for (int64_t i = 0; face != nullptr && i < face[0]; ++i)
          p.shares[at * K + face[1 + i]] = m.best_share[i].lane[l];
      }
    }
    monitor->tick(monitor, 1);
  }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
