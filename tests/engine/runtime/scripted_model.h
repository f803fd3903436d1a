#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model.h"
#include "engine/text/tokenizer.h"

namespace asymserve::testing {

inline constexpr int32_t kVocabulary = 64;
inline constexpr int32_t kEos = 63;
inline constexpr int32_t kPageTokens = 4;

/// Tokens 0..25 are "a".."z", 26..51 "A".."Z", 52..61 digits, 62 the first byte of "é", 63 eos.
class LetterTokenizer final : public Tokenizer {
 public:
  LetterTokenizer() : Tokenizer(MakeSpec()) {}
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view,
                                              const EncodeOptions&) const override {
    return absl::UnimplementedError("not used");
  }
  std::string_view TokenBytes(int32_t id) const override {
    return spec_.tokens[static_cast<size_t>(id)];
  }

 private:
  static TokenizerSpec MakeSpec() {
    TokenizerSpec spec;
    for (char c = 'a'; c <= 'z'; ++c) spec.tokens.emplace_back(1, c);
    for (char c = 'A'; c <= 'Z'; ++c) spec.tokens.emplace_back(1, c);
    for (char c = '0'; c <= '9'; ++c) spec.tokens.emplace_back(1, c);
    spec.tokens.emplace_back("\xC3");
    spec.tokens.emplace_back("<eos>");
    spec.types.assign(kVocabulary, TokenizerSpec::TokenType::kNormal);
    spec.types[kEos] = TokenizerSpec::TokenType::kControl;
    spec.eos = kEos;
    return spec;
  }
};

/// The next token is a hash of every token before it, read back through the page table: a lost,
/// shared, stale or misplaced page changes the text.
class ScriptedModel final : public Model {
 public:
  int32_t vocabulary() const override { return kVocabulary; }
  int32_t context_length() const override { return 1024; }

  absl::StatusOr<TensorView> Forward(const Batch& batch) override {
    if (before_step) before_step();
    ++steps;
    if (fail) return absl::InternalError("the device fell off the bus");
    largest_batch =
        std::max(largest_batch.load(), static_cast<int>(batch.kv.token_offset.size()) - 1);
    Store(batch);
    logits_.assign(batch.logit_rows.size() * kVocabulary, 0.0f);
    for (size_t row = 0; row < batch.logit_rows.size(); ++row) FillRow(batch, row);
    return MakeMatrix(logits_.data(), static_cast<int64_t>(batch.logit_rows.size()), kVocabulary);
  }

  /// What a request with this prompt must generate, greedily and without stopping.
  static std::vector<int32_t> Expected(std::vector<int32_t> tokens, int32_t count) {
    std::vector<int32_t> output;
    for (int32_t i = 0; i < count; ++i) {
      output.push_back(Next(tokens));
      tokens.push_back(output.back());
    }
    return output;
  }

  /// Letters and digits only, so that texts are plain; tests that want others use `forced`.
  static int32_t Next(std::span<const int32_t> tokens) {
    uint32_t hash = 2166136261u;
    for (const int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 16777619u;
    return static_cast<int32_t>((hash >> 8) % 62);
  }

  std::function<void()> before_step;       // on the engine thread
  std::function<int32_t(int32_t)> forced;  // position of the last token -> next token, -1: hash
  int32_t nan_after_first_token = -1;      // sequences starting with this get NaN logits
  std::atomic<bool> fail{false};
  std::atomic<int> steps{0};
  std::atomic<int> largest_batch{0};

 private:
  static size_t SequenceOf(const KvStep& kv, int32_t token) {
    size_t sequence = 0;
    while (kv.token_offset[sequence + 1] <= token) ++sequence;
    return sequence;
  }
  std::pair<PageId, int32_t> Slot(const KvStep& kv, size_t sequence, int32_t position) const {
    const int32_t page = kv.page_offset[sequence] + position / kPageTokens;
    EXPECT_LT(page, kv.page_offset[sequence + 1]) << "position beyond the page table";
    return {kv.pages[static_cast<size_t>(page)].near, position % kPageTokens};
  }
  void Store(const Batch& batch) {
    for (size_t t = 0; t < batch.tokens.size(); ++t) {
      const size_t sequence = SequenceOf(batch.kv, static_cast<int32_t>(t));
      stored_[Slot(batch.kv, sequence, batch.kv.positions[t])] = batch.tokens[t];
    }
  }
  void FillRow(const Batch& batch, size_t row) {
    const int32_t token = batch.logit_rows[row];
    const size_t sequence = SequenceOf(batch.kv, token);
    std::vector<int32_t> history;
    for (int32_t p = 0; p <= batch.kv.positions[static_cast<size_t>(token)]; ++p) {
      history.push_back(stored_[Slot(batch.kv, sequence, p)]);
    }
    float* logits = logits_.data() + row * kVocabulary;
    if (history.front() == nan_after_first_token) {
      logits[5] = std::numeric_limits<float>::quiet_NaN();
      return;
    }
    int32_t next = forced ? forced(static_cast<int32_t>(history.size()) - 1) : -1;
    if (next < 0) next = Next(history);
    logits[next] = 10;
  }

  std::map<std::pair<PageId, int32_t>, int32_t> stored_;
  std::vector<float> logits_;
};

}  // namespace asymserve::testing
