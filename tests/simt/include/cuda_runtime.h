#pragma once

// What the host compiler finds in place of the toolkit's header: the part of CUDA that our kernels
// use, on tests/simt. A .cu file is compiled unchanged by both (tests/simt/README.md).

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "tests/simt/machine.h"
#include "tests/simt/shared_array.h"
#include "tests/simt/tensor_core.h"

// CUDA's own names.
// NOLINTBEGIN(readability-identifier-naming,bugprone-reserved-identifier)

#define ASYMSERVE_SIMT 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
// __shared__ is left out: shared memory is had through SharedArray, which can be checked.

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;

  constexpr dim3() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): CUDA's is not
  constexpr dim3(unsigned x_of, unsigned y_of = 1, unsigned z_of = 1) : x(x_of), y(y_of), z(z_of) {}
};

inline uint3 threadIdx{}, blockIdx{};
inline dim3 blockDim{}, gridDim{};

// ---- Barriers and warps -------------------------------------------------------------------------

inline void __syncthreads(const char* file = __builtin_FILE(), uint32_t line = __builtin_LINE()) {
  simt::Machine::Instance().Barrier({file, line});
}
inline void __syncwarp(uint32_t mask = ~0u, const char* file = __builtin_FILE(),
                       uint32_t line = __builtin_LINE()) {
  simt::Machine::Instance().SyncWarp(mask, {file, line});
}

namespace simt {

/// What lane `source` of the `width` lanes around the caller brought; its own when `source` is none
/// of them.
template <typename T>
T Shuffle(uint32_t mask, T value, int source, const Site& site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  Machine& machine = Machine::Instance();
  const Machine::Meeting& meeting = machine.Collective(mask, &value, sizeof(value), site);
  if ((mask >> source & 1) == 0) {
    machine.Fail("shuffle reads lane " + std::to_string(source) + ", which is not in its mask");
  }
  if ((machine.ExistingLanes() >> source & 1) == 0) {
    machine.Fail("shuffle reads lane " + std::to_string(source) + ", which its warp does not have");
  }
  T got;
  std::memcpy(&got, meeting.deposits[static_cast<size_t>(source)].data(), sizeof(got));
  return got;
}

/// Folds what the lanes of `mask` brought, as far as they exist, in their order.
template <typename T, typename Fold>
T Reduce(uint32_t mask, T value, const Site& site, Fold fold) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= Machine::kOutcomeBytes);
  Machine& machine = Machine::Instance();
  Machine::Meeting& meeting = machine.Collective(mask, &value, sizeof(value), site);
  T result{};
  if (meeting.has_outcome) {
    std::memcpy(&result, meeting.outcome.data(), sizeof(result));
    return result;
  }
  mask &= machine.ExistingLanes();
  bool first = true;
  for (size_t lane = 0; lane < Machine::kLanes; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    T other;
    std::memcpy(&other, meeting.deposits[lane].data(), sizeof(other));
    result = first ? other : fold(result, other);
    first = false;
  }
  std::memcpy(meeting.outcome.data(), &result, sizeof(result));
  meeting.has_outcome = true;
  return result;
}

inline int Lane() {
  return static_cast<int>(Machine::Instance().lane());
}

}  // namespace simt

template <typename T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32,
              const char* file = __builtin_FILE(), uint32_t line = __builtin_LINE()) {
  return simt::Shuffle(mask, value, simt::Lane() / width * width + source % width, {file, line});
}
template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32,
                  const char* file = __builtin_FILE(), uint32_t line = __builtin_LINE()) {
  const int source = simt::Lane() ^ bits;
  const bool inside = source / width == simt::Lane() / width;
  return simt::Shuffle(mask, value, inside ? source : simt::Lane(), {file, line});
}
template <typename T>
T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32,
                 const char* file = __builtin_FILE(), uint32_t line = __builtin_LINE()) {
  const int source = simt::Lane() - static_cast<int>(by);
  const bool inside = source >= simt::Lane() / width * width;
  return simt::Shuffle(mask, value, inside ? source : simt::Lane(), {file, line});
}
template <typename T>
T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32,
                   const char* file = __builtin_FILE(), uint32_t line = __builtin_LINE()) {
  const int source = simt::Lane() + static_cast<int>(by);
  const bool inside = source < (simt::Lane() / width + 1) * width;
  return simt::Shuffle(mask, value, inside ? source : simt::Lane(), {file, line});
}

inline uint32_t __ballot_sync(uint32_t mask, int predicate, const char* file = __builtin_FILE(),
                              uint32_t line = __builtin_LINE()) {
  const uint32_t bit = predicate != 0 ? 1u << simt::Lane() : 0;
  return simt::Reduce(mask, bit, {file, line}, [](uint32_t a, uint32_t b) { return a | b; });
}
inline int __any_sync(uint32_t mask, int predicate, const char* file = __builtin_FILE(),
                      uint32_t line = __builtin_LINE()) {
  return __ballot_sync(mask, predicate, file, line) != 0 ? 1 : 0;
}
inline int __all_sync(uint32_t mask, int predicate, const char* file = __builtin_FILE(),
                      uint32_t line = __builtin_LINE()) {
  return __ballot_sync(mask, predicate == 0 ? 1 : 0, file, line) == 0 ? 1 : 0;
}

// Of 32-bit integers, as on the device (sm_80 and later).
template <typename T>
T __reduce_add_sync(uint32_t mask, T value, const char* file = __builtin_FILE(),
                    uint32_t line = __builtin_LINE()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return static_cast<T>(simt::Reduce(mask, static_cast<uint32_t>(value), {file, line},
                                     [](uint32_t a, uint32_t b) { return a + b; }));
}
template <typename T>
T __reduce_max_sync(uint32_t mask, T value, const char* file = __builtin_FILE(),
                    uint32_t line = __builtin_LINE()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return simt::Reduce(mask, value, {file, line}, [](T a, T b) { return std::max(a, b); });
}
template <typename T>
T __reduce_min_sync(uint32_t mask, T value, const char* file = __builtin_FILE(),
                    uint32_t line = __builtin_LINE()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return simt::Reduce(mask, value, {file, line}, [](T a, T b) { return std::min(a, b); });
}

// ---- Arithmetic ---------------------------------------------------------------------------------

/// On global memory; shared memory has SharedArray::AtomicAdd. One thread runs at a time.
template <typename T>
T atomicAdd(T* place, T value) {
  const T before = *place;
  *place = static_cast<T>(before + value);
  return before;
}
template <typename T>
T atomicMax(T* place, T value) {
  const T before = *place;
  *place = std::max(before, value);
  return before;
}
template <typename T>
T __ldg(const T* place) {
  return *place;
}
/// Byte i of the result is byte (selector >> 4 i & 7) of {x, y}, x being the lower four.
inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t selector) {
  const uint64_t bytes = x | uint64_t{y} << 32;
  uint32_t result = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    result |= static_cast<uint32_t>(bytes >> (selector >> 4 * i & 7) * 8 & 0xFF) << 8 * i;
  }
  return result;
}
inline int __popc(uint32_t bits) {
  return std::popcount(bits);
}

// ---- The runtime --------------------------------------------------------------------------------

using cudaStream_t = void*;
using cudaEvent_t = void*;
enum cudaError_t : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
  cudaErrorUnknown = 999
};
enum cudaFuncAttribute : int { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

namespace simt {

/// Whether a device would begin it at all.
cudaError_t CheckLaunch(const void* kernel, const cudaLaunchConfig_t& config);
cudaError_t AllowSharedBytes(const void* kernel, int bytes);

}  // namespace simt

template <typename... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, int value) {
  return simt::AllowSharedBytes(reinterpret_cast<const void*>(kernel), value);
}

/// Runs the kernel to its end. cudaErrorLaunchFailure: Machine::TakeFault says why.
template <typename... P, typename... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A&&... a) {
  const cudaError_t error = simt::CheckLaunch(reinterpret_cast<const void*>(kernel), *config);
  if (error != cudaSuccess) return error;
  const dim3& grid = config->gridDim;
  const dim3& block = config->blockDim;
  const bool done = simt::Machine::Instance().Launch(
      {{grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, config->dynamicSmemBytes},
      [&] { kernel(static_cast<P>(a)...); });
  return done ? cudaSuccess : cudaErrorLaunchFailure;
}

// NOLINTEND(readability-identifier-naming,bugprone-reserved-identifier)
