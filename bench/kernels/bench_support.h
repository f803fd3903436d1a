#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/backend/cpu/cpu_backend.h"

namespace asymserve {

/// Ends the program where a benchmark cannot go on.
inline void Require(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

inline std::unique_ptr<Backend> MakeBenchBackend(int threads, Isa isa = Isa::kAuto) {
  auto backend = MakeCpuBackend({.threads = threads, .isa = isa});
  Require(backend.status());
  return *std::move(backend);
}

inline std::vector<float> RandomFloats(int64_t count, uint32_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  for (float& value : values) value = normal(generator);
  return values;
}

/// The fastest of a benchmark's iterations: on a machine that others use too, the only time that
/// says something about the code.
class BestTime {
 public:
  template <typename Body>
  void Measure(Body body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best_ = std::min(best_, seconds.count());
  }
  double seconds() const { return best_; }

 private:
  double best_ = std::numeric_limits<double>::infinity();
};

}  // namespace asymserve
