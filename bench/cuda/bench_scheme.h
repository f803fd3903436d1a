#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "engine/backend/backend.h"
#include "engine/kv/layout.h"

namespace asymserve::bench {

/// A failure ends the program with its text.
void NeedOk(const absl::Status& status);

/// Normal numbers, a function of the arguments.
std::vector<float> Random(int64_t count, uint32_t seed, float sigma);

/// A scheme of the names of NamedKvScheme, or `balanced` or `dense`: learned ones with about as
/// many bits as those of a profile (1.0 and 0.75), whose codes are random, for times do not depend
/// on them.
struct BenchScheme {
  BenchScheme(const std::string& name, const KvShape& shape);

  KvScheme scheme;
  PlaneCodes codes;
};

/// What attention reads of a page, in all layers of the layout.
double PageBytes(const KvLayout& layout, const KvPage& page);

}  // namespace asymserve::bench
