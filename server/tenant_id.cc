#include "server/tenant_id.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

constexpr size_t kMaxBytes = 64;

absl::Status Invalid(const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(kTenantKey, ": ", problem));
}

}  // namespace

absl::StatusOr<std::string> TenantIdOf(
    const std::multimap<grpc::string_ref, grpc::string_ref>& metadata) {
  const auto [first, last] = metadata.equal_range(kTenantKey);
  if (first == last) return std::string();
  if (std::next(first) != last) {
    return Invalid(absl::StrCat(std::distance(first, last), " values, at most 1"));
  }
  const grpc::string_ref value = first->second;
  if (value.empty()) return Invalid("is empty; leave it out for the default tenant");
  if (value.size() > kMaxBytes) {
    return Invalid(absl::StrCat(value.size(), " bytes, at most ", kMaxBytes));
  }
  // As in scheduling.tenants, where a comma and = have a meaning.
  const auto* const bad = std::find_if(value.begin(), value.end(), [](char c) {
    return c <= 0x20 || c > 0x7E || c == ',' || c == '=';
  });
  if (bad != value.end()) {
    return Invalid(absl::StrCat("byte ", bad - value.begin(), " is 0x",
                                absl::Hex(static_cast<unsigned char>(*bad), absl::kZeroPad2),
                                "; allowed is printable ASCII without space, comma and ="));
  }
  return std::string(value.data(), value.size());
}

}  // namespace asymserve
