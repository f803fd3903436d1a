#include "tools/client/call_options.h"

#include <array>
#include <iostream>

#include "asymserve/v1/rpc_status.pb.h"

namespace asymserve::client {
namespace {

constexpr std::array<const char*, 17> kCodeNames = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

/// Seconds of the RetryInfo detail, if there is one.
std::optional<double> RetryDelay(const grpc::Status& status) {
  v1::RpcStatus details;
  if (!details.ParseFromString(status.error_details())) return std::nullopt;
  for (const google::protobuf::Any& any : details.details()) {
    v1::RetryInfo retry;
    if (any.type_url() != "type.googleapis.com/google.rpc.RetryInfo") continue;
    if (!retry.ParseFromString(any.value())) continue;
    return static_cast<double>(retry.retry_delay().seconds()) + 1e-9 * retry.retry_delay().nanos();
  }
  return std::nullopt;
}

}  // namespace

void AddGenerationOptions(CLI::App& command, GenerationOptions& options) {
  command.add_option("--max-tokens", options.max_tokens, "generate at most so many tokens");
  command.add_option("--min-tokens", options.min_tokens, "and at least so many");
  command.add_option("--temperature", options.temperature, "0: greedy");
  command.add_option("--top-k", options.top_k, "keep the k most likely tokens");
  command.add_option("--top-p", options.top_p, "keep tokens up to this probability");
  command.add_option("--min-p", options.min_p, "drop tokens below this share of the likeliest");
  command.add_option("--typical-p", options.typical_p, "locally typical sampling");
  command.add_option("--repetition-penalty", options.repetition_penalty, "over 1: repeat less");
  command.add_option("--frequency-penalty", options.frequency_penalty, "per occurrence");
  command.add_option("--presence-penalty", options.presence_penalty, "once a token occurred");
  command.add_option("--seed", options.seed, "makes the output reproducible");
  command.add_option("--stop", options.stop, "end at this text; may be repeated")
      ->take_all()
      ->allow_extra_args(false);
  command.add_option("-n", options.n, "sequences");
  command.add_option("--priority", options.priority, "higher: before the tenant's other requests");
  command.add_option("--max-queue-ms", options.max_queue_ms, "wait at most so long");
  command.add_option("--logprobs", options.logprobs, "log-probabilities (with --json)");
  command.add_flag("--ignore-eos", options.ignore_eos, "go on past end tokens");
  command.add_flag("--exact-kv", options.exact_kv, "keep keys and values in 16 bit");
  command.add_flag("--json", options.json, "one JSON object per message");
  command.add_flag("--stats", options.stats, "print token counts and timings to stderr");
}

void PrintError(const grpc::Status& status) {
  const auto code = static_cast<size_t>(status.error_code());
  std::cerr << (code < kCodeNames.size() ? kCodeNames[code] : "UNKNOWN") << ": "
            << status.error_message() << '\n';
  if (const std::optional<double> delay = RetryDelay(status)) {
    std::cerr << "retry after " << *delay << " s\n";
  }
}

}  // namespace asymserve::client
