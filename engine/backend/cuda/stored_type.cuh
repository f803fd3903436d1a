#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/base/float16.h"

// How matrices are stored on the device: as their elements, and what each means.

namespace asymserve::cuda {

struct Float32 {
  using Stored = float;
  __device__ static float Value(Stored x) { return x; }
};
struct Float16 {
  using Stored = uint16_t;
  __device__ static float Value(Stored x) { return HalfToFloat(x); }
};
struct Brain16 {
  using Stored = uint16_t;
  __device__ static float Value(Stored x) { return BrainToFloat(x); }
};

}  // namespace asymserve::cuda
