#pragma once

#include <array>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

#include "engine/text/merge_table.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/stretch_tokenizer.h"
#include "engine/text/word_merger.h"

namespace asymserve {

/// Byte-level BPE: GPT-2 (Radford et al. 2019, section 2.2) and those after it.
class ByteLevelTokenizer final : public StretchTokenizer {
 public:
  /// `spec` has passed the checks that hold for every kind.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerSpec spec);

 private:
  ByteLevelTokenizer(TokenizerSpec spec, PreTokenizer pre_tokenizer);
  void ReadTokens();
  absl::Status ReadMerges();

  absl::Status EncodeStretch(std::string_view stretch, size_t offset,
                             std::vector<int32_t>& ids) const override;
  /// What one byte without a token of its own becomes.
  absl::Status EncodeMissingByte(char byte, size_t offset, std::vector<int32_t>& ids) const;

  PreTokenizer pre_tokenizer_;
  MergeTable merges_;
  std::array<int32_t, 256> byte_ids_{};  // -1: the vocabulary has no such byte
  /// Ordinary tokens by their bytes, which TokenBytes owns; kept where whole words are taken.
  absl::flat_hash_map<std::string_view, int32_t> ids_;
  bool takes_whole_words_;
  int32_t missing_byte_id_ = -1;  // -1: a byte without a token is an error
};

}  // namespace asymserve
