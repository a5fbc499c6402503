// The most float32 FMA work this machine does: independent chains of acc = acc * a + b in
// registers.
//
//   fma_peak THREADS SECONDS REPETITIONS
//
// prints one figure in flop/s per repetition. BYTES is the width of a register; the compiler's
// flags choose the instructions (without FMA: a multiplication and an addition, two flop all the
// same).

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

typedef float Vec __attribute__((vector_size(BYTES)));

// Two pipes of latency four need eight chains; sixteen registers hold twelve and the constants.
constexpr int kChains = 12;
constexpr int kLanes = BYTES / sizeof(float);
constexpr long kRounds = 20000;

volatile float factor = 0.999f, summand = 0.001f;
volatile float sink;

void work() {
  const Vec a = factor - Vec{}, b = summand - Vec{};
  Vec acc[kChains];
  for (int j = 0; j < kChains; ++j) acc[j] = b * static_cast<float>(j);
  for (long round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) acc[j] = acc[j] * a + b;
  }
  Vec total = acc[0];
  for (int j = 1; j < kChains; ++j) total += acc[j];
  sink = total[0];
}

double measure(int n_threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  std::atomic<int> ready{0};
  std::atomic<bool> stop{false};
  std::atomic<long> calls{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < n_threads; ++i) {
    threads.emplace_back([&] {
      work();
      ++ready;
      while (ready < n_threads) {
      }
      while (!stop) {
        work();
        ++calls;
      }
    });
  }
  while (ready < n_threads) std::this_thread::yield();
  const long first = calls;
  const auto start = Clock::now();
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  const long last = calls;
  const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  stop = true;
  for (auto& thread : threads) thread.join();
  return 2.0 * kLanes * kChains * kRounds * static_cast<double>(last - first) / elapsed;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int repetitions = std::atoi(argv[3]);
  for (int i = 0; i < repetitions; ++i) {
    std::printf("%.6g\n", measure(std::atoi(argv[1]), std::atof(argv[2])));
  }
}
