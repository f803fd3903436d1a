#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "engine/backend/backend.h"

namespace asymserve::testing {

/// A backend that lets a test see and change what is sealed; all else goes to the real one.
class SealInterceptor final : public Backend {
 public:
  using Hook = std::function<absl::Status(std::vector<KvSealOp>&)>;

  /// `real` outlives the object.
  explicit SealInterceptor(Backend& real) : real_(real) {}
  void set_hook(Hook hook) { hook_ = std::move(hook); }

  std::string_view name() const override { return real_.name(); }
  absl::StatusOr<std::unique_ptr<Weight>> PackWeight(std::span<const WeightSource> parts) override {
    return real_.PackWeight(parts);
  }
  absl::StatusOr<TensorView> Upload(std::span<const float> values, int64_t rows) override {
    return real_.Upload(values, rows);
  }
  absl::StatusOr<TensorView> AllocateActivation(int64_t rows, int64_t cols) override {
    return real_.AllocateActivation(rows, cols);
  }
  absl::StatusOr<TensorView> AllocateResult(int64_t rows, int64_t cols) override {
    return real_.AllocateResult(rows, cols);
  }
  absl::Status Reserve(int64_t max_tokens, int64_t max_cols) override {
    return real_.Reserve(max_tokens, max_cols);
  }
  absl::Status KvInit(const KvSetup& setup) override { return real_.KvInit(setup); }
  std::unique_ptr<Backend> MakeCounter() const override { return real_.MakeCounter(); }
  MemoryBytes CountedMemory() const override { return real_.CountedMemory(); }
  absl::StatusOr<MemoryUse> MeasureMemory() const override { return real_.MeasureMemory(); }
  absl::Status Embed(TensorView out, const Weight& table,
                     std::span<const int32_t> tokens) override {
    return real_.Embed(out, table, tokens);
  }
  absl::Status MatMul(TensorView out, TensorView x, const Weight& w) override {
    return real_.MatMul(out, x, w);
  }
  absl::Status RmsNorm(TensorView out, TensorView x, TensorView weight, float epsilon) override {
    return real_.RmsNorm(out, x, weight, epsilon);
  }
  absl::Status AddRmsNorm(TensorView out, TensorView residual, TensorView delta, TensorView weight,
                          float epsilon) override {
    return real_.AddRmsNorm(out, residual, delta, weight, epsilon);
  }
  absl::Status SwiGlu(TensorView out, TensorView gate_up) override {
    return real_.SwiGlu(out, gate_up);
  }
  absl::Status GatherRows(TensorView out, TensorView x, std::span<const int32_t> rows) override {
    return real_.GatherRows(out, x, rows);
  }
  absl::Status PrepareQkv(TensorView qkv, const QkvParams& params,
                          std::span<const int32_t> positions) override {
    return real_.PrepareQkv(qkv, params, positions);
  }
  absl::Status KvWrite(const KvStep& step, int32_t layer, TensorView qkv) override {
    return real_.KvWrite(step, layer, qkv);
  }
  absl::Status KvSeal(std::span<const KvSealOp> pages) override {
    std::vector<KvSealOp> ops(pages.begin(), pages.end());
    if (hook_) {
      if (absl::Status status = hook_(ops); !status.ok()) return status;
    }
    return real_.KvSeal(ops);
  }
  absl::Status Attention(const KvStep& step, int32_t layer, const AttentionShape& shape,
                         TensorView out, TensorView qkv) override {
    return real_.Attention(step, layer, shape, out, qkv);
  }
  absl::StatusOr<TensorView> Download(TensorView result) override { return real_.Download(result); }

 private:
  Backend& real_;
  Hook hook_;
};

}  // namespace asymserve::testing
