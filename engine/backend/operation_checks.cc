#include "engine/backend/operation_checks.h"

#include <string>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"

namespace asymserve {
namespace {

// Output columns and bytes are counted in 32 and 64 bits; both stay far from their ends.
constexpr int64_t kMaxExtent = int64_t{1} << 30;

std::string ShapeOf(TensorView view) {
  return absl::StrCat("[", view.rows(), ", ", view.row_elements(), "]");
}

bool HasShape(TensorView view, int64_t rows, int64_t cols) {
  return view.dtype == DType::kF32 && view.rows() == rows && view.row_elements() == cols;
}

bool IsVector(TensorView view, int64_t n) {
  return view.dtype == DType::kF32 && view.elements() == n;
}

absl::Status ShapeError(const char* operation, TensorView a, TensorView b) {
  return absl::InternalError(
      absl::StrCat(operation, ": ", ShapeOf(a), " does not fit ", ShapeOf(b)));
}

bool Contains(std::span<const int32_t> values, int64_t end, int32_t& outside) {
  for (const int32_t value : values) {
    if (value >= 0 && value < end) continue;
    outside = value;
    return false;
  }
  return true;
}

bool IsMatrixType(DType dtype) {
  return dtype != DType::kI32 && dtype != DType::kI8;
}

}  // namespace

// ---- Start-up ---------------------------------------------------------------------------------

absl::Status CheckWeightParts(std::span<const WeightSource> parts) {
  if (parts.empty()) return absl::InvalidArgumentError("weight has no parts");
  int64_t rows = 0;
  for (const WeightSource& part : parts) {
    const DTypeInfo info = Info(part.dtype);
    if (!IsMatrixType(part.dtype)) {
      return absl::InvalidArgumentError(
          absl::StrCat("weights of type ", info.name, " are not supported"));
    }
    if (part.rows < 1 || part.rows > kMaxExtent || part.cols < 1 || part.cols > kMaxExtent) {
      return absl::InvalidArgumentError(absl::StrCat("weight of ", part.rows, " x ", part.cols,
                                                     "; extents must be in [1, ", kMaxExtent, "]"));
    }
    if (part.cols != parts[0].cols) {
      return absl::InvalidArgumentError(absl::StrCat("weight parts have rows of ", parts[0].cols,
                                                     " and of ", part.cols, " elements"));
    }
    if (part.cols % info.block_elements != 0) {
      return absl::InvalidArgumentError(absl::StrCat("weight rows of ", part.cols,
                                                     " elements are not a multiple of ", info.name,
                                                     "'s block of ", info.block_elements));
    }
    rows += part.rows;
  }
  if (rows > kMaxExtent) {
    return absl::InvalidArgumentError(
        absl::StrCat("weight of ", rows, " rows; the limit is ", kMaxExtent));
  }
  return absl::OkStatus();
}

absl::Status CheckUpload(int64_t count, int64_t rows) {
  if (rows >= 1 && count % rows == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(count, " values do not make ", rows, " equal rows"));
}

absl::Status CheckReserve(int64_t max_tokens, int64_t max_cols) {
  constexpr int64_t kMax = int64_t{1} << 24;
  if (max_tokens >= 1 && max_tokens <= kMax && max_cols >= 1 && max_cols <= kMax) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("steps of ", max_tokens, " tokens and ", max_cols,
                                                 " inputs; both must be in [1, ", kMax, "]"));
}

absl::StatusOr<int64_t> FloatBytes(int64_t rows, int64_t cols) {
  constexpr int64_t kMaxElements = int64_t{1} << 40;
  if (rows < 1 || cols < 1 || rows > kMaxElements / cols) {
    return absl::InvalidArgumentError(absl::StrCat("activation of ", rows, " x ", cols));
  }
  return rows * cols * static_cast<int64_t>(sizeof(float));
}

// ---- Operations -------------------------------------------------------------------------------

absl::Status CheckEmbed(TensorView out, const Weight& table, std::span<const int32_t> tokens) {
  if (!HasShape(out, static_cast<int64_t>(tokens.size()), table.cols())) {
    return absl::InternalError(absl::StrCat("Embed: ", ShapeOf(out), " does not fit ",
                                            tokens.size(), " tokens of a table [", table.rows(),
                                            ", ", table.cols(), "]"));
  }
  int32_t outside = 0;
  if (!Contains(tokens, table.rows(), outside)) {
    return absl::InternalError(
        absl::StrCat("Embed: token ", outside, " of a table with ", table.rows(), " rows"));
  }
  return absl::OkStatus();
}

absl::Status CheckMatMul(TensorView out, TensorView x, const Weight& w) {
  if (!HasShape(x, x.rows(), w.cols()) || !HasShape(out, x.rows(), w.rows())) {
    return absl::InternalError(absl::StrCat("MatMul: ", ShapeOf(out), " = ", ShapeOf(x),
                                            " times weight [", w.rows(), ", ", w.cols(), "]"));
  }
  return absl::OkStatus();
}

absl::Status CheckRmsNorm(TensorView out, TensorView x, TensorView weight) {
  const int64_t cols = x.row_elements();
  if (!HasShape(out, x.rows(), cols)) return ShapeError("RmsNorm", out, x);
  if (!IsVector(weight, cols)) return ShapeError("RmsNorm", weight, x);
  return absl::OkStatus();
}

absl::Status CheckAddRmsNorm(TensorView out, TensorView residual, TensorView delta,
                             TensorView weight) {
  const int64_t cols = residual.row_elements();
  if (!HasShape(out, residual.rows(), cols)) return ShapeError("AddRmsNorm", out, residual);
  if (!HasShape(delta, residual.rows(), cols)) return ShapeError("AddRmsNorm", delta, residual);
  if (!IsVector(weight, cols)) return ShapeError("AddRmsNorm", weight, residual);
  return absl::OkStatus();
}

absl::Status CheckSwiGlu(TensorView out, TensorView gate_up) {
  const int64_t cols = out.row_elements();
  if (!HasShape(gate_up, out.rows(), 2 * cols)) return ShapeError("SwiGlu", gate_up, out);
  return absl::OkStatus();
}

absl::Status CheckGatherRows(TensorView out, TensorView x, std::span<const int32_t> rows) {
  if (!HasShape(out, static_cast<int64_t>(rows.size()), x.row_elements())) {
    return ShapeError("GatherRows", out, x);
  }
  int32_t outside = 0;
  if (!Contains(rows, x.rows(), outside)) {
    return absl::InternalError(absl::StrCat("GatherRows: row ", outside, " of ", ShapeOf(x)));
  }
  return absl::OkStatus();
}

absl::Status CheckPrepareQkv(TensorView qkv, const QkvParams& params,
                             std::span<const int32_t> positions) {
  const AttentionShape& shape = params.shape;
  const int64_t size = shape.head_size;
  const int64_t cols = (int64_t{shape.heads} + 2 * int64_t{shape.kv_heads}) * size;
  const auto fits = [](TensorView view, int64_t n) {
    return view.data == nullptr || IsVector(view, n);
  };
  if (!HasShape(qkv, static_cast<int64_t>(positions.size()), cols) || size % 2 != 0) {
    return absl::InternalError(absl::StrCat("PrepareQkv: ", ShapeOf(qkv), " does not fit ",
                                            positions.size(), " tokens of ", shape.heads, " + 2 * ",
                                            shape.kv_heads, " heads of ", size));
  }
  if (!fits(params.bias, cols)) return ShapeError("PrepareQkv bias", params.bias, qkv);
  if (!fits(params.q_norm, size)) return ShapeError("PrepareQkv q_norm", params.q_norm, qkv);
  if (!fits(params.k_norm, size)) return ShapeError("PrepareQkv k_norm", params.k_norm, qkv);
  const TensorView& rope = params.rope;
  if (rope.data == nullptr) return absl::OkStatus();
  if (!HasShape(rope, rope.rows(), size)) return ShapeError("PrepareQkv rope", rope, qkv);
  int32_t outside = 0;
  if (!Contains(positions, rope.rows(), outside)) {
    return absl::InternalError(absl::StrCat("PrepareQkv: position ", outside,
                                            " of a rope table with ", rope.rows(), " rows"));
  }
  return absl::OkStatus();
}

}  // namespace asymserve
