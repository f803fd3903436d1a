#include "engine/runtime/memory_count.h"

#include <algorithm>
#include <memory>

#include "engine/base/status.h"
#include "engine/runtime/step_sampling.h"

namespace asymserve {
namespace {

absl::StatusOr<int64_t> WorkspaceBytes(const WeightFile& file, const Backend& backend,
                                       int32_t tokens, int32_t rows) {
  // The tables do not matter here: the shortest rotary table is made fastest.
  const LlamaOptions options = {
      .max_step_tokens = tokens, .max_logit_rows = rows, .max_positions = 1, .counts_only = true};
  const std::unique_ptr<Backend> counter = backend.MakeCounter();
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<LlamaModel> model,
                             LlamaModel::Load(file, *counter, options));
  return counter->CountedMemory()[MemoryClass::kWorkspace];
}

absl::StatusOr<MemoryBytes> CountCache(const KvShape& shape, const KvScheme& scheme,
                                       int64_t arena_bytes, const Backend& backend) {
  const std::unique_ptr<Backend> counter = backend.MakeCounter();
  KvSetup setup;
  setup.shape = shape;
  setup.scheme = scheme;
  setup.arena_bytes = arena_bytes;
  ASYMSERVE_RETURN_IF_ERROR(counter->KvInit(setup));
  return counter->CountedMemory();
}

}  // namespace

int64_t RuntimePerRequest(int32_t context_tokens) {
  constexpr int64_t kOfShortContexts = 64 * 1024;
  constexpr int64_t kShortContext = 8192;
  return kOfShortContexts + 8 * std::max<int64_t>(context_tokens - kShortContext, 0);
}

int64_t RuntimeBound(const RuntimeShape& runtime) {
  constexpr int64_t kProcess = int64_t{64} << 20;
  constexpr int64_t kPerToken = 1024;  // of the vocabulary: text, merges, hash tables
  constexpr int64_t kPerThread = int64_t{1} << 20;
  return kProcess + kPerToken * runtime.vocabulary + kPerThread * runtime.threads +
         SamplerBytes(runtime.vocabulary) * (std::min(runtime.threads, kMaxSamplers) - 1) +
         RuntimePerRequest(runtime.context_tokens) * runtime.waiting;
}

absl::StatusOr<MemoryBytes> CountModelMemory(const WeightFile& file, const Backend& backend,
                                             const LlamaOptions& options, const KvScheme& scheme) {
  const std::unique_ptr<Backend> counter = backend.MakeCounter();
  LlamaOptions counted = options;
  counted.counts_only = true;
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<LlamaModel> model,
                             LlamaModel::Load(file, *counter, counted));
  KvSetup setup;
  setup.shape = KvShapeOf(file.config());
  setup.scheme = scheme;
  ASYMSERVE_RETURN_IF_ERROR(counter->KvInit(setup));
  return counter->CountedMemory();
}

absl::StatusOr<WorkspaceModel> CountWorkspace(const WeightFile& file, const Backend& backend) {
  // Powers of two, so that no buffer is padded and the slopes are exact.
  constexpr int32_t kSteps = 1024;
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t small, WorkspaceBytes(file, backend, kSteps, kSteps));
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t tokens,
                             WorkspaceBytes(file, backend, 2 * kSteps, kSteps));
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t rows, WorkspaceBytes(file, backend, kSteps, 2 * kSteps));
  WorkspaceModel workspace;
  workspace.bytes_per_token = (tokens - small) / kSteps;
  workspace.bytes_per_sequence = (rows - small) / kSteps;
  workspace.fixed_bytes =
      small - kSteps * (workspace.bytes_per_token + workspace.bytes_per_sequence);
  return workspace;
}

absl::StatusOr<int64_t> CountArena(const KvShape& shape, const KvScheme& scheme,
                                   int64_t arena_bytes, const Backend& backend) {
  ASYMSERVE_ASSIGN_OR_RETURN(const MemoryBytes bytes,
                             CountCache(shape, scheme, arena_bytes, backend));
  return bytes[MemoryClass::kKv];
}

absl::StatusOr<int64_t> CountCodes(const KvShape& shape, const KvScheme& scheme,
                                   const Backend& backend) {
  ASYMSERVE_ASSIGN_OR_RETURN(const MemoryBytes bytes, CountCache(shape, scheme, 0, backend));
  return bytes[MemoryClass::kTables];
}

KvShape KvShapeOf(const ModelConfig& config) {
  return {config.layers, config.attention.kv_heads, config.attention.head_size};
}

}  // namespace asymserve
