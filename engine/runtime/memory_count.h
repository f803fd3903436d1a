#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

#include "engine/kv/memory_planner.h"
#include "engine/model/llama.h"
#include "engine/model/weight_file.h"

namespace asymserve {

/// The rest of the process, beside the backend's memory, at its fullest.
struct RuntimeShape {
  int32_t vocabulary = 0;
  int32_t context_tokens = 0;  // of a request
  int64_t waiting = 0;         // requests
  int32_t threads = 1;
};

/// What it holds: code, gRPC, the tokenizer, `waiting` requests. Those that run take
/// RuntimePerRequest more each.
int64_t RuntimeBound(const RuntimeShape& runtime);
/// Prompt and output, of the request and of its sequence, 4 bytes a token each: 64 KiB for contexts
/// up to 8,192 tokens, of which short requests leave most to page tables and to messages that the
/// client has not read. Without the lists of tokens that penalties look at, which are the margin's.
int64_t RuntimePerRequest(int32_t context_tokens);

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
