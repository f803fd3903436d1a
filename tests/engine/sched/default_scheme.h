#pragma once

#include <cstddef>

#include "engine/kv/layout.h"
#include "engine/kv/scheme.h"

namespace asymserve {

/// The shape of the default model.
constexpr KvShape kDefaultShape = {.layers = 30, .kv_heads = 3, .head_size = 64};

/// The sizes and windows of its scheme `balanced`, without learned codes.
inline KvScheme BalancedScheme() {
  KvScheme scheme;
  scheme.name = "balanced";
  scheme.near = KvCodec::kInt8;
  scheme.sink_pages = 1;
  scheme.key_window = {.recent_pages = 1, .block_pages = 1};
  scheme.value_window = scheme.key_window;
  scheme.fresh_pages = 4;
  const KvItem item = {.codec = KvCodec::kPlanes, .base_planes = 16, .fresh_planes = 48};
  scheme.items.assign(static_cast<size_t>(2 * kDefaultShape.layers * kDefaultShape.kv_heads), item);
  return scheme;
}

}  // namespace asymserve
