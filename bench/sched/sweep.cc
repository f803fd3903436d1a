#include "bench/sched/sweep.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"

#include "engine/kv/capacity.h"
#include "engine/kv/layout.h"

namespace asymserve {
namespace {

constexpr double kMaxFactor = 1e6;  // rates, speedups, shares
constexpr int64_t kMaxRequests = 10'000'000;
constexpr int32_t kMaxLength = 1 << 20;
constexpr TimeUs kMaxTime = TimeUs{86'400} * 1'000'000;

absl::Status Bad(const std::string& field, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", why));
}

absl::Status CheckFactors(const char* field, const std::vector<double>& values) {
  for (const double value : values) {
    if (!(value >= 1 / kMaxFactor && value <= kMaxFactor)) {
      return Bad(field, absl::StrCat("must be from 1e-6 to 1e6, got ", value));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRange(const char* field, LengthRange range) {
  if (range.low >= 1 && range.low <= range.high && range.high <= kMaxLength) {
    return absl::OkStatus();
  }
  return Bad(field, absl::StrCat("must be LOW:HIGH from 1 to ", kMaxLength, ", got ", range.low,
                                 ":", range.high));
}

absl::Status CheckTime(const char* field, TimeUs time) {
  if (time >= 0 && time <= kMaxTime) return absl::OkStatus();
  return Bad(field, absl::StrCat("must be from 0 to a day, got ", time, " microseconds"));
}

absl::Status CheckOptions(const SweepOptions& options) {
  if (options.schemes.empty()) return Bad("schemes", "name at least one");
  if (options.tenants.empty()) return Bad("tenants", "at least one share is needed");
  if (options.speedups.empty() == options.rates.empty()) {
    return Bad("speedup, rate", "give the one or the other");
  }
  if (!options.speedups.empty() && options.trace.empty()) {
    return Bad("speedup", "there is no trace to speed up");
  }
  if (options.requests < 2 || options.requests > kMaxRequests) {
    return Bad("requests",
               absl::StrCat("must be from 2 to ", kMaxRequests, ", got ", options.requests));
  }
  if (options.clients.ask_tokens < 0 || options.clients.ask_tokens > kMaxLength) {
    return Bad("ask", absl::StrCat("must be from 0 to ", kMaxLength, ", got ",
                                   options.clients.ask_tokens));
  }
  if (!(options.limits.ttft_ms > 0) || !(options.limits.tpot_ms > 0)) {
    return Bad("ttft-ms, tpot-ms", "must be above 0");
  }
  for (const absl::Status& status :
       {CheckFactors("speedup", options.speedups), CheckFactors("rate", options.rates),
        CheckFactors("tenants", options.tenants), CheckRange("prompt", options.prompt),
        CheckRange("output", options.output), CheckTime("deadline-ms", options.clients.deadline_us),
        CheckTime("patience-ms", options.clients.patience_us),
        CheckTime("step-ms", options.setup.step_us)}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

/// The setup with the machine's figures for what it leaves open.
ServerSetup Effective(const ServerSetup& setup, const Machine& machine) {
  const auto choose = [](auto chosen, auto standard) { return chosen == 0 ? standard : chosen; };
  return {.kv_bytes = choose(setup.kv_bytes, machine.kv_bytes),
          .context_tokens = choose(setup.context_tokens, machine.context_tokens),
          .max_running = choose(setup.max_running, machine.max_running),
          .max_waiting = choose(setup.max_waiting, machine.max_waiting),
          .step_tokens = choose(setup.step_tokens, machine.step_tokens),
          .elastic = setup.elastic,
          .step_us = setup.step_us,
          .one_queue = setup.one_queue,
          .bypass_sequences = setup.bypass_sequences,
          .watermark_pages = setup.watermark_pages};
}

SweepScheme Describe(const Machine& machine, const KvScheme& scheme, const ServerSetup& setup) {
  const auto capacity = [&](int64_t tokens) {
    const KvLoad load = {.prompt_tokens = tokens, .step_tokens = setup.step_tokens};
    return CapacityOf(machine.shape, scheme, setup.kv_bytes, load);
  };
  return {.name = scheme.name,
          .bits_per_element = KvLayout(machine.shape, scheme).EffectiveBits(4096),
          .tokens = capacity(setup.context_tokens).tokens,
          .sequences = capacity(setup.context_tokens).sequences,
          .sequences_of_1k = capacity(1024).sequences};
}

class Sweep {
 public:
  explicit Sweep(const SweepOptions& options) : options_(options) {}

  absl::Status Prepare() {
    if (absl::Status status = CheckOptions(options_); !status.ok()) return status;
    auto machine = NamedMachine(options_.machine);
    if (!machine.ok()) return machine.status();
    machine_ = *std::move(machine);
    std::optional<KvProfile> profile;
    if (!machine_.uniform_tiers && !options_.profile.empty()) {
      auto read = ReadProfile(options_.profile);
      if (!read.ok()) return read.status();
      profile = *std::move(read);
    }
    if (profile && profile->shape != machine_.shape) {
      return Bad(options_.profile, absl::StrCat("is not of the model of ", options_.machine));
    }
    setup_ = Effective(options_.setup, machine_);
    for (const std::string& name : options_.schemes) {
      auto scheme = MachineScheme(machine_, name, profile ? &*profile : nullptr);
      if (!scheme.ok()) return scheme.status();
      // An empty run checks all that a run checks.
      const auto checked = Simulate(machine_, *scheme, setup_, options_.clients, {});
      if (!checked.ok()) return checked.status();
      schemes_.push_back(*std::move(scheme));
    }
    if (!options_.trace.empty()) {
      auto rows = ReadTrace(options_.trace);
      if (!rows.ok()) return rows.status();
      rows_ = *std::move(rows);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<SweepResult> Run() {
    SweepResult result = {.machine = options_.machine,
                          .load = LoadText(),
                          .setup = setup_,
                          .clients = options_.clients,
                          .limits = options_.limits,
                          .seed = options_.seed,
                          .schemes = {},
                          .runs = {}};
    for (const KvScheme& scheme : schemes_) {
      result.schemes.push_back(Describe(machine_, scheme, setup_));
    }
    const size_t loads = std::max(options_.speedups.size(), options_.rates.size());
    for (size_t load = 0; load < loads; ++load) {
      const Workload workload = MakeWorkload(load);
      if (workload.requests.size() < 2) {
        return Bad("context", "holds fewer than two of the requests");
      }
      for (size_t i = 0; i < schemes_.size(); ++i) {
        auto run = RunOne(schemes_[i], workload);
        if (!run.ok()) return run.status();
        run->figures.bits_per_element = result.schemes[i].bits_per_element;
        result.runs.push_back(*std::move(run));
      }
    }
    return result;
  }

 private:
  std::string LoadText() const {
    const std::string trace = options_.trace.substr(options_.trace.rfind('/') + 1);
    if (!options_.speedups.empty()) return absl::StrCat("arrivals and lengths of ", trace);
    if (!trace.empty()) {
      return absl::StrCat(options_.requests, " Poisson arrivals, lengths of ", trace);
    }
    return absl::StrCat(options_.requests, " Poisson arrivals, prompts of ", options_.prompt.low,
                        " to ", options_.prompt.high, " tokens, outputs of ", options_.output.low,
                        " to ", options_.output.high);
  }

  Workload MakeWorkload(size_t load) const {
    Workload workload;
    if (!options_.speedups.empty()) {
      workload = TraceWorkload(rows_, options_.speedups[load]);
    } else if (!rows_.empty()) {
      workload = PoissonWorkload(options_.rates[load], options_.requests, rows_, options_.seed);
    } else {
      workload = PoissonWorkload(options_.rates[load], options_.requests, options_.prompt,
                                 options_.output, options_.seed);
    }
    FitToContext(setup_.context_tokens, options_.clip, workload);
    DrawTenants(options_.tenants, options_.seed, workload);
    return workload;
  }

  absl::StatusOr<SweepRun> RunOne(const KvScheme& scheme, const Workload& workload) const {
    const auto start = std::chrono::steady_clock::now();
    auto result = Simulate(machine_, scheme, setup_, options_.clients, workload.requests);
    if (!result.ok()) return result.status();
    const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
    SweepRun run;
    run.figures = FiguresOf(*result, workload, static_cast<int32_t>(options_.tenants.size()),
                            options_.limits);
    run.figures.scheme = scheme.name;
    run.figures.wall_seconds = wall.count();
    run.memory = std::move(result->memory);
    return run;
  }

  const SweepOptions& options_;
  Machine machine_;
  ServerSetup setup_;
  std::vector<KvScheme> schemes_;
  std::vector<TraceRow> rows_;
};

}  // namespace

absl::StatusOr<SweepResult> RunSweep(const SweepOptions& options) {
  Sweep sweep(options);
  if (absl::Status status = sweep.Prepare(); !status.ok()) return status;
  return sweep.Run();
}

}  // namespace asymserve
