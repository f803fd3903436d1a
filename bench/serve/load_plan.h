#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "bench/sched/workload.h"

// What is sent when: pure, from a seed and, if asked for, a trace.

namespace asymserve::load {

struct PlanOptions {
  double rate = 1;      // requests per second
  double seconds = 60;  // of arrivals
  uint64_t seed = 1;
  int32_t texts = 32;  // distinct (prompt, max_tokens)
  int32_t context_tokens = 0;
  // Without a trace: Poisson arrivals, lengths uniform on these.
  LengthRange prompt{32, 512}, output{32, 256};
  // With one: its arrivals and lengths.
  std::vector<TraceRow> trace;
  double length_scale = 1;  // of prompt and output
  int64_t trace_skip = 0;   // rows before the first that is used
};

/// Tokens of one of the texts.
struct TextLength {
  int32_t prompt_tokens = 1;
  int32_t output_tokens = 2;

  friend bool operator==(const TextLength&, const TextLength&) = default;
};

struct Arrival {
  TimeUs at = 0;
  size_t text = 0;

  friend bool operator==(const Arrival&, const Arrival&) = default;
};

struct LoadPlan {
  std::vector<TextLength> texts;
  std::vector<Arrival> arrivals;  // in order
};

/// The texts depend on seed, lengths and trace, not on the rate. Poisson: arrivals by
/// PoissonWorkload until `seconds`, each with a random text. Trace: the first rate * seconds rows
/// after trace_skip, their times stretched so that they fill `seconds`; each row gets the text
/// whose lengths are nearest to its own, scaled, in logarithms. Texts are clipped to the context.
/// InvalidArgument: a trace with too few rows, a text that leaves no room for two tokens.
absl::StatusOr<LoadPlan> MakeLoadPlan(const PlanOptions& options);

/// The text of a closed loop's call number `call`: any calls in a row have texts from all over the
/// arrivals, so that few calls have the lengths of all. `arrivals` is not empty.
size_t TextOfCall(const std::vector<Arrival>& arrivals, int64_t call);

}  // namespace asymserve::load
