#include "engine/runtime/model_loader.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <optional>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/kv/layout.h"
#include "engine/quality/model_profile.h"
#include "engine/quality/self_check.h"
#include "engine/runtime/memory_budget.h"
#include "engine/runtime/memory_count.h"

namespace asymserve {
namespace {

class PhaseTimer {
 public:
  explicit PhaseTimer(LoadedModel& loaded) : loaded_(loaded) {}
  void End(const char* phase) {
    const auto now = std::chrono::steady_clock::now();
    loaded_.phase_seconds.emplace_back(phase, std::chrono::duration<double>(now - start_).count());
    start_ = now;
  }

 private:
  LoadedModel& loaded_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// What sequences are expected to look like where nobody said.
constexpr int32_t kExpectedTokens = 4096;

/// As much again as max_running sequences of the whole context store, for finished prompts.
int64_t CachedBytes(const KvShape& shape, const EngineOptions& engine) {
  const int64_t page_tokens = engine.scheme.page_tokens;
  const int64_t pages = (engine.max_context_tokens + page_tokens - 1) / page_tokens;
  const KvRecord record = engine.scheme.seals() ? KvRecord::kBase : KvRecord::kNear;
  return KvLayout(shape, engine.scheme).record_bytes(record) * pages * engine.max_running;
}

/// The arena that the budget allows, with everything else in the ledger.
absl::StatusOr<MemoryPlan> PlanModel(const LoadOptions& options, const WeightFile& file,
                                     const Backend& backend, const EngineOptions& engine,
                                     const LlamaOptions& llama, const MemoryBudget& budget) {
  ASYMSERVE_ASSIGN_OR_RETURN(const MemoryBytes fixed,
                             CountModelMemory(file, backend, llama, engine.scheme));
  MemoryRequest request;
  request.shape = KvShapeOf(file.config());
  request.scheme = engine.scheme;
  request.weight_bytes = fixed[MemoryClass::kWeights];
  request.table_bytes = fixed[MemoryClass::kTables];
  request.workspace.fixed_bytes = fixed[MemoryClass::kWorkspace];
  const RuntimeShape runtime = {.vocabulary = file.config().vocabulary,
                                .context_tokens = engine.max_context_tokens,
                                .waiting = engine.max_waiting,
                                .threads = options.threads};
  SetBudget(budget, runtime, request);
  request.margin_bytes = options.memory_margin_bytes;
  request.context_tokens = engine.max_context_tokens;
  request.load = {.prompt_tokens = std::min(kExpectedTokens, engine.max_context_tokens),
                  .step_tokens = engine.step_tokens};
  request.max_running = engine.max_running;
  request.kv_bytes = options.kv_memory_bytes;
  if (engine.prefix_cache) request.cached_bytes = CachedBytes(request.shape, engine);
  request.kv_option = "engine.kv_memory_bytes";
  ASYMSERVE_ASSIGN_OR_RETURN(MemoryPlan plan, PlanMemory(request));
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t mapped,
                             CountArena(request.shape, request.scheme, plan.kv_bytes(), backend));
  plan.SetArenaMapped(mapped);
  ASYMSERVE_ASSIGN_OR_RETURN(plan.host_bytes, PlanHostMemory(budget, runtime, engine.max_running));
  return plan;
}

/// The profile that was asked for, or the one beside the model; none is no error.
absl::StatusOr<std::optional<KvProfile>> FindProfile(const LoadOptions& options,
                                                     const WeightFile& file, LoadedModel& loaded) {
  const std::string path = FindModelProfile(options.kv_profile, options.path);
  if (path.empty()) return std::optional<KvProfile>();
  ASYMSERVE_ASSIGN_OR_RETURN(KvProfile profile, ReadModelProfile(path, file));
  loaded.kv_profile = path;
  return std::optional<KvProfile>(std::move(profile));
}

absl::StatusOr<KvScheme> ChooseScheme(const LoadOptions& options, const KvShape& shape,
                                      const KvProfile* profile, LoadedModel& loaded) {
  const std::string name = KvSchemeName(options.kv_scheme, profile != nullptr);
  absl::StatusOr<KvScheme> scheme = ResolveKvScheme(name, shape, profile);
  if (!scheme.ok()) return Annotate(scheme.status(), "kv.scheme");
  for (size_t i = 0; profile != nullptr && i < profile->tiers.size(); ++i) {
    if (profile->tiers[i].name != name) continue;
    ASYMSERVE_RETURN_IF_ERROR(CheckTierQuality(*profile, name, options.kv_limits));
    loaded.kv_tier = name;
    loaded.kv_losses = profile->tiers[i].losses;
  }
  return scheme;
}

/// Measures the scheme that is to be served, unless it is exact. Uses the backend's cache for that.
absl::Status SelfCheck(Backend& backend, const LoadOptions& options, const KvProfile* profile,
                       const KvSetup& setup, LoadedModel& loaded) {
  if (!options.kv_self_check || setup.scheme.name == "exact") return absl::OkStatus();
  ASYMSERVE_ASSIGN_OR_RETURN(const double kl,
                             SelfCheckKl(*loaded.model, backend, setup, *loaded.tokenizer));
  loaded.kv_self_check_kl = kl;
  return CheckMeasuredKl(setup.scheme.name, kl, options.kv_limits, profile);
}

/// Sets up the backend's cache, when the weights and the tokenizer are there.
absl::Status InitKvCache(Backend& backend, const LoadOptions& options, const KvShape& shape,
                         const KvProfile* profile, LoadedModel& loaded, PhaseTimer& timer) {
  const EngineOptions& engine = loaded.engine_options;
  loaded.kv_bytes = loaded.memory_plan.kv_bytes();
  KvSetup setup;
  setup.shape = shape;
  setup.scheme = engine.scheme;
  setup.arena_bytes = loaded.kv_bytes;
  setup.codes = profile != nullptr ? &profile->codes : nullptr;
  setup.rope = loaded.model->rope();
  setup.rope_style = loaded.config.rope_style;
  ASYMSERVE_RETURN_IF_ERROR(SelfCheck(backend, options, profile, setup, loaded));
  if (options.kv_self_check) timer.End("kv_self_check");
  ASYMSERVE_RETURN_IF_ERROR(backend.KvInit(setup));
  timer.End("kv_cache");
  return absl::OkStatus();
}

/// What the options say of the engine; its arena is the plan's.
EngineOptions ToEngineOptions(const LoadOptions& options, const LoadedModel& loaded,
                              const KvScheme& scheme) {
  EngineOptions engine;
  engine.scheme = scheme;
  engine.max_context_tokens =
      options.max_context_tokens > 0 ? options.max_context_tokens : loaded.config.context_length;
  engine.max_running = options.max_running;
  engine.prefix_cache = options.kv_prefix_cache;
  engine.cache_identity = absl::StrCat(options.path, "\n", loaded.kv_profile, "\n", scheme.name);
  engine.max_waiting = options.max_waiting;
  engine.step_tokens = std::max(options.step_tokens, options.max_running);
  return engine;
}

/// The tokenizer's chat template, or why there is none.
void LoadChatTemplate(LoadedModel& loaded) {
  const std::string& source = loaded.tokenizer->spec().chat_template;
  if (source.empty()) {
    loaded.chat_template_error =
        absl::FailedPreconditionError("the model file has no chat template");
  } else if (auto parsed = ChatTemplate::Parse(source); parsed.ok()) {
    loaded.chat_template = std::make_unique<ChatTemplate>(*std::move(parsed));
  } else {
    loaded.chat_template_error = absl::FailedPreconditionError(absl::StrCat(
        "the model's chat template is not supported: ", std::string(parsed.status().message())));
  }
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(Backend& backend, const LoadOptions& options) {
  LoadedModel loaded;
  PhaseTimer timer(loaded);
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<WeightFile> file, OpenWeightFile(options.path));
  timer.End("open");
  loaded.config = file->config();
  loaded.weight_type = file->summary();
  if (options.max_context_tokens > loaded.config.context_length) {
    return absl::InvalidArgumentError(
        absl::StrCat("engine.context_tokens: ", options.max_context_tokens,
                     " tokens; the model was trained for 1 to ", loaded.config.context_length));
  }

  auto tokenizer =
      std::async(std::launch::async, [&file] { return Tokenizer::Create(file->tokenizer_spec()); });

  const KvShape shape = KvShapeOf(loaded.config);
  ASYMSERVE_ASSIGN_OR_RETURN(const std::optional<KvProfile> profile,
                             FindProfile(options, *file, loaded));
  const KvProfile* found = profile.has_value() ? &*profile : nullptr;
  ASYMSERVE_ASSIGN_OR_RETURN(const KvScheme scheme, ChooseScheme(options, shape, found, loaded));
  ASYMSERVE_RETURN_IF_ERROR(CheckKvScheme(scheme, shape));
  loaded.engine_options = ToEngineOptions(options, loaded, scheme);
  EngineOptions& engine = loaded.engine_options;
  LlamaOptions llama;
  const int32_t self_check_rows = options.kv_self_check ? kSelfCheckRows : 0;
  llama.max_step_tokens = std::max(engine.step_tokens, self_check_rows);
  llama.max_logit_rows = std::max(engine.max_running, self_check_rows);
  llama.max_positions = engine.max_context_tokens;
  ASYMSERVE_ASSIGN_OR_RETURN(const MemoryBudget budget,
                             FindMemoryBudget(backend, options.memory_bytes));
  ASYMSERVE_ASSIGN_OR_RETURN(loaded.memory_plan,
                             PlanModel(options, *file, backend, engine, llama, budget));
  engine.arena = loaded.memory_plan.arena;
  auto model = LlamaModel::Load(*file, backend, llama);
  if (!model.ok()) return Annotate(model.status(), options.path);
  loaded.model = *std::move(model);
  loaded.weight_bytes = loaded.model->weight_bytes();
  timer.End("weights");

  auto built = tokenizer.get();
  if (!built.ok()) return Annotate(built.status(), absl::StrCat(options.path, ": tokenizer"));
  loaded.tokenizer = *std::move(built);
  LoadChatTemplate(loaded);
  timer.End("tokenizer");

  ASYMSERVE_RETURN_IF_ERROR(CheckRoomForArena(backend, budget, loaded.memory_plan));
  ASYMSERVE_RETURN_IF_ERROR(InitKvCache(backend, options, shape, found, loaded, timer));
  return loaded;
}

}  // namespace asymserve
