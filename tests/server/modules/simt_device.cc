#include <cstdlib>
#include <string>

#include "absl/status/status.h"

#include "engine/backend/cuda/runtime_device.h"
#include "tests/engine/backend/cuda/device/fake_device.h"

// With engine/backend/cuda/module.cc and the kernels on tests/simt: a libasymserve_cuda.so that has
// a device everywhere. ASYMSERVE_FAKE_DEVICE in the environment: its bytes, or "broken"; then
// opening it fails.

namespace asymserve::cuda {

absl::StatusOr<std::unique_ptr<Device>> OpenRuntimeDevice() {
  auto log = std::make_shared<testing::DeviceLog>();
  if (const char* text = std::getenv("ASYMSERVE_FAKE_DEVICE"); text != nullptr) {
    if (std::string(text) == "broken") return absl::InternalError("cuda: counting GPUs: broken");
    log->capacity = std::atoll(text);
  }
  return std::make_unique<testing::FakeDevice>(log);
}

}  // namespace asymserve::cuda
