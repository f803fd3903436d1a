#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/base/metrics.h"

namespace asymserve {

enum class Method : uint8_t {
  kGenerate,
  kGenerateUnary,
  kChat,
  kTokenize,
  kDetokenize,
  kGetModelInfo,
};
inline constexpr std::array<std::string_view, 6> kMethodNames = {
    "Generate", "GenerateUnary", "Chat", "Tokenize", "Detokenize", "GetModelInfo"};

/// Why a call was refused before the engine took it.
enum class Rejection : uint8_t {
  kQueueFull,
  kDraining,
  kLoading,
  kFailed,
  kInvalid,
  kDeadline,
  kNoKey,
  kMalformedKey,
  kUnknownKey,
  kExpiredKey,
  kKeyRequests,  // limits of the key, here to kKeyTokens
  kKeyConcurrent,
  kKeyTokens,
  kUnread,
};
inline constexpr std::array<std::string_view, 14> kRejectionNames = {
    "queue_full",   "draining",       "loading",       "failed",      "invalid",
    "deadline",     "no_key",         "malformed_key", "unknown_key", "expired_key",
    "key_requests", "key_concurrent", "key_tokens",    "unread"};

/// gRPC status codes 0 .. 16 by their names.
inline constexpr std::array<std::string_view, 17> kCodeNames = {
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

/// What a call that generates does, by the names of OpenTelemetry (gen_ai.operation.name).
inline constexpr std::array<std::string_view, 2> kOperationNames = {"text_completion", "chat"};

// Bounds in seconds that OpenTelemetry's conventions for servers of generative AI recommend.
inline constexpr std::array<double, 14> kRequestDurationBounds = {
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92};
inline constexpr std::array<double, 16> kFirstTokenBounds = {
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0};
inline constexpr std::array<double, 13> kOutputTokenBounds = {
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5};

/// Calls of one operation as those conventions count them: gen_ai.server.*. One observation for a
/// call, whatever its n.
struct OperationMetrics {
  std::array<Histogram<kRequestDurationBounds>, kCodeNames.size()> request_duration;  // [code]
  // Of calls that ended with OK.
  Histogram<kFirstTokenBounds> time_to_first_token;
  Histogram<kOutputTokenBounds> time_per_output_token;  // and had two tokens or more
};

/// Attempts to read files again while serving.
struct ReloadMetrics {
  Counter done, failed;
};

/// When what a port relies on expires, in seconds since 1970; 0: it has none that does. Of several
/// the first.
struct ExpiryMetrics {
  Gauge certificate_s;       // its own
  Gauge client_authority_s;  // TlsSection::client_ca_file
  Gauge api_key_s;
};

/// What the server counts besides EngineMetrics. Any thread.
struct ServerMetrics {
  // Calls that ended, [method][code]; counted before the client can see the status.
  std::array<std::array<Counter, kCodeNames.size()>, kMethodNames.size()> requests;
  std::array<OperationMetrics, kOperationNames.size()> operations;
  std::array<Counter, kRejectionNames.size()> rejections;
  LatencyHistogram refusal_seconds;  // one observation for each of rejections
  Counter slow_readers;              // streams ended because the client did not keep up
  Counter refused_connections;       // closed at once (ConnectionAcceptor)
  ReloadMetrics tls_reloads, key_reloads, config_reloads;
  ReloadMetrics admin_tls_reloads, admin_key_reloads;
  Gauge api_keys;  // in use
  ExpiryMetrics expiry, admin_expiry;
  Gauge open_calls;  // accepted by gRPC and not yet gone
  Gauge drain_budget_ms;
  Gauge drain_start_us;  // steady clock; 0: no drain has begun
};

}  // namespace asymserve
