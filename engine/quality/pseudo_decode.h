#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/kv/layout.h"
#include "engine/kv/page_store.h"
#include "engine/model/model.h"

namespace asymserve {

/// Runs a text through a model as decoding would, a page (64 tokens) a step: each token reads the
/// pages before its own as KvSeal left them for a decoded token of that position, so damage by
/// sealing acts as it does in service (teacher-forced prefill would hide it). The page table is
/// that of serving, kv/page_store.h. One sequence; one thread.
class PseudoDecoder {
 public:
  /// Logits [V] that follow the token at `position`, valid during the call.
  using LogitSink = std::function<void(int32_t position, std::span<const float> logits)>;
  /// After each step: tokens run so far.
  using ProgressSink = std::function<void(int32_t tokens)>;

  /// Initializes the KV cache of the backend, to which `model` is bound, for `setup.scheme` and one
  /// sequence of `max_tokens` tokens; `setup.arena_bytes` is ignored. Another decoder's Create ends
  /// the life of this one. The model must take steps of 64 tokens and as many logit rows.
  /// InvalidArgument for a bad scheme.
  static absl::StatusOr<PseudoDecoder> Create(Model& model, Backend& backend, KvSetup setup,
                                              int32_t max_tokens);

  /// Runs `tokens` (ids in [0, V)) from position 0 on; `sink` gets the logits of positions `from`
  /// to tokens.size() - 2, in order: those whose next token is known. Nothing stays in the cache,
  /// nor does what was there before.
  absl::Status Run(std::span<const int32_t> tokens, int32_t from, const LogitSink& sink,
                   const ProgressSink& progress = nullptr);

  /// Goes on with the sequence in the cache: `tokens` take the positions from `at` on, and what was
  /// there is forgotten. `sink` gets the logits of the last one. InternalError unless CanExtend; an
  /// error empties the cache.
  absl::Status Extend(int32_t at, std::span<const int32_t> tokens, const LogitSink& sink,
                      const ProgressSink& progress = nullptr);
  /// Whether the cache holds [0, at) as the token at `at` must read it: at the end of the sequence
  /// or in its last page, for earlier pages are sealed as for later tokens.
  bool CanExtend(int32_t at) const {
    return at == length_ || (at < length_ && at >= 0 && at / kKvPageTokens >= complete_);
  }
  /// Tokens in the cache.
  int32_t length() const { return length_; }
  /// Empties the cache.
  void Clear();

  const KvLayout& layout() const { return layout_; }

 private:
  PseudoDecoder(Model& model, const KvLayout& layout, PageStore store, int32_t max_tokens)
      : model_(&model), layout_(layout), store_(std::move(store)), max_tokens_(max_tokens) {}
  /// Runs `tokens` at positions from `at` on, page by page; `sink` gets the rows [from, end).
  absl::Status RunPages(int32_t at, std::span<const int32_t> tokens, int32_t from, int32_t end,
                        const LogitSink& sink, const ProgressSink& progress);
  absl::Status Step(int32_t first, std::span<const int32_t> tokens, std::span<const int32_t> rows,
                    const LogitSink& sink);

  Model* model_;
  KvLayout layout_;
  PageStore store_;
  int32_t max_tokens_;
  std::vector<KvPage> pages_;
  int32_t length_ = 0;    // tokens stored
  int32_t complete_ = 0;  // pages that the last step counted as complete
};

}  // namespace asymserve
