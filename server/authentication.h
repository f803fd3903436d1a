#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "grpc/grpc_security.h"

#include "server/key_ring.h"
#include "server/server_metrics.h"

namespace asymserve {

/// The API key in a call's metadata: `authorization: Bearer KEY` or `x-api-key: KEY`, one of them
/// once. Refers to the metadata.
class PresentedKey {
 public:
  /// Each metadatum in turn; names are lower case, as HTTP/2 has them.
  void Add(std::string_view name, std::string_view value);

  /// Empty when there is none, or no proper one.
  std::string_view key() const { return malformed_ ? std::string_view() : key_; }
  bool malformed() const { return malformed_; }

 private:
  std::string_view key_;
  bool found_ = false, malformed_ = false;
};

struct Authentication {
  std::shared_ptr<const KeyHolder> holder;  // null: refused
  Rejection reason = Rejection::kNoKey;
  const char* message = "";  // for the caller; a string literal
};
/// By the system's clock.
Authentication Authenticate(const KeyRing& keys, const PresentedKey& presented);

/// Ends calls without a valid key with UNAUTHENTICATED before they reach a service, except those
/// whose path begins with one of `unguarded`: what is for everybody, and services that do this
/// themselves. So it is the only guard of reflection. `keys`, `metrics` and what `unguarded` refers
/// to outlive the credentials.
void GuardMethods(grpc_server_credentials& credentials, const KeyRing& keys,
                  std::span<const std::string_view> unguarded, ServerMetrics& metrics);

}  // namespace asymserve
