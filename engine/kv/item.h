#pragma once

#include <cstdint>

// Host and device: no other header of ours.

namespace asymserve {

enum class KvTensor : uint8_t { kKey, kValue };

/// How the 64 tokens of one (layer, tensor, KV head) of a page are stored. The bytes are in
/// kv/block_format.h.
enum class KvCodec : uint8_t {
  kHalf,    // fp16
  kInt8,    // 8-bit codes, one fp16 scale per token
  kMinMax,  // KIVI (arXiv 2402.02750): levels evenly between the smallest and the largest value of
            // a group of 32, fp16 scale and zero. Groups: keys 32 tokens of a channel, values 32
            // channels of a token
  kFitted,  // evenly spaced levels, fitted to a group of 64 by least squares, 8-bit scale and mean;
            // values are rotated by a Hadamard matrix first. Groups as for kMinMax
  kPlanes,  // learned: 4-bit codes of 4-channel subvectors (kv/plane_code.h)
};

/// How one (layer, tensor, KV head) is stored once its page is sealed.
struct KvItem {
  KvCodec codec = KvCodec::kHalf;
  uint8_t bits = 0;          // kMinMax, kFitted: 1, 2 or 4
  uint8_t base_planes = 0;   // kPlanes: even, at least 2
  uint8_t fresh_planes = 0;  // kPlanes: while the page is fresh; even, >= base_planes

  friend bool operator==(const KvItem&, const KvItem&) = default;
};

}  // namespace asymserve
