#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "asymserve/v1/inference.grpc.pb.h"
#include "grpcpp/grpcpp.h"

#include "tools/client/connection.h"

namespace asymserve::client {

/// What complete and chat have in common. Unset options are left to the server's defaults.
struct GenerationOptions {
  int32_t max_tokens = 0;
  int32_t min_tokens = 0;
  std::optional<float> temperature, top_p, typical_p, repetition_penalty;
  int32_t top_k = 0;
  float min_p = 0, frequency_penalty = 0, presence_penalty = 0;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::optional<int32_t> n, logprobs, max_queue_ms;
  int32_t priority = 0;
  bool ignore_eos = false;
  bool exact_kv = false;
  bool json = false;
  bool stats = false;
};

void AddGenerationOptions(CLI::App& command, GenerationOptions& options);

/// Fills the fields that GenerateRequest and ChatRequest share.
template <typename Request>
void FillRequest(const GenerationOptions& options, Request& request) {
  v1::Sampling& sampling = *request.mutable_sampling();
  if (options.temperature) sampling.set_temperature(*options.temperature);
  if (options.top_p) sampling.set_top_p(*options.top_p);
  if (options.typical_p) sampling.set_typical_p(*options.typical_p);
  if (options.repetition_penalty) sampling.set_repetition_penalty(*options.repetition_penalty);
  sampling.set_top_k(options.top_k);
  sampling.set_min_p(options.min_p);
  sampling.set_frequency_penalty(options.frequency_penalty);
  sampling.set_presence_penalty(options.presence_penalty);
  if (options.seed) sampling.set_seed(*options.seed);
  v1::Stop& stop = *request.mutable_stop();
  stop.set_max_tokens(options.max_tokens);
  stop.set_min_tokens(options.min_tokens);
  for (const std::string& text : options.stop) stop.add_strings(text);
  stop.set_ignore_eos(options.ignore_eos);
  if (options.exact_kv) request.set_kv_precision(v1::KV_PRECISION_EXACT);
  if (options.n) request.set_n(*options.n);
  if (options.logprobs) request.set_logprobs(*options.logprobs);
  if (options.max_queue_ms) request.set_max_queue_ms(*options.max_queue_ms);
  request.set_priority(options.priority);
}

/// Writes "CODE: message" to stderr, with the server's advice on when to retry.
void PrintError(const grpc::Status& status);

}  // namespace asymserve::client
