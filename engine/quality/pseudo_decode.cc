#include "engine/quality/pseudo_decode.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "absl/strings/str_cat.h"

#include "engine/base/check.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

/// Bytes of an arena in which one sequence of `tokens` tokens runs, and no more.
int64_t SequenceArenaBytes(const KvScheme& scheme, const KvLayout& layout, int32_t tokens) {
  const ArenaCut empty(layout, 0);
  const KvDemand peak = PageStore(scheme, empty).PeakDemand(tokens);
  int64_t slabs = 0;
  for (size_t kind = 0; kind < peak.records.size(); ++kind) {
    const int32_t records = peak.records[kind], per_slab = empty.per_slab[kind];
    if (records > 0) slabs += (records + per_slab - 1) / per_slab;
  }
  return slabs * empty.slab_bytes;
}

}  // namespace

absl::StatusOr<PseudoDecoder> PseudoDecoder::Create(Model& model, Backend& backend, KvSetup setup,
                                                    int32_t max_tokens) {
  ASYMSERVE_RETURN_IF_ERROR(CheckKvScheme(setup.scheme, setup.shape));
  if (max_tokens < 1 || max_tokens > model.context_length()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sequence of ", max_tokens, " tokens, the model's context is ", model.context_length()));
  }
  const KvLayout layout(setup.shape, setup.scheme);
  setup.arena_bytes = SequenceArenaBytes(setup.scheme, layout, max_tokens);
  ASYMSERVE_RETURN_IF_ERROR(backend.KvInit(setup));
  PageStore store(setup.scheme, ArenaCut(layout, setup.arena_bytes));
  return PseudoDecoder(model, layout, std::move(store), max_tokens);
}

absl::Status PseudoDecoder::Run(std::span<const int32_t> tokens, int32_t from,
                                const LogitSink& sink, const ProgressSink& progress) {
  const auto count = static_cast<int64_t>(tokens.size());
  if (count > max_tokens_ || from < 0) {
    return absl::InternalError(absl::StrCat("pseudo-decode of ", count, " tokens from ", from,
                                            ", prepared for ", max_tokens_));
  }
  Clear();
  const auto end = static_cast<int32_t>(count) - 1;
  absl::Status status = RunPages(0, tokens, from, end, sink, progress);
  Clear();
  return status;
}

absl::Status PseudoDecoder::Extend(int32_t at, std::span<const int32_t> tokens,
                                   const LogitSink& sink, const ProgressSink& progress) {
  const int64_t end = at + static_cast<int64_t>(tokens.size());
  if (!CanExtend(at) || end > max_tokens_) {
    return absl::InternalError(absl::StrCat("pseudo-decode of ", tokens.size(), " tokens at ", at,
                                            " after ", length_, ", prepared for ", max_tokens_));
  }
  const auto last = static_cast<int32_t>(end);
  absl::Status status = RunPages(at, tokens, last - 1, last, sink, progress);
  if (!status.ok()) Clear();
  return status;
}

void PseudoDecoder::Clear() {
  store_.Release(pages_);
  ASYMSERVE_CHECK(store_.empty());
  length_ = complete_ = 0;
}

absl::Status PseudoDecoder::RunPages(int32_t at, std::span<const int32_t> tokens, int32_t from,
                                     int32_t end, const LogitSink& sink,
                                     const ProgressSink& progress) {
  std::vector<int32_t> rows;
  int32_t done = 0;
  while (!tokens.empty()) {
    const int32_t first = at + done;
    const int32_t room = kKvPageTokens - first % kKvPageTokens;
    const auto count = std::min(room, static_cast<int32_t>(tokens.size()));
    const int32_t first_row = std::max(from - first, 0);
    const int32_t end_row = std::min(count, end - first);
    rows.resize(static_cast<size_t>(std::max(end_row - first_row, 0)));
    std::iota(rows.begin(), rows.end(), first_row);
    ASYMSERVE_RETURN_IF_ERROR(Step(first, tokens.first(static_cast<size_t>(count)), rows, sink));
    tokens = tokens.subspan(static_cast<size_t>(count));
    done += count;
    if (progress) progress(done);
  }
  return absl::OkStatus();
}

absl::Status PseudoDecoder::Step(int32_t first, std::span<const int32_t> tokens,
                                 std::span<const int32_t> rows, const LogitSink& sink) {
  const auto count = static_cast<int32_t>(tokens.size());
  std::vector<KvSealOp> seals;
  if (!store_.Prepare(pages_, first + count, first / kKvPageTokens, seals)) {
    return absl::InternalError(
        absl::StrCat("KV arena of ", store_.slabs(), " slabs is full at token ", first));
  }
  store_.EndPlan();
  complete_ = first / kKvPageTokens;
  length_ = first + count;

  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), first);
  const std::array token_offset = {0, count};
  const std::array page_offset = {0, static_cast<int32_t>(pages_.size())};
  const Batch batch = {.tokens = tokens,
                       .kv = {.positions = positions,
                              .token_offset = token_offset,
                              .pages = pages_,
                              .page_offset = page_offset},
                       .logit_rows = rows,
                       .seals = seals};
  ASYMSERVE_ASSIGN_OR_RETURN(const TensorView logits, model_->Forward(batch));
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto vocabulary = static_cast<size_t>(model_->vocabulary());
    sink(first + rows[i], {logits.Row<float>(static_cast<int64_t>(i)), vocabulary});
  }
  return absl::OkStatus();
}

}  // namespace asymserve
