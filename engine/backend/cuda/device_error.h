#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/backend/cuda/device.h"

namespace asymserve::cuda {

/// OK, or an InternalError that names what was being done. Terminal for the engine.
inline absl::Status CheckCuda(const Device& device, cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cuda: ", std::string(what), ": ",
                                          std::string(device.ErrorText(error)), " (error ",
                                          static_cast<int>(error), ")"));
}

}  // namespace asymserve::cuda
