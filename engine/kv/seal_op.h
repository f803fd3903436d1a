#pragma once

#include <cstdint>

#include "engine/kv/ids.h"

namespace asymserve {

/// A complete page to be sealed: reads its near record, writes base and, where the scheme has one,
/// refinement. Keys and values may be sealed at different times (KvWindow).
struct KvSealOp {
  PageId near = kNoPage;
  PageId base = kNoPage;
  PageId refinement = kNoPage;  // absent: only base planes are kept
  int32_t page = 0;             // index in its sequence: its first position / 64
  bool keys = true;
  bool values = true;
};

}  // namespace asymserve
