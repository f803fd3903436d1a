#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace asymserve {

/// What a model file says about its tokenizer and chat format: a plain value, not yet validated.
struct TokenizerSpec {
  enum class Kind : uint8_t {
    kByteLevelBpe,   // GPT-2 style: byte alphabet, ranked merges, regular-expression pre-tokenizer
    kSentencePiece,  // Llama-2 style: scored pieces, U+2581 for space, <0xNN> byte fallback
  };
  /// As GGUF numbers them.
  enum class TokenType : uint8_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

  Kind kind = Kind::kByteLevelBpe;
  /// Pre-tokenizer by GGUF's name: gpt-2, llama-bpe, smollm, qwen2, deepseek-llm, deepseek-coder,
  /// starcoder, falcon, default. kByteLevelBpe only.
  std::string pre_tokenizer;
  std::vector<std::string> tokens;  // by id, in the kind's own alphabet; special ones as written
  std::vector<TokenType> types;     // by id; empty: all kNormal
  std::vector<float> scores;        // by id; kSentencePiece
  /// "left right", best first; kByteLevelBpe, and kSentencePiece where there are no scores.
  std::vector<std::string> merges;
  int32_t bos = -1, eos = -1, unknown = -1, padding = -1;  // ids, -1 where there is none
  /// Ids that end generation besides eos: end of turn, end of message.
  std::vector<int32_t> end_ids;
  bool add_bos = false;
  bool add_eos = false;

  // kSentencePiece: a space goes before every stretch of text between special tokens...
  bool add_space_prefix = false;
  bool prefix_first_only = false;    // ... but only where it begins the text,
  bool prefix_unless_space = false;  // ... and only where it does not begin with one.

  // Unset: what the models with this pre-tokenizer do.
  std::optional<bool> normalize_nfc;  // text to normalization form C first (qwen2)
  std::optional<bool> whole_words;    // a word that is a token is not merged up (llama-bpe)

  /// Special tokens that swallow the white space before or behind them in the text.
  std::vector<int32_t> strip_left, strip_right;

  std::string chat_template;  // Jinja source; empty: the model has none
};

}  // namespace asymserve
