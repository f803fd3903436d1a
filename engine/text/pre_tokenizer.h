#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/text/regex.h"

namespace asymserve {

/// Cuts text into the words that byte-level BPE merges within: one regular expression after the
/// other, each on the pieces of the one before. Immutable; any thread.
class PreTokenizer {
 public:
  /// By the name GGUF gives it. InvalidArgument lists the known names.
  static absl::StatusOr<PreTokenizer> Create(std::string_view name);

  /// Sets `words` to those of `text`, valid UTF-8, in order; joined they are `text`.
  absl::Status Split(std::string_view text, std::vector<std::string_view>& words) const;

  /// What the models with this pre-tokenizer do when their file does not say.
  bool normalizes_nfc() const { return normalizes_nfc_; }
  bool takes_whole_words() const { return takes_whole_words_; }

 private:
  PreTokenizer() = default;
  std::vector<Regex> stages_;
  bool normalizes_nfc_ = false;
  bool takes_whole_words_ = false;
};

/// The pre-tokenizer that a tokenizer.json describes, if it is a known one. Each stage is the
/// regular expression of an isolating split, its control and non-ASCII characters written as \r,
/// \n or \x{HEX}, or one of <ByteLevel>, <ByteLevel words>, <Digits>, <Digits runs> and
/// <Punctuation runs>.
std::optional<std::string_view> PreTokenizerOfStages(std::span<const std::string> stages);

}  // namespace asymserve
