#include <cmath>

#include "engine/backend/cuda/attention_split.cuh"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/merge_states.h"
#include "engine/backend/cuda/page_tile.cuh"
#include "engine/backend/cuda/paged_attention.h"
#include "engine/backend/cuda/rotate.cuh"
#include "engine/backend/cuda/warp.cuh"

namespace asymserve::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpLanes;
constexpr int32_t kHeads = 8;  // query heads of a block at most
constexpr int32_t kP = kKvPageTokens;

struct ScanShared {
  SharedSlice<float> tile;     // [P][D]
  SharedSlice<float> queries;  // [kHeads][D] scaled
  SharedSlice<float> turned;   // [kHeads][D] at the start of the frame; kPlanes keys
  SharedSlice<float> coded;    // [kHeads][D] in the space of the codes; kPlanes keys
  SharedSlice<float> bias;     // [kHeads] what the mean scores
  SharedSlice<float> scores;   // [kHeads][kSplitTokens], then weights
  SharedSlice<float> natural;  // [kHeads][D] sums of values
  SharedSlice<float> rotated;  // [kHeads][D]
};

__device__ void LoadQueries(const Split& split, int64_t token, float scale,
                            SharedArray<float> queries) {
  const int32_t size = split.args.kv.head_size;
  const float* q =
      split.args.qkv + token * split.args.row_elements + int64_t{split.first_head} * size;
  for (int32_t i = Thread(); i < split.heads * size; i += kThreads) queries[i] = q[i] * scale;
}

/// Queries for keys of kPlanes: q . R x' = (R^-1 q) . x' = coded . z' + bias.
__device__ void CodeQueries(const Split& split, SharedArray<float> queries,
                            SharedArray<float> turned, SharedArray<float> coded,
                            SharedArray<float> bias) {
  const KvView& kv = split.args.kv;
  const int32_t size = kv.head_size;
  const int32_t half = size / 2;
  const PlaneCodeView code = *split.Code(KvTensor::kKey);
  const int64_t frame = split.first_token / kv.frame_tokens * kv.frame_tokens;
  const float* angles = kv.rope + frame * size;
  for (int32_t i = Thread(); i < split.heads * half; i += kThreads) {
    const int32_t pair = i % half;
    const RotaryPair at = PairOf(pair, size, kv.interleaved);
    const SharedArray<float> from = queries + i / half * size;
    const SharedArray<float> to = turned + i / half * size;
    const Rotated back =
        RotateBack(from[at.first], from[at.second], angles[pair], angles[half + pair]);
    to[at.first] = back.first;
    to[at.second] = back.second;
  }
  __syncthreads();
  for (int32_t i = Thread(); i < split.heads * size; i += kThreads) {
    const SharedArray<float> q = turned + i / size * size;
    const float* row = code.decode + int64_t{i % size} * size;
    float sum = 0.0f;
    for (int32_t d = 0; d < size; ++d) sum = fmaf(q[d], row[d], sum);
    coded[i] = sum;
  }
  if (Thread() < split.heads) {
    float sum = 0.0f;
    for (int32_t d = 0; d < size; ++d) sum = fmaf(turned[Thread() * size + d], code.mean[d], sum);
    bias[Thread()] = sum;
  }
}

/// scores [heads][kSplitTokens] of one page, whose keys are in the tile.
__device__ void ScorePage(const Split& split, int32_t page, bool planes, SharedArray<float> tile,
                          SharedArray<float> queries, SharedArray<float> bias,
                          SharedArray<float> scores) {
  const int32_t size = split.args.kv.head_size;
  const int32_t tokens = split.PageTokens(page);
  for (int32_t i = Thread(); i < split.heads * tokens; i += kThreads) {
    const int32_t head = i / tokens;
    const int32_t token = i % tokens;
    float sum = planes ? static_cast<float>(bias[head]) : 0.0f;
    for (int32_t d = 0; d < size; ++d) {
      sum = fmaf(queries[head * size + d], tile[token * size + d], sum);
    }
    scores[head * kSplitTokens + page * kP + token] = sum;
  }
}

/// Turns scores into weights, a warp for a head at a time, and writes the head of the state. NaN
/// scores do not count for the largest but make the sums NaN.
__device__ void Softmax(const Split& split, SharedArray<float> scores, float* states) {
  const int32_t lane = Thread() % kWarpLanes;
  const int64_t state_floats = StateFloats(split.args.kv);
  for (int32_t head = Thread() / kWarpLanes; head < split.heads; head += kWarps) {
    const SharedArray<float> mine = scores + head * kSplitTokens;
    float largest = -INFINITY;
    for (int32_t t = lane; t < split.tokens; t += kWarpLanes) largest = fmaxf(largest, mine[t]);
    largest = WarpLargest(largest);
    float sum = 0.0f;
    float rotated = 0.0f;
    for (int32_t t = lane; t < split.tokens; t += kWarpLanes) {
      const float weight = expf(mine[t] - largest);
      mine[t] = weight;
      sum += weight;
      const KvCodec codec = split.Block(t / kP, KvTensor::kValue).item.codec;
      rotated += HasOwnSpace(codec) ? weight : 0.0f;
    }
    sum = WarpSum(sum);
    rotated = WarpSum(rotated);
    if (lane == 0) {
      float* state = states + head * state_floats;
      state[0] = largest;
      state[1] = sum;
      state[2] = rotated;
      state[3] = 0.0f;
    }
  }
}

/// Adds a page's values, which are in the tile, to `sums` [heads][D].
__device__ void SumValues(const Split& split, int32_t page, SharedArray<float> tile,
                          SharedArray<float> weights, SharedArray<float> sums) {
  const int32_t size = split.args.kv.head_size;
  const int32_t tokens = split.PageTokens(page);
  for (int32_t i = Thread(); i < split.heads * size; i += kThreads) {
    const SharedArray<float> weight = weights + i / size * kSplitTokens + page * kP;
    float sum = sums[i];
    for (int32_t t = 0; t < tokens; ++t) sum = fmaf(weight[t], tile[t * size + i % size], sum);
    sums[i] = sum;
  }
}

/// Block (x, y): split x of the work and part y of the query heads.
__global__ void __launch_bounds__(kThreads, 4)
    ScanKernel(AttentionArgs args, float scale, ScanShared shared) {
  AwaitEarlierKernels();
  const Split split = MakeSplit<kHeads>(args);
  if (!IsAsked(args, split.row)) return;
  const int32_t size = args.kv.head_size;
  const SharedArray<float> tile = Shared("tile", shared.tile);
  const SharedArray<float> queries = Shared("queries", shared.queries);
  const SharedArray<float> coded = Shared("coded", shared.coded);
  const SharedArray<float> bias = Shared("bias", shared.bias);
  const SharedArray<float> scores = Shared("scores", shared.scores);
  const SharedArray<float> natural = Shared("natural", shared.natural);
  const SharedArray<float> rotated = Shared("rotated", shared.rotated);
  LoadQueries(split, args.work[split.work].row, scale, queries);
  for (int32_t i = Thread(); i < split.heads * size; i += kThreads) {
    natural[i] = 0.0f;
    rotated[i] = 0.0f;
  }
  __syncthreads();
  bool has_planes = false;
  for (int32_t page = 0; page < split.pages(); ++page) {
    has_planes |= split.Block(page, KvTensor::kKey).item.codec == KvCodec::kPlanes;
  }
  if (has_planes) CodeQueries(split, queries, Shared("turned", shared.turned), coded, bias);

  for (int32_t page = 0; page < split.pages(); ++page) {
    const PageBlock block = split.Block(page, KvTensor::kKey);
    const bool planes = block.item.codec == KvCodec::kPlanes;
    DecodeTile(args.kv, block, split.Code(KvTensor::kKey), KvTensor::kKey, split.PageTokens(page),
               tile);
    __syncthreads();
    ScorePage(split, page, planes, tile, planes ? coded : queries, bias, scores);
    __syncthreads();
  }

  const int64_t state_floats = StateFloats(args.kv);
  float* states =
      args.states + (int64_t{split.work} * args.heads + split.first_head) * state_floats;
  Softmax(split, scores, states);

  for (int32_t page = 0; page < split.pages(); ++page) {
    const PageBlock block = split.Block(page, KvTensor::kValue);
    DecodeTile(args.kv, block, split.Code(KvTensor::kValue), KvTensor::kValue,
               split.PageTokens(page), tile);
    __syncthreads();
    SumValues(split, page, tile, scores, HasOwnSpace(block.item.codec) ? rotated : natural);
    __syncthreads();
  }
  for (int32_t i = Thread(); i < split.heads * size; i += kThreads) {  // the thread's own sums
    float* values = states + i / size * state_floats + kStateValues;
    values[i % size] = natural[i];
    values[size + i % size] = rotated[i];
  }
}

}  // namespace

cudaError_t PagedAttention(const AttentionArgs& args, cudaStream_t stream) {
  if (args.row_count == 0) return cudaSuccess;
  const int32_t size = args.kv.head_size;
  if (size > kMaxKvHeadSize || args.heads % args.kv.kv_heads != 0) return cudaErrorInvalidValue;
  const int32_t frame = args.kv.frame_tokens;
  if (args.kv.codes != nullptr && (frame <= 0 || frame % kSplitTokens != 0)) {
    return cudaErrorInvalidValue;  // CodeQueries takes one frame for a split
  }
  SharedPlan plan;
  ScanShared scan;
  scan.tile = plan.Take<float>(int64_t{kP} * size);
  scan.queries = plan.Take<float>(int64_t{kHeads} * size);
  scan.turned = plan.Take<float>(int64_t{kHeads} * size);
  scan.coded = plan.Take<float>(int64_t{kHeads} * size);
  scan.bias = plan.Take<float>(kHeads);
  scan.scores = plan.Take<float>(int64_t{kHeads} * kSplitTokens);
  scan.natural = plan.Take<float>(int64_t{kHeads} * size);
  scan.rotated = plan.Take<float>(int64_t{kHeads} * size);
  const int32_t group = args.heads / args.kv.kv_heads;
  const int32_t parts = (group + kHeads - 1) / kHeads;
  const dim3 splits(static_cast<unsigned>(args.work_count),
                    static_cast<unsigned>(args.kv.kv_heads * parts));
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  const cudaError_t error =
      Launch<ScanKernel>(splits, dim3(kThreads), plan.bytes(), stream, args, scale, scan);
  return error != cudaSuccess ? error : MergeStates(args, stream);
}

}  // namespace asymserve::cuda
