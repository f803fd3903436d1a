// The profile parser, on the bytes as they are and with size and digest set right, so that what is
// behind the digest is reached. What parses must come back bit for bit, and all its tiers be
// usable.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "engine/base/check.h"
#include "engine/kv/profile.h"
#include "tests/engine/kv/toy_profile.h"

namespace {

void Try(const std::string& bytes) {
  const auto profile = asymserve::ParseProfile(std::as_bytes(std::span(bytes)));
  if (!profile.ok()) return;
  const auto again = asymserve::SerializeProfile(*profile);
  ASYMSERVE_CHECK(again.ok() && *again == bytes);
  for (const asymserve::KvProfileTier& tier : profile->tiers) {
    const auto scheme = asymserve::TierScheme(*profile, tier.name);
    ASYMSERVE_CHECK(scheme.ok() && asymserve::CheckKvScheme(*scheme, profile->shape).ok());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  Try(bytes);
  Try(asymserve::testing::SignProfile(bytes));
  return 0;
}
