// Any bytes as a configuration file: a Config or an error that names the file, never a crash.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "config/config.h"
#include "engine/base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = asymserve::ParseConfig(text, "FILE");
  if (config.ok()) {
    static_cast<void>(asymserve::ValidateConfig(*config));
  } else {
    const absl::string_view message = config.status().message();
    ASYMSERVE_CHECK(message.substr(0, 5) == "FILE:");
    for (const char c : message) ASYMSERVE_CHECK(c >= ' ' && c < 0x7f);
  }
  asymserve::Config overridden;
  static_cast<void>(asymserve::ApplyOverride(overridden, text));
  return 0;
}
