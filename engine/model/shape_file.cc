#include "engine/model/shape_file.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/model/weight_table.h"

namespace asymserve {
namespace {

constexpr DType kWeightTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16,
                                  DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                                  DType::kQ4K,  DType::kQ5K,  DType::kQ6K};

class ShapeFile final : public WeightFile {
 public:
  ShapeFile(const ModelConfig& config, DType dtype) : config_(config), dtype_(dtype) {
    const AttentionShape& shape = config.attention;
    zeros_.resize(static_cast<size_t>(
        std::max<int64_t>({config.width, int64_t{shape.heads} * shape.head_size})));
  }

  absl::Status AddTensors();

  const ModelConfig& config() const override { return config_; }
  const TokenizerSpec& tokenizer_spec() const override { return tokenizer_spec_; }
  std::string_view summary() const override { return Info(dtype_).name; }
  absl::StatusOr<WeightSource> Find(std::string_view name) const override {
    const WeightSource* source = table_.Find(name);
    if (source != nullptr) return *source;
    return absl::NotFoundError(absl::StrCat("tensor ", std::string(name), " is missing"));
  }
  void Discard(const WeightSource& /*source*/) const override {}
  int64_t tensor_bytes() const override { return table_.bytes(); }

 private:
  absl::Status Matrix(const std::string& name, int64_t rows, int64_t cols) {
    return table_.Add(name, {.data = nullptr, .dtype = dtype_, .rows = rows, .cols = cols});
  }
  absl::Status Vector(const std::string& name, int64_t elements) {
    const auto* data = reinterpret_cast<const std::byte*>(zeros_.data());
    return table_.Add(name, {.data = data, .dtype = DType::kF32, .rows = 1, .cols = elements});
  }
  absl::Status AddLayer(const std::string& prefix);

  const ModelConfig config_;
  const DType dtype_;
  const TokenizerSpec tokenizer_spec_;
  std::vector<float> zeros_;
  WeightTable table_;
};

absl::Status ShapeFile::AddLayer(const std::string& prefix) {
  const int64_t width = config_.width;
  const int64_t ffn = config_.feed_forward_width;
  const int64_t q = int64_t{config_.attention.heads} * config_.attention.head_size;
  const int64_t kv = int64_t{config_.attention.kv_heads} * config_.attention.head_size;
  const struct {
    const char* suffix;
    int64_t rows, cols;
  } kMatrices[] = {{"attn_q.weight", q, width},     {"attn_k.weight", kv, width},
                   {"attn_v.weight", kv, width},    {"attn_output.weight", width, q},
                   {"ffn_gate.weight", ffn, width}, {"ffn_up.weight", ffn, width},
                   {"ffn_down.weight", width, ffn}};
  for (const auto& matrix : kMatrices) {
    ASYMSERVE_RETURN_IF_ERROR(
        Matrix(absl::StrCat(prefix, matrix.suffix), matrix.rows, matrix.cols));
  }
  ASYMSERVE_RETURN_IF_ERROR(Vector(absl::StrCat(prefix, "attn_norm.weight"), width));
  return Vector(absl::StrCat(prefix, "ffn_norm.weight"), width);
}

absl::Status ShapeFile::AddTensors() {
  ASYMSERVE_RETURN_IF_ERROR(Matrix("token_embd.weight", config_.vocabulary, config_.width));
  ASYMSERVE_RETURN_IF_ERROR(Vector("output_norm.weight", config_.width));
  if (!config_.tied_output) {
    ASYMSERVE_RETURN_IF_ERROR(Matrix("output.weight", config_.vocabulary, config_.width));
  }
  for (int32_t layer = 0; layer < config_.layers; ++layer) {
    ASYMSERVE_RETURN_IF_ERROR(AddLayer(absl::StrCat("blk.", layer, ".")));
  }
  return table_.Verify(config_);
}

}  // namespace

absl::StatusOr<DType> WeightTypeNamed(std::string_view name) {
  std::string known;
  for (const DType dtype : kWeightTypes) {
    if (name == Info(dtype).name) return dtype;
    absl::StrAppend(&known, known.empty() ? "" : ", ", Info(dtype).name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", std::string(name), "' is no type of weights; there are ", known));
}

absl::StatusOr<std::unique_ptr<WeightFile>> MakeShapeFile(const ModelConfig& config, DType dtype) {
  ASYMSERVE_RETURN_IF_ERROR(ValidateModelConfig(config));
  if (config.qkv_bias || config.qk_norm) {
    return absl::InvalidArgumentError("shapes of models with biases or query norms are not known");
  }
  auto file = std::make_unique<ShapeFile>(config, dtype);
  ASYMSERVE_RETURN_IF_ERROR(file->AddTensors());
  return file;
}

}  // namespace asymserve
