#include "bench/cuda/random_weights.h"

#include <cstring>
#include <utility>
#include <vector>

#include "bench/cuda/bench_scheme.h"
#include "engine/base/status.h"
#include "engine/model/shape_file.h"

namespace asymserve::bench {
namespace {

ModelConfig Llama3_8B() {
  ModelConfig config;
  config.architecture = "llama";
  config.name = "random 8B";
  config.layers = 32;
  config.width = 4096;
  config.feed_forward_width = 14336;
  config.vocabulary = 128256;
  config.attention = {.heads = 32, .kv_heads = 8, .head_size = 128};
  config.context_length = 131072;
  config.rope_base = 500000;
  return config;
}

class RandomWeights final : public WeightFile {
 public:
  RandomWeights(std::unique_ptr<WeightFile> shapes, DType dtype)
      : shapes_(std::move(shapes)), ones_(static_cast<size_t>(config().width), 1.0f) {
    Fill(int64_t{config().vocabulary} * RowBytes(dtype, config().width));
  }

  const ModelConfig& config() const override { return shapes_->config(); }
  const TokenizerSpec& tokenizer_spec() const override { return shapes_->tokenizer_spec(); }
  std::string_view summary() const override { return shapes_->summary(); }
  absl::StatusOr<WeightSource> Find(std::string_view name) const override {
    ASYMSERVE_ASSIGN_OR_RETURN(WeightSource source, shapes_->Find(name));
    source.data = source.rows == 1 ? reinterpret_cast<const std::byte*>(ones_.data())
                                   : reinterpret_cast<const std::byte*>(blocks_.data());
    return source;
  }
  void Discard(const WeightSource& /*source*/) const override {}
  int64_t tensor_bytes() const override { return shapes_->tensor_bytes(); }

 private:
  /// Blocks of Q4_0: a scale of 2^-9 to 2^-8 and 16 bytes of codes.
  void Fill(int64_t bytes) {
    constexpr int64_t kBlock = 18;
    blocks_.resize(static_cast<size_t>(bytes));
    uint64_t state = 88172645463325252u;
    const auto next = [&state] {
      state ^= state << 13;
      state ^= state >> 7;
      return state ^= state << 17;
    };
    for (int64_t at = 0; at + kBlock <= bytes; at += kBlock) {
      const uint64_t words[2] = {next(), next()};
      const auto scale = static_cast<uint16_t>(0x1800 | (next() & 0x83FF));
      std::memcpy(blocks_.data() + at, &scale, 2);
      std::memcpy(blocks_.data() + at + 2, words, 16);
    }
  }

  const std::unique_ptr<WeightFile> shapes_;
  const std::vector<float> ones_;
  std::vector<uint8_t> blocks_;  // as many as the largest matrix has
};

}  // namespace

std::unique_ptr<WeightFile> RandomLlama3_8B() {
  auto shapes = MakeShapeFile(Llama3_8B(), DType::kQ4_0);
  NeedOk(shapes.status());
  return std::make_unique<RandomWeights>(*std::move(shapes), DType::kQ4_0);
}

}  // namespace asymserve::bench
