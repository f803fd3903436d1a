#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/backend/backend.h"

// What backend.h asks of the arguments of a call, the same for every backend. Start-up calls get
// InvalidArgument, operations InternalError.

namespace asymserve {

/// The parts of a weight: types of matrices, equal rows that fit their block.
absl::Status CheckWeightParts(std::span<const WeightSource> parts);
absl::Status CheckUpload(int64_t count, int64_t rows);
absl::Status CheckReserve(int64_t max_tokens, int64_t max_cols);
/// The bytes of an activation.
absl::StatusOr<int64_t> FloatBytes(int64_t rows, int64_t cols);

absl::Status CheckEmbed(TensorView out, const Weight& table, std::span<const int32_t> tokens);
absl::Status CheckMatMul(TensorView out, TensorView x, const Weight& w);
absl::Status CheckRmsNorm(TensorView out, TensorView x, TensorView weight);
absl::Status CheckAddRmsNorm(TensorView out, TensorView residual, TensorView delta,
                             TensorView weight);
absl::Status CheckSwiGlu(TensorView out, TensorView gate_up);
absl::Status CheckGatherRows(TensorView out, TensorView x, std::span<const int32_t> rows);
absl::Status CheckPrepareQkv(TensorView qkv, const QkvParams& params,
                             std::span<const int32_t> positions);

}  // namespace asymserve
