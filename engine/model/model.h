#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"

namespace asymserve {

/// The tokens of one step, ragged over sequences (see KvStep).
struct Batch {
  std::span<const int32_t> tokens;       // [T] ids in [0, vocabulary)
  KvStep kv;                             // positions, offsets and page tables of the same T tokens
  std::span<const int32_t> logit_rows;   // [R] ascending token indices whose logits are wanted
  std::span<const KvSealOp> seals = {};  // KV pages to seal before anything else
  DrawBatch draws = {};                  // rows of logits of which tokens are wanted instead
  std::span<DrawnToken> drawn = {};      // gets them, in the order of the draws
};

/// A language model bound to a backend. Virtual so that engine tests can script one.
class Model {
 public:
  virtual ~Model() = default;
  virtual int32_t vocabulary() const = 0;
  virtual int32_t context_length() const = 0;
  /// What a batch may draw; nothing: it has no draws.
  virtual std::optional<DrawLimits> draw_limits() const { return std::nullopt; }
  /// Of the backend, as Backend::threads.
  virtual ThreadPool* threads() { return nullptr; }
  /// Runs the step: stores K and V of every token, returns logits [R, V] f32 on the host, valid
  /// until the next call, without values in the rows that are drawn. Engine thread. An error is
  /// terminal for the engine.
  virtual absl::StatusOr<TensorView> Forward(const Batch& batch) = 0;
};

}  // namespace asymserve
