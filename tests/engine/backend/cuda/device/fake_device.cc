#include "tests/engine/backend/cuda/device/fake_device.h"

#include <cstdlib>
#include <cstring>
#include <utility>

namespace asymserve::testing {
namespace {

constexpr size_t kAlignment = 256;

int64_t Rounded(int64_t bytes) {
  constexpr int64_t kSmall = int64_t{1} << 20;
  const int64_t grain = bytes > kSmall ? int64_t{2} << 20 : static_cast<int64_t>(kAlignment);
  return (bytes + grain - 1) / grain * grain;
}

}  // namespace

FakeDevice::~FakeDevice() {
  if (!device_.empty() || !pinned_.empty() || !events_.empty()) Misuse("something was not freed");
}

cudaError_t FakeDevice::Count(DeviceCall call) {
  const int64_t number = log_->calls[static_cast<size_t>(call)]++;
  return call == log_->failing && number == log_->fails_at ? log_->error : cudaSuccess;
}

std::byte* FakeDevice::New(int64_t bytes) {
  const auto size = static_cast<size_t>(Rounded(bytes));
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kAlignment, size));
  std::memset(memory, 0xFF, size);
  return memory;
}

void FakeDevice::Delete(Memory& memory, void* place, const char* what, int64_t& used) {
  const auto found = memory.find(static_cast<std::byte*>(place));
  if (found == memory.end()) return Misuse(std::string(what) + " is freed that was not allocated");
  used -= Rounded(found->second);
  memory.erase(found);
  std::free(place);  // NOLINT(cppcoreguidelines-no-malloc): of aligned_alloc
}

cudaError_t FakeDevice::Allocate(void** memory, int64_t bytes) {
  log_->allocated.push_back(bytes);
  if (const cudaError_t error = Count(DeviceCall::kAllocate); error != cudaSuccess) return error;
  const int64_t others = log_->TakenByOthers();
  if (log_->used + others + Rounded(bytes) > log_->capacity) return cudaErrorMemoryAllocation;
  log_->used += Rounded(bytes);
  std::byte* place = New(bytes);
  device_.emplace(place, bytes);
  *memory = place;
  return cudaSuccess;
}

void FakeDevice::Free(void* memory) {
  Delete(device_, memory, "device memory", log_->used);
}

cudaError_t FakeDevice::AllocatePinned(void** memory, int64_t bytes) {
  const cudaError_t error = Count(DeviceCall::kAllocatePinned);
  if (error != cudaSuccess) return error;
  log_->pinned += Rounded(bytes);
  std::byte* place = New(bytes);
  pinned_.emplace(place, bytes);
  *memory = place;
  return cudaSuccess;
}

void FakeDevice::FreePinned(void* memory) {
  const auto found = pinned_.find(static_cast<std::byte*>(memory));
  for (const Copy& copy : copies_) {
    if (found != pinned_.end() && copy.pinned >= found->first &&
        copy.pinned < found->first + found->second) {
      Misuse("pinned memory is freed before its copies were waited for");
      break;
    }
  }
  Delete(pinned_, memory, "pinned memory", log_->pinned);
}

cudaError_t FakeDevice::MemoryInfo(int64_t* free_bytes, int64_t* total_bytes) const {
  *free_bytes = log_->capacity - log_->used - log_->TakenByOthers();
  *total_bytes = log_->capacity;
  return cudaSuccess;
}

void FakeDevice::Need(const Memory& memory, const void* place, int64_t bytes, const char* what) {
  const auto* begin = static_cast<const std::byte*>(place);
  auto found = memory.upper_bound(begin);
  const bool inside =
      found != memory.begin() && (--found, begin + bytes <= found->first + found->second);
  if (!inside) Misuse("a copy is not inside of " + std::string(what));
}

cudaError_t FakeDevice::CopyToDevice(void* device, const void* pinned, int64_t bytes) {
  const cudaError_t error = Count(DeviceCall::kCopyToDevice);
  if (error != cudaSuccess) return error;
  Need(device_, device, bytes, "device memory");
  Need(pinned_, pinned, bytes, "pinned memory");
  const auto* from = static_cast<const std::byte*>(pinned);
  std::memcpy(device, from, static_cast<size_t>(bytes));
  copies_.push_back({next_copy_++, const_cast<std::byte*>(from), {from, from + bytes}, false});
  return cudaSuccess;
}

cudaError_t FakeDevice::CopyToHost(void* pinned, const void* device, int64_t bytes) {
  const cudaError_t error = Count(DeviceCall::kCopyToHost);
  if (error != cudaSuccess) return error;
  log_->to_host += bytes;
  Need(device_, device, bytes, "device memory");
  Need(pinned_, pinned, bytes, "pinned memory");
  const auto* from = static_cast<const std::byte*>(device);
  copies_.push_back({next_copy_++, static_cast<std::byte*>(pinned), {from, from + bytes}, true});
  std::memset(pinned, 0xFF, static_cast<size_t>(bytes));
  return cudaSuccess;
}

cudaError_t FakeDevice::Fill(void* device, uint8_t value, int64_t bytes) {
  const cudaError_t error = Count(DeviceCall::kFill);
  if (error != cudaSuccess) return error;
  Need(device_, device, bytes, "device memory");
  std::memset(device, value, static_cast<size_t>(bytes));
  return cudaSuccess;
}

void FakeDevice::Finish(int64_t number) {
  while (!copies_.empty() && copies_.front().number < number) {
    const Copy& copy = copies_.front();
    if (copy.to_host) {
      std::memcpy(copy.pinned, copy.bytes.data(), copy.bytes.size());
    } else if (std::memcmp(copy.pinned, copy.bytes.data(), copy.bytes.size()) != 0) {
      Misuse("the source of a copy changed before it was waited for");
    }
    copies_.erase(copies_.begin());
  }
}

cudaError_t FakeDevice::CreateEvent(cudaEvent_t* event) {
  const cudaError_t error = Count(DeviceCall::kCreateEvent);
  if (error != cudaSuccess) return error;
  *event = reinterpret_cast<cudaEvent_t>(++log_->events);  // NOLINT(performance-no-int-to-ptr)
  events_[*event] = 0;
  return cudaSuccess;
}

void FakeDevice::DestroyEvent(cudaEvent_t event) {
  if (events_.erase(event) == 0) return Misuse("an event is destroyed that is none");
  if (events_.empty()) log_->events = 0;
}

cudaError_t FakeDevice::RecordEvent(cudaEvent_t event) {
  const cudaError_t error = Count(DeviceCall::kRecordEvent);
  if (error != cudaSuccess) return error;
  events_[event] = next_copy_;
  return cudaSuccess;
}

cudaError_t FakeDevice::WaitEvent(cudaEvent_t event) {
  const cudaError_t error = Count(DeviceCall::kWaitEvent);
  if (error != cudaSuccess) return error;
  Finish(events_[event]);
  return cudaSuccess;
}

cudaError_t FakeDevice::Synchronize() {
  Finish(next_copy_);  // also when it then tells of an error
  return Count(DeviceCall::kSynchronize);
}

std::string_view FakeDevice::ErrorText(cudaError_t error) const {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    case cudaErrorInvalidValue:
      return "invalid argument";
    default:
      return "unknown error";
  }
}

}  // namespace asymserve::testing
