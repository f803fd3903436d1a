#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"

namespace asymserve {

/// Where the library of the CUDA backend belongs: ../lib/asymserve/libasymserve_cuda.so, from the
/// folder of the running executable. Empty when that cannot be found out.
std::string CudaLibraryPath();

/// Loads the library, which stays loaded, and makes its backend on the first GPU. NotFound when
/// there is no library, no driver or no GPU; FailedPrecondition when the library cannot be loaded
/// or is of another build, or the GPU is too old; other codes when a GPU that is there fails.
absl::StatusOr<std::unique_ptr<Backend>> OpenCudaBackend(const std::string& library);

}  // namespace asymserve
