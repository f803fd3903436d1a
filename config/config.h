#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

// The server's configuration: typed, strict, one YAML file plus --set overrides. Every option with
// unit, default and consequence is in config/asymserve.yaml; a test keeps the two equal.

namespace asymserve {

struct ModelSection {
  std::string path;  // GGUF file or Hugging Face folder; required to serve
  std::string name;  // what clients call it; empty: from the file

  bool operator==(const ModelSection&) const = default;
};

struct EngineSection {
  int32_t threads = 0;       // 0: one per available core (affinity and cgroup quota)
  int64_t memory_bytes = 0;  // of the whole process or the GPU, "8GiB"; 0: what is available
  int64_t memory_margin_bytes = 128 << 20;  // of it, left alone
  int64_t kv_memory_bytes = 0;              // of the KV cache; 0: what the rest leaves
  int32_t context_tokens = 0;               // 0: the model's
  int32_t max_running = 64;
  int32_t max_waiting = 256;
  int32_t step_tokens = 512;
  double step_ms = 80;          // in which somebody decodes; 0: no limit
  std::string device = "auto";  // auto, cpu, cuda: what the model runs on
  std::string isa = "auto";     // auto, portable, avx2, avx512, amx: CPU kernels

  bool operator==(const EngineSection&) const = default;
};

/// What the KV cache may cost, checked at start.
struct KvQualitySection {
  double max_mean_kl = 0.15;    // nats per token on any measured text; 0: no limit
  double max_copy_loss = 0.75;  // nats per token of a passage read again; 0: no limit
  bool self_check = false;      // measure the scheme on a built-in text at start
  double canary_rate = 0.001;   // share of the requests that are compared with exact; 0: none

  bool operator==(const KvQualitySection&) const = default;
};

struct KvSection {
  std::string scheme = "auto";  // how keys and values are stored
  bool prefix_cache = true;     // keep and share the pages of prompts
  bool elastic = false;         // under pressure less precision rather than preemption
  std::string profile;          // learned codes; empty: the model's path + ".asymkv", if it exists
  KvQualitySection quality;

  bool operator==(const KvSection&) const = default;
};

/// Who is admitted when there are more requests than room.
struct SchedulingSection {
  std::string tenants;        // "gold=4,silver=2": tenants and their weights
  double aging_seconds = 10;  // of waiting that make up for one level of priority

  bool operator==(const SchedulingSection&) const = default;
};

/// PEM files; all empty: plaintext.
struct TlsSection {
  std::string cert_file;       // the server's certificate, then the chain to its authority
  std::string key_file;        // its private key
  std::string client_ca_file;  // authorities of clients; empty: clients need no certificate

  bool operator==(const TlsSection&) const = default;
};

struct ServerSection {
  std::string address = "127.0.0.1:50051";
  int64_t max_message_bytes = 4 << 20;  // of one request
  int32_t stream_queue_messages = 256;  // unread by a slow client before its request is cancelled
  double drain_seconds = 20;            // SIGTERM to exit at most
  int32_t max_connections = 4096;       // open at a time; others are closed at once
  double max_connection_age_seconds = 120;  // then its client is asked for another; 0: no limit
  bool reflection = true;
  bool insecure = false;  // may listen beyond this machine in plaintext or for everybody
  TlsSection tls = {};
  std::string api_keys_file = {};  // api_keys.h; empty: callers need no key

  bool operator==(const ServerSection&) const = default;
};

struct MetricsSection {
  std::string address = "127.0.0.1:9464";  // empty: no metrics endpoint

  bool operator==(const MetricsSection&) const = default;
};

/// A gRPC port of its own for who runs the server: the service asymserve.v1.Admin.
struct AdminSection {
  std::string address;    // empty: no such port
  bool insecure = false;  // may listen beyond this machine in plaintext or for everybody
  TlsSection tls = {};
  std::string api_keys_file = {};  // as that of ServerSection; no key of that file may be in it

  bool operator==(const AdminSection&) const = default;
};

struct LogSection {
  std::string level = "info";   // debug, info, warn, error, off
  std::string format = "text";  // text, json

  bool operator==(const LogSection&) const = default;
};

struct Config {
  ModelSection model;
  EngineSection engine;
  KvSection kv;
  SchedulingSection scheduling;
  ServerSection server;
  MetricsSection metrics;
  AdminSection admin;
  LogSection log;

  bool operator==(const Config&) const = default;
};

/// Reads a YAML file; an empty path gives the defaults. InvalidArgument: "FILE:LINE: engine.treads:
/// unknown key, did you mean engine.threads?", with what was expected for a wrong type.
absl::StatusOr<Config> LoadConfig(const std::string& path);

/// The same from text; `file` is its name in messages.
absl::StatusOr<Config> ParseConfig(std::string_view text, const std::string& file);

/// Applies one "a.b=c" override, as if the YAML had it. Messages begin with "--set: ".
absl::Status ApplyOverride(Config& config, std::string_view assignment);

/// Ranges and relations between options. Names the key, the value, and what is allowed. An empty
/// model.path is valid here: commands that need a model check it.
absl::Status ValidateConfig(const Config& config);

}  // namespace asymserve
