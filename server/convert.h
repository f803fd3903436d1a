#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "asymserve/v1/inference.pb.h"

#include "engine/runtime/request.h"
#include "server/served_model.h"

// Between the messages of inference.proto and the engine's own types. Pure; any thread.

namespace asymserve {

/// How a call wants its output written.
struct OutputFormat {
  bool tokens = false;                    // fill GenerateResponse.tokens
  bool logprobs = false;                  // and their log-probabilities
  std::vector<std::string> stop_strings;  // to name the one that matched
};

/// A request ready for the engine.
struct DecodedRequest {
  GenerateRequest request;
  OutputFormat format;
};

/// Validates and tokenizes. InvalidArgument names the field; FailedPrecondition: Chat with a model
/// without a usable chat template.
absl::StatusOr<DecodedRequest> FromProto(const v1::GenerateRequest& proto,
                                         const ServedModel& model);
absl::StatusOr<DecodedRequest> FromProto(const v1::ChatRequest& proto, const ServedModel& model);

/// Appends a delta to `message`, which holds earlier deltas of the same sequence or nothing.
void AppendDelta(const Delta& delta, const OutputFormat& format, const Tokenizer& tokenizer,
                 v1::GenerateResponse& message);

void FillModelInfo(const ServedModel& model, v1::GetModelInfoResponse& info);

}  // namespace asymserve
