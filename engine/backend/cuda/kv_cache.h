#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "engine/backend/backend.h"
#include "engine/backend/cuda/device_memory.h"
#include "engine/backend/cuda/kv_view.h"
#include "engine/backend/cuda/staging.h"
#include "engine/backend/kv_checks.h"
#include "engine/kv/layout.h"
#include "engine/kv/record_pool.h"

namespace asymserve::cuda {

/// The arena of page records on a device, and the tables that kernels need to find their way in it.
class KvCache {
 public:
  /// `device` and `staging` null: only counts. All outlive the cache.
  KvCache(Device* device, DeviceMemory& memory, Staging* staging)
      : device_(device), memory_(memory), staging_(staging) {}

  /// As Backend::KvInit. After an error there is no arena.
  absl::Status Init(const KvSetup& setup);

  /// What calls are held against.
  KvArenaShape arena_shape() const;
  const KvView& view() const { return view_; }
  /// Of an item of the scheme at most.
  int32_t max_planes() const { return max_planes_; }
  /// Of the rotary table; 0 without one.
  int64_t positions() const { return positions_; }

 private:
  absl::Status Allocate(const KvSetup& setup);
  absl::Status Fill(const KvSetup& setup);

  Device* device_;
  DeviceMemory& memory_;
  Staging* staging_;
  KvShape shape_;
  KvScheme scheme_;
  KvLayout layout_;
  ArenaCut cut_;
  KvView view_;
  int32_t max_planes_ = 0;
  int64_t positions_ = 0;
  bool initialized_ = false;
  DeviceBuffer tables_;  // offsets, items, codes
  DeviceBuffer arena_;
};

}  // namespace asymserve::cuda
