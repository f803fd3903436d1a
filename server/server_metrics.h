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
  kKeyRequests,  // limits of the key, here to kKeyTokens
  kKeyConcurrent,
  kKeyTokens,
  kUnread,
};
inline constexpr std::array<std::string_view, 13> kRejectionNames = {
    "queue_full",     "draining",   "loading",       "failed",      "invalid",
    "deadline",       "no_key",     "malformed_key", "unknown_key", "key_requests",
    "key_concurrent", "key_tokens", "unread"};

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

/// Attempts to read files again while serving.
struct ReloadMetrics {
  Counter done, failed;
};

/// What the server counts besides EngineMetrics. Any thread.
struct ServerMetrics {
  // Calls that ended, [method][code]; counted before the client can see the status.
  std::array<std::array<Counter, kCodeNames.size()>, kMethodNames.size()> requests;
  std::array<Counter, kRejectionNames.size()> rejections;
  LatencyHistogram refusal_seconds;  // one observation for each of rejections
  Counter slow_readers;              // streams ended because the client did not keep up
  Counter refused_connections;       // closed at once, for want of descriptors
  ReloadMetrics tls_reloads, key_reloads, config_reloads;
  ReloadMetrics admin_tls_reloads, admin_key_reloads;
  Gauge api_keys;  // in use
  // Of the certificates of both ports, since 1970; 0: no TLS.
  Gauge tls_not_after_s, admin_tls_not_after_s;
  Gauge open_calls;  // accepted by gRPC and not yet gone
  Gauge drain_budget_ms;
  Gauge drain_start_us;  // steady clock; 0: no drain has begun
};

}  // namespace asymserve
