#include "tests/support/toy_tokenizer.h"

#include <array>
#include <utility>

#include <nlohmann/json.hpp>

#include "engine/base/check.h"

namespace asymserve::testing {
namespace {

constexpr std::array<std::pair<const char*, const char*>, kToyMerges> kMerges = {{
    {"\u0120", "t"},
    {"h", "e"},
    {"i", "n"},
    {"\u0120", "a"},
    {"\u0120t", "he"},
    {"o", "n"},
    {"e", "r"},
    {"\u0120", "w"},
    {"r", "e"},
    {"in", "g"},
    {"o", "r"},
    {"\u0120a", "n"},
}};

constexpr const char* kTemplate =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}"
    "{% endif %}";

std::string Utf8(uint32_t code_point) {
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  return {static_cast<char>(0xC0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 63))};
}

/// GPT-2's printable stand-in for a byte: printable Latin-1 stands for itself, the others follow
/// from U+0100 in order.
std::string ByteSymbol(int byte) {
  const auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  };
  if (printable(byte)) return Utf8(static_cast<uint32_t>(byte));
  uint32_t next = 256;
  for (int b = 0; b < byte; ++b) next += printable(b) ? 0 : 1;
  return Utf8(next);
}

}  // namespace

TokenizerSpec ToyTokenizerSpec(int32_t vocabulary) {
  ASYMSERVE_CHECK(vocabulary >= kToyLeastVocabulary);
  using TokenType = TokenizerSpec::TokenType;
  TokenizerSpec spec;
  spec.pre_tokenizer = "gpt-2";
  for (int byte = 0; byte < 256; ++byte) spec.tokens.push_back(ByteSymbol(byte));
  for (const auto& [left, right] : kMerges) {
    spec.merges.push_back(std::string(left) + " " + right);
    spec.tokens.push_back(std::string(left) + right);
  }
  spec.types.assign(spec.tokens.size(), TokenType::kNormal);
  for (const char* token : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    spec.tokens.emplace_back(token);
    spec.types.push_back(TokenType::kControl);
  }
  for (int32_t id = kToyLeastVocabulary; id < vocabulary; ++id) {
    spec.tokens.push_back("[PAD" + std::to_string(id) + "]");
    spec.types.push_back(TokenType::kUnused);
  }
  spec.bos = kToyEndOfText;
  spec.eos = kToyTurnEnd;
  spec.end_ids = {kToyEndOfText};
  spec.chat_template = kTemplate;
  return spec;
}

std::string ToyTokenizerJson() {
  const TokenizerSpec spec = ToyTokenizerSpec(kToyLeastVocabulary);
  nlohmann::json vocabulary = nlohmann::json::object();
  nlohmann::json added = nlohmann::json::array();
  for (int32_t id = 0; id < kToyLeastVocabulary; ++id) {
    const std::string& token = spec.tokens[static_cast<size_t>(id)];
    vocabulary[token] = id;
    if (id < kToyEndOfText) continue;
    added.push_back({{"id", id},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const nlohmann::json byte_level = {{"type", "ByteLevel"},
                                     {"add_prefix_space", false},
                                     {"trim_offsets", true},
                                     {"use_regex", true}};
  const nlohmann::json model = {{"type", "BPE"},
                                {"dropout", nullptr},
                                {"unk_token", nullptr},
                                {"continuing_subword_prefix", nullptr},
                                {"end_of_word_suffix", nullptr},
                                {"fuse_unk", false},
                                {"byte_fallback", false},
                                {"vocab", vocabulary},
                                {"merges", spec.merges}};
  const nlohmann::json document = {
      {"version", "1.0"},          {"truncation", nullptr}, {"padding", nullptr},
      {"added_tokens", added},     {"normalizer", nullptr}, {"pre_tokenizer", byte_level},
      {"post_processor", nullptr}, {"decoder", byte_level}, {"model", model}};
  return document.dump();
}

std::string ToyTokenizerConfigJson() {
  const nlohmann::json document = {{"bos_token", "<|endoftext|>"},
                                   {"eos_token", "<|im_end|>"},
                                   {"add_bos_token", false},
                                   {"chat_template", kTemplate},
                                   {"tokenizer_class", "GPT2Tokenizer"}};
  return document.dump();
}

}  // namespace asymserve::testing
