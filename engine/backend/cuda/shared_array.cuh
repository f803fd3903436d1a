#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace asymserve {

/// Where an array is in a block's dynamic shared memory, in bytes.
template <typename T>
struct SharedSlice {
  int32_t offset = 0;
  int32_t count = 0;
};

/// Deals out dynamic shared memory, on the host: bytes() is what the launch asks for, and the
/// slices are kernel arguments.
class SharedPlan {
 public:
  template <typename T>
  constexpr SharedSlice<T> Take(int64_t count) {
    const SharedSlice<T> slice = {static_cast<int32_t>(bytes_), static_cast<int32_t>(count)};
    bytes_ += (count * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 16;
    return slice;
  }
  constexpr int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

#ifdef __CUDACC__

/// Elements of shared memory. On tests/simt a class of the same name checks every access.
template <typename T>
class SharedArray {
 public:
  constexpr explicit SharedArray(T* elements) : elements_(elements) {}
  constexpr T& operator[](int64_t index) const { return elements_[index]; }
  constexpr SharedArray operator+(int64_t first) const { return SharedArray(elements_ + first); }
  __device__ T AtomicAdd(int64_t index, T value) const {
    return atomicAdd(elements_ + index, value);
  }
  constexpr T* address(int64_t index) const { return elements_ + index; }

 private:
  T* elements_;
};

/// The array that a slice stands for; its name is for the checks.
template <typename T>
__device__ SharedArray<T> Shared(const char* /*name*/, SharedSlice<T> slice) {
  extern __shared__ __align__(128) unsigned char shared_bytes[];
  return SharedArray<T>(reinterpret_cast<T*>(shared_bytes + slice.offset));
}

#else

using simt::SharedArray;

template <typename T>
SharedArray<T> Shared(const char* name, SharedSlice<T> slice) {
  return {name, static_cast<uint32_t>(slice.offset), slice.count};
}

#endif

}  // namespace asymserve
