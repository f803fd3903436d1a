#include "engine/text/byte_level_tokenizer.h"

#include <string>
#include <utility>

#include "engine/base/status.h"
#include "engine/text/byte_alphabet.h"

namespace asymserve {

ByteLevelTokenizer::ByteLevelTokenizer(TokenizerSpec spec, PreTokenizer pre_tokenizer)
    : StretchTokenizer(std::move(spec)),
      pre_tokenizer_(std::move(pre_tokenizer)),
      merges_(spec_.merges.size()),
      takes_whole_words_(spec_.whole_words.value_or(pre_tokenizer_.takes_whole_words())) {
  normalizes_nfc_ = spec_.normalize_nfc.value_or(pre_tokenizer_.normalizes_nfc());
  if (spec_.unknown >= 0 && TypeOf(spec_.unknown) == TokenType::kNormal)
    missing_byte_id_ = spec_.unknown;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> ByteLevelTokenizer::Create(TokenizerSpec spec) {
  ASYMSERVE_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::Create(spec.pre_tokenizer));
  std::unique_ptr<ByteLevelTokenizer> tokenizer(
      new ByteLevelTokenizer(std::move(spec), std::move(pre_tokenizer)));
  tokenizer->ReadTokens();
  ASYMSERVE_RETURN_IF_ERROR(tokenizer->ReadMerges());
  tokenizer->FindSpecialTokens();
  if (!tokenizer->takes_whole_words_) tokenizer->ids_ = {};
  tokenizer->spec_.merges = {};
  tokenizer->spec_.scores = {};
  return tokenizer;
}

void ByteLevelTokenizer::ReadTokens() {
  std::string bytes;
  std::vector<bool> is_in_alphabet(spec_.tokens.size());
  for (int32_t id = 0; id < vocabulary(); ++id) {
    bytes.clear();
    is_in_alphabet[id] =
        TypeOf(id) == TokenType::kNormal && AppendAlphabetBytes(spec_.tokens[id], bytes);
    AddTokenBytes(is_in_alphabet[id] ? bytes : spec_.tokens[id]);
  }
  byte_ids_.fill(-1);
  ids_.reserve(spec_.tokens.size());
  for (int32_t id = 0; id < vocabulary(); ++id) {
    if (!is_in_alphabet[id]) continue;
    const std::string_view token = TokenBytes(id);
    const bool is_new = ids_.try_emplace(token, id).second;
    if (is_new && token.size() == 1) byte_ids_[static_cast<uint8_t>(token[0])] = id;
  }
}

absl::Status ByteLevelTokenizer::ReadMerges() {
  std::string joined;
  for (size_t rank = 0; rank < spec_.merges.size(); ++rank) {
    const std::string_view merge = spec_.merges[rank];
    const size_t space = merge.find(' ', 1);  // the alphabet has no space
    joined.clear();
    if (space == std::string_view::npos || !AppendAlphabetBytes(merge.substr(0, space), joined)) {
      return absl::InvalidArgumentError(absl::StrCat("merge ", rank, " '", spec_.merges[rank],
                                                     "' is not two tokens with a space between"));
    }
    const size_t left_bytes = joined.size();
    const bool is_written = AppendAlphabetBytes(merge.substr(space + 1), joined);
    const auto left = ids_.find(std::string_view(joined).substr(0, left_bytes));
    const auto right = ids_.find(std::string_view(joined).substr(left_bytes));
    const auto whole = ids_.find(joined);
    if (!is_written || left == ids_.end() || right == ids_.end() || whole == ids_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("merge ", rank, " '", spec_.merges[rank],
                       "': a side or the whole is not a token of the vocabulary"));
    }
    merges_.Add(left->second, right->second, {static_cast<uint32_t>(rank), whole->second});
  }
  return absl::OkStatus();
}

absl::Status ByteLevelTokenizer::EncodeMissingByte(char byte, size_t offset,
                                                   std::vector<int32_t>& ids) const {
  if (missing_byte_id_ < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("text has byte 0x", absl::Hex(static_cast<uint8_t>(byte), absl::kZeroPad2),
                     " at offset ", offset, ", for which the vocabulary has no token"));
  }
  ids.push_back(missing_byte_id_);
  return absl::OkStatus();
}

absl::Status ByteLevelTokenizer::EncodeStretch(std::string_view stretch, size_t offset,
                                               std::vector<int32_t>& ids) const {
  std::vector<std::string_view> words;
  ASYMSERVE_RETURN_IF_ERROR(pre_tokenizer_.Split(stretch, words));
  std::vector<Symbol> symbols;
  WordMerger merger;
  for (const std::string_view word : words) {
    if (takes_whole_words_) {
      if (const auto whole = ids_.find(word); whole != ids_.end()) {
        ids.push_back(whole->second);
        continue;
      }
    }
    symbols.clear();
    for (uint32_t at = 0; at < word.size(); ++at) {
      symbols.push_back({at, 1, byte_ids_[static_cast<uint8_t>(word[at])]});
    }
    merger.Run(symbols, [this](const Symbol& left, const Symbol& right) {
      return merges_.Find(left.id, right.id);
    });
    for (const Symbol& symbol : symbols) {
      if (symbol.id >= 0) {
        ids.push_back(symbol.id);
        continue;
      }
      const size_t at = offset + static_cast<size_t>(word.data() - stretch.data()) + symbol.begin;
      ASYMSERVE_RETURN_IF_ERROR(EncodeMissingByte(word[symbol.begin], at, ids));
    }
  }
  return absl::OkStatus();
}

}  // namespace asymserve
