#include "engine/runtime/prefix_hash.h"

#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

PrefixHash DigestOf(const PrefixScope& scope) {
  Sha256 hash;
  // Lengths first, so that no two scopes read the same.
  hash.Update(absl::StrCat("asymserve prefix 1\n", scope.cache.size(), "\n", scope.tenant.size(),
                           "\n", scope.precision == KvPrecision::kExact ? "exact" : "scheme", "\n",
                           scope.chunk_tokens, "\n"));
  hash.Update(scope.cache);
  hash.Update(scope.tenant);
  return hash.Finish();
}

}  // namespace

std::vector<PrefixHash> HashPrefix(const PrefixScope& scope, std::span<const int32_t> prompt) {
  const auto chunk_tokens = static_cast<size_t>(scope.chunk_tokens);
  const size_t chunks = prompt.size() / chunk_tokens;
  std::vector<PrefixHash> hashes;
  if (chunks == 0) return hashes;
  hashes.reserve(chunks);
  PrefixHash before = DigestOf(scope);
  for (size_t i = 0; i < chunks; ++i) {
    Sha256 hash;
    hash.Update(std::as_bytes(std::span(before)));
    hash.Update(std::as_bytes(prompt.subspan(i * chunk_tokens, chunk_tokens)));
    before = hash.Finish();
    hashes.push_back(before);
  }
  return hashes;
}

}  // namespace asymserve
