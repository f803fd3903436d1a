#pragma once

#include <memory>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/backend/cpu/isa.h"

namespace asymserve {

struct CpuOptions {
  int threads = 1;       // including the caller's; 1 to 1024
  Isa isa = Isa::kAuto;  // anything else must be supported by this machine
};

/// InvalidArgument for a thread count out of range; FailedPrecondition for a forced instruction set
/// that this machine does not have.
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const CpuOptions& options);

}  // namespace asymserve
