#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "engine/text/special_tokens.h"
#include "engine/text/tokenizer.h"

namespace asymserve {

/// What the tokenizers share: normalization, special tokens, the bytes of each token. The stretches
/// of text between special tokens go to the subclass.
class StretchTokenizer : public Tokenizer {
 public:
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const EncodeOptions& options) const final;
  std::string_view TokenBytes(int32_t id) const final;

 protected:
  using TokenType = TokenizerSpec::TokenType;

  explicit StretchTokenizer(TokenizerSpec spec) : Tokenizer(std::move(spec)) {}

  /// Appends the ids of a stretch, which is not empty and begins at byte `offset` of the text.
  virtual absl::Status EncodeStretch(std::string_view stretch, size_t offset,
                                     std::vector<int32_t>& ids) const = 0;

  TokenType TypeOf(int32_t id) const {
    return spec_.types.empty() ? TokenType::kNormal : spec_.types[id];
  }
  /// Part of ordinary text, as opposed to special tokens and byte tokens.
  bool IsOrdinary(int32_t id) const {
    return TypeOf(id) == TokenType::kNormal || TypeOf(id) == TokenType::kUnused;
  }

  /// Subclasses call these when they are created: once for every id, in order; then once.
  void AddTokenBytes(std::string_view bytes);
  void FindSpecialTokens();

  bool normalizes_nfc_ = false;

 private:
  std::string token_bytes_;           // of all tokens, one behind the other
  std::vector<uint32_t> token_ends_;  // by id, in token_bytes_
  SpecialTokens special_tokens_;
  std::vector<bool> strips_left_, strips_right_;  // by id; empty: none does
};

}  // namespace asymserve
