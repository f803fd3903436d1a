#include "engine/model/weight_table.h"

#include <algorithm>
#include <array>
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
  const auto name = [layer](const char* suffix) {
    return absl::StrCat("blk.", layer, ".", suffix);
  };

  ASYMSERVE_RETURN_IF_ERROR(verifier.Vector(name("attn_norm.weight"), width));
  ASYMSERVE_RETURN_IF_ERROR(verifier.Matrix(name("attn_q.weight"), q, width));
  ASYMSERVE_RETURN_IF_ERROR(verifier.Matrix(name("attn_k.weight"), kv, width));
  ASYMSERVE_RETURN_IF_ERROR(verifier.Matrix(name("attn_v.weight"), kv, width));
  ASYMSERVE_RETURN_IF_ERROR(verifier.Matrix(name("attn_output.weight"), width, q));
  ASYMSERVE_RETURN_IF_ERROR(verifier.Vector(name("ffn_norm.weight"), width));
  ASYMSERVE_RETURN_IF_ERROR(verifier.Matrix(name("ffn_gate.weight"), ffn, width));
  ASYMSERVE_RETURN_IF_ERROR(verifier.Matrix(name("ffn_up.weight"), ffn, width));
  ASYMSERVE_RETURN_IF_ERROR(verifier.Matrix(name("ffn_down.weight"), width, ffn));
  if (config.qkv_bias) {
    ASYMSERVE_RETURN_IF_ERROR(verifier.Vector(name("attn_q.bias"), q));
    ASYMSERVE_RETURN_IF_ERROR(verifier.Vector(name("attn_k.bias"), kv));
    ASYMSERVE_RETURN_IF_ERROR(verifier.Vector(name("attn_v.bias"), kv));
  }
  if (config.qk_norm) {
    ASYMSERVE_RETURN_IF_ERROR(verifier.Vector(name("attn_q_norm.weight"), head_size));
    ASYMSERVE_RETURN_IF_ERROR(verifier.Vector(name("attn_k_norm.weight"), head_size));
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
