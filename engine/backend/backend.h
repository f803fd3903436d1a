#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/backend/token_draw.h"
#include "engine/base/memory_class.h"
#include "engine/base/tensor.h"
#include "engine/kv/page_tier.h"
#include "engine/kv/plane_code.h"
#include "engine/kv/scheme.h"
#include "engine/kv/seal_op.h"

// The virtual device: memory and one in-order queue. Letters: T tokens in a step, S sequences,
// H query heads, G KV heads, D head size, C width, F feed-forward width, V vocabulary.
//
// Contract of every operation:
//  - All calls come from one thread at a time. Operations run in call order, and may still run when
//    a call has returned; what a call was given on the host may be changed then. The host reads
//    results through Download and DrawTokens only.
//  - Row t of an output depends on row t of the inputs only, never on T or on the other rows, bit
//    for bit (engine/README.md, invariant 8). So a token's value does not depend on its batch.
//  - Shapes that do not fit are a bug of the caller: InternalError that names both shapes.
//  - Nothing allocates after start-up: Reserve fixes the largest step.

namespace asymserve {

class ThreadPool;

/// A weight matrix as it lies in a model file: `rows` outputs of `cols` inputs each, row-major,
/// unaligned. `cols` is a multiple of the type's block.
struct WeightSource {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

/// A matrix [N, K] in the backend's own packing, at the file's precision. Owned by its holder; must
/// not outlive the backend.
class Weight {
 public:
  virtual ~Weight() = default;
  virtual int64_t rows() const = 0;   // N
  virtual int64_t cols() const = 0;   // K
  virtual int64_t bytes() const = 0;  // as stored
};

enum class RopeStyle : uint8_t {
  kInterleaved,  // channels (2i, 2i + 1) form a pair: GGUF's Llama family
  kHalves,       // channels (i, i + D/2) form a pair: Hugging Face, GGUF's Qwen family
};

struct AttentionShape {
  int32_t heads = 0;      // H
  int32_t kv_heads = 0;   // G, divides H
  int32_t head_size = 0;  // D
};

/// What happens to the fused projection [T, (H + 2G) * D] = q | k | v of a layer before attention:
/// bias, then per-head RMSNorm of q and k, then rotary embedding of q and k. Empty views are
/// skipped.
struct QkvParams {
  AttentionShape shape;
  TensorView bias;    // [(H + 2G) * D] f32 or empty
  TensorView q_norm;  // [D] f32 or empty
  TensorView k_norm;  // [D] f32 or empty
  float norm_epsilon = 0;
  TensorView rope;  // [max_positions, D] f32: D/2 cosines, then D/2 sines, by position
  RopeStyle rope_style = RopeStyle::kHalves;
};

/// Which tokens of a step belong to which sequence and where their keys and values are. Ragged, no
/// padding: three sequences of 2, 3, 1 new tokens have token_offset [0, 2, 5, 6].
struct KvStep {
  std::span<const int32_t> positions;     // [T] position of each token in its sequence
  std::span<const int32_t> token_offset;  // [S + 1] into the tokens of the step
  std::span<const KvPage> pages;          // page tables of all sequences, one after the other
  std::span<const int32_t>
      page_offset;  // [S + 1] into `pages`; page i holds positions [64i, 64i + 64)
  /// Not 0: calls with the same number, one after the other, are given the same step, so that a
  /// backend may keep what it made of it.
  uint64_t number = 0;
};

/// What the arena of a KV cache needs besides its shape.
struct KvSetup {
  KvShape shape;
  KvScheme scheme;
  int64_t arena_bytes = 0;
  const PlaneCodes* codes = nullptr;  // schemes with kPlanes items; copied
  TensorView rope;                    // as in QkvParams: rotates keys to and from their frame
  RopeStyle rope_style = RopeStyle::kHalves;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;  // "cpu (avx512)"

  // ---- Start-up -------------------------------------------------------------------------------

  /// Copies parts of equal `cols`, stacked by rows, into the backend's packing. InvalidArgument
  /// when a type is not supported or a row length does not fit its block.
  virtual absl::StatusOr<std::unique_ptr<Weight>> PackWeight(
      std::span<const WeightSource> parts) = 0;
  /// Copies a small parameter vector or table. Lives as long as the backend.
  virtual absl::StatusOr<TensorView> Upload(std::span<const float> values, int64_t rows = 1) = 0;
  /// Activation memory, uninitialized. Lives as long as the backend.
  virtual absl::StatusOr<TensorView> AllocateActivation(int64_t rows, int64_t cols) = 0;
  /// The same for what is read by the host, with Download.
  virtual absl::StatusOr<TensorView> AllocateResult(int64_t rows, int64_t cols) = 0;
  /// Scratch for steps of up to `max_tokens` rows of up to `max_cols` inputs.
  virtual absl::Status Reserve(int64_t max_tokens, int64_t max_cols) = 0;
  /// Room for DrawTokens of up to `rows` rows of `vocabulary` logits, and what it takes of a draw.
  /// Nothing: tokens are chosen on the host, from logits that Download gives.
  virtual absl::StatusOr<std::optional<DrawLimits>> ReserveDraws(int64_t /*rows*/,
                                                                 int64_t /*vocabulary*/) {
    return std::optional<DrawLimits>();
  }
  /// Allocates the arena; its page ids are those of kv/record_pool.h. Called again, it forgets all
  /// pages and starts anew with another scheme (quality evaluation does). InvalidArgument for a
  /// scheme or shape that the backend cannot do, ResourceExhausted for memory.
  virtual absl::Status KvInit(const KvSetup& setup) = 0;

  // ---- Memory ---------------------------------------------------------------------------------

  /// A backend that allocates nothing and counts what this one would for the same start-up calls:
  /// its CountedMemory is what a plan expects. Data of weights is not read, views that it gives
  /// have no data, KvInit needs neither codes nor rotary table, operations are InternalErrors. It
  /// must not outlive this backend.
  virtual std::unique_ptr<Backend> MakeCounter() const = 0;
  /// What the start-up calls allocated, by the backend's own count.
  virtual MemoryBytes CountedMemory() const = 0;
  /// The same as the system sees it. Any thread.
  virtual absl::StatusOr<MemoryUse> MeasureMemory() const = 0;

  // ---- Operations -----------------------------------------------------------------------------

  /// out [T, C] = rows of `table` [V, C] (dequantized) at `tokens` [T], which are in range.
  virtual absl::Status Embed(TensorView out, const Weight& table,
                             std::span<const int32_t> tokens) = 0;
  /// out [T, N] = x [T, K] times w [N, K] transposed.
  virtual absl::Status MatMul(TensorView out, TensorView x, const Weight& w) = 0;
  /// out = x / rms(x) * weight, by row.
  virtual absl::Status RmsNorm(TensorView out, TensorView x, TensorView weight, float epsilon) = 0;
  /// residual += delta; out = RmsNorm(residual). All [T, C].
  virtual absl::Status AddRmsNorm(TensorView out, TensorView residual, TensorView delta,
                                  TensorView weight, float epsilon) = 0;
  /// out [T, F] = silu(gate) * up with gate_up [T, 2F] = gate | up.
  virtual absl::Status SwiGlu(TensorView out, TensorView gate_up) = 0;
  /// out [rows.size(), C] = x[rows].
  virtual absl::Status GatherRows(TensorView out, TensorView x, std::span<const int32_t> rows) = 0;

  /// Applies QkvParams to qkv [T, (H + 2G) * D] in place.
  virtual absl::Status PrepareQkv(TensorView qkv, const QkvParams& params,
                                  std::span<const int32_t> positions) = 0;
  /// Stores k and v of qkv into the near records of their positions' pages, in 16 bit where a page
  /// is exact (the pages of a sequence are all exact or none is). A value that does not
  /// fit the stored format is stored as NaN, so that it reaches the sequence's own logits and fails
  /// that request.
  virtual absl::Status KvWrite(const KvStep& step, int32_t layer, TensorView qkv) = 0;
  /// Seals pages in all layers and heads. The same near bytes give the same sealed bytes, whatever
  /// the batch, threads and instruction set.
  virtual absl::Status KvSeal(std::span<const KvSealOp> pages) = 0;
  /// out [T, H * D]: causal softmax attention, scaled by 1/sqrt(D), of q in qkv over the stored
  /// positions 0..p of each token's sequence (its own included: KvWrite comes first), each page
  /// read in the tier that its KvPage says.
  virtual absl::Status Attention(const KvStep& step, int32_t layer, const AttentionShape& shape,
                                 TensorView out, TensorView qkv) = 0;

  /// Waits for all operations; the values of `result`, first rows of what AllocateResult gave, on
  /// the host. Valid until the next operation.
  virtual absl::StatusOr<TensorView> Download(TensorView result) = 0;
  /// Download of the rows that no draw names, and in `tokens` the tokens of those that one does:
  /// for the others the view has no values. A row's token depends on its draw and logits only; the
  /// logits on the device stay as they are.
  virtual absl::StatusOr<TensorView> DrawTokens(TensorView /*result*/, const DrawBatch& /*batch*/,
                                                std::span<DrawnToken> /*tokens*/) {
    return absl::InternalError("DrawTokens: this backend reserves no draws");
  }

  // ---- The host -------------------------------------------------------------------------------

  /// Threads of the host that idle between operations, for the caller's own work there; null: it
  /// has none.
  virtual ThreadPool* threads() { return nullptr; }

  // ---- The device -----------------------------------------------------------------------------

  /// What is free of the memory of its own, if it has such: then all classes of memory lie there.
  /// Nothing: they lie in the host's. Any thread.
  virtual absl::StatusOr<std::optional<DeviceRoom>> Room() const {
    return std::optional<DeviceRoom>();
  }
};

}  // namespace asymserve
