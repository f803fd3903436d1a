#pragma once

#include <cstdio>
#include <cstdlib>

// Broken invariants of our own, on in release builds too. Never for bad input: that is a Status.
#define ASYMSERVE_CHECK(condition)                                              \
  do {                                                                          \
    if (!(condition)) ::asymserve::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)

namespace asymserve {

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, condition);
  std::abort();
}

}  // namespace asymserve
