#pragma once

#include <cstdint>

namespace asymserve {

/// What the KV cache of a model looks like: everything that its byte layout and a plan depend on.
/// L layers, G KV heads, D channels per head.
struct KvShape {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_size = 0;
};

/// How keys and values are stored. Today `exact`: 16-bit floats, nothing quantized.
struct KvScheme {
  int32_t page_tokens = 64;    // tokens per page, in all layers and heads
  int32_t chunk_tokens = 256;  // prefill runs in chunks of this many tokens at fixed positions
};

}  // namespace asymserve
