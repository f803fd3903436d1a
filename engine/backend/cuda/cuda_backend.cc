#include "engine/backend/cuda/cuda_backend.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/backend/cuda/attention_choice.h"
#include "engine/backend/cuda/dense_products.h"
#include "engine/backend/cuda/device_error.h"
#include "engine/backend/cuda/device_memory.h"
#include "engine/backend/cuda/device_weight.h"
#include "engine/backend/cuda/gather_rows.h"
#include "engine/backend/cuda/kv_cache.h"
#include "engine/backend/cuda/kv_write.h"
#include "engine/backend/cuda/prepare_qkv.h"
#include "engine/backend/cuda/product_inputs.h"
#include "engine/backend/cuda/products.h"
#include "engine/backend/cuda/q4_layout.h"
#include "engine/backend/cuda/q4_products.h"
#include "engine/backend/cuda/rms_norm.h"
#include "engine/backend/cuda/seal.h"
#include "engine/backend/cuda/staging.h"
#include "engine/backend/cuda/step_tables.h"
#include "engine/backend/cuda/swiglu.h"
#include "engine/backend/cuda/token_sampler.h"
#include "engine/backend/kv_checks.h"
#include "engine/backend/operation_checks.h"
#include "engine/base/status.h"

namespace asymserve::cuda {
namespace {

/// In which tensor cores want x, if the weight is for them.
std::optional<InputOrder> InputOrderOf(const MatrixView& w) {
  if (IsQ4(w.type)) return kQ4InputOrder;
  if (IsForDenseProduct(w)) return kDenseInputOrder;
  return std::nullopt;
}

constexpr int64_t kSealOps = 1024;  // that are on the device at a time
constexpr int32_t kLeastHeadSize = 8;

/// Floats of the state of a split, for all heads of a model whose queries are `cols` wide.
int64_t StateFloats(int64_t cols) {
  return 4 * (cols / kLeastHeadSize) + 2 * cols;
}

int32_t Cols(TensorView view) {
  return static_cast<int32_t>(view.row_elements());
}

/// A backend, or without a device the counter of one.
class CudaBackend final : public Backend {
 public:
  CudaBackend(std::unique_ptr<Device> device, std::unique_ptr<Staging> staging,
              const CudaOptions& options)
      : options_(options),
        name_(device != nullptr ? absl::StrCat("cuda (", device->name(), ")")
                                : "cuda (counts memory)"),
        device_(std::move(device)),
        memory_(device_.get()),
        staging_(std::move(staging)),
        cache_(device_.get(), memory_, staging_.get()),
        tables_(memory_, staging_.get()),
        sampler_(device_.get(), memory_, staging_.get()) {}
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;
  ~CudaBackend() override {
    if (device_ != nullptr) (void)device_->Synchronize();  // what is freed is not in use
  }

  std::string_view name() const override { return name_; }

  absl::StatusOr<std::unique_ptr<Weight>> PackWeight(std::span<const WeightSource> parts) override {
    return DeviceWeight::Make(parts, memory_, staging_.get());
  }
  absl::StatusOr<TensorView> Upload(std::span<const float> values, int64_t rows) override;
  absl::StatusOr<TensorView> AllocateActivation(int64_t rows, int64_t cols) override;
  absl::StatusOr<TensorView> AllocateResult(int64_t rows, int64_t cols) override;
  absl::Status Reserve(int64_t max_tokens, int64_t max_cols) override;
  absl::StatusOr<std::optional<DrawLimits>> ReserveDraws(int64_t rows, int64_t vocabulary) override;
  absl::Status KvInit(const KvSetup& setup) override {
    tables_.Forget();
    attention_ =
        options_.plain_attention ? AttentionKernels() : ChooseAttention(setup.scheme, setup.shape);
    return cache_.Init(setup);
  }

  std::unique_ptr<Backend> MakeCounter() const override {
    return std::make_unique<CudaBackend>(nullptr, nullptr, options_);
  }
  MemoryBytes CountedMemory() const override { return memory_.counted(); }
  absl::StatusOr<MemoryUse> MeasureMemory() const override;
  absl::StatusOr<std::optional<DeviceRoom>> Room() const override { return memory_.Room(); }

  absl::Status Embed(TensorView out, const Weight& table, std::span<const int32_t> tokens) override;
  absl::Status MatMul(TensorView out, TensorView x, const Weight& w) override;
  absl::Status RmsNorm(TensorView out, TensorView x, TensorView weight, float epsilon) override;
  absl::Status AddRmsNorm(TensorView out, TensorView residual, TensorView delta, TensorView weight,
                          float epsilon) override;
  absl::Status SwiGlu(TensorView out, TensorView gate_up) override;
  absl::Status GatherRows(TensorView out, TensorView x, std::span<const int32_t> rows) override;
  absl::Status PrepareQkv(TensorView qkv, const QkvParams& params,
                          std::span<const int32_t> positions) override;
  absl::Status KvWrite(const KvStep& step, int32_t layer, TensorView qkv) override;
  absl::Status KvSeal(std::span<const KvSealOp> pages) override;
  absl::Status Attention(const KvStep& step, int32_t layer, const AttentionShape& shape,
                         TensorView out, TensorView qkv) override;
  absl::StatusOr<TensorView> Download(TensorView result) override;
  absl::StatusOr<TensorView> DrawTokens(TensorView result, const DrawBatch& batch,
                                        std::span<DrawnToken> tokens) override;

 private:
  /// What AllocateResult gave, and where the host reads it.
  struct Result {
    const void* device = nullptr;
    int64_t bytes = 0;
    PinnedBuffer host;
  };

  /// InternalError when this is a counter, or an argument that is there is not on the device.
  absl::Status Check(const char* operation, std::initializer_list<TensorView> arguments) const;
  absl::Status Ran(const char* operation, cudaError_t error) const {
    return CheckCuda(*device_, error, operation);
  }
  absl::StatusOr<TensorView> AllocateFloats(MemoryClass memory, int64_t rows, int64_t cols,
                                            const char* what);
  /// Where the host reads a result, or null.
  std::byte* HostOf(TensorView result) const;
  /// Begins to copy its rows from `first` to before `end` there.
  absl::Status CopyRows(TensorView result, std::byte* host, int64_t first, int64_t end);
  /// x as tensor cores want it.
  absl::StatusOr<ProductInputs> Round(TensorView x, InputOrder order);
  absl::Status CopyIndices(const char* operation, std::span<const int32_t> values);
  /// CheckKvStep, but for a step that was checked already.
  absl::Status CheckStep(const KvStep& step, int32_t layer, TensorView qkv) const;
  cudaStream_t stream() const { return device_->stream(); }

  const CudaOptions options_;
  const std::string name_;
  const std::unique_ptr<Device> device_;
  DeviceMemory memory_;
  const std::unique_ptr<Staging> staging_;
  KvCache cache_;
  AttentionKernels attention_;
  StepTables tables_;
  TokenSampler sampler_;
  std::vector<DeviceBuffer> buffers_;  // what Upload and the Allocates gave out
  std::vector<Result> results_;
  int64_t max_tokens_ = 0;
  int64_t state_floats_ = 0;  // of a split
  int64_t max_cols_ = 0;
  DeviceBuffer inputs_;                  // ProductInputs of [max_tokens][max_cols]
  DeviceBuffer indices_;                 // [max_tokens] of Embed and GatherRows
  DeviceBuffer positions_;               // [max_tokens]
  DeviceBuffer seals_;                   // [kSealOps]
  DeviceBuffer states_;                  // [slice_work][state_floats_]
  std::vector<int32_t> host_positions_;  // what positions_ holds
};

// ---- Start-up ---------------------------------------------------------------------------------

absl::StatusOr<TensorView> CudaBackend::AllocateFloats(MemoryClass memory, int64_t rows,
                                                       int64_t cols, const char* what) {
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t bytes, FloatBytes(rows, cols));
  ASYMSERVE_ASSIGN_OR_RETURN(DeviceBuffer buffer, memory_.Allocate(memory, bytes, what));
  buffers_.push_back(std::move(buffer));
  return MakeMatrix(buffers_.back().As<void>(), rows, cols, DType::kF32, Place::kDevice);
}

absl::StatusOr<TensorView> CudaBackend::Upload(std::span<const float> values, int64_t rows) {
  const auto count = static_cast<int64_t>(values.size());
  ASYMSERVE_RETURN_IF_ERROR(CheckUpload(count, rows));
  ASYMSERVE_ASSIGN_OR_RETURN(const TensorView view, AllocateFloats(MemoryClass::kTables, rows,
                                                                   count / rows, "parameters"));
  if (staging_ != nullptr) {
    ASYMSERVE_RETURN_IF_ERROR(staging_->Copy(view.data, values.data(), view.bytes(), "parameters"));
  }
  return rows == 1 ? MakeVector(view.data, count, DType::kF32, Place::kDevice) : view;
}

absl::StatusOr<TensorView> CudaBackend::AllocateActivation(int64_t rows, int64_t cols) {
  return AllocateFloats(MemoryClass::kWorkspace, rows, cols, "activations");
}

absl::StatusOr<TensorView> CudaBackend::AllocateResult(int64_t rows, int64_t cols) {
  ASYMSERVE_ASSIGN_OR_RETURN(const TensorView view,
                             AllocateFloats(MemoryClass::kWorkspace, rows, cols, "results"));
  if (device_ == nullptr) return view;
  Result result;
  result.device = view.data;
  result.bytes = view.bytes();
  ASYMSERVE_ASSIGN_OR_RETURN(result.host,
                             PinnedBuffer::Allocate(*device_, view.bytes(), "results"));
  results_.push_back(std::move(result));
  return view;
}

absl::Status CudaBackend::Reserve(int64_t max_tokens, int64_t max_cols) {
  ASYMSERVE_RETURN_IF_ERROR(CheckReserve(max_tokens, max_cols));
  max_tokens_ = 0;
  host_positions_.clear();
  state_floats_ = StateFloats(max_cols);
  ASYMSERVE_RETURN_IF_ERROR(tables_.Reserve({.rows = static_cast<int32_t>(max_tokens),
                                             .pages = options_.slice_pages,
                                             .work = options_.slice_work}));
  const struct {
    DeviceBuffer* buffer;
    int64_t bytes;
    const char* what;
  } buffers[] = {
      {&inputs_, ProductInputsBytes(max_tokens, max_cols), "inputs of products"},
      {&indices_, max_tokens * static_cast<int64_t>(sizeof(int32_t)), "token ids"},
      {&positions_, max_tokens * static_cast<int64_t>(sizeof(int32_t)), "positions"},
      {&seals_, kSealOps * static_cast<int64_t>(sizeof(KvSealOp)), "pages to seal"},
      {&states_, options_.slice_work * state_floats_ * static_cast<int64_t>(sizeof(float)),
       "attention states"},
  };
  for (const auto& [buffer, bytes, what] : buffers) {
    buffer->Reset();
    ASYMSERVE_ASSIGN_OR_RETURN(*buffer, memory_.Allocate(MemoryClass::kWorkspace, bytes, what));
  }
  host_positions_.reserve(static_cast<size_t>(device_ == nullptr ? 0 : max_tokens));
  max_tokens_ = max_tokens;
  max_cols_ = max_cols;
  return absl::OkStatus();
}

absl::StatusOr<MemoryUse> CudaBackend::MeasureMemory() const {
  MemoryUse use;
  if (device_ == nullptr) return use;
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
  ASYMSERVE_RETURN_IF_ERROR(
      CheckCuda(*device_, device_->MemoryInfo(&free_bytes, &total_bytes), "measuring memory"));
  use.mapped = memory_.counted();
  if (total_bytes - free_bytes < use.mapped.total()) {
    return absl::InternalError(absl::StrCat("cuda: ", use.mapped.total(),
                                            " bytes are allocated, but the device has ", free_bytes,
                                            " of ", total_bytes, " bytes free"));
  }
  return use;  // nothing of it is resident in the process
}

// ---- Operations -------------------------------------------------------------------------------

absl::Status CudaBackend::Check(const char* operation,
                                std::initializer_list<TensorView> arguments) const {
  if (device_ == nullptr) {
    return absl::InternalError("a backend that counts memory runs no operations");
  }
  for (const TensorView& view : arguments) {
    if (view.data == nullptr || view.place == Place::kDevice) continue;
    return absl::InternalError(absl::StrCat(operation, ": an argument [", view.rows(), ", ",
                                            view.row_elements(), "] is not on the device"));
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::CopyIndices(const char* operation, std::span<const int32_t> values) {
  if (static_cast<int64_t>(values.size()) > max_tokens_) {
    return absl::InternalError(
        absl::StrCat(operation, ": ", values.size(), " rows; reserved for ", max_tokens_));
  }
  return staging_->Copy(indices_.As<void>(), values.data(),
                        static_cast<int64_t>(values.size_bytes()), operation);
}

absl::Status CudaBackend::Embed(TensorView out, const Weight& table,
                                std::span<const int32_t> tokens) {
  ASYMSERVE_RETURN_IF_ERROR(Check("Embed", {out}));
  const auto* weight = dynamic_cast<const DeviceWeight*>(&table);
  if (weight == nullptr) return absl::InternalError("Embed: the table is another backend's");
  ASYMSERVE_RETURN_IF_ERROR(CheckEmbed(out, table, tokens));
  if (weight->segments().size() != 1) {
    return absl::InternalError("Embed: the table has rows of several types");
  }
  ASYMSERVE_RETURN_IF_ERROR(CopyIndices("Embed", tokens));
  const MatrixView& matrix = weight->segments()[0];
  return Ran("Embed", cuda::GatherRows(out.As<float>(), matrix.data, matrix.type,
                                       indices_.As<int32_t>(), out.rows(), matrix.cols, stream()));
}

absl::StatusOr<ProductInputs> CudaBackend::Round(TensorView x, InputOrder order) {
  if (x.rows() > max_tokens_ || x.row_elements() > max_cols_) {
    return absl::InternalError(absl::StrCat("MatMul: x [", x.rows(), ", ", x.row_elements(),
                                            "]; reserved for [", max_tokens_, ", ", max_cols_,
                                            "]"));
  }
  const ProductInputs to =
      PlaceProductInputs(inputs_.As<std::byte>(), x.rows(), x.row_elements(), order);
  ASYMSERVE_RETURN_IF_ERROR(
      Ran("MatMul", RoundInputs(to, x.As<float>(), x.rows(), x.row_elements(), stream())));
  return to;
}

absl::Status CudaBackend::MatMul(TensorView out, TensorView x, const Weight& w) {
  ASYMSERVE_RETURN_IF_ERROR(Check("MatMul", {out, x}));
  const auto* weight = dynamic_cast<const DeviceWeight*>(&w);
  if (weight == nullptr) return absl::InternalError("MatMul: the weight is another backend's");
  ASYMSERVE_RETURN_IF_ERROR(CheckMatMul(out, x, w));
  auto* columns = out.As<float>();
  std::optional<ProductInputs> rounded;  // in the order of the segment before
  for (const MatrixView& segment : weight->segments()) {
    const std::optional<InputOrder> order = InputOrderOf(segment);
    if (order && (!rounded || rounded->order != *order)) {
      ASYMSERVE_ASSIGN_OR_RETURN(rounded, Round(x, *order));
    }
    const int64_t stride = out.row_elements();
    cudaError_t error = cudaSuccess;
    if (!order) {
      error = Product(columns, stride, x.As<float>(), x.rows(), segment, stream());
    } else if (IsQ4(segment.type)) {
      error = Q4Product(columns, stride, *rounded, x.rows(), segment, stream());
    } else {
      error = DenseProduct(columns, stride, *rounded, x.rows(), segment, stream());
    }
    ASYMSERVE_RETURN_IF_ERROR(Ran("MatMul", error));
    columns += segment.rows;
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::RmsNorm(TensorView out, TensorView x, TensorView weight, float epsilon) {
  ASYMSERVE_RETURN_IF_ERROR(Check("RmsNorm", {out, x, weight}));
  ASYMSERVE_RETURN_IF_ERROR(CheckRmsNorm(out, x, weight));
  return Ran("RmsNorm", cuda::RmsNorm(out.As<float>(), x.As<float>(), weight.As<float>(), x.rows(),
                                      Cols(x), epsilon, stream()));
}

absl::Status CudaBackend::AddRmsNorm(TensorView out, TensorView residual, TensorView delta,
                                     TensorView weight, float epsilon) {
  ASYMSERVE_RETURN_IF_ERROR(Check("AddRmsNorm", {out, residual, delta, weight}));
  ASYMSERVE_RETURN_IF_ERROR(CheckAddRmsNorm(out, residual, delta, weight));
  return Ran("AddRmsNorm", cuda::AddRmsNorm(out.As<float>(), residual.As<float>(),
                                            delta.As<float>(), weight.As<float>(), residual.rows(),
                                            Cols(residual), epsilon, stream()));
}

absl::Status CudaBackend::SwiGlu(TensorView out, TensorView gate_up) {
  ASYMSERVE_RETURN_IF_ERROR(Check("SwiGlu", {out, gate_up}));
  ASYMSERVE_RETURN_IF_ERROR(CheckSwiGlu(out, gate_up));
  return Ran("SwiGlu",
             cuda::SwiGlu(out.As<float>(), gate_up.As<float>(), out.rows(), Cols(out), stream()));
}

absl::Status CudaBackend::GatherRows(TensorView out, TensorView x, std::span<const int32_t> rows) {
  ASYMSERVE_RETURN_IF_ERROR(Check("GatherRows", {out, x}));
  ASYMSERVE_RETURN_IF_ERROR(CheckGatherRows(out, x, rows));
  ASYMSERVE_RETURN_IF_ERROR(CopyIndices("GatherRows", rows));
  return Ran("GatherRows", cuda::GatherRows(out.As<float>(), x.data, DType::kF32,
                                            indices_.As<int32_t>(), out.rows(), Cols(x), stream()));
}

absl::Status CudaBackend::PrepareQkv(TensorView qkv, const QkvParams& params,
                                     std::span<const int32_t> positions) {
  ASYMSERVE_RETURN_IF_ERROR(
      Check("PrepareQkv", {qkv, params.bias, params.q_norm, params.k_norm, params.rope}));
  ASYMSERVE_RETURN_IF_ERROR(CheckPrepareQkv(qkv, params, positions));
  if (qkv.rows() > max_tokens_) {
    return absl::InternalError(
        absl::StrCat("PrepareQkv: ", qkv.rows(), " rows; reserved for ", max_tokens_));
  }
  if (!std::equal(positions.begin(), positions.end(), host_positions_.begin(),
                  host_positions_.end())) {
    host_positions_.clear();
    ASYMSERVE_RETURN_IF_ERROR(staging_->Copy(positions_.As<void>(), positions.data(),
                                             static_cast<int64_t>(positions.size_bytes()),
                                             "positions"));
    host_positions_.assign(positions.begin(), positions.end());
  }
  QkvArgs args;
  args.heads = params.shape.heads;
  args.kv_heads = params.shape.kv_heads;
  args.head_size = params.shape.head_size;
  args.bias = params.bias.As<const float>();
  args.q_norm = params.q_norm.As<const float>();
  args.k_norm = params.k_norm.As<const float>();
  args.norm_epsilon = params.norm_epsilon;
  args.rope = params.rope.As<const float>();
  args.interleaved = params.rope_style == RopeStyle::kInterleaved;
  return Ran("PrepareQkv", cuda::PrepareQkv(qkv.As<float>(), args, positions_.As<int32_t>(),
                                            qkv.rows(), stream()));
}

// ---- KV cache ---------------------------------------------------------------------------------

absl::Status CudaBackend::CheckStep(const KvStep& step, int32_t layer, TensorView qkv) const {
  if (tables_.Holds(step) && static_cast<int64_t>(step.positions.size()) == qkv.rows() &&
      layer >= 0 && layer < cache_.arena_shape().shape->layers) {
    return absl::OkStatus();
  }
  return CheckKvStep(step, layer, qkv.rows(), cache_.arena_shape());
}

absl::Status CudaBackend::KvWrite(const KvStep& step, int32_t layer, TensorView qkv) {
  ASYMSERVE_RETURN_IF_ERROR(Check("KvWrite", {qkv}));
  ASYMSERVE_RETURN_IF_ERROR(CheckStep(step, layer, qkv));
  ASYMSERVE_RETURN_IF_ERROR(CheckKvWrite(step, qkv, cache_.arena_shape()));
  return tables_.ForEachSlice(step, [&](const StepSlice& slice) {
    return Ran("KvWrite", cuda::KvWrite(cache_.view(), layer, qkv.Row<float>(slice.first_token),
                                        qkv.row_elements(), slice.rows, slice.pages,
                                        slice.row_count, stream()));
  });
}

absl::Status CudaBackend::KvSeal(std::span<const KvSealOp> pages) {
  ASYMSERVE_RETURN_IF_ERROR(Check("KvSeal", {}));
  ASYMSERVE_RETURN_IF_ERROR(CheckKvSeal(pages, cache_.positions(), cache_.arena_shape()));
  if (max_tokens_ == 0) return absl::InternalError("KvSeal: Reserve was not called");
  while (!pages.empty()) {
    const auto now = pages.first(std::min(pages.size(), static_cast<size_t>(kSealOps)));
    ASYMSERVE_RETURN_IF_ERROR(staging_->Copy(seals_.As<void>(), now.data(),
                                             static_cast<int64_t>(now.size_bytes()), "KvSeal"));
    ASYMSERVE_RETURN_IF_ERROR(
        Ran("KvSeal", Seal(cache_.view(), seals_.As<KvSealOp>(), static_cast<int64_t>(now.size()),
                           cache_.max_planes(), stream())));
    pages = pages.subspan(now.size());
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::Attention(const KvStep& step, int32_t layer, const AttentionShape& shape,
                                    TensorView out, TensorView qkv) {
  ASYMSERVE_RETURN_IF_ERROR(Check("Attention", {out, qkv}));
  ASYMSERVE_RETURN_IF_ERROR(CheckStep(step, layer, qkv));
  ASYMSERVE_RETURN_IF_ERROR(CheckAttention(shape, out, qkv, cache_.arena_shape()));
  const int64_t state_floats = AttentionStateFloats(1, shape.heads, shape.head_size);
  if (state_floats > state_floats_) {
    return absl::InternalError(absl::StrCat("Attention: ", shape.heads, " heads of ",
                                            shape.head_size, " need states of ", state_floats,
                                            " floats; reserved are ", state_floats_));
  }
  AttentionArgs args;
  args.kv = cache_.view();
  args.layer = layer;
  args.heads = shape.heads;
  args.row_elements = qkv.row_elements();
  args.states = states_.As<float>();
  return tables_.ForEachSlice(step, [&](const StepSlice& slice) {
    args.qkv = qkv.Row<float>(slice.first_token);
    args.out = out.Row<float>(slice.first_token);
    args.pages = slice.pages;
    args.rows = slice.rows;
    args.row_count = slice.row_count;
    args.work = slice.work;
    args.work_count = slice.work_count;
    args.tiles = slice.tiles;
    args.tile_count = slice.tile_count;
    args.single_tiles = slice.single_tiles;
    args.most_rows = slice.most_rows;
    return Ran("Attention", RunAttention(attention_, args, slice.exact_rows, stream()));
  });
}

// ---- Results ----------------------------------------------------------------------------------

std::byte* CudaBackend::HostOf(TensorView result) const {
  for (const Result& known : results_) {
    if (known.device == result.data && known.bytes >= result.bytes()) return known.host.data();
  }
  return nullptr;
}

absl::Status CudaBackend::CopyRows(TensorView result, std::byte* host, int64_t first, int64_t end) {
  if (first == end) return absl::OkStatus();
  const int64_t row_bytes = RowBytes(result.dtype, result.row_elements());
  const int64_t bytes = (end - first) * row_bytes;
  return CheckCuda(*device_,
                   device_->CopyToHost(host + first * row_bytes,
                                       result.As<std::byte>() + first * row_bytes, bytes),
                   absl::StrCat("copying ", bytes, " bytes of results to the host"));
}

absl::StatusOr<TensorView> CudaBackend::Download(TensorView result) {
  ASYMSERVE_RETURN_IF_ERROR(Check("Download", {result}));
  std::byte* host = HostOf(result);
  if (host == nullptr) return absl::InternalError("Download: not a result of this backend");
  ASYMSERVE_RETURN_IF_ERROR(CopyRows(result, host, 0, result.rows()));
  ASYMSERVE_RETURN_IF_ERROR(CheckCuda(*device_, device_->Synchronize(), "waiting for the device"));
  return MakeMatrix(host, result.rows(), result.row_elements());
}

absl::StatusOr<std::optional<DrawLimits>> CudaBackend::ReserveDraws(int64_t rows,
                                                                    int64_t vocabulary) {
  if (options_.host_sampling || vocabulary > kMostDrawVocabulary) {
    return std::optional<DrawLimits>();
  }
  ASYMSERVE_RETURN_IF_ERROR(sampler_.Reserve(rows));
  return DrawLimits{.edits = TokenSampler::kMostEdits};
}

absl::StatusOr<TensorView> CudaBackend::DrawTokens(TensorView result, const DrawBatch& batch,
                                                   std::span<DrawnToken> tokens) {
  ASYMSERVE_RETURN_IF_ERROR(Check("DrawTokens", {result}));
  std::byte* host = HostOf(result);
  if (host == nullptr) return absl::InternalError("DrawTokens: not a result of this backend");
  ASYMSERVE_RETURN_IF_ERROR(sampler_.Check(result, batch, tokens));
  ASYMSERVE_RETURN_IF_ERROR(sampler_.Start(result, batch));
  int64_t first = 0;  // of the rows that no draw names, in runs
  for (const TokenDraw& draw : batch.draws) {
    ASYMSERVE_RETURN_IF_ERROR(CopyRows(result, host, first, draw.row));
    first = int64_t{draw.row} + 1;
  }
  ASYMSERVE_RETURN_IF_ERROR(CopyRows(result, host, first, result.rows()));
  ASYMSERVE_RETURN_IF_ERROR(CheckCuda(*device_, device_->Synchronize(), "waiting for the device"));
  sampler_.Read(tokens);
  return MakeMatrix(host, result.rows(), result.row_elements());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(std::unique_ptr<Device> device,
                                                         const CudaOptions& options) {
  ASYMSERVE_ASSIGN_OR_RETURN(std::unique_ptr<Staging> staging,
                             Staging::Create(*device, options.staging_bytes));
  return std::make_unique<CudaBackend>(std::move(device), std::move(staging), options);
}

}  // namespace asymserve::cuda
