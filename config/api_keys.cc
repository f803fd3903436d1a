#include "config/api_keys.h"

#include <algorithm>
#include <array>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "config/key_distance.h"
#include "config/scalar.h"
#include "config/yaml_entries.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

constexpr size_t kMaxName = 64;
constexpr double kMinRate = 0.001, kMaxRate = 1e6;
constexpr int32_t kMaxConcurrent = 1'000'000, kMaxTokens = 1'000'000'000;
constexpr int64_t kYear10000 = 253'402'300'800;  // its first second
constexpr std::array<std::string_view, 6> kFields = {
    "sha256", "tenant", "expires", "requests_per_second", "concurrent", "tokens_per_minute"};

bool IsScalar(const YamlEntry& entry) {
  return entry.kind == YamlEntry::Kind::kPlain || entry.kind == YamlEntry::Kind::kQuoted;
}

absl::Status Unexpected(std::string_view expected, const YamlEntry& entry) {
  return absl::InvalidArgumentError(
      absl::StrCat("expected ", std::string(expected), ", got ",
                   IsScalar(entry) ? Quoted(entry.text) : std::string("no single value")));
}

std::optional<Sha256Digest> ParseDigest(std::string_view text) {
  Sha256Digest digest = {};
  if (text.size() != 2 * digest.size()) return std::nullopt;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = absl::ascii_tolower(static_cast<unsigned char>(text[i]));
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return std::nullopt;
    const int digit = c <= '9' ? c - '0' : c - 'a' + 10;
    digest[i / 2] = static_cast<uint8_t>(digest[i / 2] * 16 + digit);
  }
  return digest;
}

absl::Status SetInteger(const YamlEntry& entry, int32_t max, int32_t& to) {
  const std::optional<int32_t> value = ParseInt32(entry.text);
  if (!IsScalar(entry) || !value || *value < 1 || *value > max) {
    return Unexpected(absl::StrCat("an integer from 1 to ", max), entry);
  }
  to = *value;
  return absl::OkStatus();
}

absl::Status SetField(std::string_view field, const YamlEntry& entry, ApiKey& key) {
  if (field == "sha256") {
    const std::optional<Sha256Digest> digest = ParseDigest(entry.text);
    if (!digest) {  // it may be the key itself
      return absl::InvalidArgumentError(absl::StrCat(
          "expected the key's SHA-256 in 64 hexadecimal digits, got ", entry.text.size(),
          " characters that are not shown; asymserve api-key makes an entry"));
    }
    key.sha256 = *digest;
    return absl::OkStatus();
  }
  if (field == "tenant") {
    if (!IsScalar(entry) || !IsTenantName(entry.text)) {
      return Unexpected("1 to 64 printable ASCII characters without spaces, commas and =", entry);
    }
    key.tenant = entry.text;
    return absl::OkStatus();
  }
  if (field == "expires") {
    const std::optional<int64_t> seconds = ParseExpiry(entry.text);
    if (!IsScalar(entry) || !seconds) {
      return Unexpected("a time of RFC 3339 such as 2027-01-31T00:00:00Z", entry);
    }
    key.not_after_s = *seconds;
    return absl::OkStatus();
  }
  if (field == "requests_per_second") {
    const std::optional<double> value = ParseDouble(entry.text);
    if (!IsScalar(entry) || !value || *value < kMinRate || *value > kMaxRate) {
      return Unexpected("a number from 0.001 to 1000000", entry);
    }
    key.limits.requests_per_second = *value;
    return absl::OkStatus();
  }
  if (field == "concurrent") return SetInteger(entry, kMaxConcurrent, key.limits.concurrent);
  if (field == "tokens_per_minute") {
    return SetInteger(entry, kMaxTokens, key.limits.tokens_per_minute);
  }
  const std::string_view nearest = NearestKey(field, kFields);
  return absl::InvalidArgumentError(absl::StrCat("unknown key", nearest.empty() ? "" : ", did you ",
                                                 nearest.empty() ? "" : "mean ",
                                                 std::string(nearest), nearest.empty() ? "" : "?"));
}

/// Takes entries in their order: a holder, then its fields. EndHolder before the next holder.
class KeyCollector {
 public:
  absl::Status Add(const YamlEntry& entry) {
    const size_t dot = entry.key.find('.');
    if (dot != std::string::npos) {
      const std::string field = entry.key.substr(dot + 1);
      if (field == "sha256") has_digest_ = true;
      return Annotate(SetField(field, entry, keys_.back()), Printable(entry.key));
    }
    if (!IsApiKeyName(entry.key)) {
      return absl::InvalidArgumentError(
          absl::StrCat(Quoted(entry.key), ": expected a name of ", kApiKeyNameExpected));
    }
    const bool section =
        entry.kind == YamlEntry::Kind::kMap || entry.kind == YamlEntry::Kind::kNull;
    if (!section) {
      return absl::InvalidArgumentError(
          absl::StrCat(Printable(entry.key), ": expected a section with sha256 in it"));
    }
    if (keys_.size() == kMaxApiKeys) {
      return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxApiKeys, " keys"));
    }
    keys_.emplace_back().name = entry.key;
    has_digest_ = false;
    return absl::OkStatus();
  }

  /// Whether the last holder is whole.
  absl::Status EndHolder() const {
    if (keys_.empty()) return absl::OkStatus();
    const ApiKey& last = keys_.back();
    if (!has_digest_) {
      return absl::InvalidArgumentError(absl::StrCat(Printable(last.name), ": sha256 is missing"));
    }
    for (const ApiKey& key : keys_) {
      if (&key == &last || key.sha256 != last.sha256) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(Printable(last.name), ".sha256: the same as that of ", Printable(key.name)));
    }
    return absl::OkStatus();
  }

  std::vector<ApiKey> Take() { return std::move(keys_); }

 private:
  std::vector<ApiKey> keys_;
  bool has_digest_ = false;  // the last of them
};

}  // namespace

bool IsApiKeyName(std::string_view name) {
  if (name.empty() || name.size() > kMaxName) return false;
  const auto alphanumeric = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c));
  };
  return alphanumeric(name.front()) && std::all_of(name.begin(), name.end(), [&](char c) {
           return alphanumeric(c) || c == '-' || c == '_';
         });
}

bool IsTenantName(std::string_view name) {
  if (name.empty() || name.size() > kMaxName) return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return c > 0x20 && c <= 0x7E && c != ',' && c != '='; });
}

std::optional<int64_t> ParseExpiry(std::string_view text) {
  // ParseTime takes blanks around it and infinite-future, too.
  constexpr std::string_view kCharacters = "0123456789-:.+TZ";
  if (text.find_first_not_of(kCharacters) != std::string_view::npos) return std::nullopt;
  absl::Time time;
  if (!absl::ParseTime(absl::RFC3339_full, std::string(text), &time, nullptr)) return std::nullopt;
  const int64_t seconds = absl::ToUnixSeconds(time);
  if (seconds <= 0 || seconds >= kYear10000) return std::nullopt;
  return seconds;
}

std::string FormatExpiry(int64_t seconds) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixSeconds(seconds),
                          absl::UTCTimeZone());
}

absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(std::string_view text, const std::string& file) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<YamlEntry> entries, ReadYamlEntries(text, file));
  if (entries.empty() && absl::StripAsciiWhitespace(std::string(text)) != "{}") {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": has no keys; a file with only {} in it locks everybody out"));
  }
  KeyCollector collector;
  int line = 1;
  for (const YamlEntry& entry : entries) {
    const bool new_holder = entry.key.find('.') == std::string::npos;
    if (new_holder) {
      ASYMSERVE_RETURN_IF_ERROR(Annotate(collector.EndHolder(), absl::StrCat(file, ":", line)));
      line = entry.line;
    }
    ASYMSERVE_RETURN_IF_ERROR(Annotate(collector.Add(entry), absl::StrCat(file, ":", entry.line)));
  }
  ASYMSERVE_RETURN_IF_ERROR(Annotate(collector.EndHolder(), absl::StrCat(file, ":", line)));
  return collector.Take();
}

}  // namespace asymserve
