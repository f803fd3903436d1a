// bench_serve: an open-loop load on a running server, measured on the client's clock.
// bench/serve/README.md says how to use it. Exit status: 0; 1 for a wrong text or a failed call;
// 2 for wrong usage, or a server that does not answer.

#include <cstdio>
#include <fstream>
#include <iostream>
#include <limits>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "grpcpp/grpcpp.h"

#include "bench/serve/load_client.h"
#include "bench/serve/load_report.h"

namespace asymserve::load {
namespace {

constexpr int kExitWrong = 1, kExitUsage = 2;

struct Arguments {
  client::Connection connection;
  PlanOptions plan;
  std::string trace;
  double warmup_seconds = 5, tail_seconds = 2;
  Limits limits;
  bool no_deadline = false;
  int32_t closed = 0;
  std::string answers;
  std::string json;
};

/// "64:1024", or "64" for one length; nothing else.
std::string ReadRange(const std::string& text, LengthRange& range) {
  const size_t colon = text.find(':');
  const std::string low = text.substr(0, colon);
  const std::string high = colon == text.npos ? low : text.substr(colon + 1);
  if (CLI::detail::lexical_cast(low, range.low) && CLI::detail::lexical_cast(high, range.high) &&
      range.low >= 1 && range.low <= range.high) {
    return "";
  }
  return "must be LOW:HIGH, 1 <= LOW <= HIGH, got '" + text + "'";
}

void AddRange(CLI::App& app, const char* name, LengthRange& range, const char* help) {
  app.add_option_function<std::string>(
      name,
      [&range, name](const std::string& text) {
        const std::string error = ReadRange(text, range);
        if (!error.empty()) throw CLI::ValidationError(name, error);
      },
      help);
}

void AddOptions(CLI::App& app, Arguments& arguments) {
  const CLI::Range positive(1e-6, 1e9);
  PlanOptions& plan = arguments.plan;
  client::AddConnectionOptions(app, arguments.connection);
  app.add_option("--rate", plan.rate, "arrivals per second")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--seconds", plan.seconds, "of arrivals that are measured")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--warmup-seconds", arguments.warmup_seconds, "of arrivals before those")
      ->check(CLI::Range(0.0, 1e9))
      ->capture_default_str();
  app.add_option("--tail-seconds", arguments.tail_seconds, "of arrivals after those")
      ->check(CLI::Range(0.0, 1e9))
      ->capture_default_str();
  app.add_option("--seed", plan.seed, "of texts and Poisson arrivals")->capture_default_str();
  app.add_option("--texts", plan.texts, "distinct prompts")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  AddRange(app, "--prompt", plan.prompt, "prompt tokens, LOW:HIGH [32:512]");
  AddRange(app, "--output", plan.output, "generated tokens, LOW:HIGH [32:256]");
  app.add_option("--trace", arguments.trace,
                 "arrivals and lengths of a trace (bench/sched/traces)");
  app.add_option("--trace-skip", plan.trace_skip, "rows of it that are not used")
      ->check(CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max() / 2));
  app.add_option("--length-scale", plan.length_scale, "its prompts and outputs times this")
      ->check(positive)
      ->capture_default_str();
  Limits& limits = arguments.limits;
  app.add_option("--first-token-seconds", limits.first_token_seconds, "a good call's limit")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--per-token-seconds", limits.per_token_seconds, "a good call's limit of the mean")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--max-queue-ms", limits.max_queue_ms, "sent with each request; 0: not sent")
      ->check(CLI::Range(0, 86'400'000))
      ->capture_default_str();
  app.add_flag("--no-deadline", arguments.no_deadline, "send no deadlines");
  app.add_option("--closed", arguments.closed, "instead of arrivals: so many calls at any time")
      ->check(CLI::Range(1, 100'000));
  app.add_option("--answers", arguments.answers,
                 "file of the right texts: read if it exists, else written");
  app.add_option("--json", arguments.json, "write the result as JSON");
}

absl::StatusOr<std::vector<PoolText>> MakeTexts(const Target& target, const LoadPlan& plan,
                                                const Arguments& arguments) {
  absl::StatusOr<std::vector<PoolText>> texts =
      MakePrompts(target, plan.texts, arguments.plan.seed);
  if (!texts.ok()) return texts.status();
  if (!arguments.answers.empty()) {
    const absl::Status read = ReadAnswers(arguments.answers, *texts);
    if (read.ok()) return texts;
    if (!absl::IsNotFound(read)) return read;
  }
  const absl::Status fetched = FetchAnswers(target, *texts);
  if (!fetched.ok()) return fetched;
  if (!arguments.answers.empty()) {
    const absl::Status written = WriteAnswers(arguments.answers, *texts);
    if (!written.ok()) return written;
  }
  return texts;
}

nlohmann::json Describe(const Arguments& arguments) {
  const PlanOptions& plan = arguments.plan;
  nlohmann::json load = {{"rate", plan.rate},
                         {"warmup_seconds", arguments.warmup_seconds},
                         {"tail_seconds", arguments.tail_seconds},
                         {"seed", plan.seed},
                         {"texts", plan.texts},
                         {"first_token_seconds", arguments.limits.first_token_seconds},
                         {"per_token_seconds", arguments.limits.per_token_seconds},
                         {"max_queue_ms", arguments.limits.max_queue_ms},
                         {"deadline", arguments.limits.deadline},
                         {"closed", arguments.closed}};
  if (arguments.trace.empty()) {
    load["prompt"] = {plan.prompt.low, plan.prompt.high};
    load["output"] = {plan.output.low, plan.output.high};
  } else {
    load["trace"] = arguments.trace.substr(arguments.trace.rfind('/') + 1);
    load["trace_skip"] = plan.trace_skip;
    load["length_scale"] = plan.length_scale;
  }
  return load;
}

struct Run {
  std::vector<CallResult> calls;
  LoadSummary measured, all;
  double completed_per_second = 0;  // of calls that ended in the window
};

Run Measure(const Target& target, const LoadPlan& plan, const std::vector<PoolText>& texts,
            const Arguments& arguments) {
  const double seconds = arguments.plan.seconds;
  const Window window{arguments.warmup_seconds, seconds - arguments.tail_seconds};
  Run run;
  run.calls = arguments.closed > 0 ? RunClosedLoop(target, plan, texts, arguments.closed, seconds)
                                   : RunOpenLoop(target, plan, texts, arguments.limits);
  run.measured = Summarize(run.calls, arguments.limits, window);
  run.all = Summarize(run.calls, arguments.limits, {0, std::numeric_limits<double>::max()});
  run.all.seconds = seconds;
  run.completed_per_second = run.measured.PerSecond(CompletedIn(run.calls, window));
  return run;
}

int Report(const Run& run, const Arguments& arguments) {
  std::cout << ToTable(run.measured, arguments.limits);
  std::printf("%.3f calls/s completed\n", run.completed_per_second);
  if (!arguments.json.empty()) {
    const nlohmann::json json = {{"load", Describe(arguments)},
                                 {"measured", ToJson(run.measured)},
                                 {"completed_per_second", run.completed_per_second},
                                 {"all", ToJson(run.all)}};
    std::ofstream file(arguments.json, std::ios::binary);
    file << json.dump(1) << '\n';
    file.close();
    if (!file) {
      std::cerr << arguments.json << ": cannot be written\n";
      return kExitUsage;
    }
  }
  for (const CallResult& call : run.calls) {
    if (call.outcome == Outcome::kFailed) {
      std::cerr << "a call failed: code " << call.code << ": " << call.error << '\n';
      return kExitWrong;
    }
  }
  if (run.all.wrong_texts > 0) {
    std::cerr << run.all.wrong_texts << " texts are not what the idle server answered\n";
    return kExitWrong;
  }
  return 0;
}

absl::StatusOr<Run> RunLoad(Arguments& arguments) {
  if (!arguments.trace.empty()) {
    absl::StatusOr<std::vector<TraceRow>> rows = ReadTrace(arguments.trace);
    if (!rows.ok()) return rows.status();
    arguments.plan.trace = *std::move(rows);
  }
  arguments.plan.seconds += arguments.warmup_seconds + arguments.tail_seconds;
  const Target target(arguments.connection);
  v1::GetModelInfoResponse info;
  grpc::ClientContext context;
  target.Prepare(context);
  const grpc::Status status = target.stub().GetModelInfo(&context, {}, &info);
  if (!status.ok()) {
    return absl::UnavailableError(absl::StrCat(target.address(), ": ", status.error_message()));
  }
  // The server may count a token more than was cut.
  arguments.plan.context_tokens = info.context_tokens() - 8;
  absl::StatusOr<LoadPlan> plan = MakeLoadPlan(arguments.plan);
  if (!plan.ok()) return plan.status();
  absl::StatusOr<std::vector<PoolText>> texts = MakeTexts(target, *plan, arguments);
  if (!texts.ok()) return texts.status();
  return Measure(target, *plan, *texts, arguments);
}

int Main(int argc, char** argv) {
  CLI::App app("Loads a running AsymServe server and measures what comes back");
  Arguments arguments;
  AddOptions(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  arguments.limits.deadline = !arguments.no_deadline;
  const absl::StatusOr<Run> run = RunLoad(arguments);
  if (!run.ok()) {
    std::cerr << run.status().message() << '\n';
    return kExitUsage;
  }
  return Report(*run, arguments);
}

}  // namespace
}  // namespace asymserve::load

int main(int argc, char** argv) {
  try {
    return asymserve::load::Main(argc, argv);
  } catch (const std::exception& error) {  // CLI11 and the standard streams throw
    std::fprintf(stderr, "bench_serve: %s\n", error.what());
    return asymserve::load::kExitUsage;
  }
}
