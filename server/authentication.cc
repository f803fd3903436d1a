#include "server/authentication.h"

#include <chrono>

#include "absl/strings/match.h"
#include "grpc/slice.h"

namespace asymserve {
namespace {

constexpr std::string_view kScheme = "bearer ";

struct Guard {
  const KeyRing& keys;
  std::span<const std::string_view> unguarded;
  ServerMetrics& metrics;
};

std::string_view View(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

void Process(void* state, grpc_auth_context* /*context*/, const grpc_metadata* metadata,
             size_t count, grpc_process_auth_metadata_done_cb done, void* call) {
  const Guard& guard = *static_cast<const Guard*>(state);
  const auto finish = [&](grpc_status_code code, const char* message) {
    done(call, nullptr, 0, nullptr, 0, code, message);
  };
  const auto start = std::chrono::steady_clock::now();
  PresentedKey presented;
  for (size_t i = 0; i < count; ++i) {
    const std::string_view name = View(metadata[i].key), value = View(metadata[i].value);
    presented.Add(name, value);
    if (name != ":path") continue;
    for (const std::string_view prefix : guard.unguarded) {
      if (value.starts_with(prefix)) return finish(GRPC_STATUS_OK, nullptr);
    }
  }
  const Authentication who = Authenticate(guard.keys, presented);
  if (who.holder != nullptr) return finish(GRPC_STATUS_OK, nullptr);
  guard.metrics.rejections[static_cast<size_t>(who.reason)].Add();
  guard.metrics.refusal_seconds.Observe(
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  finish(GRPC_STATUS_UNAUTHENTICATED, who.message);
}

void Destroy(void* state) {
  delete static_cast<Guard*>(state);
}

}  // namespace

void PresentedKey::Add(std::string_view name, std::string_view value) {
  const bool bearer = name == "authorization";
  if (!bearer && name != "x-api-key") return;
  if (bearer) {
    const std::string_view scheme = value.substr(0, kScheme.size());
    const bool other = !absl::EqualsIgnoreCase(absl::string_view(scheme.data(), scheme.size()),
                                               absl::string_view(kScheme.data(), kScheme.size()));
    malformed_ = malformed_ || other;
    value.remove_prefix(scheme.size());
  }
  malformed_ = malformed_ || found_ || value.empty();
  found_ = true;
  key_ = value;
}

Authentication Authenticate(const KeyRing& keys, const PresentedKey& presented) {
  if (presented.malformed()) {
    return {nullptr, Rejection::kMalformedKey,
            "API key: expected authorization: Bearer KEY or x-api-key: KEY, one of them once"};
  }
  if (presented.key().empty()) {
    return {nullptr, Rejection::kNoKey,
            "an API key is required, as authorization: Bearer KEY or x-api-key: KEY"};
  }
  std::shared_ptr<const KeyHolder> holder = keys.Find(presented.key());
  if (holder == nullptr) return {nullptr, Rejection::kUnknownKey, "API key: not a valid one"};
  if (holder->not_after_s != 0) {
    const auto now = std::chrono::duration_cast<std::chrono::seconds>(
        std::chrono::system_clock::now().time_since_epoch());
    if (now.count() >= holder->not_after_s) {
      return {nullptr, Rejection::kExpiredKey, "API key: it has expired"};
    }
  }
  return {std::move(holder), {}, ""};
}

void GuardMethods(grpc_server_credentials& credentials, const KeyRing& keys,
                  std::span<const std::string_view> unguarded, ServerMetrics& metrics) {
  grpc_server_credentials_set_auth_metadata_processor(
      &credentials, {Process, Destroy, new Guard{keys, unguarded, metrics}});
}

}  // namespace asymserve
