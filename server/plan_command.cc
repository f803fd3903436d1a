#include "server/plan_command.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <span>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"

#include "config/scalar.h"
#include "config/yaml_entries.h"
#include "engine/base/atomic_file.h"
#include "engine/base/status.h"
#include "engine/quality/model_profile.h"
#include "engine/runtime/host_memory.h"
#include "engine/runtime/memory_budget.h"
#include "server/model_shapes.h"
#include "server/output_path.h"

namespace asymserve {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 24;
constexpr int64_t kMostSequences = int64_t{1} << 24;
constexpr int64_t kMostBytes = int64_t{64} << 40;

absl::Status CheckRange(const char* option, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(option, ": ", value, "; must be ", least, " to ", most));
}

absl::Status CheckNumbers(const PlanArguments& arguments) {
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("context", arguments.context.value_or(1), 1, kMostTokens));
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("prompt", arguments.prompt.value_or(1), 1, kMostTokens));
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("output", arguments.output.value_or(0), 0, kMostTokens));
  ASYMSERVE_RETURN_IF_ERROR(
      CheckRange("sequences", arguments.sequences.value_or(1), 1, kMostSequences));
  const double max_kl = arguments.max_kl.value_or(0);
  if (!(max_kl >= 0 && max_kl <= 100)) {
    return absl::InvalidArgumentError(
        absl::StrCat("max-kl: ", max_kl, "; must be 0 (no limit) to 100 nats per token"));
  }
  if (!arguments.trace_path.empty() &&
      (arguments.prompt.has_value() || arguments.output.has_value())) {
    return absl::InvalidArgumentError("trace: says the lengths; drop --prompt and --output");
  }
  return absl::OkStatus();
}

/// Of a model of which only the shapes are known nothing else can be read.
absl::Status CheckShapesAlone(const PlanArguments& arguments, const Config& config) {
  if (arguments.shapes_path.empty()) return absl::OkStatus();
  for (const auto& [option, value] :
       {std::pair<const char*, const std::string&>("model.path", config.model.path),
        {"kv.profile", config.kv.profile}}) {
    if (value.empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        option, ": ", Quoted(value), " is not read with --shapes; drop one of the two"));
  }
  return absl::OkStatus();
}

/// --memory, else the configuration's; 0: what is available.
absl::StatusOr<int64_t> ReadMemory(const PlanArguments& arguments, const Config& config) {
  if (!arguments.memory.empty()) {
    const std::optional<int64_t> bytes = ParseSize(arguments.memory);
    if (bytes.has_value() && *bytes >= 1 && *bytes <= kMostBytes) return *bytes;
    return absl::InvalidArgumentError(absl::StrCat(
        "memory: expected a size from 1 to 64TiB as 80GiB, got ", Quoted(arguments.memory)));
  }
  if (config.engine.memory_bytes == 0 && !arguments.shapes_path.empty()) {
    return absl::InvalidArgumentError("memory: is required with --shapes");
  }
  return config.engine.memory_bytes;
}

/// What is planned for.
struct Subject {
  std::string name;
  std::unique_ptr<WeightFile> file;
  std::optional<KvProfile> profile;
  int64_t weight_bytes = 0;
};

absl::StatusOr<Subject> OpenSubject(const PlanCommandOptions& options) {
  Subject subject;
  if (!options.shapes_path.empty()) {
    ASYMSERVE_ASSIGN_OR_RETURN(ModelShapes shapes, ReadModelShapes(options.shapes_path));
    subject.name = std::move(shapes.name);
    subject.file = std::move(shapes.file);
    subject.weight_bytes = shapes.weight_bytes;
    return subject;
  }
  ASYMSERVE_ASSIGN_OR_RETURN(subject.file, OpenWeightFile(options.model_path));
  subject.name = std::filesystem::path(options.model_path).filename().string();
  const std::string profile = FindModelProfile(options.profile, options.model_path);
  if (profile.empty()) return subject;
  ASYMSERVE_ASSIGN_OR_RETURN(subject.profile, ReadModelProfile(profile, *subject.file));
  return subject;
}

/// Where nobody said: 4,096 tokens or the context, an eighth of them generated.
KvLoad DefaultLoad(int32_t context, int32_t step_tokens) {
  constexpr int32_t kTokens = 4096;
  const int32_t tokens = std::min(context, kTokens);
  return {.prompt_tokens = tokens - tokens / 8,
          .output_tokens = tokens / 8,
          .step_tokens = step_tokens};
}

/// The p99 of prompts and outputs together may be longer than the context: then the prompt is cut.
void CutToContext(KvLoad& load, int64_t context) {
  load.output_tokens = std::min(load.output_tokens, context - 1);
  load.prompt_tokens = std::min(load.prompt_tokens, context - load.output_tokens);
}

}  // namespace

void AddPlanOptions(CLI::App& command, PlanArguments& arguments) {
  command.add_option("--shapes", arguments.shapes_path, "a model's shapes instead of a model")
      ->type_name("FILE.yaml");
  command
      .add_option("--memory", arguments.memory,
                  "of the process in all; default: as the server would take it, KV limit included")
      ->type_name("SIZE");
  command.add_option("--context", arguments.context, "longest sequence; default: the model's");
  command.add_option("--prompt", arguments.prompt, "expected tokens of a prompt");
  command.add_option("--output", arguments.output, "expected tokens generated after it");
  command.add_option("--trace", arguments.trace_path, "take both from a trace of requests")
      ->type_name("FILE.csv");
  command.add_option("--sequences", arguments.sequences, "also: what would so many need?");
  command.add_option("--max-kl", arguments.max_kl, "short for --set kv.quality.max_mean_kl=NATS");
  command.add_option("--schemes", arguments.schemes, "default: exact, published ones, all tiers")
      ->type_name("NAME,...")
      ->delimiter(',');
  command.add_option("--json", arguments.json_path, "write JSON, too; -: instead of the table")
      ->type_name("FILE");
}

absl::StatusOr<PlanCommandOptions> ReadPlanOptions(const PlanArguments& arguments,
                                                   const Config& config) {
  ASYMSERVE_RETURN_IF_ERROR(CheckNumbers(arguments));
  ASYMSERVE_RETURN_IF_ERROR(CheckShapesAlone(arguments, config));
  if (arguments.json_path != "-") {
    ASYMSERVE_RETURN_IF_ERROR(CheckOutputPath("json", arguments.json_path));
  }
  PlanCommandOptions options;
  options.model_path = config.model.path;
  options.shapes_path = arguments.shapes_path;
  options.profile = config.kv.profile;
  options.json_path = arguments.json_path;
  options.head.shapes_only = !arguments.shapes_path.empty();
  options.head.max_running = config.engine.max_running;
  CapacityOptions& capacity = options.head.options;
  capacity.schemes = arguments.schemes;
  ASYMSERVE_ASSIGN_OR_RETURN(capacity.memory_bytes, ReadMemory(arguments, config));
  options.is_available = capacity.memory_bytes == 0;
  if (arguments.memory.empty()) capacity.memory_option = "engine.memory_bytes";
  if (!arguments.context.has_value() && config.engine.context_tokens > 0) {
    capacity.context_option = "engine.context_tokens";
  }
  capacity.margin_bytes = config.engine.memory_margin_bytes;
  if (arguments.memory.empty()) capacity.kv_bytes = config.engine.kv_memory_bytes;
  capacity.context_tokens = arguments.context.value_or(config.engine.context_tokens);
  capacity.sequences = arguments.sequences.value_or(0);
  capacity.max_waiting = config.engine.max_waiting;
  capacity.threads = config.engine.threads > 0 ? config.engine.threads : AvailableCores();
  capacity.limits = {arguments.max_kl.value_or(config.kv.quality.max_mean_kl),
                     config.kv.quality.max_copy_loss};
  capacity.load.step_tokens = config.engine.step_tokens;
  if (!arguments.trace_path.empty()) {
    ASYMSERVE_ASSIGN_OR_RETURN(const TraceLengths trace, ReadLengthTrace(arguments.trace_path));
    options.head.trace = trace;
    capacity.load.prompt_tokens = trace.mean_prompt;
    capacity.load.output_tokens = trace.mean_output;
    capacity.long_load = capacity.load;
    capacity.long_load->prompt_tokens = trace.p99_prompt;
    capacity.long_load->output_tokens = trace.p99_output;
  } else if (arguments.prompt.has_value() || arguments.output.has_value()) {
    capacity.load.prompt_tokens = arguments.prompt.value_or(1);
    capacity.load.output_tokens = arguments.output.value_or(0);
  }
  options.has_lengths =
      !arguments.trace_path.empty() || arguments.prompt.has_value() || arguments.output.has_value();
  return options;
}

absl::Status RunPlan(const PlanCommandOptions& options, const EngineSection& engine,
                     const BackendFactory& make_backend, std::ostream& out) {
  ASYMSERVE_ASSIGN_OR_RETURN(const Subject subject, OpenSubject(options));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, make_backend(engine));
  PlanHead head = options.head;
  head.model = subject.name;
  CapacityOptions& capacity = head.options;
  if (options.is_available) {
    ASYMSERVE_ASSIGN_OR_RETURN(const MemoryBudget budget, FindMemoryBudget(*backend, 0));
    capacity.memory_bytes = budget.bytes;
    capacity.memory_option = budget.option;
  }
  capacity.weight_bytes = subject.weight_bytes;
  const int32_t model_context = subject.file->config().context_length;
  if (capacity.context_tokens == 0) capacity.context_tokens = model_context;
  if (!options.has_lengths) {
    capacity.load =
        DefaultLoad(std::min(capacity.context_tokens, model_context), capacity.load.step_tokens);
  }
  if (capacity.long_load.has_value()) CutToContext(*capacity.long_load, capacity.context_tokens);
  ASYMSERVE_ASSIGN_OR_RETURN(
      const std::vector<CapacityRow> rows,
      PlanCapacity(*subject.file, *backend,
                   subject.profile.has_value() ? &*subject.profile : nullptr, capacity));
  const std::string json = PlanJson(head, rows);
  if (options.json_path == "-") {
    out << json << std::flush;
    return absl::OkStatus();
  }
  out << PlanText(head, rows) << std::flush;
  if (options.json_path.empty()) return absl::OkStatus();
  return WriteFileAtomically(options.json_path, std::as_bytes(std::span(json)));
}

}  // namespace asymserve
