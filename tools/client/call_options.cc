#include "tools/client/call_options.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <iostream>
#include <sstream>

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

/// What gRPC can send as metadata; how much of it the server takes, it says itself.
std::string CheckMetadata(const std::string& value) {
  const bool printable =
      std::all_of(value.begin(), value.end(), [](char c) { return c >= 0x20 && c <= 0x7E; });
  return printable ? "" : "not printable ASCII";
}

std::string ReadText(const std::string& path) {
  std::ostringstream text;
  if (!path.empty()) text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// gRPC says too little about a file that it cannot use.
std::string CheckPem(const std::string& path) {
  const std::string text = ReadText(path);
  if (text.empty()) return path + ": not found, empty or not readable";
  return text.find("-----BEGIN ") == std::string::npos ? path + ": not PEM" : "";
}

}  // namespace

std::shared_ptr<grpc::Channel> Connection::Connect() const {
  if (tls_ca_file.empty()) {
    return grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  }
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = ReadText(tls_ca_file);
  options.pem_private_key = ReadText(tls_key_file);
  options.pem_cert_chain = ReadText(tls_cert_file);
  return grpc::CreateChannel(address, grpc::SslCredentials(options));
}

void Connection::Prepare(grpc::ClientContext& context) const {
  if (!api_key.empty()) context.AddMetadata("authorization", "Bearer " + api_key);
  if (!tenant.empty()) context.AddMetadata("x-tenant-id", tenant);
  if (timeout_seconds <= 0) return;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(static_cast<int64_t>(timeout_seconds * 1e3)));
}

void AddConnectionOptions(CLI::App& command, Connection& connection) {
  command.add_option("--address", connection.address, "host:port of the server")
      ->capture_default_str();
  command.add_option("--timeout", connection.timeout_seconds, "deadline of a call in seconds")
      ->check(CLI::Range(0.0, 1e6));
  command.add_option("--tenant", connection.tenant, "whose share of the server this takes")
      ->check(CheckMetadata);
  command
      .add_option("--api-key", connection.api_key,
                  "who calls; other users of the machine see arguments, not the variable")
      ->envname("ASYMSERVE_API_KEY")
      ->check(CheckMetadata);
  CLI::Option* const ca =
      command.add_option("--tls-ca", connection.tls_ca_file, "TLS; trust these authorities (PEM)")
          ->check(CheckPem)
          ->type_name("FILE");
  CLI::Option* const certificate =
      command.add_option("--tls-cert", connection.tls_cert_file, "show this certificate (PEM)")
          ->check(CheckPem)
          ->type_name("FILE")
          ->needs(ca);
  CLI::Option* const key =
      command.add_option("--tls-key", connection.tls_key_file, "the certificate's private key")
          ->check(CheckPem)
          ->type_name("FILE")
          ->needs(certificate);
  certificate->needs(key);
}

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
