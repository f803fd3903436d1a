#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/mapped_file.h"
#include "engine/model/weight_file.h"
#include "engine/model/weight_table.h"

namespace asymserve {

/// A WeightFile over one or more mapped files whose tensors were verified.
class MappedWeightFile final : public WeightFile {
 public:
  /// `table` points into `files` and was verified against `config`.
  MappedWeightFile(std::vector<MappedFile> files, WeightTable table, ModelConfig config,
                   TokenizerSpec tokenizer_spec)
      : files_(std::move(files)),
        table_(std::move(table)),
        config_(std::move(config)),
        tokenizer_spec_(std::move(tokenizer_spec)) {}

  const ModelConfig& config() const override { return config_; }
  const TokenizerSpec& tokenizer_spec() const override { return tokenizer_spec_; }
  std::string_view summary() const override { return Info(table_.main_dtype()).name; }
  absl::StatusOr<WeightSource> Find(std::string_view name) const override;
  void Discard(const WeightSource& source) const override;
  int64_t tensor_bytes() const override { return table_.bytes(); }

 private:
  std::vector<MappedFile> files_;
  WeightTable table_;
  ModelConfig config_;
  TokenizerSpec tokenizer_spec_;
};

}  // namespace asymserve
