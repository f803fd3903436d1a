#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend/cuda/device.h"

namespace asymserve::bench {

/// A failed call ends the program with its name.
void Need(cudaError_t error, const char* what);

/// Memory of the device for the whole run, full of `value` bytes.
class DeviceArray {
 public:
  explicit DeviceArray(int64_t bytes, int value = 0);
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  template <typename T>
  T* As() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

/// Copies of host values.
template <typename T>
class DeviceValues : public DeviceArray {
 public:
  explicit DeviceValues(std::span<const T> values)
      : DeviceArray(static_cast<int64_t>(values.size_bytes())) {
    Need(cudaMemcpy(As<void>(), values.data(), values.size_bytes(), cudaMemcpyHostToDevice),
         "copying to the device");
  }
  const T* data() const { return As<const T>(); }
};

/// One kernel on one shape.
struct Measured {
  std::string name;
  double microseconds = 0;  // the median of a launch
  double bytes = 0;         // that must be read and written once
  double operations = 0;    // multiplications and additions; 0: not counted
};

class Meter {
 public:
  /// `filter`: only names that contain it are measured.
  Meter(cuda::Device& device, std::string filter) : device_(device), filter_(std::move(filter)) {}

  cudaStream_t stream() const { return device_.stream(); }
  /// Launches until it took a fifth of a second, at least 5 times, and notes the median.
  void Measure(const std::string& name, double bytes, double operations,
               const std::function<cudaError_t()>& launch);
  /// Notes what was measured otherwise.
  void Note(const Measured& measured);
  const std::vector<Measured>& all() const { return all_; }

 private:
  cuda::Device& device_;
  const std::string filter_;
  std::vector<Measured> all_;
};

/// Decode attention, writing and sealing of KV pages in several schemes.
void MeasureKvCache(cuda::Device& device, Meter& meter);

}  // namespace asymserve::bench
