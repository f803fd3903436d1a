#include "engine/model/gguf_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/model/printable.h"
#include "engine/text/end_tokens.h"

namespace asymserve {
namespace {

constexpr int64_t kMaxTokens = 1 << 24;

absl::Status ReadVocabulary(const Gguf& gguf, TokenizerSpec& spec) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto tokens, gguf.Strings("tokenizer.ggml.tokens"));
  const auto count = static_cast<int64_t>(tokens.size());
  if (count == 0 || count > kMaxTokens) {
    return absl::InvalidArgumentError(absl::StrCat("key 'tokenizer.ggml.tokens' has ", count,
                                                   " tokens, allowed are 1 to ", kMaxTokens));
  }
  spec.tokens.assign(tokens.begin(), tokens.end());

  constexpr std::string_view kTypes = "tokenizer.ggml.token_type";
  if (gguf.Find(kTypes) == nullptr) return absl::OkStatus();
  ASYMSERVE_ASSIGN_OR_RETURN(const auto types, gguf.Integers(kTypes));
  if (types.size() != tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat("key ", Printable(kTypes), " has ", types.size(),
                                                   " entries for ", count, " tokens"));
  }
  spec.types.reserve(types.size());
  for (size_t id = 0; id < types.size(); ++id) {
    // Some converters write 0 (undefined) for ordinary tokens.
    const int64_t type = types[id] == 0 ? 1 : types[id];
    if (type < 1 || type > static_cast<int64_t>(TokenizerSpec::TokenType::kByte)) {
      return absl::InvalidArgumentError(
          absl::StrCat("key ", Printable(kTypes), " gives token ", id, " the unknown type ", type));
    }
    spec.types.push_back(static_cast<TokenizerSpec::TokenType>(type));
  }
  return absl::OkStatus();
}

absl::Status ReadScores(const Gguf& gguf, TokenizerSpec& spec) {
  constexpr std::string_view kScores = "tokenizer.ggml.scores";
  ASYMSERVE_ASSIGN_OR_RETURN(spec.scores, gguf.Floats(kScores));
  if (spec.scores.size() != spec.tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat("key ", Printable(kScores), " has ",
                                                   spec.scores.size(), " entries for ",
                                                   spec.tokens.size(), " tokens"));
  }
  const auto broken = std::find_if(spec.scores.begin(), spec.scores.end(),
                                   [](float score) { return !std::isfinite(score); });
  if (broken != spec.scores.end()) {
    return absl::InvalidArgumentError(absl::StrCat("key ", Printable(kScores), " gives token ",
                                                   broken - spec.scores.begin(),
                                                   " a score that is not finite"));
  }
  return absl::OkStatus();
}

/// Reads an optional token id; absent, or the all-ones value some converters write, leaves -1.
absl::Status ReadTokenId(const Gguf& gguf, std::string_view key, const TokenizerSpec& spec,
                         int32_t& id) {
  if (gguf.Find(key) == nullptr) return absl::OkStatus();
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t value, gguf.Integer(key));
  if (value == -1 || value == UINT32_MAX) return absl::OkStatus();
  if (value < 0 || value >= static_cast<int64_t>(spec.tokens.size())) {
    return absl::InvalidArgumentError(absl::StrCat("key ", Printable(key), " is ", value,
                                                   ", the vocabulary has ", spec.tokens.size(),
                                                   " tokens"));
  }
  id = static_cast<int32_t>(value);
  return absl::OkStatus();
}

absl::Status ReadFlag(const Gguf& gguf, std::string_view key, bool& flag) {
  if (gguf.Find(key) == nullptr) return absl::OkStatus();
  ASYMSERVE_ASSIGN_OR_RETURN(flag, gguf.Bool(key));
  return absl::OkStatus();
}

absl::Status ReadSpecialTokens(const Gguf& gguf, TokenizerSpec& spec) {
  ASYMSERVE_RETURN_IF_ERROR(ReadTokenId(gguf, "tokenizer.ggml.bos_token_id", spec, spec.bos));
  ASYMSERVE_RETURN_IF_ERROR(ReadTokenId(gguf, "tokenizer.ggml.eos_token_id", spec, spec.eos));
  ASYMSERVE_RETURN_IF_ERROR(
      ReadTokenId(gguf, "tokenizer.ggml.unknown_token_id", spec, spec.unknown));
  ASYMSERVE_RETURN_IF_ERROR(
      ReadTokenId(gguf, "tokenizer.ggml.padding_token_id", spec, spec.padding));
  const auto add_end = [&spec](int32_t id) {
    const bool known =
        std::find(spec.end_ids.begin(), spec.end_ids.end(), id) != spec.end_ids.end();
    if (id >= 0 && id != spec.eos && !known) spec.end_ids.push_back(id);
  };
  for (const std::string_view key :
       {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    int32_t id = -1;
    ASYMSERVE_RETURN_IF_ERROR(ReadTokenId(gguf, key, spec, id));
    add_end(id);
  }
  AddEndOfTurnTokens(spec);
  return absl::OkStatus();
}

absl::Status ReadKind(const Gguf& gguf, TokenizerSpec& spec) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view model, gguf.String("tokenizer.ggml.model"));
  if (model == "llama") {
    spec.kind = TokenizerSpec::Kind::kSentencePiece;
    spec.add_bos = true;
    spec.add_space_prefix = true;
    return ReadScores(gguf, spec);
  }
  if (model != "gpt2") {
    return absl::UnimplementedError(absl::StrCat("key 'tokenizer.ggml.model' is ", Printable(model),
                                                 ", supported are gpt2, llama"));
  }
  spec.kind = TokenizerSpec::Kind::kByteLevelBpe;
  spec.pre_tokenizer = "default";
  if (gguf.Find("tokenizer.ggml.pre") != nullptr) {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view pre, gguf.String("tokenizer.ggml.pre"));
    spec.pre_tokenizer = std::string(pre);
  }
  // Llama-3 files carry no add_bos_token key and mean yes.
  spec.add_bos = spec.pre_tokenizer == "llama-bpe";
  ASYMSERVE_ASSIGN_OR_RETURN(const auto merges, gguf.Strings("tokenizer.ggml.merges"));
  spec.merges.assign(merges.begin(), merges.end());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> TokenizerSpecFromGguf(const Gguf& gguf) {
  TokenizerSpec spec;
  ASYMSERVE_RETURN_IF_ERROR(ReadVocabulary(gguf, spec));
  ASYMSERVE_RETURN_IF_ERROR(ReadKind(gguf, spec));
  ASYMSERVE_RETURN_IF_ERROR(ReadSpecialTokens(gguf, spec));
  ASYMSERVE_RETURN_IF_ERROR(ReadFlag(gguf, "tokenizer.ggml.add_bos_token", spec.add_bos));
  ASYMSERVE_RETURN_IF_ERROR(ReadFlag(gguf, "tokenizer.ggml.add_eos_token", spec.add_eos));
  ASYMSERVE_RETURN_IF_ERROR(
      ReadFlag(gguf, "tokenizer.ggml.add_space_prefix", spec.add_space_prefix));
  if (gguf.Find("tokenizer.chat_template") != nullptr) {
    ASYMSERVE_ASSIGN_OR_RETURN(const auto source, gguf.String("tokenizer.chat_template"));
    spec.chat_template = std::string(source);
  }
  return spec;
}

}  // namespace asymserve
