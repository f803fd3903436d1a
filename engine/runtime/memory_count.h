#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

#include "engine/kv/memory_planner.h"
#include "engine/model/llama.h"
#include "engine/model/weight_file.h"

namespace asymserve {

/// A bound of what the process holds beside the backend's memory: code, gRPC, the tokenizer, page
/// tables, the text of `waiting` requests. Those that run take kRuntimePerRequest more each.
int64_t RuntimeBound(int32_t vocabulary, int64_t waiting, int32_t threads);
/// Prompt, output, page table, messages that the client has not read.
inline constexpr int64_t kRuntimePerRequest = 64 * 1024;

/// What a backend would take for a model, counted without reading its weights. The arena is not
/// part of it.
absl::StatusOr<MemoryBytes> CountModelMemory(const WeightFile& file, const Backend& backend,
                                             const LlamaOptions& options, const KvScheme& scheme);

/// The workspace as a function of step tokens and sequences, for steps of `step_tokens` or more.
absl::StatusOr<WorkspaceModel> CountWorkspace(const WeightFile& file, const Backend& backend);

/// What the arena of a plan takes.
absl::StatusOr<int64_t> CountArena(const KvShape& shape, const KvScheme& scheme,
                                   int64_t arena_bytes, const Backend& backend);

/// What the codes of a learned scheme take of the tables; 0 for others.
absl::StatusOr<int64_t> CountCodes(const KvShape& shape, const KvScheme& scheme,
                                   const Backend& backend);

KvShape KvShapeOf(const ModelConfig& config);

}  // namespace asymserve
