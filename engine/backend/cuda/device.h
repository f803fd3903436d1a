#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

// Everything that the backend asks of the CUDA runtime beside launches, so that a test can stand in
// for it: a call that fails, memory that runs out, copies that arrive late.

namespace asymserve::cuda {

/// A device and one stream on it. Copies and Fill run in the order of the calls and of the launches
/// on stream(); the host memory of a copy is pinned, and must stay as it is until an event that was
/// recorded after it, or the stream, was waited for. After an error other than
/// cudaErrorMemoryAllocation nothing is certain but that freeing is allowed. One thread, but
/// MemoryInfo, which any thread may call.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;
  virtual cudaStream_t stream() = 0;

  virtual cudaError_t Allocate(void** memory, int64_t bytes) = 0;
  virtual void Free(void* memory) = 0;
  virtual cudaError_t AllocatePinned(void** memory, int64_t bytes) = 0;
  virtual void FreePinned(void* memory) = 0;
  /// Of the whole device, other processes' included.
  virtual cudaError_t MemoryInfo(int64_t* free_bytes, int64_t* total_bytes) const = 0;

  virtual cudaError_t CopyToDevice(void* device, const void* pinned, int64_t bytes) = 0;
  virtual cudaError_t CopyToHost(void* pinned, const void* device, int64_t bytes) = 0;
  virtual cudaError_t Fill(void* device, uint8_t value, int64_t bytes) = 0;

  virtual cudaError_t CreateEvent(cudaEvent_t* event) = 0;
  virtual void DestroyEvent(cudaEvent_t event) = 0;
  virtual cudaError_t RecordEvent(cudaEvent_t event) = 0;
  /// The host waits until everything before the event's last record is done.
  virtual cudaError_t WaitEvent(cudaEvent_t event) = 0;
  /// The host waits until everything is done; tells of errors of kernels.
  virtual cudaError_t Synchronize() = 0;

  virtual std::string_view ErrorText(cudaError_t error) const = 0;
};

}  // namespace asymserve::cuda
