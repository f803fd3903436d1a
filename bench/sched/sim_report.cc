#include "bench/sched/sim_report.h"

#include <cstdarg>
#include <cstdio>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace asymserve {
namespace {

using Json = nlohmann::ordered_json;

[[gnu::format(printf, 2, 3)]] void Append(std::string& out, const char* format, ...) {
  char buffer[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  out += buffer;
}

double Rounded(double value) {
  return std::stod(absl::StrCat(value));  // six digits
}

void AppendHead(const SweepResult& result, std::string& out) {
  const ServerSetup& setup = result.setup;
  Append(out, "%s, %s, seed %llu\n", result.machine.c_str(), result.load.c_str(),
         static_cast<unsigned long long>(result.seed));
  Append(out,
         "KV arena %.1f MB, context %d, at most %d running and %d waiting, %d tokens and %g ms a "
         "step; good: TTFT <= %g ms and mean TPOT <= %g ms\n",
         static_cast<double>(setup.kv_bytes) * 1e-6, setup.context_tokens, setup.max_running,
         setup.max_waiting, setup.step_tokens, static_cast<double>(setup.step_us) * 1e-3,
         result.limits.ttft_ms, result.limits.tpot_ms);
  if (setup.elastic) Append(out, "elastic: refinements are given up before anybody is preempted\n");
  if (setup.one_queue) Append(out, "one queue: tenants are not told apart\n");
  if (setup.bypass_sequences) {
    Append(out, "%d requests may overtake one that has no room\n", *setup.bypass_sequences);
  }
  if (setup.watermark_pages) Append(out, "%d pages are kept free\n", *setup.watermark_pages);
  if (result.clients.ask_tokens > 0) {
    Append(out, "requests ask for %d tokens\n", result.clients.ask_tokens);
  }
  if (result.clients.deadline_us > 0) {
    Append(out, "deadline %g ms after arrival\n",
           static_cast<double>(result.clients.deadline_us) * 1e-3);
  }
  if (result.clients.patience_us > 0) {
    Append(out, "clients give up after %g ms without a token\n",
           static_cast<double>(result.clients.patience_us) * 1e-3);
  }
  if (!result.runs.empty()) {
    const SimFigures& first = result.runs.front().figures;
    Append(out, "%lld requests a run, %lld clipped to the context; %lld more dropped\n",
           static_cast<long long>(first.requests), static_cast<long long>(first.clipped),
           static_cast<long long>(first.dropped));
  }
}

void AppendRun(const SimFigures& f, std::string& out) {
  Append(out, "%8.3f  %-11s %8.3f  %8.0f %9.0f  %6.1f %7.1f  %8lld %8lld  %5.3f  %5.2f %8lld",
         f.offered_per_second, f.scheme.c_str(), f.goodput_per_second, f.ttft_p50_ms, f.ttft_p99_ms,
         f.tpot_p50_ms, f.tpot_p99_ms, static_cast<long long>(f.refused),
         static_cast<long long>(f.expired + f.gave_up), f.fairness, 100 * f.waste,
         static_cast<long long>(f.preemptions));
  Append(out, "  %6.1f %5d  %7d  %5.1f %5.1f  %6.1f %6.1f %7.0f", f.mean_running, f.peak_running,
         f.peak_waiting, 100 * f.mean_memory, 100 * f.peak_memory, f.plan_p50_us, f.plan_p99_us,
         f.plan_max_us);
  if (f.plan_full_count == 0) {
    Append(out, "  %7d %6s %6s %6s %6s %8s", 0, "-", "-", "-", "-", "-");
  } else {
    Append(out, "  %7lld %6.1f %6.1f %6.1f %6.0f %8.3f", static_cast<long long>(f.plan_full_count),
           f.plan_full_cpu_p50_us, f.plan_full_cpu_p99_us, f.plan_full_cpu_p999_us,
           f.plan_full_cpu_max_us, 100 * f.plan_full_over_100us);
  }
  Append(out, "  %6.2f\n", f.wall_seconds);
}

Json SchemeJson(const SweepScheme& scheme) {
  return {{"scheme", scheme.name},
          {"bits_effective", Rounded(scheme.bits_per_element)},
          {"tokens", scheme.tokens},
          {"sequences", scheme.sequences},
          {"sequences_of_1024", scheme.sequences_of_1k}};
}

Json RunJson(const SweepRun& run) {
  const SimFigures& f = run.figures;
  Json memory = Json::array();
  for (const MemorySample& sample : run.memory) {
    memory.push_back({Rounded(static_cast<double>(sample.at) * 1e-6), Rounded(sample.used),
                      sample.running, sample.waiting});
  }
  return {{"scheme", f.scheme},
          {"bits_effective", Rounded(f.bits_per_element)},
          {"requests", f.requests},
          {"clipped", f.clipped},
          {"dropped", f.dropped},
          {"offered_per_second", Rounded(f.offered_per_second)},
          {"goodput_per_second", Rounded(f.goodput_per_second)},
          {"ttft_p50_ms", Rounded(f.ttft_p50_ms)},
          {"ttft_p99_ms", Rounded(f.ttft_p99_ms)},
          {"tpot_p50_ms", Rounded(f.tpot_p50_ms)},
          {"tpot_p99_ms", Rounded(f.tpot_p99_ms)},
          {"finished", f.finished},
          {"refused", f.refused},
          {"expired", f.expired},
          {"gave_up", f.gave_up},
          {"fairness", Rounded(f.fairness)},
          {"waste", Rounded(f.waste)},
          {"preemptions", f.preemptions},
          {"unrefined", f.unrefined},
          {"peak_running", f.peak_running},
          {"peak_waiting", f.peak_waiting},
          {"mean_running", Rounded(f.mean_running)},
          {"peak_memory", Rounded(f.peak_memory)},
          {"mean_memory", Rounded(f.mean_memory)},
          {"steps", f.steps},
          {"simulated_seconds", Rounded(f.simulated_seconds)},
          {"real_clock",
           {{"plan_p50_us", Rounded(f.plan_p50_us)},
            {"plan_p99_us", Rounded(f.plan_p99_us)},
            {"plan_max_us", Rounded(f.plan_max_us)},
            {"plan_full_count", f.plan_full_count},
            {"plan_full_cpu_p50_us", Rounded(f.plan_full_cpu_p50_us)},
            {"plan_full_cpu_p99_us", Rounded(f.plan_full_cpu_p99_us)},
            {"plan_full_cpu_p999_us", Rounded(f.plan_full_cpu_p999_us)},
            {"plan_full_cpu_max_us", Rounded(f.plan_full_cpu_max_us)},
            {"plan_full_over_100us", Rounded(f.plan_full_over_100us)},
            {"wall_seconds", Rounded(f.wall_seconds)}}},
          {"memory", std::move(memory)}};
}

/// Elements a line each.
std::string Lines(const std::vector<Json>& elements) {
  std::string out = "[";
  for (size_t i = 0; i < elements.size(); ++i) {
    absl::StrAppend(&out, i == 0 ? "\n" : ",\n", elements[i].dump());
  }
  return out + "]";
}

}  // namespace

std::string SweepTable(const SweepResult& result) {
  std::string out;
  AppendHead(result, out);
  Append(out, "\n%-11s %16s %16s %18s %18s\n", "scheme", "bits at 4,096", "tokens in all",
         absl::StrCat("sequences of ", result.setup.context_tokens).c_str(), "of 1024");
  for (const SweepScheme& scheme : result.schemes) {
    Append(out, "%-11s %16.2f %16lld %18lld %18lld\n", scheme.name.c_str(), scheme.bits_per_element,
           static_cast<long long>(scheme.tokens), static_cast<long long>(scheme.sequences),
           static_cast<long long>(scheme.sequences_of_1k));
  }
  Append(out,
         "\n%8s  %-11s %8s  %18s  %14s  %8s %8s  %5s  %5s %8s  %12s  %7s  %11s  %21s  %44s  %6s\n",
         "offered", "", "goodput", "TTFT ms", "TPOT ms", "", "expired,", "fair-", "waste",
         "preemp-", "running", "waiting", "memory %", "Plan() us",
         "at both peaks, us of processor time", "real");
  Append(out, "%8s  %-11s %8s  %8s %9s  %6s %7s  %8s %8s  %5s  %5s %8s  %6s %5s  %7s  %5s %5s  ",
         "1/s", "scheme", "1/s", "p50", "p99", "p50", "p99", "refused", "gave up", "ness", "%",
         "tions", "mean", "peak", "peak", "mean", "peak");
  Append(out, "%6s %6s %7s  %7s %6s %6s %6s %6s %8s  %6s\n", "p50", "p99", "max", "plans", "p50",
         "p99", "p99.9", "max", "% > 100", "s");
  const std::string* first = nullptr;
  for (const SweepRun& run : result.runs) {
    if (first == nullptr) first = &run.figures.scheme;
    if (&run.figures.scheme != first && run.figures.scheme == *first) out += '\n';
    AppendRun(run.figures, out);
  }
  return out;
}

std::string SweepJson(const SweepResult& result) {
  Json head = {
      {"machine", result.machine},
      {"load", result.load},
      {"seed", result.seed},
      {"kv_bytes", result.setup.kv_bytes},
      {"context_tokens", result.setup.context_tokens},
      {"max_running", result.setup.max_running},
      {"max_waiting", result.setup.max_waiting},
      {"step_tokens", result.setup.step_tokens},
      {"step_ms", static_cast<double>(result.setup.step_us) * 1e-3},
      {"elastic", result.setup.elastic},
      {"one_queue", result.setup.one_queue},
      {"bypass", result.setup.bypass_sequences ? Json(*result.setup.bypass_sequences) : Json()},
      {"watermark_pages",
       result.setup.watermark_pages ? Json(*result.setup.watermark_pages) : Json()},
      {"ask_tokens", result.clients.ask_tokens},
      {"deadline_ms", static_cast<double>(result.clients.deadline_us) * 1e-3},
      {"patience_ms", static_cast<double>(result.clients.patience_us) * 1e-3},
      {"ttft_limit_ms", result.limits.ttft_ms},
      {"tpot_limit_ms", result.limits.tpot_ms}};
  std::vector<Json> schemes, runs;
  for (const SweepScheme& scheme : result.schemes) schemes.push_back(SchemeJson(scheme));
  for (const SweepRun& run : result.runs) runs.push_back(RunJson(run));
  std::string out = head.dump();
  out.pop_back();  // the brace
  absl::StrAppend(&out, ",\n\"schemes\": ", Lines(schemes), ",\n\"runs\": ", Lines(runs), "}\n");
  return out;
}

}  // namespace asymserve
