#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/base/sha256.h"

// The file server.api_keys_file: who may call. It holds digests of keys, never keys.
//
//   NAME:                       # of the key's holder, in the log
//     sha256: 64 hex digits     # of the key
//     tenant: gold              # left out: the default tenant
//     expires: 2027-01-31T00:00:00Z   # from then on it opens nothing; left out: never
//     requests_per_second: 5    # of these three what is left out has no limit
//     concurrent: 8
//     tokens_per_minute: 100000

namespace asymserve {

/// 0: no limit.
struct ApiKeyLimits {
  double requests_per_second = 0;
  int32_t concurrent = 0;
  int32_t tokens_per_minute = 0;

  bool operator==(const ApiKeyLimits&) const = default;
};

struct ApiKey {
  std::string name;
  Sha256Digest sha256 = {};
  std::string tenant;       // empty: the default one
  int64_t not_after_s = 0;  // `expires`, in seconds since 1970; 0: it never does
  ApiKeyLimits limits;
};

inline constexpr size_t kMaxApiKeys = 1000;
inline constexpr char kApiKeyNameExpected[] =
    "1 to 64 letters, digits, - and _, the first of them a letter or digit";

bool IsApiKeyName(std::string_view name);
/// A time as `expires` has it, RFC 3339, in seconds since 1970; nullopt: it is none, or not from
/// 1970 to 9999.
std::optional<int64_t> ParseExpiry(std::string_view text);
/// The inverse, in UTC.
std::string FormatExpiry(int64_t seconds);
/// 1 to 64 printable ASCII characters without space, comma and =.
bool IsTenantName(std::string_view name);

/// Keys in the order of the file. InvalidArgument: "FILE:LINE: NAME.tenant: expected ..., got ...".
/// A file without keys is refused, unless it says {}: nobody may call. No message has a key in it,
/// even if somebody writes one in the place of its digest.
absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(std::string_view text, const std::string& file);

}  // namespace asymserve
