#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
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
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  virtual ~Tokenizer() = default;

  /// `text` is valid UTF-8 (callers check; invalid bytes give InvalidArgument with their offset).
  ///
  /// No byte is ever lost. A byte-level vocabulary may lack some of the 256 byte tokens (SmolLM2's
  /// lacks 0x04, 0xf1 and 19 others; the reference drops such bytes silently). Such a byte becomes
  /// the unknown token where the vocabulary has one that stands for text; where it has none, or
  /// only a control token (text must not be able to write <|endoftext|>), Encode gives
  /// InvalidArgument with the byte and its offset. Offsets count in the text after normalization.
  ///
  /// Takes O(n log n) in the text's bytes, whatever the text.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                                      const EncodeOptions& options) const = 0;
  /// The bytes a token stands for; not valid UTF-8 by itself when a character spans tokens. Control
  /// tokens give their written form. Empty for ids outside [0, vocabulary()): a model may have more
  /// rows than its vocabulary has tokens.
  virtual std::string_view TokenBytes(int32_t id) const = 0;

  /// Without merges and scores, which Create turned into tables of its own.
  const TokenizerSpec& spec() const { return spec_; }
  int32_t vocabulary() const { return static_cast<int32_t>(spec_.tokens.size()); }
  /// A control token or the unknown token: not text.
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
