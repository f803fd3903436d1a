#include "engine/model/hf_tokenizer.h"

#include <algorithm>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "engine/base/status.h"
#include "engine/model/json_document.h"
#include "engine/model/small_file.h"
#include "engine/text/tokenizer_json.h"

namespace asymserve {
namespace {

absl::Status AddEndId(const nlohmann::json& id, TokenizerSpec& spec) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= spec.tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "key 'eos_token_id' is no id in a vocabulary of ", spec.tokens.size(), " tokens"));
  }
  const auto token = static_cast<int32_t>(id.get<uint64_t>());
  if (spec.eos < 0) spec.eos = token;
  const auto& ends = spec.end_ids;
  if (token != spec.eos && std::find(ends.begin(), ends.end(), token) == ends.end()) {
    spec.end_ids.push_back(token);
  }
  return absl::OkStatus();
}

/// eos_token_id is one id or a list of them.
absl::Status AddEndIds(const nlohmann::json& config, TokenizerSpec& spec) {
  const auto ids = config.find("eos_token_id");
  if (ids == config.end() || ids->is_null()) return absl::OkStatus();
  if (!ids->is_array()) return AddEndId(*ids, spec);
  for (const nlohmann::json& id : *ids) {
    ASYMSERVE_RETURN_IF_ERROR(AddEndId(id, spec));
  }
  return absl::OkStatus();
}

void FillUp(TokenizerSpec& spec, int32_t vocabulary) {
  const auto target = static_cast<size_t>(vocabulary);
  const size_t own = spec.tokens.size();
  if (own == target) return;
  spec.types.resize(own, TokenizerSpec::TokenType::kNormal);
  spec.types.resize(target, TokenizerSpec::TokenType::kUnused);
  if (!spec.scores.empty()) spec.scores.resize(target, 0.0f);
  for (size_t id = own; id < target; ++id) spec.tokens.push_back(absl::StrCat("[PAD", id, "]"));
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadHfTokenizer(const std::string& folder,
                                              const nlohmann::json& model_config,
                                              int32_t vocabulary) {
  const std::string path = folder + "tokenizer.json";
  ASYMSERVE_ASSIGN_OR_RETURN(const auto tokenizer_json, ReadSmallFile(path));
  if (!tokenizer_json) return absl::NotFoundError(absl::StrCat(path, " is missing"));
  ASYMSERVE_ASSIGN_OR_RETURN(const auto config_json,
                             ReadSmallFile(folder + "tokenizer_config.json"));
  auto parsed = ParseTokenizerJson(*tokenizer_json, config_json.value_or("{}"));
  if (!parsed.ok()) return Annotate(parsed.status(), path);
  TokenizerSpec spec = *std::move(parsed);
  if (spec.tokens.size() > static_cast<size_t>(vocabulary)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", spec.tokens.size(),
                                                   " tokens, key 'vocab_size' of config.json is ",
                                                   vocabulary));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const auto chat_template,
                             ReadSmallFile(folder + "chat_template.jinja"));
  if (chat_template) spec.chat_template = *chat_template;

  ASYMSERVE_RETURN_IF_ERROR(Annotate(AddEndIds(model_config, spec), folder + "config.json"));
  const std::string generation_path = folder + "generation_config.json";
  ASYMSERVE_ASSIGN_OR_RETURN(const auto generation_json, ReadSmallFile(generation_path));
  if (generation_json) {
    ASYMSERVE_ASSIGN_OR_RETURN(const nlohmann::json generation,
                               ParseJsonObject(*generation_json, generation_path));
    ASYMSERVE_RETURN_IF_ERROR(Annotate(AddEndIds(generation, spec), generation_path));
  }
  FillUp(spec, vocabulary);
  return spec;
}

}  // namespace asymserve
