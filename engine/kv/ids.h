#pragma once

#include <cstdint>

namespace asymserve {

/// A page record in the KV arena. Scheduler and page tables know ids, never bytes.
enum class PageId : int32_t {};
inline constexpr PageId kNoPage{-1};
/// One request as a client sent it.
enum class RequestId : uint64_t {};
/// One generated sequence; a request with n > 1 has several.
enum class SequenceId : uint64_t {};

constexpr int32_t Index(PageId page) {
  return static_cast<int32_t>(page);
}

}  // namespace asymserve
