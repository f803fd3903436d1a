#pragma once

#include <cstdint>

#include "engine/kv/scheme.h"

// The byte layout of an exact page record: one definition for backends, kernels and tests. Host and
// device; no allocation, no absl.
//
//   record = for each layer: K block, then V block
//   K block = fp16 [G][D][P]   channel-major: the scores of 64 tokens are one vertical sum over D
//   V block = fp16 [G][P][D]   token-major: the output is one vertical sum over tokens
//
// P = page_tokens, G = kv_heads, D = head_size. fp16 is IEEE binary16, little-endian.

namespace asymserve {

struct ExactPageLayout {
  int32_t layers;
  int32_t kv_heads;
  int32_t head_size;
  int32_t page_tokens;

  constexpr ExactPageLayout(const KvShape& shape, const KvScheme& scheme)
      : layers(shape.layers),
        kv_heads(shape.kv_heads),
        head_size(shape.head_size),
        page_tokens(scheme.page_tokens) {}

  /// fp16 elements of one (layer, tensor, head).
  constexpr int64_t head_elements() const { return int64_t{head_size} * page_tokens; }
  constexpr int64_t record_elements() const { return 2 * layers * kv_heads * head_elements(); }
  constexpr int64_t record_bytes() const { return 2 * record_elements(); }

  /// Offsets in fp16 elements from the start of a record.
  constexpr int64_t KeyOffset(int32_t layer, int32_t head) const {
    return (int64_t{2} * layer * kv_heads + head) * head_elements();
  }
  constexpr int64_t ValueOffset(int32_t layer, int32_t head) const {
    return ((int64_t{2} * layer + 1) * kv_heads + head) * head_elements();
  }
  constexpr int64_t Key(int32_t layer, int32_t head, int32_t channel, int32_t token) const {
    return KeyOffset(layer, head) + int64_t{channel} * page_tokens + token;
  }
  constexpr int64_t Value(int32_t layer, int32_t head, int32_t token, int32_t channel) const {
    return ValueOffset(layer, head) + int64_t{token} * head_size + channel;
  }
};

}  // namespace asymserve
