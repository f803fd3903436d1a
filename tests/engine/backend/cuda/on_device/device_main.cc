#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "tests/engine/backend/cuda/on_device/device_heap.h"

// The main function of tests that need a GPU. Without one they are skipped: status 77 and the
// reason; with ASYMSERVE_REQUIRE_CUDA=1 that is a failure, status 1. No GPU is what the runtime
// calls so, and nothing else.

namespace {

constexpr int kSkipped = 77;

int WithoutGpu(cudaError_t error) {
  const char* wanted = std::getenv("ASYMSERVE_REQUIRE_CUDA");
  const bool is_required = wanted != nullptr && std::string_view(wanted) == "1";
  std::fprintf(stderr, "%s: no GPU: %s\n", is_required ? "failed" : "skipped",
               cudaGetErrorString(error));
  return is_required ? 1 : kSkipped;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int64_t kHeapBytes = ASYMSERVE_DEVICE_HEAP_BYTES;  // 0: no kernel gets a vector
  // Tests that hand vectors to kernels read them at once: a launch returns when its kernel has
  // ended, as on tests/simt. Those of the backend wait as the backend does.
  if (kHeapBytes > 0) setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
  ::testing::InitGoogleTest(&argc, argv);
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver) return WithoutGpu(error);
  if (error != cudaSuccess) {
    std::fprintf(stderr, "counting GPUs: %s (error %d)\n", cudaGetErrorString(error),
                 static_cast<int>(error));
    return 1;
  }
  if (kHeapBytes > 0 && !asymserve::testing::EnableDeviceHeap(kHeapBytes)) return 1;
  return RUN_ALL_TESTS();
}
