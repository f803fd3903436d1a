#include "bench/sched/figures.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace asymserve {
namespace {

/// What each demand gets of `total` when it is handed out evenly to whoever still wants some.
std::vector<double> MaxMin(double total, const std::vector<double>& demanded) {
  std::vector<size_t> order(demanded.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return demanded[a] < demanded[b]; });
  std::vector<double> share(demanded.size());
  size_t left = order.size();
  for (const size_t i : order) {
    share[i] = std::min(demanded[i], total / static_cast<double>(left--));
    total -= share[i];
  }
  return share;
}

double Milliseconds(TimeUs us) {
  return static_cast<double>(us) * 1e-3;
}

/// What Plan() took in all steps, and in those at both peaks.
void AddPlanTimes(const SimResult& result, SimFigures& figures) {
  constexpr double kNearPeak = 0.95;
  std::vector<double> all, full;
  for (const PlanSample& sample : result.plans) {
    all.push_back(sample.plan_us);
    const bool at_peaks = sample.running >= kNearPeak * result.peak_running &&
                          sample.waiting >= kNearPeak * result.peak_waiting;
    if (at_peaks && sample.cpu_us > 0) full.push_back(sample.cpu_us);
  }
  figures.plan_p50_us = Quantile(all, 0.5);
  figures.plan_p99_us = Quantile(all, 0.99);
  figures.plan_max_us = Quantile(std::move(all), 1);
  if (full.empty()) return;
  const auto longer = std::count_if(full.begin(), full.end(), [](double us) { return us > 100; });
  figures.plan_full_count = static_cast<int64_t>(full.size());
  figures.plan_full_over_100us = static_cast<double>(longer) / static_cast<double>(full.size());
  figures.plan_full_cpu_p50_us = Quantile(full, 0.5);
  figures.plan_full_cpu_p99_us = Quantile(full, 0.99);
  figures.plan_full_cpu_p999_us = Quantile(full, 0.999);
  figures.plan_full_cpu_max_us = Quantile(std::move(full), 1);
}

}  // namespace

double Quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  const auto rank = static_cast<size_t>(std::ceil(q * static_cast<double>(values.size())));
  const size_t index = std::clamp<size_t>(rank, 1, values.size()) - 1;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(index),
                   values.end());
  return values[index];
}

double FairnessIndex(const std::vector<double>& served, const std::vector<double>& demanded) {
  const double total = std::accumulate(served.begin(), served.end(), 0.0);
  if (!(total > 0)) return 1;
  const std::vector<double> fair = MaxMin(total, demanded);
  double sum = 0, squares = 0;
  int64_t count = 0;
  for (size_t i = 0; i < served.size(); ++i) {
    if (!(fair[i] > 0)) continue;
    const double x = served[i] / fair[i];
    sum += x;
    squares += x * x;
    ++count;
  }
  return sum * sum / (static_cast<double>(count) * squares);
}

SimFigures FiguresOf(const SimResult& result, const Workload& workload, int32_t tenants,
                     const GoodputLimits& limits) {
  SimFigures figures;
  figures.requests = static_cast<int64_t>(workload.requests.size());
  figures.clipped = workload.clipped;
  figures.dropped = workload.dropped;
  figures.offered_per_second = workload.offered_per_second();
  std::vector<double> ttft, tpot;
  std::vector<double> served(static_cast<size_t>(tenants)), demanded(served);
  int64_t good = 0;
  for (size_t i = 0; i < workload.requests.size(); ++i) {
    const SimRequest& request = workload.requests[i];
    const SimOutcome& outcome = result.outcomes[i];
    const auto tenant = static_cast<size_t>(request.tenant);
    const double tokens = static_cast<double>(request.prompt_tokens) + request.output_tokens;
    demanded[tenant] += tokens;
    figures.refused += outcome.end == SimOutcome::End::kRefused ? 1 : 0;
    figures.expired += outcome.end == SimOutcome::End::kExpired ? 1 : 0;
    figures.gave_up += outcome.end == SimOutcome::End::kGaveUp ? 1 : 0;
    if (outcome.sampled > 0) ttft.push_back(Milliseconds(outcome.first_token - request.arrival));
    if (outcome.end != SimOutcome::End::kFinished) continue;
    ++figures.finished;
    served[tenant] += tokens;
    double mean_tpot = 0;
    if (outcome.sampled > 1) {
      mean_tpot = Milliseconds(outcome.last_token - outcome.first_token) / (outcome.sampled - 1);
      tpot.push_back(mean_tpot);
    }
    good += ttft.back() <= limits.ttft_ms && mean_tpot <= limits.tpot_ms ? 1 : 0;
  }
  if (figures.requests > 0) {
    figures.goodput_per_second = figures.offered_per_second * static_cast<double>(good) /
                                 static_cast<double>(figures.requests);
  }
  figures.ttft_p50_ms = Quantile(ttft, 0.5);
  figures.ttft_p99_ms = Quantile(std::move(ttft), 0.99);
  figures.tpot_p50_ms = Quantile(tpot, 0.5);
  figures.tpot_p99_ms = Quantile(std::move(tpot), 0.99);
  figures.fairness = FairnessIndex(served, demanded);
  figures.waste = static_cast<double>(result.scheduler.recomputed_tokens) /
                  static_cast<double>(std::max<int64_t>(1, result.computed_tokens));
  figures.preemptions = static_cast<int64_t>(result.scheduler.preemptions);
  figures.unrefined = static_cast<int64_t>(result.scheduler.unrefined);
  figures.peak_running = result.peak_running;
  figures.peak_waiting = result.peak_waiting;
  figures.mean_running = result.mean_running;
  figures.peak_memory = result.peak_used;
  figures.mean_memory = result.mean_used;
  figures.steps = static_cast<int64_t>(result.plans.size());
  figures.simulated_seconds = static_cast<double>(result.end) * 1e-6;
  AddPlanTimes(result, figures);
  return figures;
}

}  // namespace asymserve
