#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/text/tokenizer_spec.h"

namespace asymserve {

struct EncodeOptions {
  /// Add the bos/eos tokens that the model file asks for.
  bool add_special = true;
  /// Recognize control tokens written out in the text ("<|im_end|>"). Off for text from users that
  /// goes beside trusted text; user-defined tokens are always recognized.
  bool parse_special = false;
};

/// Text to token ids and back. Immutable after Create; any thread.
class Tokenizer {
 public:
  /// InvalidArgument names what is wrong in the spec: an unknown pre-tokenizer, a merge of unknown
  /// tokens, an id out of range, a missing byte token in a SentencePiece vocabulary.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerSpec spec);
  virtual ~Tokenizer() = default;

  /// `text` is valid UTF-8 (callers check; invalid bytes give InvalidArgument with their offset).
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                                      const EncodeOptions& options) const = 0;
  /// The bytes a token stands for; not valid UTF-8 by itself when a character spans tokens. Control
  /// tokens give their written form. `id` in [0, vocabulary()).
  virtual std::string_view TokenBytes(int32_t id) const = 0;

  const TokenizerSpec& spec() const { return spec_; }
  int32_t vocabulary() const { return static_cast<int32_t>(spec_.tokens.size()); }
  bool IsControl(int32_t id) const;
  /// eos or one of end_ids.
  bool IsEnd(int32_t id) const;

 protected:
  explicit Tokenizer(TokenizerSpec spec) : spec_(std::move(spec)) {}
  TokenizerSpec spec_;
};

/// The whole text of `ids`, as OutputText would have delivered it in pieces without stop strings.
std::string Decode(const Tokenizer& tokenizer, std::span<const int32_t> ids, bool skip_special);

}  // namespace asymserve
