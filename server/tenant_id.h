#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"

namespace asymserve {

inline constexpr char kTenantKey[] = "x-tenant-id";

/// The tenant that a call's metadata names; empty: none does. InvalidArgument names the key:
/// "x-tenant-id: 70 bytes, at most 64".
absl::StatusOr<std::string> TenantIdOf(
    const std::multimap<grpc::string_ref, grpc::string_ref>& metadata);

}  // namespace asymserve
