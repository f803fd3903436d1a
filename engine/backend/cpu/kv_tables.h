#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/backend/cpu/aligned_buffer.h"
#include "engine/backend/cpu/kv_block.h"

namespace asymserve {

/// How every head's keys and values are stored, with the learned codes laid out for the kernels.
class KvTables {
 public:
  KvTables() = default;
  /// InvalidArgument when a kPlanes item of a valid setup has no code, or one that does not fit.
  static absl::Status Check(const KvSetup& setup);
  /// What the tables of a valid scheme take; they need not be there.
  static int64_t Bytes(const KvShape& shape, const KvScheme& scheme);
  /// `setup` is checked.
  static absl::StatusOr<KvTables> Make(const KvSetup& setup,
                                       const std::shared_ptr<MemoryRegion>& region);

  const KvHead& head(int32_t layer, KvTensor tensor, int32_t index) const {
    const int32_t at = (2 * layer + static_cast<int32_t>(tensor)) * kv_heads_ + index;
    return heads_[static_cast<size_t>(at)];
  }
  int64_t bytes() const { return buffer_.bytes(); }

 private:
  int32_t kv_heads_ = 0;
  std::vector<KvHead> heads_;  // [L][2][G]
  AlignedBuffer buffer_;       // what PlaneTables point to
};

}  // namespace asymserve
