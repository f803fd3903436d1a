#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend/cuda/device.h"

namespace asymserve::testing {

enum class DeviceCall : uint8_t {
  kAllocate,
  kAllocatePinned,
  kCopyToDevice,
  kCopyToHost,
  kFill,
  kCreateEvent,
  kRecordEvent,
  kWaitEvent,
  kSynchronize,
};
inline constexpr size_t kDeviceCalls = 9;

/// What a test says to a FakeDevice and learns from it; outlives the device.
struct DeviceLog {
  int64_t capacity = int64_t{1} << 30;
  // The call of that kind, counted from 0, that fails, and with what; -1: none.
  DeviceCall failing = DeviceCall::kAllocate;
  int64_t fails_at = -1;
  cudaError_t error = cudaErrorUnknown;

  // What another process takes, as soon as so many allocations were made.
  int64_t others = 0;
  int64_t others_after = 0;

  int64_t calls[kDeviceCalls] = {};
  std::vector<int64_t> allocated;  // bytes, in order
  int64_t to_host = 0;             // bytes of copies
  int64_t used = 0;                // of the capacity, in pieces as cuda::DeviceMemory counts them
  int64_t pinned = 0;
  int64_t events = 0;
  std::vector<std::string> misuse;

  int64_t count(DeviceCall call) const { return calls[static_cast<size_t>(call)]; }
  int64_t TakenByOthers() const {
    return count(DeviceCall::kAllocate) >= others_after ? others : 0;
  }
  /// Whether everything was given back.
  bool empty() const { return used == 0 && pinned == 0 && events == 0; }
};

/// Host memory that stands in for a device's, for kernels on tests/simt, which run at once. It
/// treats copies as if they were late: the source of one must not change, and what it gives the
/// host is not there, until an event after it, or everything, was waited for. New memory is full of
/// NaN.
class FakeDevice final : public cuda::Device {
 public:
  explicit FakeDevice(std::shared_ptr<DeviceLog> log) : log_(std::move(log)) {}
  FakeDevice(const FakeDevice&) = delete;
  FakeDevice& operator=(const FakeDevice&) = delete;
  ~FakeDevice() override;

  std::string name() const override { return "fake"; }
  cudaStream_t stream() override { return nullptr; }
  cudaError_t Allocate(void** memory, int64_t bytes) override;
  void Free(void* memory) override;
  cudaError_t AllocatePinned(void** memory, int64_t bytes) override;
  void FreePinned(void* memory) override;
  cudaError_t MemoryInfo(int64_t* free_bytes, int64_t* total_bytes) const override;
  cudaError_t CopyToDevice(void* device, const void* pinned, int64_t bytes) override;
  cudaError_t CopyToHost(void* pinned, const void* device, int64_t bytes) override;
  cudaError_t Fill(void* device, uint8_t value, int64_t bytes) override;
  cudaError_t CreateEvent(cudaEvent_t* event) override;
  void DestroyEvent(cudaEvent_t event) override;
  cudaError_t RecordEvent(cudaEvent_t event) override;
  cudaError_t WaitEvent(cudaEvent_t event) override;
  cudaError_t Synchronize() override;
  std::string_view ErrorText(cudaError_t error) const override;

 private:
  struct Copy {
    int64_t number;
    std::byte* pinned;
    std::vector<std::byte> bytes;
    bool to_host;
  };
  using Memory = std::map<const std::byte*, int64_t>;  // bytes by where they begin

  /// The error of this call.
  cudaError_t Count(DeviceCall call);
  void Misuse(const std::string& what) { log_->misuse.push_back(what); }
  void Need(const Memory& memory, const void* place, int64_t bytes, const char* what);
  void Finish(int64_t number);
  static std::byte* New(int64_t bytes);
  void Delete(Memory& memory, void* place, const char* what, int64_t& used);

  const std::shared_ptr<DeviceLog> log_;
  Memory device_, pinned_;
  std::vector<Copy> copies_;  // not waited for
  int64_t next_copy_ = 0;
  std::map<cudaEvent_t, int64_t> events_;  // copies before the last record
};

}  // namespace asymserve::testing
