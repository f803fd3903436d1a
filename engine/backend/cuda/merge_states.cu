#include <cmath>

#include "engine/backend/cuda/attention_split.cuh"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/merge_states.h"
#include "engine/backend/cuda/ptx.cuh"
#include "engine/backend/cuda/warp.cuh"
#include "engine/kv/hadamard.h"

namespace asymserve::cuda {
namespace {

constexpr int32_t kMostThreads = 1024;

struct MergeShared {
  SharedSlice<float> rotated;  // [heads of a block][D]
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

/// Block (x, y): row x, and query heads of a KV head, of which `parts` blocks have one after the
/// other; thread (x, y): channel x of head y. Heads of a block read a decoding matrix together.
__global__ void __launch_bounds__(kMostThreads)
    MergeKernel(AttentionArgs args, int32_t parts, MergeShared shared) {
  AwaitEarlierKernels();
  const AttentionRow row = args.rows[blockIdx.x];
  if (!IsAsked(args, row)) return;
  const int32_t size = args.kv.head_size;
  const int32_t group = args.heads / args.kv.kv_heads;
  const auto kv_head = static_cast<int32_t>(blockIdx.y) / parts;
  const int32_t in_group =
      static_cast<int32_t>(blockIdx.y) % parts * static_cast<int32_t>(blockDim.y) +
      static_cast<int32_t>(threadIdx.y);
  // A head that there is not goes along with the last one.
  const bool is_head = in_group < group;
  const int32_t head = kv_head * group + (is_head ? in_group : group - 1);
  const auto d = static_cast<int32_t>(threadIdx.x);
  const int64_t state_floats = StateFloats(args.kv);
  float largest = -INFINITY;
  float sum = 0.0f;
  float rotated_sum = 0.0f;
  float natural = 0.0f;
  float rotated = 0.0f;
  for (int32_t first = 0; first < row.splits; first += kAhead) {
    // Loaded together, for each takes long; merged in order.
    StatePart ahead[kAhead];
    ASYMSERVE_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= row.splits) continue;
      const float* state =
          args.states + (int64_t{row.first_work + first + i} * args.heads + head) * state_floats;
      ahead[i] = {state[0], state[1], state[2], 0.0f, 0.0f};
      if (d >= size) continue;
      ahead[i].natural = state[kStateValues + d];
      ahead[i].rotated = state[kStateValues + size + d];
    }
    ASYMSERVE_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= row.splits) continue;
      const StatePart& part = ahead[i];
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
  const int32_t item = args.kv.ItemIndex(args.layer, KvTensor::kValue, kv_head);
  // The same in all threads of the block. A sum of zero adds nothing, whatever is rotated.
  const bool has_space = args.kv.items != nullptr && HasOwnSpace(args.kv.items[item].codec);
  const SharedArray<float> space =
      Shared("rotated", shared.rotated) + static_cast<int32_t>(threadIdx.y) * size;
  if (has_space) {
    if (d < size) space[d] = rotated;
    __syncthreads();
    if (args.kv.items[item].codec == KvCodec::kFitted && d == 0) HadamardInPlace(space, size);
    __syncthreads();
  }
  if (d >= size || !is_head) return;
  if (has_space && rotated_sum != 0.0f) natural += TurnedBack(args, item, rotated_sum, d, space);
  args.out[(int64_t{blockIdx.x} * args.heads + head) * size + d] = natural / sum;
}

}  // namespace

cudaError_t MergeStates(const AttentionArgs& args, cudaStream_t stream) {
  const int32_t size = args.kv.head_size;
  const int32_t group = args.heads / args.kv.kv_heads;
  const int32_t threads = (size + kWarpLanes - 1) / kWarpLanes * kWarpLanes;
  const int32_t most_heads =
      kMostThreads / 2 / threads;  // two blocks, or more, on a multiprocessor
  const int32_t parts = (group + most_heads - 1) / most_heads;
  const int32_t heads = (group + parts - 1) / parts;
  SharedPlan plan;
  MergeShared merge;
  merge.rotated = plan.Take<float>(int64_t{heads} * size);
  return Launch<MergeKernel>(
      dim3(static_cast<unsigned>(args.row_count), static_cast<unsigned>(args.kv.kv_heads * parts)),
      dim3(static_cast<unsigned>(threads), static_cast<unsigned>(heads)), plan.bytes(), stream,
      args, parts, merge);
}

}  // namespace asymserve::cuda
