#pragma once

#include <array>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "engine/text/byte_alphabet.h"
#include "engine/text/tokenizer_spec.h"

// Small vocabularies that a test can read.

namespace asymserve {

/// Ids 0 to 255 are the bytes, then come the merged tokens in the order of `merges`.
inline TokenizerSpec ToyByteLevelSpec(
    std::initializer_list<std::pair<std::string_view, std::string_view>> merges = {}) {
  TokenizerSpec spec;
  spec.kind = TokenizerSpec::Kind::kByteLevelBpe;
  spec.pre_tokenizer = "gpt-2";
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    spec.tokens.push_back(WriteInAlphabet({&c, 1}));
  }
  for (const auto& [left, right] : merges) {
    const std::string left_token = WriteInAlphabet(left);
    const std::string right_token = WriteInAlphabet(right);
    spec.tokens.push_back(left_token + right_token);
    spec.merges.push_back(left_token + " " + right_token);
  }
  spec.types.assign(spec.tokens.size(), TokenizerSpec::TokenType::kNormal);
  return spec;
}

/// Adds a token that is no part of the BPE; returns its id.
inline int32_t AddToken(TokenizerSpec& spec, std::string_view written,
                        TokenizerSpec::TokenType type, float score = 0) {
  spec.tokens.emplace_back(written);
  spec.types.push_back(type);
  if (!spec.scores.empty()) spec.scores.push_back(score);
  return static_cast<int32_t>(spec.tokens.size()) - 1;
}

/// Id 0 is the unknown token, 1 <s>, 2 </s>, 3 to 258 the bytes, then come `pieces` (U+2581 for a
/// space), each with its score.
inline TokenizerSpec ToySentencePieceSpec(
    std::initializer_list<std::pair<std::string_view, float>> pieces) {
  using Type = TokenizerSpec::TokenType;
  TokenizerSpec spec;
  spec.kind = TokenizerSpec::Kind::kSentencePiece;
  spec.tokens = {"<unk>", "<s>", "</s>"};
  spec.types = {Type::kUnknown, Type::kControl, Type::kControl};
  spec.scores = {0, 0, 0};
  spec.unknown = 0;
  spec.bos = 1;
  spec.eos = 2;
  spec.add_space_prefix = true;
  for (int byte = 0; byte < 256; ++byte) {
    std::array<char, 8> name{};
    std::snprintf(name.data(), name.size(), "<0x%02X>", byte);
    AddToken(spec, name.data(), Type::kByte);
  }
  for (const auto& [piece, score] : pieces) AddToken(spec, piece, Type::kNormal, score);
  return spec;
}

}  // namespace asymserve
