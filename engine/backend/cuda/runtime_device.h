#pragma once

#include <memory>

#include "absl/status/statusor.h"

#include "engine/backend/cuda/device.h"

namespace asymserve::cuda {

/// The first GPU, through the CUDA runtime. NotFound when there is no GPU or no driver for it (the
/// runtime says which), FailedPrecondition when it is older than the kernels, Internal otherwise.
absl::StatusOr<std::unique_ptr<Device>> OpenRuntimeDevice();

}  // namespace asymserve::cuda
