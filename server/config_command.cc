#include "server/config_command.h"

#include <initializer_list>
#include <string>
#include <string_view>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"

#include "config/schema.h"
#include "config/yaml_text.h"
#include "engine/base/status.h"
#include "engine/kv/profile.h"
#include "engine/kv/quality_gate.h"
#include "engine/kv/scheme.h"
#include "engine/quality/model_profile.h"
#include "server/key_ring.h"
#include "server/tls_files.h"

namespace asymserve {
namespace {

absl::Status Write(std::string_view text, std::ostream& out) {
  out << text << std::flush;
  if (out.good()) return absl::OkStatus();
  return absl::UnavailableError("standard output: cannot be written");
}

/// Puts before a message where the first of the keys is given that is given at all.
absl::Status AtOrigin(const absl::Status& status, const ConfigSource& source,
                      std::initializer_list<std::string_view> keys) {
  if (status.ok()) return status;
  const std::string origin = FindOrigin(source, keys);
  return origin.empty() ? status : Annotate(status, origin);
}

/// A start without a profile may still find one beside its model; then only what no profile could
/// make right is an error.
absl::Status CheckSchemeAlone(const std::string& name) {
  constexpr int32_t kManyLayers = 4096;  // how many a model has is not known
  const KvShape shape = {.layers = kManyLayers, .kv_heads = 1, .head_size = 64};
  const absl::Status status = NamedKvScheme(name, shape).status();
  return absl::IsNotFound(status) ? absl::OkStatus() : Annotate(status, "kv.scheme");
}

absl::Status CheckProfileFile(const ConfigSource& source, const Config& config,
                              const std::string& path) {
  const absl::StatusOr<KvProfile> profile = ReadProfile(path);
  if (!profile.ok()) {
    return AtOrigin(Annotate(profile.status(), "kv.profile"), source, {"kv.profile", "model.path"});
  }
  const std::string name = KvSchemeName(config.kv.scheme, true);
  const absl::Status scheme = ResolveKvScheme(name, profile->shape, &*profile).status();
  if (!scheme.ok()) {
    return AtOrigin(Annotate(scheme, "kv.scheme"), source, {"kv.scheme", "kv.profile"});
  }
  if (!TierScheme(*profile, name).ok()) return absl::OkStatus();  // a scheme without losses
  const KvQualityLimits limits = {.max_mean_kl = config.kv.quality.max_mean_kl,
                                  .max_copy_loss = config.kv.quality.max_copy_loss};
  return AtOrigin(
      CheckTierQuality(*profile, name, limits), source,
      {"kv.quality.max_mean_kl", "kv.quality.max_copy_loss", "kv.scheme", "kv.profile"});
}

/// The files of TLS and keys of both ports.
absl::Status CheckServerFiles(const ConfigSource& source, const Config& config) {
  const ServerSection& server = config.server;
  const AdminSection& admin = config.admin;
  absl::Status status;
  if (!server.tls.cert_file.empty()) status = ReadTlsFiles(server.tls, "server.tls").status();
  if (status.ok() && !admin.tls.cert_file.empty()) {
    status = ReadTlsFiles(admin.tls, "admin.tls").status();
  }
  if (status.ok()) status = CheckOperatorAuthorities(config);
  KeyRing keys(server.api_keys_file), admin_keys(admin.api_keys_file);
  admin_keys.Exclude(keys);
  if (status.ok() && !server.api_keys_file.empty()) {
    status = Annotate(keys.Reload(), "server.api_keys_file");
  }
  if (status.ok() && !admin.api_keys_file.empty()) {
    status = Annotate(admin_keys.Reload(), "admin.api_keys_file");
  }
  // Messages begin with the option.
  const std::string message(status.message());
  return AtOrigin(status, source, {std::string_view(message).substr(0, message.find(':'))});
}

}  // namespace

void AddConfigCheckOptions(CLI::App& command, ConfigCheckArguments& arguments) {
  command.add_flag("--no-files", arguments.no_files,
                   "do not read the files that it names: they are on another machine");
  command.footer(
      "Reads the file and each --set as serve does, then the profile, and judges kv.scheme by it, "
      "then\n"
      "the files of tls and api_keys_file of server and admin.\n"
      "Not checked: the model and whether the profile is of it, memory, the CPU's instruction "
      "set,\n"
      "whether the addresses can be bound, or are open to other machines without TLS and keys. "
      "Exit status: 0 ok, 1 a file or the scheme, 2 an "
      "option.");
}

absl::Status RunConfigCheck(const ConfigCheckArguments& arguments, const ConfigSource& source,
                            const Config& config, std::ostream& out) {
  std::string unchecked = "the model, memory, the CPU's instruction set, the addresses";
  const std::string profile = FindModelProfile(config.kv.profile, config.model.path);
  if (arguments.no_files || profile.empty()) {
    ASYMSERVE_RETURN_IF_ERROR(AtOrigin(
        CheckSchemeAlone(KvSchemeName(config.kv.scheme, !profile.empty())), source, {"kv.scheme"}));
    absl::StrAppend(&unchecked, ", the profile and whether it has kv.scheme");
  } else {
    ASYMSERVE_RETURN_IF_ERROR(CheckProfileFile(source, config, profile));
  }
  const bool server_files =
      !config.server.tls.cert_file.empty() || !config.server.api_keys_file.empty() ||
      !config.admin.tls.cert_file.empty() || !config.admin.api_keys_file.empty();
  if (!arguments.no_files) {
    ASYMSERVE_RETURN_IF_ERROR(CheckServerFiles(source, config));
  } else if (server_files) {
    absl::StrAppend(&unchecked, ", the files of tls and api_keys_file of server and admin");
  }
  std::string text = absl::StrCat(source.path.empty() ? "defaults" : source.path,
                                  ": ok\nnot checked: ", unchecked, "\n");
  if (config.model.path.empty()) {
    absl::StrAppend(&text, "model.path: is empty; serve requires it (--model FILE)\n");
  }
  return Write(text, out);
}

absl::Status RunConfigShow(const Config& config, std::ostream& out) {
  return Write(WriteYaml(config), out);
}

absl::Status RunConfigSchema(std::ostream& out) {
  return Write(ConfigSchema(), out);
}

}  // namespace asymserve
