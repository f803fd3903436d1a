#pragma once

#include <cstdint>

// The tests of kernels hand std::vectors to them as if these were device memory. On a device they
// may: once the heap is enabled, operator new of this program gives pinned host memory, which a GPU
// reads and writes at the same address. (So out of bounds here is out of the heap: it is the tests
// of the backend, whose buffers are allocations of the driver, that compute-sanitizer sees into.)

namespace asymserve::testing {

/// Pins `bytes` for everything that is allocated from here on; false, with the reason on stderr,
/// when the driver refuses. Once.
bool EnableDeviceHeap(int64_t bytes);

}  // namespace asymserve::testing
