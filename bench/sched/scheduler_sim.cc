// The real scheduler and the real capacity arithmetic against a model of a machine, in simulated
// time: what policies and KV schemes do under load. bench/sched/README.md says how to use it.
//
//   build/release/bin/scheduler_sim --machine h100-llama-3-8b --rate 5,10,20 --requests 100000

#include <cmath>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

#include "bench/sched/sim_plot.h"
#include "bench/sched/sim_report.h"
#include "bench/sched/sweep.h"

namespace asymserve {
namespace {

struct Output {
  std::string json;
  std::string plot;
};

bool WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) std::cerr << path << ": cannot be written\n";
  return static_cast<bool>(file);
}

/// "64:1024", or "64" for one length; nothing else.
std::string ReadRange(const std::string& text, LengthRange& range) {
  const size_t colon = text.find(':');
  const std::string low = text.substr(0, colon);
  const std::string high = colon == text.npos ? low : text.substr(colon + 1);
  if (CLI::detail::lexical_cast(low, range.low) && CLI::detail::lexical_cast(high, range.high)) {
    return "";
  }
  return "must be LOW:HIGH, two whole numbers, got '" + text + "'";
}

void AddLoadOptions(CLI::App& app, SweepOptions& options) {
  app.add_option("--machine", options.machine, "cpu-smollm2, h100-llama-3-8b or h100-llama-3-8b-q4")
      ->capture_default_str();
  app.add_option("--schemes", options.schemes, "KV schemes")->delimiter(',')->capture_default_str();
  app.add_option("--profile", options.profile, "profile with the tiers of cpu-smollm2");
  app.add_option("--trace", options.trace,
                 "requests: TIMESTAMP,ContextTokens,GeneratedTokens, or the form of traces/");
  app.add_option("--speedup", options.speedups, "loads: the trace's time divided by each")
      ->delimiter(',');
  app.add_option("--rate", options.rates,
                 "loads: Poisson arrivals per second; lengths of the trace if there is one")
      ->delimiter(',');
  app.add_option("--requests", options.requests, "of a Poisson run")->capture_default_str();
  app.add_option_function<std::string>(
      "--prompt",
      [&](const std::string& text) {
        const std::string wrong = ReadRange(text, options.prompt);
        if (!wrong.empty()) throw CLI::ValidationError("--prompt", wrong);
      },
      "tokens of a prompt without a trace, LOW:HIGH (64:1024)");
  app.add_option_function<std::string>(
      "--output",
      [&](const std::string& text) {
        const std::string wrong = ReadRange(text, options.output);
        if (!wrong.empty()) throw CLI::ValidationError("--output", wrong);
      },
      "tokens of an output without a trace, LOW:HIGH (16:256)");
  app.add_flag("!--drop-long", options.clip, "drop requests over the context, do not clip them");
  app.add_option("--tenants", options.tenants, "their shares of the requests")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--seed", options.seed, "of arrivals, lengths, tenants")->capture_default_str();
}

}  // namespace
}  // namespace asymserve

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): CLI11 may throw at set-up
  asymserve::SweepOptions options;
  asymserve::Output output;
  double deadline_ms = 0, patience_ms = 0;
  auto step_ms = static_cast<double>(options.setup.step_us) / 1000;
  CLI::App app("The real scheduler against a model of a machine, in simulated time");
  asymserve::AddLoadOptions(app, options);
  app.add_option("--kv-bytes", options.setup.kv_bytes, "of the arena; 0: the machine's");
  app.add_option("--context", options.setup.context_tokens, "tokens of a sequence at most");
  app.add_option("--max-running", options.setup.max_running, "sequences in a batch");
  app.add_option("--max-waiting", options.setup.max_waiting, "sequences in the queue");
  app.add_option("--step-tokens", options.setup.step_tokens, "token budget of a step");
  app.add_option("--step-ms", step_ms,
                 "engine.step_ms: of a step in which somebody decodes; 0: none")
      ->capture_default_str();
  app.add_flag("--elastic", options.setup.elastic, "refinements are given up before preemptions");
  app.add_flag("--one-queue", options.setup.one_queue,
               "tenants are not told apart: first come, first served");
  app.add_option("--bypass", options.setup.bypass_sequences,
                 "requests that may overtake one that has no room; default: the server's");
  app.add_option("--watermark-pages", options.setup.watermark_pages,
                 "kept free by admission; default: the server's");
  app.add_option("--ask", options.clients.ask_tokens,
                 "max_new_tokens of requests; 0: what they get");
  app.add_option("--deadline-ms", deadline_ms, "of every request, after its arrival; 0: none");
  app.add_option("--patience-ms", patience_ms,
                 "clients without a first token cancel after that long; 0: never");
  app.add_option("--ttft-ms", options.limits.ttft_ms, "of a good request")->capture_default_str();
  app.add_option("--tpot-ms", options.limits.tpot_ms, "of a good request")->capture_default_str();
  app.add_option("--json", output.json, "write the result to this file");
  app.add_option("--plot", output.plot, "draw goodput and memory into this SVG file");
  CLI11_PARSE(app, argc, argv);
  for (const double ms : {deadline_ms, patience_ms, step_ms}) {
    if (!(ms >= 0 && ms <= 86'400'000)) {
      std::cerr << "deadline-ms, patience-ms, step-ms: must be from 0 to 86400000, got " << ms
                << '\n';
      return 2;
    }
  }
  options.clients.deadline_us = std::llround(deadline_ms * 1000);
  options.clients.patience_us = std::llround(patience_ms * 1000);
  options.setup.step_us = std::llround(step_ms * 1000);
  const auto result = asymserve::RunSweep(options);
  if (!result.ok()) {
    std::cerr << result.status().message() << '\n';
    return 2;
  }
  std::cout << asymserve::SweepTable(*result);
  bool written = true;
  if (!output.json.empty()) {
    written = asymserve::WriteFile(output.json, asymserve::SweepJson(*result));
  }
  if (!output.plot.empty()) {
    written = asymserve::WriteFile(output.plot, asymserve::SweepPlot(*result)) && written;
  }
  return written ? 0 : 1;
}
