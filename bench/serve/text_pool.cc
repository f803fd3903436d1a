#include "bench/serve/text_pool.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "grpcpp/grpcpp.h"
#include "nlohmann/json.hpp"

#include "engine/base/philox.h"

namespace asymserve::load {
namespace {

using nlohmann::json;

constexpr std::array<const char*, 48> kWords = {
    "the",  "a",     "small",  "river", "house",  "walked", "quickly", "under", "bright", "morning",
    "and",  "then",  "friend", "asked", "about",  "his",    "garden",  "where", "birds",  "sing",
    "old",  "table", "stood",  "near",  "window", "with",   "three",   "books", "of",     "stories",
    "she",  "found", "lost",   "key",   "in",     "water",  "light",   "over",  "hill",   "when",
    "rain", "came",  "people", "began", "to",     "dance",  "again",   "slowly"};

absl::Status ToAbsl(const grpc::Status& status, const char* method) {
  if (status.ok()) return absl::OkStatus();
  return {static_cast<absl::StatusCode>(status.error_code()),
          absl::StrCat(method, ": ", status.error_message())};
}

/// At least `tokens` tokens: no tokenizer needs fewer than one for a word.
std::string Words(int32_t tokens, uint64_t seed, size_t text) {
  std::string words = absl::StrCat("Story ", text, ":");
  for (int32_t i = 0; i < tokens; ++i) {
    const double draw = PhiloxUniform(seed, static_cast<uint64_t>(i), static_cast<uint32_t>(text));
    absl::StrAppend(&words, " ", kWords[static_cast<size_t>(draw * kWords.size())]);
  }
  return words;
}

absl::StatusOr<std::string> MakePrompt(const Target& target, int32_t tokens,
                                       const std::string& words) {
  v1::TokenizeRequest tokenize;
  tokenize.set_text(words);
  tokenize.set_add_special_tokens(false);
  v1::TokenizeResponse ids;
  {
    grpc::ClientContext context;
    target.Prepare(context);
    const absl::Status done = ToAbsl(target.stub().Tokenize(&context, tokenize, &ids), "Tokenize");
    if (!done.ok()) return done;
  }
  v1::DetokenizeRequest detokenize;
  for (int i = 0; i < std::min(tokens, ids.token_ids_size()); ++i) {
    detokenize.add_token_ids(ids.token_ids(i));
  }
  v1::DetokenizeResponse text;
  grpc::ClientContext context;
  target.Prepare(context);
  const absl::Status done =
      ToAbsl(target.stub().Detokenize(&context, detokenize, &text), "Detokenize");
  if (!done.ok()) return done;
  return text.text();
}

}  // namespace

absl::StatusOr<std::vector<PoolText>> MakePrompts(const Target& target,
                                                  const std::vector<TextLength>& lengths,
                                                  uint64_t seed) {
  std::vector<PoolText> texts;
  for (const TextLength& length : lengths) {
    const int32_t tokens = length.prompt_tokens;
    absl::StatusOr<std::string> prompt =
        MakePrompt(target, tokens, Words(tokens, seed, texts.size()));
    if (!prompt.ok()) return prompt.status();
    texts.push_back({length, *std::move(prompt), ""});
  }
  return texts;
}

v1::GenerateRequest RequestFor(const PoolText& text) {
  v1::GenerateRequest request;
  request.set_prompt(text.prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stop()->set_max_tokens(text.length.output_tokens);
  request.mutable_stop()->set_ignore_eos(true);
  return request;
}

absl::Status FetchAnswers(const Target& target, std::vector<PoolText>& texts) {
  for (PoolText& text : texts) {
    grpc::ClientContext context;
    target.Prepare(context);
    v1::GenerateUnaryResponse response;
    const grpc::Status status = target.stub().GenerateUnary(&context, RequestFor(text), &response);
    if (!status.ok()) return ToAbsl(status, "GenerateUnary");
    text.answer = response.sequences(0).text();
  }
  return absl::OkStatus();
}

absl::Status ReadAnswers(const std::string& path, std::vector<PoolText>& texts) {
  if (!std::filesystem::exists(path)) return absl::NotFoundError(path);
  std::ifstream file(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const json all = json::parse(content, nullptr, /*allow_exceptions=*/false);
  const auto bad = [&path](const char* what) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", what, "; remove it to fetch anew"));
  };
  if (!all.is_array() || all.size() != texts.size()) return bad("not the answers of this load");
  for (size_t i = 0; i < texts.size(); ++i) {
    PoolText& text = texts[i];
    const json wanted = {{"prompt", text.prompt}, {"max_tokens", text.length.output_tokens}};
    const json& one = all[i];
    if (!one.is_object() || !one.contains("answer") || !one["answer"].is_string() ||
        one.value("prompt", json()) != wanted["prompt"] ||
        one.value("max_tokens", json()) != wanted["max_tokens"]) {
      return bad("the answers are to other prompts");
    }
    text.answer = one["answer"].get<std::string>();
  }
  return absl::OkStatus();
}

absl::Status WriteAnswers(const std::string& path, const std::vector<PoolText>& texts) {
  json all = json::array();
  for (const PoolText& text : texts) {
    all.push_back({{"prompt", text.prompt},
                   {"max_tokens", text.length.output_tokens},
                   {"answer", text.answer}});
  }
  std::ofstream file(path, std::ios::binary);
  file << all.dump(1) << '\n';
  file.close();
  if (!file) return absl::UnavailableError(absl::StrCat(path, ": cannot be written"));
  return absl::OkStatus();
}

}  // namespace asymserve::load
