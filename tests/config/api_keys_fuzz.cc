// Any bytes as a file of API keys: keys within their ranges or an error that names the file.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "config/api_keys.h"
#include "engine/base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto keys = asymserve::ParseApiKeys(text, "FILE");
  if (!keys.ok()) {
    const absl::string_view message = keys.status().message();
    ASYMSERVE_CHECK(message.substr(0, 5) == "FILE:");
    for (const char c : message) ASYMSERVE_CHECK(c >= ' ' && c < 0x7f);
    return 0;
  }
  ASYMSERVE_CHECK(keys->size() <= asymserve::kMaxApiKeys);
  for (const asymserve::ApiKey& key : *keys) {
    ASYMSERVE_CHECK(asymserve::IsApiKeyName(key.name));
    ASYMSERVE_CHECK(key.tenant.empty() || asymserve::IsTenantName(key.tenant));
    ASYMSERVE_CHECK(key.limits.requests_per_second >= 0 && key.limits.requests_per_second <= 1e6);
    ASYMSERVE_CHECK(key.not_after_s == 0 || asymserve::ParseExpiry(asymserve::FormatExpiry(
                                                key.not_after_s)) == key.not_after_s);
    ASYMSERVE_CHECK(key.limits.concurrent >= 0 && key.limits.tokens_per_minute >= 0);
  }
  return 0;
}
