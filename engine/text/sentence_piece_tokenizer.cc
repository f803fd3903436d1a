#include "engine/text/sentence_piece_tokenizer.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "engine/base/status.h"
#include "engine/text/utf8.h"

namespace asymserve {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581

/// `text` with `from` replaced by `to`.
std::string Replace(std::string_view text, std::string_view from, std::string_view to) {
  std::string replaced;
  replaced.reserve(text.size() + text.size() / 2);
  for (size_t at = 0; at < text.size();) {
    const size_t found = std::min(text.find(from, at), text.size());
    replaced += text.substr(at, found - at);
    if (found == text.size()) break;
    replaced += to;
    at = found + from.size();
  }
  return replaced;
}

/// The byte that a token like "<0x0A>" stands for.
std::optional<uint8_t> ByteOfToken(std::string_view token) {
  constexpr std::string_view kHexDigits = "0123456789ABCDEF";
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
  const size_t high = kHexDigits.find(token[3]);
  const size_t low = kHexDigits.find(token[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

bool HasInnerSpace(std::string_view piece) {
  size_t at = 0;
  while (piece.substr(at, kSpace.size()) == kSpace) at += kSpace.size();
  return piece.find(kSpace, at) != std::string_view::npos;
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(TokenizerSpec spec)
    : StretchTokenizer(std::move(spec)),
      merges_(spec_.scores.empty() ? spec_.merges.size() : 0),
      has_merges_(spec_.scores.empty()) {
  normalizes_nfc_ = spec_.normalize_nfc.value_or(false);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> SentencePieceTokenizer::Create(TokenizerSpec spec) {
  std::unique_ptr<SentencePieceTokenizer> tokenizer(new SentencePieceTokenizer(std::move(spec)));
  ASYMSERVE_RETURN_IF_ERROR(tokenizer->ReadTokens());
  if (tokenizer->has_merges_) {
    ASYMSERVE_RETURN_IF_ERROR(tokenizer->ReadMerges());
  } else {
    tokenizer->RankByScore();
  }
  tokenizer->FindSpecialTokens();
  tokenizer->spec_.merges = {};
  tokenizer->spec_.scores = {};
  return tokenizer;
}

absl::Status SentencePieceTokenizer::ReadTokens() {
  byte_ids_.fill(-1);
  pieces_.reserve(spec_.tokens.size());
  for (int32_t id = 0; id < vocabulary(); ++id) {
    const std::string& token = spec_.tokens[id];
    const auto byte = ByteOfToken(token);
    if (byte && (TypeOf(id) == TokenType::kByte || spec_.types.empty())) {
      byte_ids_[*byte] = id;
      AddTokenBytes({reinterpret_cast<const char*>(&*byte), 1});
    } else if (IsOrdinary(id)) {
      AddTokenBytes(Replace(token, kSpace, " "));
      pieces_.try_emplace(token, Merge{Merge::kNone, id});
      longest_piece_ = std::max(longest_piece_, token.size());
      words_begin_with_space_ = words_begin_with_space_ && !HasInnerSpace(token);
    } else if (TypeOf(id) == TokenType::kUserDefined) {
      AddTokenBytes(Replace(token, kSpace, " "));
    } else {
      AddTokenBytes(token);
    }
  }
  const auto missing = std::find(byte_ids_.begin(), byte_ids_.end(), -1);
  if (missing != byte_ids_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the vocabulary has no byte token <0x",
                     absl::Hex(missing - byte_ids_.begin(), absl::kZeroPad2), ">"));
  }
  return absl::OkStatus();
}

void SentencePieceTokenizer::RankByScore() {
  std::vector<int32_t> order(spec_.tokens.size());
  std::iota(order.begin(), order.end(), 0);
  const std::vector<float>& scores = spec_.scores;
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  uint32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && scores[order[i]] < scores[order[i - 1]]) ++rank;  // equal scores, equal ranks
    const auto piece = pieces_.find(spec_.tokens[order[i]]);
    if (piece != pieces_.end() && piece->second.id == order[i]) piece->second.rank = rank;
  }
}

absl::Status SentencePieceTokenizer::ReadMerges() {
  for (size_t rank = 0; rank < spec_.merges.size(); ++rank) {
    const std::string_view merge = spec_.merges[rank];
    const size_t space = merge.find(' ', 1);
    const std::string_view left_text = merge.substr(0, space);
    const std::string_view right_text =
        space == std::string_view::npos ? "" : merge.substr(space + 1);
    std::string joined(left_text);
    joined += right_text;
    const auto left = pieces_.find(left_text);
    const auto right = pieces_.find(right_text);
    const auto whole = pieces_.find(joined);
    if (left == pieces_.end() || right == pieces_.end() || whole == pieces_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("merge ", rank, " '", spec_.merges[rank],
                       "': a side or the whole is not a token of the vocabulary"));
    }
    merges_.Add(left->second.id, right->second.id, {static_cast<uint32_t>(rank), whole->second.id});
  }
  return absl::OkStatus();
}

Merge SentencePieceTokenizer::FindMerge(std::string_view text, const Symbol& left,
                                        const Symbol& right) const {
  if (has_merges_) return merges_.Find(left.id, right.id);
  const size_t length = left.length + right.length;
  if (length > longest_piece_) return {};
  const auto piece = pieces_.find(text.substr(left.begin, length));
  return piece == pieces_.end() ? Merge{} : piece->second;
}

void SentencePieceTokenizer::SplitCharacters(std::string_view text, size_t begin, size_t end,
                                             std::vector<Symbol>& symbols) const {
  symbols.clear();
  while (begin < end) {
    const size_t length = ReadUtf8(text.substr(begin)).length;
    const auto piece = pieces_.find(text.substr(begin, length));
    symbols.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(length),
                       piece == pieces_.end() ? -1 : piece->second.id});
    begin += length;
  }
}

void SentencePieceTokenizer::EncodeWord(std::string_view text, size_t begin, size_t end,
                                        WordMerger& merger, std::vector<Symbol>& symbols,
                                        std::vector<int32_t>& ids) const {
  SplitCharacters(text, begin, end, symbols);
  merger.Run(symbols, [this, text](const Symbol& left, const Symbol& right) {
    return FindMerge(text, left, right);
  });
  for (const Symbol& symbol : symbols) EmitSymbol(text, symbol, ids);
}

void SentencePieceTokenizer::EmitSymbol(std::string_view text, const Symbol& symbol,
                                        std::vector<int32_t>& ids) const {
  if (symbol.id < 0) {
    for (const char byte : text.substr(symbol.begin, symbol.length)) {
      ids.push_back(byte_ids_[static_cast<uint8_t>(byte)]);
    }
    return;
  }
  if (TypeOf(symbol.id) != TokenType::kUnused) {
    ids.push_back(symbol.id);
    return;
  }
  // An unused piece may only lead to longer ones: back to the two it was joined from.
  std::vector<Symbol> parts;
  SplitCharacters(text, symbol.begin, symbol.begin + symbol.length, parts);
  if (parts.size() == 1) {
    ids.push_back(symbol.id);
    return;
  }
  WordMerger merger;
  merger.Run(parts, [&](const Symbol& left, const Symbol& right) {
    const Merge merge = FindMerge(text, left, right);
    return merge.id == symbol.id ? Merge{} : merge;
  });
  for (const Symbol& part : parts) EmitSymbol(text, part, ids);
}

absl::Status SentencePieceTokenizer::EncodeStretch(std::string_view stretch, size_t offset,
                                                   std::vector<int32_t>& ids) const {
  const bool begins_with_space = stretch.front() == ' ' || stretch.starts_with(kSpace);
  const bool add_prefix = spec_.add_space_prefix && !(spec_.prefix_first_only && offset > 0) &&
                          !(spec_.prefix_unless_space && begins_with_space);
  std::string text(add_prefix ? kSpace : "");
  text += Replace(stretch, " ", kSpace);

  WordMerger merger;
  std::vector<Symbol> symbols;
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = text.size();
    if (words_begin_with_space_) {  // then no merge crosses the beginning of a word
      size_t at = begin;
      while (std::string_view(text).substr(at, kSpace.size()) == kSpace) at += kSpace.size();
      end = std::min(text.find(kSpace, at), text.size());
    }
    EncodeWord(text, begin, end, merger, symbols, ids);
    begin = end;
  }
  return absl::OkStatus();
}

}  // namespace asymserve
