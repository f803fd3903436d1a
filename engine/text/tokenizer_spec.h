#pragma once

#include <cstdint>
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
  std::vector<std::string> tokens;  // by id, in the kind's own alphabet
  std::vector<TokenType> types;     // by id; empty: all kNormal
  std::vector<float> scores;        // by id, kSentencePiece
  std::vector<std::string> merges;  // "left right", best first, kByteLevelBpe
  int32_t bos = -1, eos = -1, unknown = -1, padding = -1;  // ids, -1 where there is none
  /// Ids that end generation besides eos: end of turn, end of message.
  std::vector<int32_t> end_ids;
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = false;  // kSentencePiece
  std::string chat_template;      // Jinja source; empty: the model has none
};

}  // namespace asymserve
