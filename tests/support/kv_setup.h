#pragma once

#include "engine/backend/backend.h"
#include "engine/kv/record_pool.h"

namespace asymserve::testing {

/// An exact cache with room for at least `pages` pages.
inline KvSetup ExactKvSetup(const KvShape& shape, int32_t pages) {
  KvSetup setup;
  setup.shape = shape;
  setup.arena_bytes = ArenaBytesFor(KvLayout(shape, setup.scheme), KvRecord::kNear, pages);
  return setup;
}

}  // namespace asymserve::testing
