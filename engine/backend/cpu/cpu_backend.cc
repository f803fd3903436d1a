#include "engine/backend/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/backend/cpu/aligned_buffer.h"
#include "engine/backend/cpu/cpu_memory.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/kv_arena.h"
#include "engine/backend/cpu/matmul.h"
#include "engine/backend/cpu/memory_counter.h"
#include "engine/backend/cpu/packed_weight.h"
#include "engine/backend/cpu/paged_attention.h"
#include "engine/backend/operation_checks.h"
#include "engine/base/status.h"
#include "engine/base/thread_pool.h"

namespace asymserve {
namespace {

constexpr int kMaxThreads = 1024;
// Rows are dealt out in chunks of at least this many elements, about 4 us of an elementwise op.
constexpr int64_t kChunkElements = 16384;

const Kernels* FindKernels(Isa isa) {
  switch (isa) {
    case Isa::kAmx:
      return AmxKernels();
    case Isa::kAvx512:
      return Avx512Kernels();
    case Isa::kAvx2:
      return Avx2Kernels();
    default:
      return PortableKernels();
  }
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(const Kernels& kernels, Isa isa, int threads)
      : name_(absl::StrCat("cpu (", std::string(IsaName(isa)), ")")),
        kernels_(kernels),
        pool_(threads),
        matmul_(kernels, pool_, memory_),
        kv_(kernels, pool_, memory_),
        attention_(kernels, pool_, kv_, memory_) {}

  std::string_view name() const override { return name_; }

  absl::StatusOr<std::unique_ptr<Weight>> PackWeight(std::span<const WeightSource> parts) override {
    return PackedWeight::Pack(parts, pool_, memory_.region(MemoryClass::kWeights));
  }
  absl::StatusOr<TensorView> Upload(std::span<const float> values, int64_t rows) override;
  absl::StatusOr<TensorView> AllocateActivation(int64_t rows, int64_t cols) override;
  absl::StatusOr<TensorView> AllocateResult(int64_t rows, int64_t cols) override {
    return AllocateActivation(rows, cols);
  }
  absl::Status Reserve(int64_t max_tokens, int64_t max_cols) override;
  absl::Status KvInit(const KvSetup& setup) override { return kv_.Init(setup); }

  std::unique_ptr<Backend> MakeCounter() const override {
    return MakeCpuMemoryCounter(pool_.threads());
  }
  MemoryBytes CountedMemory() const override { return memory_.mapped(); }
  absl::StatusOr<MemoryUse> MeasureMemory() const override { return memory_.Measure(); }

  absl::Status Embed(TensorView out, const Weight& table, std::span<const int32_t> tokens) override;
  absl::Status MatMul(TensorView out, TensorView x, const Weight& w) override;
  absl::Status RmsNorm(TensorView out, TensorView x, TensorView weight, float epsilon) override;
  absl::Status AddRmsNorm(TensorView out, TensorView residual, TensorView delta, TensorView weight,
                          float epsilon) override;
  absl::Status SwiGlu(TensorView out, TensorView gate_up) override;
  absl::Status GatherRows(TensorView out, TensorView x, std::span<const int32_t> rows) override;
  absl::Status PrepareQkv(TensorView qkv, const QkvParams& params,
                          std::span<const int32_t> positions) override;
  absl::Status KvWrite(const KvStep& step, int32_t layer, TensorView qkv) override {
    return kv_.Write(step, layer, qkv);
  }
  absl::Status KvSeal(std::span<const KvSealOp> pages) override { return kv_.Seal(pages); }
  absl::Status Attention(const KvStep& step, int32_t layer, const AttentionShape& shape,
                         TensorView out, TensorView qkv) override {
    return attention_.Attend(step, layer, shape, out, qkv);
  }
  absl::StatusOr<TensorView> Download(TensorView result) override { return result; }
  ThreadPool* threads() override { return &pool_; }

 private:
  absl::StatusOr<float*> AllocateFloats(MemoryClass memory, int64_t rows, int64_t cols);

  /// body(row) for every row, over the pool when there is enough to do.
  template <typename Body>
  void ForRows(int64_t rows, int64_t cols, Body body) {
    const int64_t rows_per_chunk =
        std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, cols));
    const int64_t chunks = (rows + rows_per_chunk - 1) / rows_per_chunk;
    pool_.ParallelFor(static_cast<int>(chunks), [&](int chunk, int /*thread*/) {
      const int64_t last = std::min(rows, (chunk + 1) * rows_per_chunk);
      for (int64_t row = chunk * rows_per_chunk; row < last; ++row) body(row);
    });
  }

  const std::string name_;
  const Kernels& kernels_;
  const CpuMemory memory_;
  ThreadPool pool_;
  MatMulRunner matmul_;
  KvArena kv_;
  AttentionRunner attention_;
  std::vector<AlignedBuffer> buffers_;  // what Upload and AllocateActivation gave out
};

// ---- Start-up ---------------------------------------------------------------------------------

absl::StatusOr<float*> CpuBackend::AllocateFloats(MemoryClass memory, int64_t rows, int64_t cols) {
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t bytes, FloatBytes(rows, cols));
  ASYMSERVE_ASSIGN_OR_RETURN(AlignedBuffer buffer,
                             AlignedBuffer::Allocate(memory_.region(memory), bytes));
  buffers_.push_back(std::move(buffer));
  return buffers_.back().As<float>();
}

absl::StatusOr<TensorView> CpuBackend::Upload(std::span<const float> values, int64_t rows) {
  const auto count = static_cast<int64_t>(values.size());
  ASYMSERVE_RETURN_IF_ERROR(CheckUpload(count, rows));
  ASYMSERVE_ASSIGN_OR_RETURN(float* data, AllocateFloats(MemoryClass::kTables, rows, count / rows));
  std::copy(values.begin(), values.end(), data);
  return rows == 1 ? MakeVector(data, count) : MakeMatrix(data, rows, count / rows);
}

absl::StatusOr<TensorView> CpuBackend::AllocateActivation(int64_t rows, int64_t cols) {
  ASYMSERVE_ASSIGN_OR_RETURN(float* data, AllocateFloats(MemoryClass::kWorkspace, rows, cols));
  return MakeMatrix(data, rows, cols);
}

absl::Status CpuBackend::Reserve(int64_t max_tokens, int64_t max_cols) {
  ASYMSERVE_RETURN_IF_ERROR(CheckReserve(max_tokens, max_cols));
  ASYMSERVE_RETURN_IF_ERROR(matmul_.Reserve(max_tokens, max_cols));
  ASYMSERVE_RETURN_IF_ERROR(attention_.Reserve(max_tokens));
  memory_.region(MemoryClass::kWeights)->JoinPages();
  return memory_.region(MemoryClass::kWorkspace)->Populate();
}

// ---- Operations -------------------------------------------------------------------------------

absl::Status CpuBackend::Embed(TensorView out, const Weight& table,
                               std::span<const int32_t> tokens) {
  const auto* packed = dynamic_cast<const PackedWeight*>(&table);
  if (packed == nullptr) return absl::InternalError("Embed: the table is another backend's");
  ASYMSERVE_RETURN_IF_ERROR(CheckEmbed(out, table, tokens));
  ForRows(out.rows(), 4 * table.cols(), [&](int64_t row) {
    packed->Dequantize(tokens[static_cast<size_t>(row)], out.Row<float>(row));
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::MatMul(TensorView out, TensorView x, const Weight& w) {
  const auto* packed = dynamic_cast<const PackedWeight*>(&w);
  if (packed == nullptr) return absl::InternalError("MatMul: the weight is another backend's");
  ASYMSERVE_RETURN_IF_ERROR(CheckMatMul(out, x, w));
  if (x.rows() > matmul_.max_rows() || w.cols() > matmul_.max_inputs()) {
    return absl::InternalError(absl::StrCat("MatMul: [", x.rows(), ", ", w.cols(),
                                            "] exceeds what is reserved, [", matmul_.max_rows(),
                                            ", ", matmul_.max_inputs(), "]"));
  }
  matmul_.Run(out.As<float>(), x.As<const float>(), x.rows(), *packed);
  return absl::OkStatus();
}

absl::Status CpuBackend::RmsNorm(TensorView out, TensorView x, TensorView weight, float epsilon) {
  ASYMSERVE_RETURN_IF_ERROR(CheckRmsNorm(out, x, weight));
  const int64_t cols = x.row_elements();
  ForRows(x.rows(), cols, [&](int64_t row) {
    kernels_.rms_norm(out.Row<float>(row), x.Row<const float>(row), weight.As<const float>(), cols,
                      epsilon);
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::AddRmsNorm(TensorView out, TensorView residual, TensorView delta,
                                    TensorView weight, float epsilon) {
  ASYMSERVE_RETURN_IF_ERROR(CheckAddRmsNorm(out, residual, delta, weight));
  const int64_t cols = residual.row_elements();
  ForRows(residual.rows(), 2 * cols, [&](int64_t row) {
    kernels_.add(residual.Row<float>(row), delta.Row<const float>(row), cols);
    kernels_.rms_norm(out.Row<float>(row), residual.Row<const float>(row), weight.As<const float>(),
                      cols, epsilon);
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::SwiGlu(TensorView out, TensorView gate_up) {
  ASYMSERVE_RETURN_IF_ERROR(CheckSwiGlu(out, gate_up));
  const int64_t cols = out.row_elements();
  ForRows(out.rows(), 4 * cols, [&](int64_t row) {
    const auto* gate = gate_up.Row<const float>(row);
    kernels_.swiglu(out.Row<float>(row), gate, gate + cols, cols);
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::GatherRows(TensorView out, TensorView x, std::span<const int32_t> rows) {
  ASYMSERVE_RETURN_IF_ERROR(CheckGatherRows(out, x, rows));
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(out.Row<float>(static_cast<int64_t>(i)), x.Row<const float>(rows[i]),
                static_cast<size_t>(x.row_elements()) * sizeof(float));
  }
  return absl::OkStatus();
}

absl::Status CpuBackend::PrepareQkv(TensorView qkv, const QkvParams& params,
                                    std::span<const int32_t> positions) {
  ASYMSERVE_RETURN_IF_ERROR(CheckPrepareQkv(qkv, params, positions));
  const AttentionShape& shape = params.shape;
  const TensorView& rope = params.rope;
  ForRows(qkv.rows(), 2 * qkv.row_elements(), [&](int64_t t) {
    QkvRow row = {};
    row.qkv = qkv.Row<float>(t);
    row.heads = shape.heads;
    row.kv_heads = shape.kv_heads;
    row.head_size = shape.head_size;
    row.bias = params.bias.As<const float>();
    row.q_norm = params.q_norm.As<const float>();
    row.k_norm = params.k_norm.As<const float>();
    row.norm_epsilon = params.norm_epsilon;
    if (rope.data != nullptr) {
      row.rope = rope.Row<const float>(positions[static_cast<size_t>(t)]);
    }
    row.interleaved = params.rope_style == RopeStyle::kInterleaved;
    kernels_.prepare_qkv(row);
  });
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const CpuOptions& options) {
  if (options.threads < 1 || options.threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads = ", options.threads, "; must be in [1, ", kMaxThreads, "]"));
  }
  if (!IsaSupported(options.isa)) {
    return absl::FailedPreconditionError(absl::StrCat("instruction set ",
                                                      std::string(IsaName(options.isa)),
                                                      " is not available on this machine"));
  }
  const Isa isa = options.isa == Isa::kAuto ? SupportedIsas().back() : options.isa;
  return std::make_unique<CpuBackend>(*FindKernels(isa), isa, options.threads);
}

}  // namespace asymserve
