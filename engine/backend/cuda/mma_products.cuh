#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/few_rows.cuh"
#include "engine/backend/cuda/many_rows.cuh"

namespace asymserve::cuda {

/// Products of any number of rows. Both kernels give the same bits, so that which one runs is a
/// matter of speed: the one for many rows where its blocks are enough to fill a device.
template <typename Weights>
cudaError_t MmaProduct(const ProductArgs& args, const Weights& weights, int64_t enough_blocks,
                       cudaStream_t stream) {
  constexpr int64_t kFewRows = 2 * kTileInputs;
  if (args.rows > kFewRows && ManyRowsBlocks<Weights>(args) >= enough_blocks) {
    return LaunchManyRows(args, weights, stream);
  }
  if constexpr (Weights::kHasSingleTile) {
    if (args.rows <= kTileInputs) return LaunchFewRows<Weights, 1>(args, weights, stream);
  }
  return LaunchFewRows<Weights, 2>(args, weights, stream);
}

}  // namespace asymserve::cuda
