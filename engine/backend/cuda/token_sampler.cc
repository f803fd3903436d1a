#include "engine/backend/cuda/token_sampler.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

#include "engine/backend/cuda/arg_max.h"
#include "engine/backend/cuda/device_error.h"
#include "engine/backend/cuda/draw_tokens.h"
#include "engine/backend/cuda/edit_logits.h"
#include "engine/backend/cuda/log_probability.h"
#include "engine/base/status.h"

namespace asymserve::cuda {

cudaError_t LaunchDraws(const DrawRows& rows, bool edits, bool logprobs, cudaStream_t stream) {
  cudaError_t error = ArgMax(rows, ArgMaxOf::kAll, stream);
  if (error == cudaSuccess && edits) error = EditLogits(rows, stream);
  if (error == cudaSuccess && edits) error = ArgMax(rows, ArgMaxOf::kEdited, stream);
  if (error == cudaSuccess) error = DrawTokens(rows, stream);
  if (error == cudaSuccess && edits) error = RestoreLogits(rows, stream);
  if (error == cudaSuccess && logprobs) error = LogProbability(rows, stream);
  return error;
}

absl::Status TokenSampler::Reserve(int64_t rows) {
  rows_ = 0;
  const int64_t edits = rows * kMostEdits;
  const struct {
    DeviceBuffer* buffer;
    int64_t count;
    size_t size;
    const char* what;
  } buffers[] = {
      {&draws_, rows, sizeof(TokenDraw), "draws"},
      {&edits_, edits, sizeof(LogitEdit), "edits of logits"},
      {&unedited_, edits, sizeof(float), "logits without edits"},
      {&best_, rows, sizeof(BestLogit), "largest logits"},
      {&edited_, rows, sizeof(BestLogit), "largest logits with edits"},
      {&drawn_, rows, sizeof(DrawnToken), "drawn tokens"},
  };
  for (const auto& [buffer, count, size, what] : buffers) {
    buffer->Reset();
    ASYMSERVE_ASSIGN_OR_RETURN(*buffer, memory_.Allocate(MemoryClass::kWorkspace,
                                                         count * static_cast<int64_t>(size), what));
  }
  if (device_ != nullptr) {
    host_drawn_ = PinnedBuffer();
    ASYMSERVE_ASSIGN_OR_RETURN(host_drawn_,
                               PinnedBuffer::Allocate(*device_, drawn_.bytes(), "drawn tokens"));
  }
  rows_ = rows;
  return absl::OkStatus();
}

absl::Status TokenSampler::Check(TensorView logits, const DrawBatch& batch,
                                 std::span<const DrawnToken> tokens) const {
  const auto draws = static_cast<int64_t>(batch.draws.size());
  if (draws > rows_ || tokens.size() != batch.draws.size() ||
      logits.row_elements() > kMostDrawVocabulary) {
    return absl::InternalError(absl::StrCat(
        "DrawTokens: ", draws, " draws of ", logits.row_elements(), " logits into ", tokens.size(),
        " tokens; reserved for ", rows_, " of up to ", kMostDrawVocabulary));
  }
  int64_t edits = 0;
  int64_t row = -1;
  for (const TokenDraw& draw : batch.draws) {
    if (draw.row <= row || draw.row >= logits.rows() || draw.first_edit != edits ||
        draw.edit_count < 0 || draw.edit_count > kMostEdits) {
      return absl::InternalError(absl::StrCat("DrawTokens: row ", draw.row, " after row ", row,
                                              " of ", logits.rows(), ", ", draw.edit_count,
                                              " edits from ", draw.first_edit, " on after ", edits,
                                              "; at most ", kMostEdits));
    }
    const bool is_drawn = draw.inverse_temperature == 0 ||
                          (draw.inverse_temperature > 0 && draw.uniform >= 0 && draw.uniform < 1 &&
                           draw.top_k >= 0 && draw.top_p > 0 && draw.min_p <= 1);
    if (!is_drawn) {
      return absl::InternalError(absl::StrCat("DrawTokens: row ", draw.row,
                                              " with 1 / temperature ", draw.inverse_temperature,
                                              ", top_k ", draw.top_k, ", top_p ", draw.top_p,
                                              ", min_p ", draw.min_p, ", number ", draw.uniform));
    }
    row = draw.row;
    edits += draw.edit_count;
  }
  if (edits != static_cast<int64_t>(batch.edits.size())) {
    return absl::InternalError(
        absl::StrCat("DrawTokens: ", batch.edits.size(), " edits; the draws have ", edits));
  }
  for (const LogitEdit& edit : batch.edits) {
    if (edit.token >= 0 && edit.token < logits.row_elements()) continue;
    return absl::InternalError(
        absl::StrCat("DrawTokens: an edit of token ", edit.token, " of ", logits.row_elements()));
  }
  return absl::OkStatus();
}

absl::Status TokenSampler::Start(TensorView logits, const DrawBatch& batch) {
  ASYMSERVE_RETURN_IF_ERROR(staging_->Copy(draws_.As<void>(), batch.draws.data(),
                                           static_cast<int64_t>(batch.draws.size_bytes()),
                                           "draws"));
  ASYMSERVE_RETURN_IF_ERROR(staging_->Copy(edits_.As<void>(), batch.edits.data(),
                                           static_cast<int64_t>(batch.edits.size_bytes()),
                                           "edits of logits"));
  const DrawRows rows = {.logits = logits.As<float>(),
                         .vocabulary = static_cast<int32_t>(logits.row_elements()),
                         .draws = draws_.As<TokenDraw>(),
                         .count = static_cast<int32_t>(batch.draws.size()),
                         .edits = edits_.As<LogitEdit>(),
                         .unedited = unedited_.As<float>(),
                         .best = best_.As<BestLogit>(),
                         .edited = edited_.As<BestLogit>(),
                         .drawn = drawn_.As<DrawnToken>()};
  const bool logprobs = std::any_of(batch.draws.begin(), batch.draws.end(),
                                    [](const TokenDraw& draw) { return draw.logprob; });
  ASYMSERVE_RETURN_IF_ERROR(
      CheckCuda(*device_, LaunchDraws(rows, !batch.edits.empty(), logprobs, device_->stream()),
                "DrawTokens"));
  const auto bytes = static_cast<int64_t>(batch.draws.size() * sizeof(DrawnToken));
  return CheckCuda(*device_, device_->CopyToHost(host_drawn_.data(), rows.drawn, bytes),
                   absl::StrCat("copying ", bytes, " bytes of drawn tokens to the host"));
}

void TokenSampler::Read(std::span<DrawnToken> tokens) const {
  std::memcpy(tokens.data(), host_drawn_.data(), tokens.size_bytes());
}

}  // namespace asymserve::cuda
