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

PrefixChain HashPrefix(const PrefixScope& scope, std::span<const int32_t> prompt) {
  const auto chunk_tokens = static_cast<size_t>(scope.chunk_tokens);
  PrefixChain chain;
  PrefixHash before = DigestOf(scope);
  const auto part = [&](size_t begin, size_t count) {
    Sha256 hash;
    hash.Update(std::as_bytes(std::span(before)));
    hash.Update(std::as_bytes(prompt.subspan(begin, count)));
    return hash.Finish();
  };
  const size_t last_chunk = (prompt.size() - 1) / chunk_tokens * chunk_tokens;
  for (size_t begin = 0; begin + chunk_tokens <= prompt.size(); begin += chunk_tokens) {
    if (begin == last_chunk) break;
    before = part(begin, chunk_tokens);
    chain.chunks.push_back(before);
  }
  if (scope.tail_page_tokens > 0) {
    const auto page_tokens = static_cast<size_t>(scope.tail_page_tokens);
    const size_t pages = (prompt.size() - 1) / page_tokens * page_tokens;
    if (pages > last_chunk) {
      chain.tail = part(last_chunk, pages - last_chunk);
      chain.tail_tokens = static_cast<int32_t>(pages);
    }
  }
  if (last_chunk + chunk_tokens == prompt.size()) {
    chain.chunks.push_back(part(last_chunk, chunk_tokens));
  }
  return chain;
}

}  // namespace asymserve
