#pragma once

#include <string>

#include "bench/sched/sweep.h"

namespace asymserve {

/// What was run, what each scheme holds, and a line per run, for people.
std::string SweepTable(const SweepResult& result);

/// The same as JSON, a run a line:
///
///   {"machine", "load", "seed", "kv_bytes", "context_tokens", "max_running", "max_waiting",
///    "step_tokens", "step_ms", "elastic", "one_queue", "bypass", "watermark_pages", "ask_tokens",
///    "deadline_ms", "patience_ms", "ttft_limit_ms", "tpot_limit_ms",
///    "schemes": [{"scheme", "bits_effective", "tokens", "sequences", "sequences_of_1024"}],
///    "runs": [{every figure, "real_clock": {...}, "memory": [[s, used, running, waiting]]}]}
///
/// "bypass" and "watermark_pages" are null where they are the server's. Equal sweeps give equal
/// bytes but for what is in "real_clock".
std::string SweepJson(const SweepResult& result);

}  // namespace asymserve
