#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "asymserve/v1/inference.grpc.pb.h"
#include "grpcpp/grpcpp.h"

#include "bench/serve/load_plan.h"
#include "bench/serve/target.h"
#include "bench/serve/text_pool.h"

// Sends a load and notes what the client's clock says of each call.

namespace asymserve::load {

/// What a user still finds good, and what the requests tell the server of it.
struct Limits {
  double first_token_seconds = 2;
  double per_token_seconds = 0.1;  // mean, after the first
  int32_t max_queue_ms = 1000;     // 0: not sent
  bool deadline = true;            // send that of a call: first_token + (n - 1) * per_token
  double DeadlineSeconds(int32_t tokens) const {
    return first_token_seconds + (tokens - 1) * per_token_seconds;
  }
};

enum class Outcome : uint8_t {
  kCompleted,
  kRefused,  // RESOURCE_EXHAUSTED or DEADLINE_EXCEEDED at once, not a message before
  kExpired,  // accepted, and given up in the queue for max_queue_ms
  kLate,     // accepted, and the call's deadline passed or could not be kept any more
  kFailed,   // anything else
};

/// One call. Seconds.
struct CallResult {
  size_t text = 0;
  double planned = 0;  // since the load began
  double lag = 0;      // from planned to sent
  double first_token = 0;
  double last_token = 0;
  double total = 0;  // all three since it was sent
  int32_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  grpc::StatusCode code = grpc::StatusCode::UNKNOWN;
  Outcome outcome = Outcome::kFailed;
  bool wrong_text = false;  // not the answer, or, of a call that did not complete, no prefix of it
  std::string error;        // of a failed one

  std::optional<double> per_token() const {
    if (generated_tokens < 2) return std::nullopt;
    return (last_token - first_token) / (generated_tokens - 1);
  }
  /// Completed within the limits, with the right text.
  bool good(const Limits& limits) const {
    return outcome == Outcome::kCompleted && !wrong_text &&
           first_token <= limits.first_token_seconds &&
           per_token().value_or(0) <= limits.per_token_seconds;
  }
};

/// Open loop: each arrival is sent at its time, whatever became of the ones before. Returns when
/// all have ended, in order of their ends.
std::vector<CallResult> RunOpenLoop(const Target& target, const LoadPlan& plan,
                                    const std::vector<PoolText>& texts, const Limits& limits);

/// Closed loop: `calls` calls are open at any time for `seconds`, without limits of time; texts by
/// TextOfCall.
std::vector<CallResult> RunClosedLoop(const Target& target, const LoadPlan& plan,
                                      const std::vector<PoolText>& texts, int32_t calls,
                                      double seconds);

}  // namespace asymserve::load
