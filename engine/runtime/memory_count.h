#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

#include "engine/kv/memory_planner.h"
#include "engine/model/llama.h"
#include "engine/model/weight_file.h"

namespace asymserve {

/// A bound of what the process holds beside the backend's memory: code, gRPC, the tokenizer, page
/// tables, the text of `requests` requests that wait or run, and what their readers have not read.
int64_t RuntimeBound(int32_t vocabulary, int64_t requests, int32_t threads);

/// What a backend would take for a model, counted without reading its weights. The arena is not
/// part of it.
absl::StatusOr<MemoryBytes> CountModelMemory(const WeightFile& file, const Backend& backend,
                                             const LlamaOptions& options, const KvScheme& scheme);

/// The workspace as a function of step tokens and sequences, for steps of `step_tokens` or more.
absl::StatusOr<WorkspaceModel> CountWorkspace(const WeightFile& file, const Backend& backend);

/// What the arena of a plan takes, and how much more than its slabs that may be.
absl::StatusOr<int64_t> CountArena(const KvShape& shape, const KvScheme& scheme,
                                   int64_t arena_bytes, const Backend& backend);
inline constexpr int64_t kArenaRounding = 8192;

KvShape KvShapeOf(const ModelConfig& config);

}  // namespace asymserve
