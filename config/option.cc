#include "config/option.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "config/key_distance.h"
#include "config/scalar.h"
#include "config/tenants.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

constexpr double kKiB = 1024;
constexpr double kGiB = kKiB * kKiB * kKiB;
constexpr double kTiB = kGiB * kKiB;

constexpr std::array<std::string_view, 3> kDevices = {"auto", "cpu", "cuda"};
constexpr std::array<std::string_view, 5> kIsas = {"auto", "portable", "avx2", "avx512", "amx"};
constexpr std::array<std::string_view, 5> kLogLevels = {"debug", "info", "warn", "error", "off"};
constexpr std::array<std::string_view, 2> kLogFormats = {"text", "json"};

constexpr Option kOptions[] = {
    {"model.path", +[](Config& c) -> std::string& { return c.model.path; }},
    {"model.name", +[](Config& c) -> std::string& { return c.model.name; }},
    {"engine.threads", +[](Config& c) -> int32_t& { return c.engine.threads; }, 0, 1024},
    {"engine.memory_bytes", +[](Config& c) -> int64_t& { return c.engine.memory_bytes; }, 0,
     64 * kTiB},
    {"engine.memory_margin_bytes",
     +[](Config& c) -> int64_t& { return c.engine.memory_margin_bytes; }, 0, 64 * kTiB},
    {"engine.kv_memory_bytes", +[](Config& c) -> int64_t& { return c.engine.kv_memory_bytes; }, 0,
     64 * kTiB},
    {"engine.context_tokens", +[](Config& c) -> int32_t& { return c.engine.context_tokens; }, 0,
     1 << 24},
    {"engine.max_running", +[](Config& c) -> int32_t& { return c.engine.max_running; }, 1, 4096},
    {"engine.max_waiting", +[](Config& c) -> int32_t& { return c.engine.max_waiting; }, 1,
     1'000'000},
    {"engine.step_tokens", +[](Config& c) -> int32_t& { return c.engine.step_tokens; }, 1, 65'536},
    {"engine.step_ms", +[](Config& c) -> double& { return c.engine.step_ms; }, 0, 60'000},
    {"engine.device", +[](Config& c) -> std::string& { return c.engine.device; }, 0, 0, kDevices},
    {"engine.isa", +[](Config& c) -> std::string& { return c.engine.isa; }, 0, 0, kIsas},
    {"kv.scheme", +[](Config& c) -> std::string& { return c.kv.scheme; }},
    {"kv.profile", +[](Config& c) -> std::string& { return c.kv.profile; }},
    {"kv.quality.max_mean_kl", +[](Config& c) -> double& { return c.kv.quality.max_mean_kl; }, 0,
     100},
    {"kv.quality.max_copy_loss", +[](Config& c) -> double& { return c.kv.quality.max_copy_loss; },
     0, 100},
    {"kv.prefix_cache", +[](Config& c) -> bool& { return c.kv.prefix_cache; }},
    {"kv.elastic", +[](Config& c) -> bool& { return c.kv.elastic; }},
    {"kv.quality.self_check", +[](Config& c) -> bool& { return c.kv.quality.self_check; }},
    {"kv.quality.canary_rate", +[](Config& c) -> double& { return c.kv.quality.canary_rate; }, 0,
     1},
    {"scheduling.tenants",
     +[](Config& c) -> std::string& { return c.scheduling.tenants; },
     0,
     0,
     {},
     Option::Format::kTenants},
    {"scheduling.aging_seconds", +[](Config& c) -> double& { return c.scheduling.aging_seconds; },
     0, 3600},
    {"server.address",
     +[](Config& c) -> std::string& { return c.server.address; },
     0,
     0,
     {},
     Option::Format::kAddress},
    {"server.max_message_bytes", +[](Config& c) -> int64_t& { return c.server.max_message_bytes; },
     kKiB, kGiB},
    {"server.stream_queue_messages",
     +[](Config& c) -> int32_t& { return c.server.stream_queue_messages; }, 1, 1'000'000},
    {"server.drain_seconds", +[](Config& c) -> double& { return c.server.drain_seconds; }, 0, 3600},
    {"server.max_connections", +[](Config& c) -> int32_t& { return c.server.max_connections; }, 1,
     1'000'000},
    {"server.max_connection_age_seconds",
     +[](Config& c) -> double& { return c.server.max_connection_age_seconds; }, 0, 86'400},
    {"server.reflection", +[](Config& c) -> bool& { return c.server.reflection; }},
    {"server.api_keys_file", +[](Config& c) -> std::string& { return c.server.api_keys_file; }},
    {"server.insecure", +[](Config& c) -> bool& { return c.server.insecure; }},
    {"server.tls.cert_file", +[](Config& c) -> std::string& { return c.server.tls.cert_file; }},
    {"server.tls.key_file", +[](Config& c) -> std::string& { return c.server.tls.key_file; }},
    {"server.tls.client_ca_file",
     +[](Config& c) -> std::string& { return c.server.tls.client_ca_file; }},
    {"metrics.address",
     +[](Config& c) -> std::string& { return c.metrics.address; },
     0,
     0,
     {},
     Option::Format::kOptionalAddress},
    {"admin.address",
     +[](Config& c) -> std::string& { return c.admin.address; },
     0,
     0,
     {},
     Option::Format::kOptionalAddress},
    {"admin.api_keys_file", +[](Config& c) -> std::string& { return c.admin.api_keys_file; }},
    {"admin.insecure", +[](Config& c) -> bool& { return c.admin.insecure; }},
    {"admin.tls.cert_file", +[](Config& c) -> std::string& { return c.admin.tls.cert_file; }},
    {"admin.tls.key_file", +[](Config& c) -> std::string& { return c.admin.tls.key_file; }},
    {"admin.tls.client_ca_file",
     +[](Config& c) -> std::string& { return c.admin.tls.client_ca_file; }},
    {"log.level", +[](Config& c) -> std::string& { return c.log.level; }, 0, 0, kLogLevels},
    {"log.format", +[](Config& c) -> std::string& { return c.log.format; }, 0, 0, kLogFormats},
};

std::string ExpectedText(const Option& option) {
  if (!option.choices.empty()) {
    return absl::StrCat("one of ", absl::StrJoin(option.choices, ", ", [](auto* out, auto choice) {
                          out->append(choice);
                        }));
  }
  switch (option.format) {
    case Option::Format::kAddress:
      return "HOST:PORT";
    case Option::Format::kOptionalAddress:
      return "HOST:PORT, or \"\" for none";
    case Option::Format::kTenants:
      return kTenantsExpected;
    case Option::Format::kFree:
      break;
  }
  return "text";
}

template <typename T>
std::string Expected(const Option& option) {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, std::string>) return ExpectedText(option);
  const auto min = static_cast<int64_t>(option.min);
  const auto max = static_cast<int64_t>(option.max);
  if constexpr (std::is_same_v<T, int64_t>) {
    return absl::StrCat("a size from ", FormatSize(min), " to ", FormatSize(max));
  }
  return absl::StrCat(std::is_same_v<T, double> ? "a number" : "an integer", " from ", min, " to ",
                      max);
}

template <typename T>
bool Allowed(const Option& option, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return true;
  } else if constexpr (std::is_same_v<T, std::string>) {
    const auto& choices = option.choices;
    if (!choices.empty()) return std::find(choices.begin(), choices.end(), value) != choices.end();
    if (option.format == Option::Format::kFree) return true;
    if (option.format == Option::Format::kTenants) return ParseTenants(value).has_value();
    if (value.empty()) return option.format == Option::Format::kOptionalAddress;
    return IsAddress(value);
  } else {
    const auto number = static_cast<double>(value);  // NaN is in no range
    return number >= option.min && number <= option.max;
  }
}

std::string Got(const YamlEntry& entry) {
  switch (entry.kind) {
    case YamlEntry::Kind::kPlain:
      return Printable(entry.text);
    case YamlEntry::Kind::kQuoted:
      return Quoted(entry.text);
    case YamlEntry::Kind::kNull:
      return "nothing";
    case YamlEntry::Kind::kList:
      return "a list";
    case YamlEntry::Kind::kMap:
      return "a section";
  }
  return "nothing";
}

template <typename T>
std::optional<T> Parse(const YamlEntry& entry) {
  const bool quoted = entry.kind == YamlEntry::Kind::kQuoted;
  if (entry.kind != YamlEntry::Kind::kPlain && !quoted) return std::nullopt;
  if constexpr (std::is_same_v<T, std::string>) return entry.text;
  if constexpr (std::is_same_v<T, int64_t>) return ParseSize(entry.text);  // "512MiB" or 512MiB
  if (quoted) return std::nullopt;
  if constexpr (std::is_same_v<T, bool>) return ParseBool(entry.text);
  if constexpr (std::is_same_v<T, int32_t>) return ParseInt32(entry.text);
  if constexpr (std::is_same_v<T, double>) return ParseDouble(entry.text);
}

absl::Status Unexpected(std::string_view key, const std::string& expected, const std::string& got) {
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(key), ": expected ", expected, ", got ", got));
}

/// Whether `section`, as "kv" or "kv.quality", holds the option.
bool IsSectionOf(std::string_view section, std::string_view key) {
  return key.size() > section.size() && key.starts_with(section) && key[section.size()] == '.';
}

absl::Status UnknownKey(const std::string& key) {
  std::vector<std::string_view> known;
  for (const Option& option : kOptions) {
    // A section is one candidate, before its options.
    for (size_t dot = option.key.find('.'); dot != std::string_view::npos;
         dot = option.key.find('.', dot + 1)) {
      const std::string_view section = option.key.substr(0, dot);
      if (std::find(known.begin(), known.end(), section) == known.end()) known.push_back(section);
    }
    known.push_back(option.key);
  }
  const std::string_view nearest = NearestKey(key, known);
  return absl::InvalidArgumentError(absl::StrCat(Printable(key), ": unknown key",
                                                 nearest.empty() ? "" : ", did you mean ",
                                                 std::string(nearest), nearest.empty() ? "" : "?"));
}

}  // namespace

std::span<const Option> Options() {
  return kOptions;
}

absl::Status Assign(Config& config, const YamlEntry& entry) {
  for (const Option& option : kOptions) {
    if (IsSectionOf(entry.key, option.key)) {
      const bool is_section =
          entry.kind == YamlEntry::Kind::kMap || entry.kind == YamlEntry::Kind::kNull;
      if (is_section) return absl::OkStatus();
      return Unexpected(entry.key, "a section of options", Got(entry));
    }
    if (option.key != entry.key) continue;
    return std::visit(
        [&](auto member) {
          auto& target = member(config);
          using T = std::remove_reference_t<decltype(target)>;
          std::optional<T> value = Parse<T>(entry);
          if (!value.has_value() || !Allowed(option, *value)) {
            return Unexpected(option.key, Expected<T>(option), Got(entry));
          }
          target = *std::move(value);
          return absl::OkStatus();
        },
        option.member);
  }
  return UnknownKey(entry.key);
}

absl::Status CheckValue(const Config& config, const Option& option) {
  Config copy = config;  // members are reached through a mutable reference
  return std::visit(
      [&](auto member) {
        const auto& value = member(copy);
        using T = std::remove_cvref_t<decltype(value)>;
        if (Allowed(option, value)) return absl::OkStatus();
        if constexpr (std::is_same_v<T, std::string>) {
          return Unexpected(option.key, Expected<T>(option), Quoted(value));
        } else {
          return Unexpected(option.key, Expected<T>(option), absl::StrCat(value));
        }
      },
      option.member);
}

}  // namespace asymserve
