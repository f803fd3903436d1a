#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "engine/backend/cuda/shared_array.cuh"
#include "engine/backend/cuda/warp.cuh"
#include "engine/base/exp_non_positive.h"

// Probabilities as integers, whose sums have no order: by any threads and in any number of steps,
// they are the same bits.

namespace asymserve::cuda {

/// A weight, exp(x) for x <= 0, in units of 2^-45, to nearest; exact from 2^-22 on, for a float's
/// last bit is a unit then. So many weights, at most 1 each, that their sum has 64 bits:
/// kMostDrawVocabulary.
using Mass = unsigned long long;  // what atomicAdd takes
inline constexpr float kMassOfOne = 0x1p45f;

__device__ __forceinline__ Mass MassOf(float weight) {
  return static_cast<Mass>(rintf(weight * kMassOfOne));
}

__device__ __forceinline__ Mass WarpMass(Mass value) {
  for (int bits = kWarpLanes / 2; bits > 0; bits /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, bits);
  }
  return value;
}

/// Where a sum over the threads of a block, in their order, first exceeds a target.
struct MassPlace {
  int32_t thread = 0;  // -1: it never does
  Mass above = 0;      // the sum of the threads before; of all
};

/// What LocateMass needs for blocks of 1024 threads.
struct MassScratch {
  SharedSlice<Mass> sums;        // [32] by warp
  SharedSlice<MassPlace> place;  // [1]
};
inline constexpr int kMassThreads = kWarpLanes * kWarpLanes;

/// All threads of a block of kMassThreads get the same.
__device__ inline MassPlace LocateMass(Mass own, Mass target, const MassScratch& scratch) {
  const SharedArray<Mass> sums = Shared("sums", scratch.sums);
  const SharedArray<MassPlace> place = Shared("place", scratch.place);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpLanes;
  const int warp = thread / kWarpLanes;
  Mass through = own;
  for (int by = 1; by < kWarpLanes; by *= 2) {
    const Mass before = __shfl_up_sync(kWholeWarp, through, static_cast<unsigned>(by));
    if (lane >= by) through += before;
  }
  if (lane == kWarpLanes - 1) sums[warp] = through;
  __syncthreads();
  through += WarpMass(lane < warp ? static_cast<Mass>(sums[lane]) : 0);
  const Mass above = through - own;
  // Exactly one thread writes.
  if (above <= target && target < through) place[0] = MassPlace{thread, above};
  if (thread == kMassThreads - 1 && through <= target) place[0] = MassPlace{-1, through};
  __syncthreads();
  return place[0];
}

/// The sum over the block, in all threads.
__device__ inline Mass BlockMass(Mass own, const MassScratch& scratch) {
  return LocateMass(own, ~Mass{0}, scratch).above;
}

}  // namespace asymserve::cuda
