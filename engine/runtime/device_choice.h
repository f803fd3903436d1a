#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"

namespace asymserve {

using OpenBackend = std::function<absl::StatusOr<std::unique_ptr<Backend>>()>;

/// The backend that `device`, engine.device, asks for. `open_cuda` gives the codes of
/// OpenCudaBackend (engine/backend/cuda_library.h). With "auto" the CPU is taken where it gives
/// NotFound or FailedPrecondition, and `on_fallback` is told why; any other error is that of a GPU
/// that is there, and ends the start. Errors name the option and what to do.
absl::StatusOr<std::unique_ptr<Backend>> ChooseDevice(
    const std::string& device, const OpenBackend& open_cuda, const OpenBackend& open_cpu,
    const std::function<void(const absl::Status&)>& on_fallback);

}  // namespace asymserve
