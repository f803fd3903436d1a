#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/backend/token_draw.h"
#include "engine/model/sampler.h"
#include "engine/model/sampling.h"

// A draw of the sampler as one that a backend makes (Backend::DrawTokens). Which of the two makes
// it depends on the request and its own output only, never on the other rows of a step.

namespace asymserve {

/// Whether a backend may draw the tokens of a request at all. Not those that want typical_p, which
/// looks at tokens by their distance from the entropy; not those that want the log-probabilities of
/// other tokens than the drawn one; and not those whose logit_bias names a token twice.
bool DrawsOnDevice(const SamplingParams& params, int32_t logprobs);

/// How many edits the draw has.
int64_t CountEdits(const SampleRequest& request);
/// The draw, its edits at the end of `edits`. The request's logits are not read.
TokenDraw MakeDraw(const SampleRequest& request, int32_t row, std::vector<LogitEdit>* edits);
/// What Sampler::Sample returns.
absl::StatusOr<SampledToken> ToSampled(const DrawnToken& drawn, bool logprob);

}  // namespace asymserve
