#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/model/model_config.h"
#include "engine/text/tokenizer_spec.h"

namespace asymserve {

/// A model's tensors under one set of names, whatever the file format. Names are GGUF's:
/// token_embd.weight, output_norm.weight, output.weight, and for layer i blk.<i>.{attn_norm,
/// attn_q, attn_k, attn_v, attn_output, ffn_norm, ffn_gate, ffn_up, ffn_down}.weight,
/// blk.<i>.attn_{q,k,v}.bias, blk.<i>.attn_{q,k}_norm.weight. Immutable; any thread.
class WeightFile {
 public:
  virtual ~WeightFile() = default;
  virtual const ModelConfig& config() const = 0;
  /// One token for each row of the embedding table; not yet validated (Tokenizer::Create).
  virtual const TokenizerSpec& tokenizer_spec() const = 0;
  /// The type that most weights have, as Info(DType) names it: "Q4_1".
  virtual std::string_view summary() const = 0;
  /// The tensor as it lies in the mapped file, a vector having one row. NotFound names it; shape
  /// errors were refused when the file was opened.
  virtual absl::StatusOr<WeightSource> Find(std::string_view name) const = 0;
  /// The bytes were copied: they need not stay resident.
  virtual void Discard(const WeightSource& source) const = 0;
  /// Bytes of all tensors.
  virtual int64_t tensor_bytes() const = 0;
};

/// Opens a GGUF file, or a Hugging Face folder with config.json, tokenizer.json and *.safetensors.
/// Every tensor the configuration needs is present with the right shape and there is no tensor that
/// it does not use, or the error names file, tensor or key and why. Reads no tensor bytes.
absl::StatusOr<std::unique_ptr<WeightFile>> OpenWeightFile(const std::string& path);

}  // namespace asymserve
