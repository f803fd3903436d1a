#include "bench/serve/load_plan.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

#include "engine/base/philox.h"

namespace asymserve::load {
namespace {

/// The last argument of PhiloxUniform, apart from those of PoissonWorkload.
enum Draw : uint32_t { kTextOfArrival = 100 };

int32_t Scaled(int32_t tokens, double scale, int32_t least) {
  return std::max(least, static_cast<int32_t>(std::lround(tokens * scale)));
}

TextLength Scaled(const TraceRow& row, double scale) {
  return {Scaled(row.prompt_tokens, scale, 1), Scaled(row.output_tokens, scale, 2)};
}

absl::StatusOr<std::vector<TextLength>> DrawTexts(const PlanOptions& options) {
  const Workload drawn =
      options.trace.empty()
          ? PoissonWorkload(1, options.texts, options.prompt, options.output, options.seed)
          : PoissonWorkload(1, options.texts, options.trace, options.seed);
  std::vector<TextLength> texts;
  for (const SimRequest& request : drawn.requests) {
    TextLength text = Scaled({0, request.prompt_tokens, request.output_tokens},
                             options.trace.empty() ? 1 : options.length_scale);
    text.output_tokens = std::min(text.output_tokens, options.context_tokens - text.prompt_tokens);
    if (text.output_tokens < 2) {
      return absl::InvalidArgumentError(absl::StrCat("a prompt of ", text.prompt_tokens,
                                                     " tokens leaves no room for two more in a "
                                                     "context of ",
                                                     options.context_tokens));
    }
    texts.push_back(text);
  }
  return texts;
}

size_t Nearest(const std::vector<TextLength>& texts, const TextLength& wanted) {
  const auto distance = [&wanted](const TextLength& text) {
    return std::abs(std::log(static_cast<double>(text.prompt_tokens) / wanted.prompt_tokens)) +
           std::abs(std::log(static_cast<double>(text.output_tokens) / wanted.output_tokens));
  };
  const auto nearest = std::min_element(
      texts.begin(), texts.end(),
      [&](const TextLength& a, const TextLength& b) { return distance(a) < distance(b); });
  return static_cast<size_t>(nearest - texts.begin());
}

std::vector<Arrival> PoissonArrivals(const PlanOptions& options) {
  // Ten standard deviations more than are expected.
  const double expected = options.rate * options.seconds;
  const auto count = static_cast<int64_t>(expected + 10 * std::sqrt(expected) + 10);
  const Workload workload = PoissonWorkload(options.rate, count, {1, 1}, {1, 1}, options.seed);
  std::vector<Arrival> arrivals;
  for (size_t i = 0; i < workload.requests.size(); ++i) {
    const TimeUs at = workload.requests[i].arrival;
    if (static_cast<double>(at) >= options.seconds * 1e6) break;
    const double draw = PhiloxUniform(options.seed, i, kTextOfArrival);
    arrivals.push_back({at, static_cast<size_t>(draw * options.texts)});
  }
  return arrivals;
}

absl::StatusOr<std::vector<Arrival>> TraceArrivals(const PlanOptions& options,
                                                   const std::vector<TextLength>& texts) {
  const auto count = std::max<int64_t>(2, std::llround(options.rate * options.seconds));
  const int64_t first = options.trace_skip;
  if (first + count > std::ssize(options.trace)) {
    return absl::InvalidArgumentError(absl::StrCat("the trace has ", options.trace.size(),
                                                   " rows, ", first, " are skipped and ", count,
                                                   " needed"));
  }
  const auto rows =
      std::vector<TraceRow>(options.trace.begin() + first, options.trace.begin() + first + count);
  const auto span = static_cast<double>(rows.back().at_us - rows.front().at_us);
  if (span <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ", count, " rows of the trace that are used arrive all at once"));
  }
  // The last one arrives where the mean interval before the end begins.
  const double scale =
      options.seconds * 1e6 * static_cast<double>(count - 1) / static_cast<double>(count) / span;
  std::vector<Arrival> arrivals;
  for (const TraceRow& row : rows) {
    const auto at = static_cast<double>(row.at_us - rows.front().at_us);
    arrivals.push_back(
        {std::llround(at * scale), Nearest(texts, Scaled(row, options.length_scale))});
  }
  return arrivals;
}

}  // namespace

absl::StatusOr<LoadPlan> MakeLoadPlan(const PlanOptions& options) {
  LoadPlan plan;
  absl::StatusOr<std::vector<TextLength>> texts = DrawTexts(options);
  if (!texts.ok()) return texts.status();
  plan.texts = *std::move(texts);
  if (options.trace.empty()) {
    plan.arrivals = PoissonArrivals(options);
    return plan;
  }
  absl::StatusOr<std::vector<Arrival>> arrivals = TraceArrivals(options, plan.texts);
  if (!arrivals.ok()) return arrivals.status();
  plan.arrivals = *std::move(arrivals);
  return plan;
}

size_t TextOfCall(const std::vector<Arrival>& arrivals, int64_t call) {
  constexpr double kGoldenRatio = 0.6180339887498949;
  double whole = 0;
  const double place = std::modf(static_cast<double>(call) * kGoldenRatio, &whole);
  return arrivals[static_cast<size_t>(place * static_cast<double>(arrivals.size()))].text;
}

}  // namespace asymserve::load
