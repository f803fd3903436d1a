// How many sequences run at once in the same KV memory, scheme by scheme: really run, and each
// sequence's tokens compared with those of the same request alone on an engine without a prefix
// cache. The memory is what the given number of exact sequences fill. Beside that: the most memory
// that the process had in use, and what was planned and what the kernel counts, class by class.
//
//   build/release/bin/bench_capacity --model FILE --profile FILE.asymkv [--json FILE]
//   build/release/bin/bench_capacity --model FILE --profile FILE.asymkv --tokens 1024 --new 256

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "CLI/CLI.hpp"
#include "nlohmann/json.hpp"

#include "config/config.h"
#include "engine/backend/cpu/cpu_backend.h"
#include "engine/base/kernel_memory.h"
#include "engine/base/status.h"
#include "engine/kv/capacity.h"
#include "engine/runtime/engine.h"
#include "engine/runtime/memory_watch.h"
#include "engine/runtime/model_loader.h"

namespace asymserve {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string model;
  std::string profile;
  int threads = 2;
  int32_t tokens = 4096;  // of each sequence at its end
  int32_t new_tokens = 512;
  int32_t step_tokens = EngineSection().step_tokens;  // as servers have it by default
  int32_t exact_sequences = 8;
  int32_t check = 0;  // sequences to compare; 0: all
  std::vector<std::string> schemes = {"exact", "balanced", "dense"};
  std::string json;
};

/// What all sequences of a run have in common.
struct Crowd {
  std::mutex mutex;
  std::condition_variable done;
  int32_t open = 0;
  int32_t without_token = 0;
  bool one_ended = false;
  bool all_together = false;   // every sequence had its first token before the first one ended
  int64_t resident_bytes = 0;  // at that moment
};

class Member final : public OutputSink {
 public:
  explicit Member(Crowd& crowd) : crowd_(crowd) {}
  bool Deliver(Delta delta) override {
    std::lock_guard lock(crowd_.mutex);
    if (tokens.empty() && !delta.tokens.empty() && --crowd_.without_token == 0) {
      crowd_.all_together = !crowd_.one_ended;
      crowd_.resident_bytes = ProcessResidentBytes();
    }
    for (const TokenInfo& token : delta.tokens) tokens.push_back(token.id);
    if (delta.finish == FinishReason::kError) std::cerr << delta.error << '\n';
    if (delta.finish != FinishReason::kNone) {
      crowd_.one_ended = true;
      if (--crowd_.open == 0) crowd_.done.notify_all();
    }
    return true;
  }

  std::vector<int32_t> tokens;

 private:
  Crowd& crowd_;
};

GenerateRequest MakeRequest(const Options& options, int32_t number, int32_t vocabulary) {
  GenerateRequest request;
  for (int64_t i = 0; i < options.tokens - options.new_tokens; ++i) {
    const int64_t token =
        (i * 7919 + number * int64_t{104729} + i * i * (number + 3)) % (vocabulary - 200);
    request.prompt.push_back(static_cast<int32_t>(100 + token));
  }
  request.sampling.temperature = 0;
  request.stop.max_tokens = options.new_tokens;
  request.stop.ignore_eos = true;
  return request;
}

/// An engine with its model and its memory.
struct Server {
  std::unique_ptr<Backend> backend;
  LoadedModel loaded;
  std::unique_ptr<Engine> engine;
};

absl::StatusOr<Server> Start(const Options& options, const std::string& scheme, int64_t kv_bytes,
                             int32_t running, bool prefix_cache) {
  Server server;
  CpuOptions cpu;
  cpu.threads = options.threads;
  ASYMSERVE_ASSIGN_OR_RETURN(server.backend, MakeCpuBackend(cpu));
  LoadOptions load;
  load.path = options.model;
  load.kv_profile = options.profile;
  load.kv_scheme = scheme;
  load.kv_memory_bytes = kv_bytes;
  load.kv_prefix_cache = prefix_cache;
  load.max_context_tokens = options.tokens + 1;  // the last token is not stored
  load.max_running = running;
  load.max_waiting = running;
  load.step_tokens = options.step_tokens;
  load.threads = options.threads;
  ASYMSERVE_ASSIGN_OR_RETURN(server.loaded, LoadModel(*server.backend, load));
  server.engine = std::make_unique<Engine>(*server.loaded.model, *server.loaded.tokenizer,
                                           server.loaded.engine_options);
  return server;
}

/// Runs requests first .. first + count - 1, all at once; their tokens.
absl::StatusOr<std::vector<std::vector<int32_t>>> Generate(const Options& options, Server& server,
                                                           int32_t first, int32_t count,
                                                           Crowd& crowd) {
  crowd.open = crowd.without_token = count;
  std::vector<std::shared_ptr<Member>> members;
  for (int32_t i = 0; i < count; ++i) {
    members.push_back(std::make_shared<Member>(crowd));
    const auto id = server.engine->Submit(
        MakeRequest(options, first + i, server.loaded.config.vocabulary), members.back());
    ASYMSERVE_RETURN_IF_ERROR(id.status());
  }
  std::unique_lock lock(crowd.mutex);
  crowd.done.wait(lock, [&] { return crowd.open == 0; });
  std::vector<std::vector<int32_t>> tokens;
  for (const auto& member : members) tokens.push_back(member->tokens);
  return tokens;
}

/// Lets the kernel's highest resident bytes begin again at what is resident now.
bool ResetPeakResident() {
  std::ofstream file("/proc/self/clear_refs");
  return static_cast<bool>(file << "5" << std::flush);
}

/// The most bytes that were resident since the last reset; nothing if that cannot be read.
std::optional<int64_t> PeakResidentBytes() {
  constexpr std::string_view kField = "VmHWM:";
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (!line.starts_with(kField)) continue;
    return std::strtoll(line.c_str() + kField.size(), nullptr, 10) * 1024;
  }
  return std::nullopt;
}

struct Row {
  std::string scheme;
  int64_t kv_bytes = 0, resident_bytes = 0;
  std::optional<int64_t> peak_resident_bytes;  // from before the model was loaded to the last token
  std::optional<MemoryReport> memory;          // after the last token
  int32_t sequences = 0, checked = 0, different = 0;
  uint64_t preemptions = 0;
  bool all_together = false;
  double seconds = 0;
};

absl::StatusOr<Row> Measure(const Options& options, const std::string& scheme, int64_t kv_bytes) {
  Row row;
  row.scheme = scheme;
  {  // as many as the arithmetic says
    ASYMSERVE_ASSIGN_OR_RETURN(const Server probe, Start(options, scheme, kv_bytes, 1, false));
    const ModelConfig& config = probe.loaded.config;
    const KvShape shape = {config.layers, config.attention.kv_heads, config.attention.head_size};
    const KvLoad load = {.prompt_tokens = options.tokens - options.new_tokens,
                         .output_tokens = options.new_tokens,
                         .step_tokens = options.step_tokens};
    row.sequences = static_cast<int32_t>(
        CapacityOf(shape, probe.loaded.engine_options.scheme, kv_bytes, load).sequences);
  }
  Crowd crowd;
  std::vector<std::vector<int32_t>> together;
  TrimHeap();  // what the schemes before have left there is not this one's
  const bool peak_is_ours = ResetPeakResident();
  {
    ASYMSERVE_ASSIGN_OR_RETURN(Server server,
                               Start(options, scheme, kv_bytes, row.sequences, true));
    row.kv_bytes = server.loaded.kv_bytes;
    const auto begin = Clock::now();
    ASYMSERVE_ASSIGN_OR_RETURN(together, Generate(options, server, 0, row.sequences, crowd));
    row.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    row.preemptions = server.engine->metrics().preemptions.value();
    if (peak_is_ours) row.peak_resident_bytes = PeakResidentBytes();
    const auto memory = MemoryWatch(*server.backend, server.loaded.memory_plan).Report();
    if (memory.ok()) row.memory = *memory;
  }
  row.all_together = crowd.all_together;
  row.resident_bytes = crowd.resident_bytes;
  row.checked = options.check == 0 ? row.sequences : std::min(options.check, row.sequences);
  ASYMSERVE_ASSIGN_OR_RETURN(Server alone, Start(options, scheme, kv_bytes, 1, false));
  for (int32_t i = 0; i < row.checked; ++i) {
    const int32_t number = static_cast<int32_t>(int64_t{i} * row.sequences / row.checked);
    Crowd one;
    ASYMSERVE_ASSIGN_OR_RETURN(const auto tokens, Generate(options, alone, number, 1, one));
    row.different += tokens.front() == together[static_cast<size_t>(number)] ? 0 : 1;
  }
  return row;
}

int64_t BytesOfExactSequences(const Options& options) {
  const auto file = OpenWeightFile(options.model);
  if (!file.ok()) return 0;
  const ModelConfig& config = (*file)->config();
  const KvShape shape = {config.layers, config.attention.kv_heads, config.attention.head_size};
  const KvLayout layout(shape, *NamedKvScheme("exact", shape));
  constexpr int32_t kPageTokens = 64;
  return ArenaBytesFor(
      layout, KvRecord::kNear,
      options.exact_sequences * ((options.tokens + kPageTokens - 1) / kPageTokens));
}

double ErrorPercent(int64_t planned, int64_t measured) {
  return 100 * (static_cast<double>(measured) / static_cast<double>(planned) - 1);
}

void PrintMemory(const Row& row) {
  std::printf("%-10s", "");
  if (row.peak_resident_bytes.has_value()) {
    std::printf(" peak RSS %.0f MB;", static_cast<double>(*row.peak_resident_bytes) * 1e-6);
  } else {
    std::printf(" peak RSS left out: the kernel does not reset or tell it;");
  }
  if (!row.memory.has_value()) {
    std::printf(" ledger left out: the kernel's books cannot be read\n");
    return;
  }
  std::printf(" measured against planned:");
  for (size_t i = 0; i < kMemoryClasses; ++i) {
    std::printf(" %s %+.3f %%", MemoryClassName(static_cast<MemoryClass>(i)),
                ErrorPercent(row.memory->planned.bytes[i], row.memory->measured.mapped.bytes[i]));
  }
  std::printf("; runtime %.0f of at most %.0f MB\n",
              static_cast<double>(row.memory->runtime_resident()) * 1e-6,
              static_cast<double>(row.memory->runtime_bound) * 1e-6);
}

/// By class of memory; measured is what is mapped, as in asymserve_memory_measured_bytes.
nlohmann::json LedgerJson(const MemoryReport& memory) {
  nlohmann::json ledger;
  for (size_t i = 0; i < kMemoryClasses; ++i) {
    const int64_t planned = memory.planned.bytes[i];
    const int64_t measured = memory.measured.mapped.bytes[i];
    ledger[MemoryClassName(static_cast<MemoryClass>(i))] = {
        {"planned_bytes", planned},
        {"measured_bytes", measured},
        {"error_percent", ErrorPercent(planned, measured)},
        {"resident_bytes", memory.measured.resident.bytes[i]}};
  }
  return ledger;
}

nlohmann::json RowJson(const Row& row, double ratio) {
  nlohmann::json json = {{"scheme", row.scheme},
                         {"sequences", row.sequences},
                         {"ratio_to_exact", ratio},
                         {"all_at_once", row.all_together},
                         {"preemptions", row.preemptions},
                         {"kv_bytes", row.kv_bytes},
                         {"resident_bytes", row.resident_bytes},
                         {"checked", row.checked},
                         {"different", row.different},
                         {"seconds", row.seconds}};
  if (row.peak_resident_bytes.has_value()) json["peak_resident_bytes"] = *row.peak_resident_bytes;
  if (row.memory.has_value()) {
    json["ledger"] = LedgerJson(*row.memory);
    json["runtime_bound_bytes"] = row.memory->runtime_bound;
    json["runtime_resident_bytes"] = row.memory->runtime_resident();
  }
  return json;
}

int Run(const Options& options) {
  const int64_t kv_bytes = BytesOfExactSequences(options);
  if (kv_bytes == 0) return std::cerr << options.model << ": cannot be read\n", 1;
  std::printf(
      "%d tokens each, %d of them generated; %.1f MB of KV memory, %d threads, %d tokens a step\n",
      options.tokens, options.new_tokens, static_cast<double>(kv_bytes) * 1e-6, options.threads,
      options.step_tokens);
  std::printf("%-10s %10s %7s %12s %12s %10s %12s %9s\n", "scheme", "sequences", "ratio",
              "all at once", "preemptions", "RSS MB", "same alone", "seconds");
  nlohmann::json rows = nlohmann::json::array();
  double exact = 0;
  bool good = true;
  for (const std::string& scheme : options.schemes) {
    const absl::StatusOr<Row> row = Measure(options, scheme, kv_bytes);
    if (!row.ok()) return std::cerr << scheme << ": " << row.status() << '\n', 1;
    if (scheme == "exact") exact = row->sequences;
    const double ratio = exact == 0 ? 0 : row->sequences / exact;
    std::printf("%-10s %10d %7.1f %12s %12llu %10.0f %5d of %3d %9.1f\n", scheme.c_str(),
                row->sequences, ratio, row->all_together ? "yes" : "no",
                static_cast<unsigned long long>(row->preemptions),
                static_cast<double>(row->resident_bytes) * 1e-6, row->checked - row->different,
                row->checked, row->seconds);
    PrintMemory(*row);
    std::fflush(stdout);
    good = good && row->all_together && row->preemptions == 0 && row->different == 0;
    rows.push_back(RowJson(*row, ratio));
  }
  if (!options.json.empty()) {
    std::ofstream(options.json) << nlohmann::json({{"tokens", options.tokens},
                                                   {"new_tokens", options.new_tokens},
                                                   {"step_tokens", options.step_tokens},
                                                   {"exact_sequences", options.exact_sequences},
                                                   {"threads", options.threads},
                                                   {"kv_bytes", kv_bytes},
                                                   {"rows", rows}})
                                       .dump(2)
                                << '\n';
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace asymserve

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): CLI11 may throw at set-up
  asymserve::Options options;
  CLI::App app("How many sequences run at once in the same KV memory, scheme by scheme");
  app.add_option("--model", options.model)->required();
  app.add_option("--profile", options.profile, "learned codes: their tiers can be schemes");
  app.add_option("--threads", options.threads)->check(CLI::Range(1, 1024));
  app.add_option("--tokens", options.tokens, "of each sequence at its end")
      ->check(CLI::Range(2, 1 << 20));
  app.add_option("--new", options.new_tokens, "of them generated")->check(CLI::Range(1, 1 << 20));
  app.add_option("--step-tokens", options.step_tokens, "token budget of a step")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--exact-sequences", options.exact_sequences, "that fill the memory")
      ->check(CLI::Range(1, 1024));
  app.add_option("--check", options.check, "sequences to run alone, too; 0: all")
      ->check(CLI::Range(0, 1 << 20));
  app.add_option("--schemes", options.schemes)->delimiter(',');
  app.add_option("--json", options.json)->type_name("FILE");
  CLI11_PARSE(app, argc, argv);
  if (options.new_tokens >= options.tokens) {
    std::cerr << "--new: must be less than --tokens\n";
    return 1;
  }
  return asymserve::Run(options);
}
