#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

#include "engine/text/merge_table.h"
#include "engine/text/stretch_tokenizer.h"
#include "engine/text/word_merger.h"

namespace asymserve {

/// SentencePiece's BPE (Kudo and Richardson 2018): pieces of characters, U+2581 for a space, the
/// bytes of characters without a piece as byte tokens. Pieces join by their score, or by a list of
/// merges where there are no scores.
class SentencePieceTokenizer final : public StretchTokenizer {
 public:
  /// `spec` has passed the checks that hold for every kind.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerSpec spec);

 private:
  explicit SentencePieceTokenizer(TokenizerSpec spec);
  absl::Status ReadTokens();
  void RankByScore();
  absl::Status ReadMerges();

  absl::Status EncodeStretch(std::string_view stretch, size_t offset,
                             std::vector<int32_t>& ids) const override;
  /// Appends the ids of bytes [begin, end) of `text`, in which spaces are U+2581.
  void EncodeWord(std::string_view text, size_t begin, size_t end, WordMerger& merger,
                  std::vector<Symbol>& symbols, std::vector<int32_t>& ids) const;
  /// Appends the ids of one symbol: its own, its bytes', or, for an unused piece, its parts'.
  void EmitSymbol(std::string_view text, const Symbol& symbol, std::vector<int32_t>& ids) const;
  void SplitCharacters(std::string_view text, size_t begin, size_t end,
                       std::vector<Symbol>& symbols) const;
  Merge FindMerge(std::string_view text, const Symbol& left, const Symbol& right) const;

  /// Ordinary pieces by their text, which spec_.tokens owns, with the rank of their score.
  absl::flat_hash_map<std::string_view, Merge> pieces_;
  size_t longest_piece_ = 0;  // bytes
  MergeTable merges_;
  bool has_merges_;                     // merges_ instead of the ranks
  bool words_begin_with_space_ = true;  // no piece has a space behind another character
  std::array<int32_t, 256> byte_ids_{};
};

}  // namespace asymserve
