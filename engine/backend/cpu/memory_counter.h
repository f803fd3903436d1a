#pragma once

#include <memory>

#include "engine/backend/backend.h"

namespace asymserve {

/// Counts what the CPU backend with so many threads would allocate (Backend::MakeCounter).
std::unique_ptr<Backend> MakeCpuMemoryCounter(int threads);

}  // namespace asymserve
