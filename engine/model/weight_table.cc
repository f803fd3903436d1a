#include "engine/model/weight_table.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/model/printable.h"

namespace asymserve {
namespace {

bool IsVectorType(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

/// Looks up what a configuration asks for, one tensor after the other, and remembers the names.
class Verifier {
 public:
  explicit Verifier(const WeightTable& table) : table_(table) {}

  absl::Status Matrix(const std::string& name, int64_t rows, int64_t cols) {
    return Check(name, rows, cols).status();
  }

  absl::Status Vector(const std::string& name, int64_t elements) {
    ASYMSERVE_ASSIGN_OR_RETURN(const WeightSource* source, Check(name, 1, elements));
    if (!IsVectorType(source->dtype)) {
      return absl::UnimplementedError(absl::StrCat("tensor ", Printable(name), " has type ",
                                                   Info(source->dtype).name,
                                                   ", a vector is F32, F16 or BF16"));
    }
    return absl::OkStatus();
  }

  bool Knows(const std::string& name) const { return names_.contains(name); }

 private:
  absl::StatusOr<const WeightSource*> Check(const std::string& name, int64_t rows, int64_t cols) {
    names_.insert(name);
    const WeightSource* source = table_.Find(name);
    if (source == nullptr) {
      return absl::NotFoundError(absl::StrCat("tensor ", Printable(name), " is missing"));
    }
    if (source->rows != rows || source->cols != cols) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Printable(name), " is [", source->rows, ", ", source->cols,
                       "], the configuration needs [", rows, ", ", cols, "]"));
    }
    return source;
  }

  const WeightTable& table_;
  std::set<std::string> names_;
};

absl::Status VerifyLayer(const ModelConfig& config, int32_t layer, Verifier& verifier) {
  const int64_t width = config.width;
  const int64_t ffn = config.feed_forward_width;
  const int64_t head_size = config.attention.head_size;
  const int64_t q = config.attention.heads * head_size;
  const int64_t kv = config.attention.kv_heads * head_size;
  struct Needed {
    const char* suffix = nullptr;
    int64_t rows = 0;  // 0: a vector
    int64_t cols = 0;
    bool wanted = true;
  };
  const Needed needed[] = {
      {"attn_norm.weight", 0, width},
      {"attn_q.weight", q, width},
      {"attn_k.weight", kv, width},
      {"attn_v.weight", kv, width},
      {"attn_output.weight", width, q},
      {"ffn_norm.weight", 0, width},
      {"ffn_gate.weight", ffn, width},
      {"ffn_up.weight", ffn, width},
      {"ffn_down.weight", width, ffn},
      {"attn_q.bias", 0, q, config.qkv_bias},
      {"attn_k.bias", 0, kv, config.qkv_bias},
      {"attn_v.bias", 0, kv, config.qkv_bias},
      {"attn_q_norm.weight", 0, head_size, config.qk_norm},
      {"attn_k_norm.weight", 0, head_size, config.qk_norm},
  };
  for (const Needed& tensor : needed) {
    if (!tensor.wanted) continue;
    const std::string name = absl::StrCat("blk.", layer, ".", tensor.suffix);
    ASYMSERVE_RETURN_IF_ERROR(tensor.rows == 0 ? verifier.Vector(name, tensor.cols)
                                               : verifier.Matrix(name, tensor.rows, tensor.cols));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WeightTable::Add(std::string_view name, const WeightSource& source) {
  if (!tensors_.emplace(std::string(name), source).second) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Printable(name), " appears twice"));
  }
  return absl::OkStatus();
}

const WeightSource* WeightTable::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

absl::Status WeightTable::Verify(const ModelConfig& config) const {
  Verifier verifier(*this);
  ASYMSERVE_RETURN_IF_ERROR(verifier.Matrix("token_embd.weight", config.vocabulary, config.width));
  ASYMSERVE_RETURN_IF_ERROR(verifier.Vector("output_norm.weight", config.width));
  if (!config.tied_output) {
    ASYMSERVE_RETURN_IF_ERROR(verifier.Matrix("output.weight", config.vocabulary, config.width));
  }
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    ASYMSERVE_RETURN_IF_ERROR(VerifyLayer(config, layer, verifier));
  }
  for (const auto& [name, source] : tensors_) {
    if (!verifier.Knows(name)) {
      return absl::UnimplementedError(absl::StrCat(
          "tensor ", Printable(name), " has no place in a ", config.layers, "-layer ",
          Printable(config.architecture), " model: computing without it would be wrong"));
    }
  }
  return absl::OkStatus();
}

int64_t WeightTable::bytes() const {
  int64_t sum = 0;
  for (const auto& [name, source] : tensors_) {
    sum += source.rows * RowBytes(source.dtype, source.cols);
  }
  return sum;
}

DType WeightTable::main_dtype() const {
  std::map<DType, int64_t> elements;
  for (const auto& [name, source] : tensors_) elements[source.dtype] += source.rows * source.cols;
  const auto most =
      std::max_element(elements.begin(), elements.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == elements.end() ? DType::kF32 : most->first;
}

}  // namespace asymserve
