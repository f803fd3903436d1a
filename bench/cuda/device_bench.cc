#include "bench/cuda/device_bench.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace asymserve::bench {

void Need(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s (error %d)\n", what, cudaGetErrorString(error),
               static_cast<int>(error));
  std::exit(1);
}

DeviceArray::DeviceArray(int64_t bytes, int value) {
  Need(cudaMalloc(&data_, static_cast<size_t>(bytes)), "allocating on the device");
  Need(cudaMemset(data_, value, static_cast<size_t>(bytes)), "filling memory");
}

void Meter::Measure(const std::string& name, double bytes, double operations,
                    const std::function<cudaError_t()>& launch) {
  if (name.find(filter_) == std::string::npos) return;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  Need(cudaEventCreate(&begin), "creating an event");
  Need(cudaEventCreate(&end), "creating an event");
  Need(launch(), name.c_str());
  Need(device_.Synchronize(), name.c_str());
  std::vector<double> microseconds;
  double total = 0;
  while (microseconds.size() < 5 || (total < 2e5 && microseconds.size() < 2000)) {
    Need(cudaEventRecord(begin, stream()), "recording an event");
    Need(launch(), name.c_str());
    Need(cudaEventRecord(end, stream()), "recording an event");
    Need(cudaEventSynchronize(end), name.c_str());
    float milliseconds = 0;
    Need(cudaEventElapsedTime(&milliseconds, begin, end), "reading an event");
    microseconds.push_back(milliseconds * 1e3);
    total += milliseconds * 1e3;
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  const auto middle = microseconds.begin() + static_cast<int64_t>(microseconds.size() / 2);
  std::nth_element(microseconds.begin(), middle, microseconds.end());
  Note({name, *middle, bytes, operations});
}

void Meter::Note(const Measured& measured) {
  all_.push_back(measured);
  std::fprintf(stderr, "%-44s %10.1f us\n", measured.name.c_str(), measured.microseconds);
}

}  // namespace asymserve::bench
