#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/backend/cuda/device.h"

namespace asymserve::cuda {

struct CudaOptions {
  // Parts that a step is cut into when it is larger. A sequence has at most so many pages, and at
  // most kSplitPages times as many as a part has splits.
  int32_t slice_pages = 16384;
  int32_t slice_work = 2048;
  int64_t staging_bytes = int64_t{4} << 20;  // pinned; twice that is taken
  // PagedAttention for every scheme: what the tests compare with.
  bool plain_attention = false;
  // ReserveDraws gives nothing, so all logits go to the host: what the tests compare with.
  bool host_sampling = false;
};

/// The backend on a device. ResourceExhausted for pinned memory.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(std::unique_ptr<Device> device,
                                                         const CudaOptions& options = {});

}  // namespace asymserve::cuda
