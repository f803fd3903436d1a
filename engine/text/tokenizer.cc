#include "engine/text/tokenizer.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "engine/base/status.h"
#include "engine/text/byte_level_tokenizer.h"
#include "engine/text/sentence_piece_tokenizer.h"

namespace asymserve {
namespace {

constexpr size_t kMaxTokens = size_t{1} << 24;
constexpr size_t kMaxTokenBytes = 4096;
constexpr size_t kMaxVocabularyBytes = size_t{1} << 31;

absl::Status CheckTokens(const TokenizerSpec& spec) {
  if (spec.tokens.empty() || spec.tokens.size() > kMaxTokens) {
    return absl::InvalidArgumentError(absl::StrCat("the vocabulary has ", spec.tokens.size(),
                                                   " tokens, allowed are 1 to ", kMaxTokens));
  }
  size_t total_bytes = 0;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    const size_t bytes = spec.tokens[id].size();
    total_bytes += bytes;
    if (bytes > kMaxTokenBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", id, " has ", bytes, " bytes, at most ", kMaxTokenBytes));
    }
  }
  if (total_bytes > kMaxVocabularyBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the tokens have ", total_bytes,
                                                   " bytes in all, at most ", kMaxVocabularyBytes));
  }
  for (size_t id = 0; id < spec.types.size(); ++id) {
    const int type = static_cast<int>(spec.types[id]);
    if (type < 1 || type > 6) {
      return absl::InvalidArgumentError(absl::StrCat("token ", id, " has unknown type ", type));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLengths(const TokenizerSpec& spec) {
  const size_t tokens = spec.tokens.size();
  if (!spec.types.empty() && spec.types.size() != tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.types.size(), " token types for ", tokens, " tokens"));
  }
  if (spec.merges.size() >= Merge::kNone) {
    return absl::InvalidArgumentError(absl::StrCat(spec.merges.size(), " merges are too many"));
  }
  if (spec.kind != TokenizerSpec::Kind::kSentencePiece || spec.scores.empty()) {
    return absl::OkStatus();
  }
  if (spec.scores.size() != tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.scores.size(), " scores for ", tokens, " tokens"));
  }
  for (size_t id = 0; id < tokens; ++id) {
    if (std::isnan(spec.scores[id])) {
      return absl::InvalidArgumentError(absl::StrCat("the score of token ", id, " is NaN"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckIds(const TokenizerSpec& spec) {
  const auto check = [&spec](const char* name, int32_t id, int32_t lowest) {
    if (id >= lowest && id < static_cast<int64_t>(spec.tokens.size())) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is ", id, ", the vocabulary has ", spec.tokens.size(), " tokens"));
  };
  ASYMSERVE_RETURN_IF_ERROR(check("bos", spec.bos, spec.add_bos ? 0 : -1));
  ASYMSERVE_RETURN_IF_ERROR(check("eos", spec.eos, spec.add_eos ? 0 : -1));
  ASYMSERVE_RETURN_IF_ERROR(check("unknown", spec.unknown, -1));
  ASYMSERVE_RETURN_IF_ERROR(check("padding", spec.padding, -1));
  const std::initializer_list<std::pair<const char*, const std::vector<int32_t>*>> lists = {
      {"end_ids", &spec.end_ids},
      {"strip_left", &spec.strip_left},
      {"strip_right", &spec.strip_right}};
  for (const auto& [name, ids] : lists) {
    for (const int32_t id : *ids) ASYMSERVE_RETURN_IF_ERROR(check(name, id, 0));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(TokenizerSpec spec) {
  ASYMSERVE_RETURN_IF_ERROR(CheckTokens(spec));
  ASYMSERVE_RETURN_IF_ERROR(CheckLengths(spec));
  ASYMSERVE_RETURN_IF_ERROR(CheckIds(spec));
  if (spec.kind == TokenizerSpec::Kind::kSentencePiece) {
    return SentencePieceTokenizer::Create(std::move(spec));
  }
  return ByteLevelTokenizer::Create(std::move(spec));
}

bool Tokenizer::IsControl(int32_t id) const {
  using TokenType = TokenizerSpec::TokenType;
  if (id < 0 || id >= static_cast<int64_t>(spec_.types.size())) return false;
  return spec_.types[id] == TokenType::kControl || spec_.types[id] == TokenType::kUnknown;
}

bool Tokenizer::IsEnd(int32_t id) const {
  if (id < 0) return false;
  return id == spec_.eos ||
         std::find(spec_.end_ids.begin(), spec_.end_ids.end(), id) != spec_.end_ids.end();
}

}  // namespace asymserve
