#include "engine/backend/cuda/runtime_device.h"

#include <cuda_runtime.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace asymserve::cuda {
namespace {

constexpr int kOldestMajor = 8;  // sm_80
// What it gives a block. The emulator on which the kernels are tested gives no more; sm_86, sm_89
// and sm_12x have 99 KiB.
constexpr size_t kSharedBytes = 163 * 1024;

class RuntimeDevice final : public Device {
 public:
  explicit RuntimeDevice(std::string name) : name_(std::move(name)) {}
  RuntimeDevice(const RuntimeDevice&) = delete;
  RuntimeDevice& operator=(const RuntimeDevice&) = delete;
  ~RuntimeDevice() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  cudaError_t Open() { return cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); }

  std::string name() const override { return name_; }
  cudaStream_t stream() override { return stream_; }

  cudaError_t Allocate(void** memory, int64_t bytes) override {
    return Forgiven(cudaMalloc(memory, static_cast<size_t>(bytes)));
  }
  void Free(void* memory) override { cudaFree(memory); }
  cudaError_t AllocatePinned(void** memory, int64_t bytes) override {
    return Forgiven(cudaMallocHost(memory, static_cast<size_t>(bytes)));
  }
  void FreePinned(void* memory) override { cudaFreeHost(memory); }
  cudaError_t MemoryInfo(int64_t* free_bytes, int64_t* total_bytes) const override {
    size_t free_size = 0;
    size_t total_size = 0;
    const cudaError_t error = cudaMemGetInfo(&free_size, &total_size);
    *free_bytes = static_cast<int64_t>(free_size);
    *total_bytes = static_cast<int64_t>(total_size);
    return error;
  }

  cudaError_t CopyToDevice(void* device, const void* pinned, int64_t bytes) override {
    return cudaMemcpyAsync(device, pinned, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                           stream_);
  }
  cudaError_t CopyToHost(void* pinned, const void* device, int64_t bytes) override {
    return cudaMemcpyAsync(pinned, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost,
                           stream_);
  }
  cudaError_t Fill(void* device, uint8_t value, int64_t bytes) override {
    return cudaMemsetAsync(device, value, static_cast<size_t>(bytes), stream_);
  }

  cudaError_t CreateEvent(cudaEvent_t* event) override {
    return cudaEventCreateWithFlags(event, cudaEventDisableTiming);
  }
  void DestroyEvent(cudaEvent_t event) override { cudaEventDestroy(event); }
  cudaError_t RecordEvent(cudaEvent_t event) override { return cudaEventRecord(event, stream_); }
  cudaError_t WaitEvent(cudaEvent_t event) override { return cudaEventSynchronize(event); }
  cudaError_t Synchronize() override { return cudaStreamSynchronize(stream_); }

  std::string_view ErrorText(cudaError_t error) const override { return cudaGetErrorString(error); }

 private:
  /// A refused allocation is no error of later launches.
  static cudaError_t Forgiven(cudaError_t error) {
    if (error == cudaErrorMemoryAllocation) cudaGetLastError();
    return error;
  }

  const std::string name_;
  cudaStream_t stream_ = nullptr;
};

absl::Status Failed(const char* what, cudaError_t error) {
  return absl::InternalError(absl::StrCat("cuda: ", what, ": ", cudaGetErrorString(error),
                                          " (error ", static_cast<int>(error), ")"));
}

std::string Version(int number) {
  return absl::StrCat(number / 1000, ".", number % 1000 / 10);
}

/// "No GPU", and what is missing.
absl::Status NoGpu(cudaError_t error) {
  if (error != cudaErrorInsufficientDriver) {
    return absl::NotFoundError(
        absl::StrCat("no GPU: ", cudaGetErrorString(error),
                     " (the driver sees none: CUDA_VISIBLE_DEVICES, or what the container has)"));
  }
  int driver = 0;
  int runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) return absl::NotFoundError("no GPU: no NVIDIA driver is installed");
  return absl::NotFoundError(absl::StrCat("no GPU: the driver is of CUDA ", Version(driver),
                                          ", this library of ", Version(runtime),
                                          ": install a newer driver"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenRuntimeDevice() {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver) {
    return NoGpu(error);
  }
  if (error != cudaSuccess) return Failed("counting GPUs", error);
  if (count == 0) return absl::NotFoundError("no GPU: the driver knows none");
  cudaDeviceProp properties;
  error = cudaGetDeviceProperties(&properties, 0);
  if (error != cudaSuccess) return Failed("asking for the GPU's properties", error);
  if (properties.major < kOldestMajor) {
    return absl::FailedPreconditionError(
        absl::StrCat("GPU 0, ", properties.name, ", is sm_", properties.major, properties.minor,
                     "; the kernels need sm_", kOldestMajor, "0 or later"));
  }
  if (properties.sharedMemPerBlockOptin < kSharedBytes) {
    return absl::FailedPreconditionError(absl::StrCat(
        "GPU 0, ", properties.name, ", gives a block of threads ",
        properties.sharedMemPerBlockOptin, " bytes of shared memory; the kernels need ",
        kSharedBytes, ", as sm_80 and sm_90 have them"));
  }
  error = cudaSetDevice(0);
  if (error != cudaSuccess) return Failed("choosing GPU 0", error);
  auto device = std::make_unique<RuntimeDevice>(properties.name);
  error = device->Open();
  if (error != cudaSuccess) return Failed("creating a stream", error);
  return std::unique_ptr<Device>(std::move(device));
}

}  // namespace asymserve::cuda
