#include <cmath>

#include "engine/backend/cuda/attention_split.cuh"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/merge_states.h"
#include "engine/backend/cuda/ptx.cuh"
#include "engine/backend/cuda/warp.cuh"
#include "engine/kv/hadamard.h"

namespace asymserve::cuda {
namespace {

struct MergeShared {
  SharedSlice<float> rotated;  // [D]
};

constexpr int kAhead = 8;

/// Of a state what a thread needs.
struct StatePart {
  float largest, sum, rotated_sum;
  float natural, rotated;  // of its channel
};

/// Channel d of what the rotated sums are in the space of the others.
__device__ float TurnedBack(const AttentionArgs& args, int32_t item, float weight, int32_t d,
                            SharedArray<float> rotated) {
  if (args.kv.items[item].codec == KvCodec::kFitted) return rotated[d];  // turned in place
  const PlaneCodeView code = args.kv.codes[item];
  const int32_t size = args.kv.head_size;
  float sum = weight * code.mean[d];
  ASYMSERVE_UNROLL_BY(16)
  for (int32_t i = 0; i < size; ++i) {
    sum = fmaf(rotated[i], code.decode[int64_t{i} * size + d], sum);
  }
  return sum;
}

/// Block (x, y): row x, query head y; a thread for a channel.
__global__ void MergeKernel(AttentionArgs args, MergeShared shared) {
  const AttentionRow row = args.rows[blockIdx.x];
  if (!IsAsked(args, row)) return;
  const auto head = static_cast<int32_t>(blockIdx.y);
  const int32_t size = args.kv.head_size;
  const int32_t d = Thread();
  const int64_t state_floats = StateFloats(args.kv);
  float largest = -INFINITY;
  float sum = 0.0f;
  float rotated_sum = 0.0f;
  float natural = 0.0f;
  float rotated = 0.0f;
  for (int32_t first = 0; first < row.splits; first += kAhead) {
    // Loaded together, for each takes long; merged in order.
    StatePart parts[kAhead];
    ASYMSERVE_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= row.splits) continue;
      const float* state =
          args.states + (int64_t{row.first_work + first + i} * args.heads + head) * state_floats;
      parts[i] = {state[0], state[1], state[2], 0.0f, 0.0f};
      if (d >= size) continue;
      parts[i].natural = state[kStateValues + d];
      parts[i].rotated = state[kStateValues + size + d];
    }
    ASYMSERVE_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= row.splits) continue;
      const StatePart& part = parts[i];
      const float top = fmaxf(largest, part.largest);
      const float mine = first + i == 0 ? 0.0f : expf(largest - top);
      const float other = expf(part.largest - top);
      largest = top;
      sum = fmaf(sum, mine, part.sum * other);
      rotated_sum = fmaf(rotated_sum, mine, part.rotated_sum * other);
      natural = fmaf(natural, mine, part.natural * other);
      rotated = fmaf(rotated, mine, part.rotated * other);
    }
  }
  const int32_t item =
      args.kv.ItemIndex(args.layer, KvTensor::kValue, head / (args.heads / args.kv.kv_heads));
  // The same in all threads. A NaN sum is not zero, whatever the codec.
  const bool turns =
      args.kv.items != nullptr && HasOwnSpace(args.kv.items[item].codec) && rotated_sum != 0.0f;
  const SharedArray<float> space = Shared("rotated", shared.rotated);
  if (turns) {
    if (d < size) space[d] = rotated;
    __syncthreads();
    if (args.kv.items[item].codec == KvCodec::kFitted && d == 0) HadamardInPlace(space, size);
    __syncthreads();
  }
  if (d >= size) return;
  if (turns) natural += TurnedBack(args, item, rotated_sum, d, space);
  args.out[(int64_t{blockIdx.x} * args.heads + head) * size + d] = natural / sum;
}

}  // namespace

cudaError_t MergeStates(const AttentionArgs& args, cudaStream_t stream) {
  const int32_t size = args.kv.head_size;
  SharedPlan plan;
  MergeShared merge;
  merge.rotated = plan.Take<float>(size);
  const int32_t threads = (size + kWarpLanes - 1) / kWarpLanes * kWarpLanes;
  return Launch<MergeKernel>(
      dim3(static_cast<unsigned>(args.row_count), static_cast<unsigned>(args.heads)),
      dim3(static_cast<unsigned>(threads)), plan.bytes(), stream, args, merge);
}

}  // namespace asymserve::cuda
