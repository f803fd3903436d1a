#include "server/api_key_command.h"

#include <array>
#include <chrono>
#include <ostream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_replace.h"
#include "openssl/rand.h"

#include "config/api_keys.h"
#include "config/yaml_entries.h"
#include "engine/base/sha256.h"
#include "engine/base/status.h"

namespace asymserve {

void AddApiKeyOptions(CLI::App& command, ApiKeyArguments& arguments) {
  command.add_option("name", arguments.name, "who will hold it, for the log")->required();
  command.add_option("--tenant", arguments.tenant,
                     "whose share its calls take (scheduling.tenants)");
  command.add_option("--days", arguments.days, "until it expires (default: never)")
      ->check(CLI::Range(1, 36'500));
}

absl::Status RunApiKey(const ApiKeyArguments& arguments, std::ostream& entry,
                       std::ostream& secret) {
  if (!IsApiKeyName(arguments.name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("name: expected ", kApiKeyNameExpected, ", got ", Quoted(arguments.name)));
  }
  if (!arguments.tenant.empty() && !IsTenantName(arguments.tenant)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--tenant: expected 1 to 64 printable ASCII characters without spaces, commas and =, got ",
        Quoted(arguments.tenant)));
  }
  std::array<unsigned char, 32> random = {};
  if (RAND_bytes(random.data(), static_cast<int>(random.size())) != 1) {
    return absl::InternalError("the system gives no random numbers");
  }
  const std::string key =
      absl::StrCat("ask_", absl::WebSafeBase64Escape(std::string(
                               reinterpret_cast<const char*>(random.data()), random.size())));
  Sha256 hash;
  hash.Update(key);
  entry << arguments.name << ":\n  sha256: \"" << ToHex(hash.Finish()) << "\"\n";
  // Quoted: a tenant may look like a number or begin with a sign that YAML knows.
  if (!arguments.tenant.empty()) {
    entry << "  tenant: '" << absl::StrReplaceAll(arguments.tenant, {{"'", "''"}}) << "'\n";
  }
  if (arguments.days != 0) {
    const auto end = std::chrono::system_clock::now() + std::chrono::hours(24) * arguments.days;
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(end.time_since_epoch());
    entry << "  expires: " << FormatExpiry(seconds.count()) << '\n';
  }
  entry.flush();
  secret << "The key of " << arguments.name << ", shown only now:\n" << key << '\n';
  secret.flush();
  return entry.good() && secret.good() ? absl::OkStatus()
                                       : absl::InternalError("the output cannot be written");
}

}  // namespace asymserve
