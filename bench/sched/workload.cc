#include "bench/sched/workload.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/base/philox.h"

namespace asymserve {
namespace {

// Streams of random numbers of one seed: the last argument of PhiloxUniform.
enum Draw : uint32_t { kInterval, kPrompt, kOutput, kRow, kTenant };

double Uniform(uint64_t seed, int64_t index, Draw draw) {
  return PhiloxUniform(seed, static_cast<uint64_t>(index), draw);
}

int32_t Length(LengthRange range, uint64_t seed, int64_t index, Draw draw) {
  const double width = static_cast<double>(range.high) - range.low + 1;
  return range.low + static_cast<int32_t>(Uniform(seed, index, draw) * width);
}

/// lengths(index) as a TraceRow.
template <typename Lengths>
Workload Poisson(double rate, int64_t count, uint64_t seed, Lengths lengths) {
  Workload workload;
  workload.requests.reserve(static_cast<size_t>(count));
  double seconds = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (i > 0) seconds -= std::log1p(-Uniform(seed, i, kInterval)) / rate;
    const TraceRow row = lengths(i);
    workload.requests.push_back({.arrival = std::llround(seconds * 1e6),
                                 .prompt_tokens = row.prompt_tokens,
                                 .output_tokens = row.output_tokens});
  }
  return workload;
}

}  // namespace

double Workload::offered_per_second() const {
  if (requests.size() < 2) return 0;
  const auto span = static_cast<double>(requests.back().arrival - requests.front().arrival);
  return span > 0 ? static_cast<double>(requests.size() - 1) / span * 1e6 : 0;
}

Workload TraceWorkload(const std::vector<TraceRow>& rows, double speedup) {
  Workload workload;
  workload.requests.reserve(rows.size());
  for (const TraceRow& row : rows) {
    workload.requests.push_back({.arrival = std::llround(static_cast<double>(row.at_us) / speedup),
                                 .prompt_tokens = row.prompt_tokens,
                                 .output_tokens = row.output_tokens});
  }
  return workload;
}

Workload PoissonWorkload(double rate, int64_t count, LengthRange prompt, LengthRange output,
                         uint64_t seed) {
  return Poisson(rate, count, seed, [&](int64_t i) {
    return TraceRow{0, Length(prompt, seed, i, kPrompt), Length(output, seed, i, kOutput)};
  });
}

Workload PoissonWorkload(double rate, int64_t count, const std::vector<TraceRow>& rows,
                         uint64_t seed) {
  return Poisson(rate, count, seed, [&](int64_t i) {
    return rows[static_cast<size_t>(Uniform(seed, i, kRow) * static_cast<double>(rows.size()))];
  });
}

void FitToContext(int32_t context_tokens, bool clip, Workload& workload) {
  std::vector<SimRequest> kept;
  kept.reserve(workload.requests.size());
  for (SimRequest request : workload.requests) {
    const int32_t room = context_tokens - request.prompt_tokens;
    if (request.output_tokens > room) {
      if (!clip || room < 1) {
        ++workload.dropped;
        continue;
      }
      request.output_tokens = room;
      ++workload.clipped;
    }
    kept.push_back(request);
  }
  workload.requests = std::move(kept);
}

void DrawTenants(const std::vector<double>& shares, uint64_t seed, Workload& workload) {
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (size_t i = 0; i < workload.requests.size(); ++i) {
    double left = Uniform(seed, static_cast<int64_t>(i), kTenant) * sum;
    size_t tenant = 0;
    while (tenant + 1 < shares.size() && left >= shares[tenant]) left -= shares[tenant++];
    workload.requests[i].tenant = static_cast<int32_t>(tenant);
  }
}

}  // namespace asymserve
