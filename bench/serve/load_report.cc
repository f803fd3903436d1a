#include "bench/serve/load_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace asymserve::load {
namespace {

using nlohmann::json;

int64_t OutcomeCount(const LoadSummary& summary, Outcome outcome) {
  return summary.outcomes[static_cast<size_t>(outcome)];
}

json ToJson(const Spread& spread) {
  return {{"count", spread.count},
          {"p50", spread.p50},
          {"p90", spread.p90},
          {"p99", spread.p99},
          {"max", spread.max}};
}

template <typename... Values>
std::string Line(const char* format, Values... values) {
  std::array<char, 160> line{};
  std::snprintf(line.data(), line.size(), format, values...);
  return line.data();
}

std::string SpreadLine(const char* name, const Spread& spread, double scale) {
  return Line("%-28s %9.1f %9.1f %9.1f %9.1f %8lld\n", name, spread.p50 * scale, spread.p90 * scale,
              spread.p99 * scale, spread.max * scale, static_cast<long long>(spread.count));
}

}  // namespace

Spread SpreadOf(std::vector<double> values) {
  Spread spread;
  if (values.empty()) return spread;
  std::sort(values.begin(), values.end());
  const auto count = static_cast<double>(values.size());
  const auto at = [&](double share) {
    const auto rank = static_cast<size_t>(std::ceil(share * count));
    return values[std::max<size_t>(rank, 1) - 1];
  };
  spread = {static_cast<int64_t>(values.size()), at(0.5), at(0.9), at(0.99), values.back()};
  return spread;
}

LoadSummary Summarize(const std::vector<CallResult>& calls, const Limits& limits,
                      const Window& window) {
  LoadSummary summary;
  summary.seconds = window.to - window.from;
  std::vector<double> first_token, per_token, total, refusal, lag;
  for (const CallResult& call : calls) {
    if (call.planned < window.from || call.planned >= window.to) continue;
    ++summary.offered;
    ++summary.outcomes[static_cast<size_t>(call.outcome)];
    summary.wrong_texts += call.wrong_text ? 1 : 0;
    summary.prompt_tokens += call.prompt_tokens;
    summary.cached_tokens += call.cached_tokens;
    summary.generated_tokens += call.generated_tokens;
    lag.push_back(call.lag);
    if (call.outcome == Outcome::kRefused) refusal.push_back(call.total);
    if (call.outcome != Outcome::kCompleted) continue;
    const bool good = call.good(limits);
    summary.good += good ? 1 : 0;
    summary.good_tokens += good ? call.generated_tokens : 0;
    summary.first_token_missed += call.first_token > limits.first_token_seconds ? 1 : 0;
    first_token.push_back(call.first_token);
    total.push_back(call.total);
    if (const std::optional<double> mean = call.per_token()) {
      summary.per_token_missed += *mean > limits.per_token_seconds ? 1 : 0;
      per_token.push_back(*mean);
    }
  }
  summary.first_token = SpreadOf(std::move(first_token));
  summary.per_token = SpreadOf(std::move(per_token));
  summary.total = SpreadOf(std::move(total));
  summary.refusal = SpreadOf(std::move(refusal));
  summary.lag = SpreadOf(std::move(lag));
  return summary;
}

int64_t CompletedIn(const std::vector<CallResult>& calls, const Window& window) {
  return std::count_if(calls.begin(), calls.end(), [&](const CallResult& call) {
    const double end = call.planned + call.total;
    return call.outcome == Outcome::kCompleted && end >= window.from && end < window.to;
  });
}

json ToJson(const LoadSummary& summary) {
  json outcomes;
  for (size_t i = 0; i < kOutcomeNames.size(); ++i)
    outcomes[kOutcomeNames[i]] = summary.outcomes[i];
  return {{"seconds", summary.seconds},
          {"offered", summary.offered},
          {"offered_per_second", summary.PerSecond(summary.offered)},
          {"outcomes", outcomes},
          {"good", summary.good},
          {"goodput_per_second", summary.PerSecond(summary.good)},
          {"first_token_missed", summary.first_token_missed},
          {"per_token_missed", summary.per_token_missed},
          {"wrong_texts", summary.wrong_texts},
          {"prompt_tokens", summary.prompt_tokens},
          {"cached_tokens", summary.cached_tokens},
          {"generated_tokens", summary.generated_tokens},
          {"good_tokens", summary.good_tokens},
          {"first_token_seconds", ToJson(summary.first_token)},
          {"per_token_seconds", ToJson(summary.per_token)},
          {"total_seconds", ToJson(summary.total)},
          {"refusal_seconds", ToJson(summary.refusal)},
          {"lag_seconds", ToJson(summary.lag)}};
}

std::string ToTable(const LoadSummary& summary, const Limits& limits) {
  const auto row = [&](const char* name, int64_t calls) {
    const double share = summary.offered > 0 ? 100.0 * static_cast<double>(calls) /
                                                   static_cast<double>(summary.offered)
                                             : 0;
    return Line("%-28s %9lld %9.3f %8.1f%%\n", name, static_cast<long long>(calls),
                summary.PerSecond(calls), share);
  };
  std::string table = Line("%-28s %9s %9s %9s\n", "calls", "number", "1/s", "offered");
  table += row("offered", summary.offered);
  for (size_t i = 0; i < kOutcomeNames.size(); ++i) {
    table += row(kOutcomeNames[i], summary.outcomes[i]);
  }
  table += row("good", summary.good);
  table += row(Line("first token after %.1f s", limits.first_token_seconds).c_str(),
               summary.first_token_missed);
  table += row(Line("over %.0f ms per token", limits.per_token_seconds * 1e3).c_str(),
               summary.per_token_missed);
  table += row("wrong texts", summary.wrong_texts);
  table +=
      Line("\n%-28s %9s %9s %9s %9s %8s\n", "milliseconds", "p50", "p90", "p99", "max", "calls");
  table += SpreadLine("first token, completed", summary.first_token, 1e3);
  table += SpreadLine("per token, completed", summary.per_token, 1e3);
  table += SpreadLine("total, completed", summary.total, 1e3);
  table += SpreadLine("refusal", summary.refusal, 1e3);
  table += SpreadLine("generator's own lag", summary.lag, 1e3);
  const int64_t completed = OutcomeCount(summary, Outcome::kCompleted);
  if (completed > 0) {
    table +=
        Line("\n%.1f generated tokens/s, of them %.1f in good calls\n",
             summary.PerSecond(summary.generated_tokens), summary.PerSecond(summary.good_tokens));
  }
  return table;
}

}  // namespace asymserve::load
