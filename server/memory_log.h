#pragma once

#include "engine/runtime/memory_watch.h"

namespace asymserve {

/// A line memory_plan with the ledger, and a line memory with what the kernel says after loading.
void LogMemory(MemoryWatch& memory);

}  // namespace asymserve
