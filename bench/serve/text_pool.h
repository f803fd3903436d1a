#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "asymserve/v1/inference.grpc.pb.h"

#include "bench/serve/load_plan.h"
#include "bench/serve/target.h"

// The texts of a load: prompts of the lengths wanted, and what an idle server answers to each. The
// right answer is known because a token depends on its own request only (engine/README.md,
// invariant 8).

namespace asymserve::load {

struct PoolText {
  TextLength length;  // as planned; the server may count a token more or less
  std::string prompt;
  std::string answer;  // empty until it was fetched
};

/// Prompts of pseudo-random English words, cut to their lengths by the server's own Tokenize and
/// Detokenize, pairwise distinct from the first words on. Errors are the server's.
absl::StatusOr<std::vector<PoolText>> MakePrompts(const Target& target,
                                                  const std::vector<TextLength>& lengths,
                                                  uint64_t seed);

/// A greedy request for exactly length.output_tokens tokens, without limits of time.
v1::GenerateRequest RequestFor(const PoolText& text);

/// Asks for the answers, one by one; the server is idle meanwhile.
absl::Status FetchAnswers(const Target& target, std::vector<PoolText>& texts);

/// Answers that were fetched earlier, as JSON. Read: NotFound without a file; InvalidArgument,
/// which names it, if it is of other prompts or lengths.
absl::Status ReadAnswers(const std::string& path, std::vector<PoolText>& texts);
absl::Status WriteAnswers(const std::string& path, const std::vector<PoolText>& texts);

}  // namespace asymserve::load
