#pragma once

#include <cstdint>
#include <vector>

#include "engine/kv/codec.h"
#include "engine/kv/page.h"
#include "engine/kv/scheme.h"

namespace asymserve {

/// Where the blocks of a model's records are.
class KvLayout {
 public:
  KvLayout() = default;
  /// The scheme must be valid (CheckKvScheme).
  KvLayout(const KvShape& shape, const KvScheme& scheme);

  /// 0 when the scheme has no such record.
  int64_t record_bytes(KvRecord record) const { return bytes_[static_cast<size_t>(record)]; }
  /// Of that, the blocks of all keys or all values.
  int64_t tensor_bytes(KvRecord record, KvTensor tensor) const {
    return tensor_bytes_[static_cast<size_t>(record)][static_cast<size_t>(tensor)];
  }
  /// Byte offset of a block in its record.
  int64_t Offset(KvRecord record, int32_t layer, KvTensor tensor, int32_t head) const {
    return offsets_[static_cast<size_t>(record)][Index(layer, tensor, head)];
  }
  /// Byte offset of a block in either record of an exact page that takes two.
  int64_t ExactOffset(int32_t layer, int32_t head) const {
    return (int64_t{layer} * shape_.kv_heads + head) * exact_block_bytes_;
  }

  /// Bits per element of sealed, aged pages, without the padding of blocks.
  double sealed_bits() const { return (sealed_bits_[0] + sealed_bits_[1]) / 2; }
  double sealed_bits(KvTensor tensor) const { return sealed_bits_[static_cast<size_t>(tensor)]; }
  /// Bits per element that a sequence of `tokens` tokens occupies, all its records and their
  /// padding included; its newest page counts as whole.
  double EffectiveBits(int64_t tokens) const;

 private:
  size_t Index(int32_t layer, KvTensor tensor, int32_t head) const {
    return static_cast<size_t>((2 * layer + static_cast<int32_t>(tensor)) * shape_.kv_heads + head);
  }

  KvShape shape_;
  KvScheme scheme_;
  int64_t bytes_[3] = {};
  int64_t tensor_bytes_[3][2] = {};
  std::vector<int64_t> offsets_[3];
  int64_t exact_block_bytes_ = 0;
  double sealed_bits_[2] = {};
};

}  // namespace asymserve
