#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace asymserve {

/// What every kernel begins with: it may have been started before the kernels in front of it on the
/// stream have ended, so that its blocks are there when their results are. Until this returns it
/// touches nothing that they write; and since none ends before it has waited, all of them have
/// ended. Devices before sm_90 start a kernel when those in front of it have ended.
__device__ __forceinline__ void AwaitEarlierKernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#ifdef __CUDACC__
/// Whether the device starts kernels before those in front of them have ended.
inline bool StartsKernelsEarly() {
  static const bool starts = [] {
    int device = 0;
    int major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           major >= 9;
  }();
  return starts;
}
#endif

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
  cudaLaunchConfig_t config = {grid, block, static_cast<size_t>(shared_bytes), stream, {}, 0};
#ifdef __CUDACC__
  cudaLaunchAttribute early;
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  if (StartsKernelsEarly()) {
    config.attrs = &early;
    config.numAttrs = 1;
  }
#endif
  return cudaLaunchKernelEx(&config, kKernel, args...);
}

}  // namespace asymserve
