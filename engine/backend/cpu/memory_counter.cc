#include "engine/backend/cpu/memory_counter.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/backend/cpu/kv_arena.h"
#include "engine/backend/cpu/kv_tables.h"
#include "engine/backend/cpu/matmul.h"
#include "engine/backend/cpu/memory_region.h"
#include "engine/backend/cpu/packed_weight.h"
#include "engine/backend/cpu/paged_attention.h"
#include "engine/backend/operation_checks.h"
#include "engine/base/status.h"
#include "engine/kv/layout.h"
#include "engine/kv/record_pool.h"

namespace asymserve {
namespace {

class CountedWeight final : public Weight {
 public:
  CountedWeight(int64_t rows, int64_t cols, int64_t bytes)
      : rows_(rows), cols_(cols), bytes_(bytes) {}
  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override { return bytes_; }

 private:
  int64_t rows_, cols_, bytes_;
};

absl::Status NoOperations() {
  return absl::InternalError("a backend that counts memory runs no operations");
}

class CpuMemoryCounter final : public Backend {
 public:
  explicit CpuMemoryCounter(int threads) : threads_(threads) {}

  std::string_view name() const override { return "cpu (counts memory)"; }

  absl::StatusOr<std::unique_ptr<Weight>> PackWeight(std::span<const WeightSource> parts) override {
    ASYMSERVE_ASSIGN_OR_RETURN(const int64_t bytes, PackedWeight::PackedBytes(parts));
    Carve(MemoryClass::kWeights, bytes);
    int64_t rows = 0;
    for (const WeightSource& part : parts) rows += part.rows;
    return std::make_unique<CountedWeight>(rows, parts[0].cols, bytes);
  }
  absl::StatusOr<TensorView> Upload(std::span<const float> values, int64_t rows) override {
    const auto count = static_cast<int64_t>(values.size());
    ASYMSERVE_RETURN_IF_ERROR(CheckUpload(count, rows));
    ASYMSERVE_ASSIGN_OR_RETURN(const int64_t bytes, FloatBytes(rows, count / rows));
    Carve(MemoryClass::kTables, bytes);
    return rows == 1 ? MakeVector(nullptr, count) : MakeMatrix(nullptr, rows, count / rows);
  }
  absl::StatusOr<TensorView> AllocateActivation(int64_t rows, int64_t cols) override {
    ASYMSERVE_ASSIGN_OR_RETURN(const int64_t bytes, FloatBytes(rows, cols));
    Carve(MemoryClass::kWorkspace, bytes);
    return MakeMatrix(nullptr, rows, cols);
  }
  absl::StatusOr<TensorView> AllocateResult(int64_t rows, int64_t cols) override {
    return AllocateActivation(rows, cols);
  }
  absl::Status Reserve(int64_t max_tokens, int64_t max_cols) override {
    ASYMSERVE_RETURN_IF_ERROR(CheckReserve(max_tokens, max_cols));
    Carve(MemoryClass::kWorkspace, MatMulRunner::ScratchBytes(max_tokens, max_cols));
    for (const int64_t bytes : AttentionRunner::ScratchBytes(max_tokens, threads_)) {
      Carve(MemoryClass::kWorkspace, bytes);
    }
    return absl::OkStatus();
  }
  absl::Status KvInit(const KvSetup& setup) override {
    ASYMSERVE_RETURN_IF_ERROR(KvArena::CheckShape(setup.shape, setup.scheme));
    const ArenaCut cut(KvLayout(setup.shape, setup.scheme), setup.arena_bytes);
    carved_[MemoryClass::kKv] = MemoryRegion::CarvedBytes(cut.slabs * cut.slab_bytes);
    code_bytes_ = MemoryRegion::CarvedBytes(KvTables::Bytes(setup.shape, setup.scheme));
    return absl::OkStatus();
  }

  std::unique_ptr<Backend> MakeCounter() const override {
    return std::make_unique<CpuMemoryCounter>(threads_);
  }
  MemoryBytes CountedMemory() const override {
    MemoryBytes mapped = carved_;
    mapped[MemoryClass::kTables] += code_bytes_;
    for (int64_t& bytes : mapped.bytes) bytes = MemoryRegion::MappedBytes(bytes);
    return mapped;
  }
  absl::StatusOr<MemoryUse> MeasureMemory() const override { return MemoryUse(); }

  absl::Status Embed(TensorView /*out*/, const Weight& /*table*/,
                     std::span<const int32_t> /*tokens*/) override {
    return NoOperations();
  }
  absl::Status MatMul(TensorView /*out*/, TensorView /*x*/, const Weight& /*w*/) override {
    return NoOperations();
  }
  absl::Status RmsNorm(TensorView /*out*/, TensorView /*x*/, TensorView /*weight*/,
                       float /*epsilon*/) override {
    return NoOperations();
  }
  absl::Status AddRmsNorm(TensorView /*out*/, TensorView /*residual*/, TensorView /*delta*/,
                          TensorView /*weight*/, float /*epsilon*/) override {
    return NoOperations();
  }
  absl::Status SwiGlu(TensorView /*out*/, TensorView /*gate_up*/) override {
    return NoOperations();
  }
  absl::Status GatherRows(TensorView /*out*/, TensorView /*x*/,
                          std::span<const int32_t> /*rows*/) override {
    return NoOperations();
  }
  absl::Status PrepareQkv(TensorView /*qkv*/, const QkvParams& /*params*/,
                          std::span<const int32_t> /*positions*/) override {
    return NoOperations();
  }
  absl::Status KvWrite(const KvStep& /*step*/, int32_t /*layer*/, TensorView /*qkv*/) override {
    return NoOperations();
  }
  absl::Status KvSeal(std::span<const KvSealOp> /*pages*/) override { return NoOperations(); }
  absl::Status Attention(const KvStep& /*step*/, int32_t /*layer*/, const AttentionShape& /*shape*/,
                         TensorView /*out*/, TensorView /*qkv*/) override {
    return NoOperations();
  }
  absl::StatusOr<TensorView> Download(TensorView /*result*/) override { return NoOperations(); }

 private:
  void Carve(MemoryClass memory, int64_t bytes) {
    carved_[memory] += MemoryRegion::CarvedBytes(bytes);
  }

  const int threads_;
  MemoryBytes carved_;
  int64_t code_bytes_ = 0;  // of the last KvInit, part of the tables
};

}  // namespace

std::unique_ptr<Backend> MakeCpuMemoryCounter(int threads) {
  return std::make_unique<CpuMemoryCounter>(threads);
}

}  // namespace asymserve
