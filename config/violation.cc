#include "config/violation.h"

#include <iterator>
#include <utility>

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

/// The keys of a TlsSection.
struct TlsKeys {
  std::string_view certificate, key, authorities;
};
constexpr TlsKeys kServerTls = {"server.tls.cert_file", "server.tls.key_file",
                                "server.tls.client_ca_file"};
constexpr TlsKeys kAdminTls = {"admin.tls.cert_file", "admin.tls.key_file",
                               "admin.tls.client_ca_file"};

Violation FindTlsViolation(const TlsSection& tls, const TlsKeys& keys) {
  if (!tls.cert_file.empty() && tls.key_file.empty()) return Missing(keys.key, keys.certificate);
  if (!tls.key_file.empty() && tls.cert_file.empty()) return Missing(keys.certificate, keys.key);
  if (!tls.client_ca_file.empty() && tls.cert_file.empty()) {
    return Missing(keys.certificate, keys.authorities);
  }
  return {absl::OkStatus(), {}};
}

/// An option that must not have the value of another.
Violation Same(std::string_view option, std::string_view other, const std::string& value,
               std::string_view why = "") {
  return {absl::InvalidArgumentError(absl::StrCat(std::string(option), ": expected another than ",
                                                  std::string(other), ", got ", value,
                                                  std::string(why))),
          {option, other}};
}

Violation FindPortViolation(const Config& config) {
  const std::pair<std::string_view, const std::string*> ports[] = {
      {"server.address", &config.server.address},
      {"metrics.address", &config.metrics.address},
      {"admin.address", &config.admin.address}};
  for (size_t i = 1; i < std::size(ports); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (SamePort(*ports[i].second, *ports[j].second)) {
        return Same(ports[i].first, ports[j].first, *ports[i].second);
      }
    }
  }
  return {absl::OkStatus(), {}};
}

/// Whether callers of the inference service could be taken for operators.
Violation FindAdminViolation(const ServerSection& server, const AdminSection& admin) {
  if (!admin.api_keys_file.empty() && admin.api_keys_file == server.api_keys_file) {
    return Same("admin.api_keys_file", "server.api_keys_file", admin.api_keys_file);
  }
  const bool same_authorities =
      !admin.tls.client_ca_file.empty() && admin.tls.client_ca_file == server.tls.client_ca_file;
  if (same_authorities && admin.api_keys_file.empty()) {
    return Same("admin.tls.client_ca_file", "server.tls.client_ca_file", admin.tls.client_ca_file,
                " without admin.api_keys_file: every caller's certificate would be good");
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
  const Violation violations[] = {FindPortViolation(config),
                                  FindTlsViolation(config.server.tls, kServerTls),
                                  FindTlsViolation(config.admin.tls, kAdminTls),
                                  FindAdminViolation(config.server, config.admin)};
  for (const Violation& violation : violations) {
    if (!violation.status.ok()) return violation;
  }
  return {absl::OkStatus(), {}};
}

}  // namespace asymserve
