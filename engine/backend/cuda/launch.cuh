#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

namespace asymserve {

/// Starts a kernel. More than 48 KiB of shared memory are asked for first, as a device wants it.
template <auto kKernel, typename... Args>
cudaError_t Launch(dim3 grid, dim3 block, int64_t shared_bytes, cudaStream_t stream, Args... args) {
  constexpr int64_t kWithoutAsking = int64_t{48} << 10;
  if (shared_bytes > kWithoutAsking) {
    const cudaError_t error = cudaFuncSetAttribute(
        kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
#ifdef ASYMSERVE_SIMT
  simt::Machine::Instance().NameNextKernel(__PRETTY_FUNCTION__);
#endif
  const cudaLaunchConfig_t config = {grid, block, static_cast<size_t>(shared_bytes), stream, {}, 0};
  return cudaLaunchKernelEx(&config, kKernel, args...);
}

}  // namespace asymserve
