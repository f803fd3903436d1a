#include <utility>

#include "engine/backend/cuda/cuda_backend.h"
#include "engine/backend/cuda/runtime_device.h"
#include "engine/backend/cuda_module.h"
#include "engine/base/status.h"

namespace asymserve::cuda {
namespace {

absl::StatusOr<std::unique_ptr<Backend>> Open() {
  ASYMSERVE_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, OpenRuntimeDevice());
  return MakeCudaBackend(std::move(device));
}

}  // namespace
}  // namespace asymserve::cuda

const asymserve::CudaModule* asymserve_cuda_module() {
  static const asymserve::CudaModule module = {
      asymserve::kCudaModuleAbi, asymserve::BuildId(),
      [](absl::StatusOr<std::unique_ptr<asymserve::Backend>>* backend) {
        *backend = asymserve::cuda::Open();
      }};
  return &module;
}
