#include "config/violation.h"

#include "absl/strings/str_cat.h"

#include "config/option.h"

namespace asymserve {
namespace {

/// Whether two HOST:PORT cannot both be bound. Port 0 takes any free port.
bool SamePort(std::string_view a, std::string_view b) {
  return a == b && !a.empty() && !a.ends_with(":0");
}

Violation Missing(std::string_view option, std::string_view with) {
  return {absl::InvalidArgumentError(
              absl::StrCat(std::string(option), ": is required with ", std::string(with))),
          {option, with}};
}

Violation FindTlsViolation(const TlsSection& tls) {
  constexpr std::string_view kCertificate = "server.tls.cert_file", kKey = "server.tls.key_file";
  if (!tls.cert_file.empty() && tls.key_file.empty()) return Missing(kKey, kCertificate);
  if (!tls.key_file.empty() && tls.cert_file.empty()) return Missing(kCertificate, kKey);
  if (!tls.client_ca_file.empty() && tls.cert_file.empty()) {
    return Missing(kCertificate, "server.tls.client_ca_file");
  }
  return {absl::OkStatus(), {}};
}

}  // namespace

Violation FindViolation(const Config& config) {
  for (const Option& option : Options()) {
    const absl::Status status = CheckValue(config, option);
    if (!status.ok()) return {status, {option.key}};
  }
  if (config.engine.step_tokens < config.engine.max_running) {
    return {absl::InvalidArgumentError(
                absl::StrCat("engine.step_tokens: expected at least engine.max_running (",
                             config.engine.max_running, "), got ", config.engine.step_tokens,
                             "; each running sequence decodes one token in a step")),
            {"engine.step_tokens", "engine.max_running"}};
  }
  if (SamePort(config.server.address, config.metrics.address)) {
    return {
        absl::InvalidArgumentError(absl::StrCat(
            "metrics.address: expected another than server.address, got ", config.metrics.address)),
        {"metrics.address", "server.address"}};
  }
  return FindTlsViolation(config.server.tls);
}

}  // namespace asymserve
