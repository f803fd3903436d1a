#include "engine/backend/cuda_module.h"

// A library of the CUDA backend of another build, or with another interface.

const asymserve::CudaModule* asymserve_cuda_module() {
#ifdef TEST_OTHER_INTERFACE
  static const asymserve::CudaModule module = {asymserve::kCudaModuleAbi + 1, asymserve::BuildId(),
                                               nullptr};
#else
  static const asymserve::CudaModule module = {asymserve::kCudaModuleAbi, "0.0.1-another", nullptr};
#endif
  return &module;
}
