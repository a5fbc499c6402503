// This thread's place in the block: its team, its pair, its unit; and its loops.
#pragma once

#include <cstdint>

namespace micfast {
namespace MICFAST_ISA {

// The threads of a team: whole warps that hold whole pairs and need no barrier with the others, so
// that few of them are idle. Three pairs of H = 10 in one warp, three of H = 20 in two; 0: the
// block.
MICFAST_BOTH constexpr int team_of(int hidden) {
  return hidden == 0 || hidden > 64 ? 0 : 32 % hidden < 4 ? 32 : 64;
}

template <int kHidden>
struct Place {
  static constexpr int kTeam = team_of(kHidden);

  int P, G, H;
  int team;        // threads of this one's team
  int pair, lane;  // pair of the tile, thread of the pair
  bool works;      // threads past the last pair only keep the barriers

  MICFAST_BOTH Place(const Plan& plan, const Sizes& s, int thread)
      : P(plan.pairs),
        G(kHidden > 0 ? kHidden : plan.threads_per_pair),
        H(kHidden > 0 ? kHidden : static_cast<int>(s.hidden_size)),
        team(kTeam > 0 && kTeam < plan.threads ? kTeam : plan.threads) {
    constexpr int kPairs = kTeam > 0 ? kTeam / kHidden : 0;  // of a team
    const int first = kTeam > 0 ? thread / kTeam * kPairs : 0;
    const int of_team = kTeam > 0 ? thread % kTeam : thread;
    lane = of_team % G;
    pair = first + of_team / G;
    works = pair < P && (kTeam == 0 || pair < first + kPairs);
    if (works) return;
    lane = 0;
    pair = first;  // what it reads, its own team writes
  }
  // A barrier of the threads that share a pair with this one, and perhaps of more.
  MICFAST_INLINE void sync(Site site = Site::here()) const { team_sync<kTeam>(team, site); }
  // Whether the value holds in any thread of the team; a barrier, too.
  MICFAST_INLINE bool any(bool value, Site site = Site::here()) const {
    return any_in_team<kTeam>(value, team, site);
  }
  // Calls f(u) for the units of this thread: one where H is a template parameter.
  template <class F>
  MICFAST_INLINE void for_units(F f) const {
    if (!works) return;
    if constexpr (kHidden > 0) {
      f(lane);
    } else {
      for (int u = lane; u < H; u += G) f(u);
    }
  }
  // The same, also by idle threads, which spares a branch: f stores only where the thread works.
  template <class F>
  MICFAST_INLINE void every_unit(F f) const {
    if constexpr (kHidden > 0) {
      f(lane);
    } else {
      for_units(f);
    }
  }
  // Calls f(j) for this thread's part of n things of its pair.
  template <class Index, class F>
  MICFAST_INLINE void for_share(Index n, F f) const {
    if (!works) return;
#pragma unroll 1
    for (Index j = lane; j < n; j += G) f(j);
  }
};

// A value of every unit of a pair: in a register where the thread has one unit, else in memory.
template <class T, int kHidden>
struct UnitValue {
  T value;
  MICFAST_BOTH void take(Space&, const Place<kHidden>&) {}
  MICFAST_INLINE T& operator[](int) { return value; }
};
template <class T>
struct UnitValue<T, 0> {
  T* values;
  MICFAST_BOTH void take(Space& space, const Place<0>& place) {
    values = space.template take<T>(static_cast<int64_t>(place.P) * place.H) +
             static_cast<int64_t>(place.pair) * place.H;
  }
  MICFAST_INLINE T& operator[](int u) { return values[u]; }
};

}  // namespace MICFAST_ISA
}  // namespace micfast
