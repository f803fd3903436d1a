#include "engine/text/tokenizer_json.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include <nlohmann/json.hpp>

#include "engine/base/status.h"
#include "engine/text/end_tokens.h"
#include "engine/text/json_fields.h"
#include "engine/text/tokenizer_json_pipeline.h"

namespace asymserve {
namespace {

using nlohmann::json;
using TokenType = TokenizerSpec::TokenType;

absl::StatusOr<json> ParseObject(std::string_view text, const char* name) {
  json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat(name, " is not valid JSON"));
  }
  if (!root.is_object()) return absl::InvalidArgumentError(absl::StrCat(name, " is no object"));
  return root;
}

/// A token id in [0, limit).
absl::StatusOr<int32_t> TokenId(const json& value, std::string_view token, size_t limit) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= limit) {
    return absl::InvalidArgumentError(absl::StrCat("id of token '", std::string(token), "' is ",
                                                   Excerpt(value), ", allowed are 0 to ",
                                                   limit - 1));
  }
  return static_cast<int32_t>(value.get<uint64_t>());
}

/// Puts a token at its id; an id may be given twice for the same token only.
absl::Status PlaceToken(std::string_view token, int32_t id, TokenType type, TokenizerSpec& spec) {
  const auto at = static_cast<size_t>(id);
  if (at >= spec.tokens.size()) {
    spec.tokens.resize(at + 1);
    spec.types.resize(at + 1, TokenType::kUnused);
  }
  if (spec.types[at] != TokenType::kUnused && spec.tokens[at] != token) {
    return absl::InvalidArgumentError(absl::StrCat("id ", id, " is given to the tokens '",
                                                   spec.tokens[at], "' and '", std::string(token),
                                                   "'"));
  }
  spec.tokens[at] = std::string(token);
  spec.types[at] = type;
  return absl::OkStatus();
}

bool IsByteToken(std::string_view token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with(">");
}

absl::Status ReadVocabulary(const json& model, size_t limit, TokenizerSpec& spec) {
  const json* const vocab = FindField(model, "vocab");
  if (vocab == nullptr || !vocab->is_object()) {
    return absl::InvalidArgumentError("'vocab' is missing or no object");
  }
  spec.tokens.reserve(vocab->size());
  spec.types.reserve(vocab->size());
  const bool has_bytes = spec.kind == TokenizerSpec::Kind::kSentencePiece;
  for (const auto& [token, value] : vocab->items()) {
    ASYMSERVE_ASSIGN_OR_RETURN(const int32_t id, TokenId(value, token, limit));
    const bool is_byte = has_bytes && IsByteToken(token);
    ASYMSERVE_RETURN_IF_ERROR(
        PlaceToken(token, id, is_byte ? TokenType::kByte : TokenType::kNormal, spec));
  }
  return absl::OkStatus();
}

/// Merges come as "left right", or as ["left", "right"].
absl::Status ReadMerges(const json& model, TokenizerSpec& spec) {
  ASYMSERVE_ASSIGN_OR_RETURN(const json* const merges, ArrayField(model, "merges"));
  spec.merges.reserve(merges->size());
  for (const json& merge : *merges) {
    if (merge.is_string()) {
      spec.merges.push_back(merge.get_ref<const std::string&>());
      continue;
    }
    const bool is_pair =
        merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
    const bool has_space =
        is_pair && (merge[0].get_ref<const std::string&>().find(' ') != std::string::npos ||
                    merge[1].get_ref<const std::string&>().find(' ') != std::string::npos);
    if (!is_pair || has_space) {
      return absl::InvalidArgumentError(absl::StrCat("merge ", spec.merges.size(), " is ",
                                                     Excerpt(merge),
                                                     ", not two strings without spaces"));
    }
    spec.merges.push_back(absl::StrCat(merge[0].get_ref<const std::string&>(), " ",
                                       merge[1].get_ref<const std::string&>()));
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const json& model, size_t limit, TokenizerSpec& spec) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view type, StringField(model, "type", "BPE"));
  if (type != "BPE") {
    return absl::InvalidArgumentError(
        absl::StrCat("type '", std::string(type), "' is not supported, only BPE"));
  }
  for (const char* const key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view affix, StringField(model, key, ""));
    if (!affix.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("'", key, "' is not supported"));
    }
  }
  const json* const dropout = FindField(model, "dropout");
  if (dropout != nullptr && !(dropout->is_number() && dropout->get<double>() == 0)) {
    return absl::InvalidArgumentError("'dropout' is not supported");
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const bool byte_fallback, BoolField(model, "byte_fallback", false));
  ASYMSERVE_ASSIGN_OR_RETURN(spec.whole_words, BoolField(model, "ignore_merges", false));
  if (byte_fallback) {
    spec.kind = TokenizerSpec::Kind::kSentencePiece;
    if (*spec.whole_words) {
      return absl::InvalidArgumentError("'ignore_merges' with 'byte_fallback' is not supported");
    }
  }
  ASYMSERVE_RETURN_IF_ERROR(ReadVocabulary(model, limit, spec));
  return ReadMerges(model, spec);
}

absl::Status ReadAddedTokens(const json& added, size_t limit, TokenizerSpec& spec) {
  for (const json& entry : added) {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view content, StringField(entry, "content", ""));
    if (content.empty()) return absl::InvalidArgumentError("a token has no 'content'");
    const json* const number = FindField(entry, "id");
    ASYMSERVE_ASSIGN_OR_RETURN(const int32_t id,
                               TokenId(number == nullptr ? json() : *number, content, limit));
    ASYMSERVE_ASSIGN_OR_RETURN(const bool special, BoolField(entry, "special", false));
    ASYMSERVE_ASSIGN_OR_RETURN(const bool single_word, BoolField(entry, "single_word", false));
    ASYMSERVE_ASSIGN_OR_RETURN(const bool strip_left, BoolField(entry, "lstrip", false));
    ASYMSERVE_ASSIGN_OR_RETURN(const bool strip_right, BoolField(entry, "rstrip", false));
    if (single_word) {
      return absl::InvalidArgumentError(
          absl::StrCat("'single_word' of token '", std::string(content), "' is not supported"));
    }
    ASYMSERVE_RETURN_IF_ERROR(
        PlaceToken(content, id, special ? TokenType::kControl : TokenType::kUserDefined, spec));
    if (strip_left) spec.strip_left.push_back(id);
    if (strip_right) spec.strip_right.push_back(id);
  }
  return absl::OkStatus();
}

/// A special token of tokenizer_config.json: its text, or an object with the text as "content".
absl::StatusOr<std::string_view> ConfiguredToken(const json& config, const char* key) {
  const json* const field = FindField(config, key);
  if (field != nullptr && field->is_object()) return StringField(*field, "content", "");
  return StringField(config, key, "");
}

absl::Status ReadConfiguredTokens(const json& config, TokenizerSpec& spec) {
  struct Named {
    const char* key;
    int32_t& id;
    bool is_needed;
  };
  absl::flat_hash_map<std::string_view, int32_t> ids;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    ids.try_emplace(spec.tokens[id], static_cast<int32_t>(id));
  }
  for (const Named& named :
       {Named{"bos_token", spec.bos, true}, Named{"eos_token", spec.eos, true},
        Named{"unk_token", spec.unknown, false}, Named{"pad_token", spec.padding, false}}) {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view token, ConfiguredToken(config, named.key));
    if (token.empty()) continue;
    const auto found = ids.find(token);
    if (found == ids.end()) {
      if (!named.is_needed) continue;
      return absl::InvalidArgumentError(absl::StrCat("'", named.key, "' is '", std::string(token),
                                                     "', which is not in the vocabulary"));
    }
    named.id = found->second;
  }
  return absl::OkStatus();
}

/// The template is a string, or the one named "default" in a list.
absl::Status ReadChatTemplate(const json& config, TokenizerSpec& spec) {
  const json* const field = FindField(config, "chat_template");
  if (field != nullptr && field->is_array()) {
    for (const json& entry : *field) {
      ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view name, StringField(entry, "name", ""));
      if (name != "default") continue;
      ASYMSERVE_ASSIGN_OR_RETURN(spec.chat_template, StringField(entry, "template", ""));
    }
    return absl::OkStatus();
  }
  ASYMSERVE_ASSIGN_OR_RETURN(spec.chat_template, StringField(config, "chat_template", ""));
  return absl::OkStatus();
}

absl::Status ReadConfig(const json& config, TokenizerSpec& spec) {
  ASYMSERVE_RETURN_IF_ERROR(ReadConfiguredTokens(config, spec));
  ASYMSERVE_ASSIGN_OR_RETURN(spec.add_bos, BoolField(config, "add_bos_token", spec.add_bos));
  ASYMSERVE_ASSIGN_OR_RETURN(spec.add_eos, BoolField(config, "add_eos_token", spec.add_eos));
  return ReadChatTemplate(config, spec);
}

/// unk_token of the model; in SentencePiece's manner it is not text.
absl::Status ReadUnknown(const json& model, TokenizerSpec& spec) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view token, StringField(model, "unk_token", ""));
  if (token.empty()) return absl::OkStatus();
  const auto found = std::find(spec.tokens.begin(), spec.tokens.end(), token);
  if (found == spec.tokens.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'unk_token' is '", std::string(token), "', which is not in the vocabulary"));
  }
  spec.unknown = static_cast<int32_t>(found - spec.tokens.begin());
  if (spec.kind == TokenizerSpec::Kind::kSentencePiece) {
    spec.types[spec.unknown] = TokenType::kUnknown;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view json_text,
                                                 std::string_view tokenizer_config_json) {
  ASYMSERVE_ASSIGN_OR_RETURN(const json root, ParseObject(json_text, "tokenizer.json"));
  json config = json::object();
  if (!tokenizer_config_json.empty()) {
    ASYMSERVE_ASSIGN_OR_RETURN(config, ParseObject(tokenizer_config_json, "tokenizer_config.json"));
  }
  const json* const model = FindField(root, "model");
  if (model == nullptr) return absl::InvalidArgumentError("tokenizer.json has no 'model'");
  ASYMSERVE_ASSIGN_OR_RETURN(const json* const added, ArrayField(root, "added_tokens"));
  const json* const vocab = FindField(*model, "vocab");
  // Ids may have gaps, but a small file must not ask for a large table.
  const size_t limit = 2 * ((vocab == nullptr ? 0 : vocab->size()) + added->size()) + 1024;

  TokenizerSpec spec;
  ASYMSERVE_RETURN_IF_ERROR(Annotate(ReadModel(*model, limit, spec), "model"));
  ASYMSERVE_RETURN_IF_ERROR(Annotate(ReadAddedTokens(*added, limit, spec), "added_tokens"));
  ASYMSERVE_RETURN_IF_ERROR(Annotate(ReadUnknown(*model, spec), "model"));
  ASYMSERVE_RETURN_IF_ERROR(ReadTextSteps(root, spec));
  ASYMSERVE_RETURN_IF_ERROR(ReadPostProcessor(root, spec));
  ASYMSERVE_RETURN_IF_ERROR(Annotate(ReadConfig(config, spec), "tokenizer_config.json"));
  AddEndOfTurnTokens(spec);
  return spec;
}

}  // namespace asymserve
