#include "engine/runtime/model_loader.h"

#include <algorithm>
#include <chrono>
#include <future>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/kv/layout.h"
#include "engine/runtime/host_memory.h"

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

/// KV pages for the given memory: no more than the running sequences could ever fill, at least one
/// sequence of the whole context.
absl::StatusOr<int32_t> CountPages(const LoadOptions& options, const ModelConfig& config,
                                   int32_t context_tokens, const KvScheme& scheme) {
  const KvShape shape{config.layers, config.attention.kv_heads, config.attention.head_size};
  const int64_t page_bytes = ExactPageLayout(shape, scheme).record_bytes();
  const int64_t budget =
      options.kv_memory_bytes > 0 ? options.kv_memory_bytes : AvailableHostMemoryBytes() / 4;
  const int64_t per_sequence = (context_tokens + scheme.page_tokens - 1) / scheme.page_tokens;
  const int64_t pages = std::min(budget / page_bytes, per_sequence * options.max_running);
  if (pages < per_sequence) {
    return absl::InvalidArgumentError(absl::StrCat(
        "engine.kv_memory: ", budget, " bytes hold ", budget / page_bytes, " pages of ",
        scheme.page_tokens, " tokens; one sequence of engine.context_tokens = ", context_tokens,
        " needs ", per_sequence, " (", per_sequence * page_bytes,
        " bytes): raise the memory or lower the context"));
  }
  return static_cast<int32_t>(pages);
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(Backend& backend, const LoadOptions& options) {
  LoadedModel loaded;
  PhaseTimer timer(loaded);
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<WeightFile> file, OpenWeightFile(options.path));
  timer.End("open");
  loaded.config = file->config();
  loaded.weight_type = file->summary();

  auto tokenizer =
      std::async(std::launch::async, [&file] { return Tokenizer::Create(file->tokenizer_spec()); });

  const KvScheme scheme;
  const int32_t context_tokens =
      options.max_context_tokens > 0
          ? std::min(options.max_context_tokens, loaded.config.context_length)
          : loaded.config.context_length;
  EngineOptions& engine = loaded.engine_options;
  engine.page_tokens = scheme.page_tokens;
  engine.chunk_tokens = scheme.chunk_tokens;
  engine.max_context_tokens = context_tokens;
  engine.max_running = options.max_running;
  engine.max_waiting = options.max_waiting;
  engine.step_tokens = std::max(options.step_tokens, options.max_running);
  ASYMSERVE_ASSIGN_OR_RETURN(engine.pages,
                             CountPages(options, loaded.config, context_tokens, scheme));

  LlamaOptions llama;
  llama.max_step_tokens = engine.step_tokens;
  llama.max_logit_rows = engine.max_running;
  llama.max_positions = context_tokens;
  auto model = LlamaModel::Load(*file, backend, llama);
  if (!model.ok()) return Annotate(model.status(), options.path);
  loaded.model = *std::move(model);
  loaded.weight_bytes = loaded.model->weight_bytes();
  timer.End("weights");

  const KvShape shape{loaded.config.layers, loaded.config.attention.kv_heads,
                      loaded.config.attention.head_size};
  ASYMSERVE_RETURN_IF_ERROR(backend.KvInit(shape, scheme, engine.pages));
  loaded.kv_bytes = engine.pages * ExactPageLayout(shape, scheme).record_bytes();
  timer.End("kv_cache");

  auto built = tokenizer.get();
  if (!built.ok()) return Annotate(built.status(), absl::StrCat(options.path, ": tokenizer"));
  loaded.tokenizer = *std::move(built);
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
  timer.End("tokenizer");
  return loaded;
}

}  // namespace asymserve
