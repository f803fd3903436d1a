#include <cmath>

#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/page_tile.cuh"
#include "engine/backend/cuda/paged_attention.h"
#include "engine/backend/cuda/rotate.cuh"
#include "engine/backend/cuda/warp.cuh"
#include "engine/kv/hadamard.h"

namespace asymserve::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpLanes;
constexpr int32_t kHeads = 8;  // query heads of a block at most
constexpr int32_t kP = kKvPageTokens;
constexpr int32_t kSplitTokens = kSplitPages * kP;

// A softmax state: the largest score, the sum of exp(score - largest), the same over positions
// whose values are summed in a space of their own, a float of padding, the weighted sum of values
// [D], and that in the space of its own [D].
constexpr int32_t kStateValues = 4;

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

__device__ __forceinline__ int32_t Thread() {
  return static_cast<int32_t>(threadIdx.x);
}

/// Whether values of a codec are summed in a space of their own and turned back at the end.
__device__ __forceinline__ bool HasOwnSpace(KvCodec codec) {
  return codec == KvCodec::kPlanes || codec == KvCodec::kFitted;
}

/// A split of a row and up to kHeads query heads of one KV head.
struct Split {
  const AttentionArgs& args;
  AttentionRow row = {};
  int32_t work = 0;
  int32_t first_token = 0;  // of the split
  int32_t tokens = 0;       // that the row sees of it
  int32_t kv_head = 0;
  int32_t first_head = 0, heads = 0;  // query heads

  __device__ int32_t pages() const { return (tokens + kP - 1) / kP; }
  __device__ KvPage Page(int32_t page) const {
    return args.pages[row.first_page + first_token / kP + page];
  }
  __device__ int32_t PageTokens(int32_t page) const {
    const int32_t left = tokens - page * kP;
    return left < kP ? left : kP;
  }
  __device__ PageBlock Block(int32_t page, KvTensor tensor) const {
    return BlockOf(args.kv, Page(page), args.layer, tensor, kv_head);
  }
  __device__ const PlaneCodeView* Code(KvTensor tensor) const {
    if (args.kv.codes == nullptr) return nullptr;
    return args.kv.codes + args.kv.ItemIndex(args.layer, tensor, kv_head);
  }
};

__device__ Split MakeSplit(const AttentionArgs& args) {
  const AttentionWork work = args.work[blockIdx.x];
  const AttentionRow row = args.rows[work.row];
  const int32_t group = args.heads / args.kv.kv_heads;
  const int32_t parts = (group + kHeads - 1) / kHeads;
  const auto y = static_cast<int32_t>(blockIdx.y);
  const int32_t first = y % parts * kHeads;
  const int32_t first_token = work.split * kSplitTokens;
  const int32_t left = row.position + 1 - first_token;
  return {args,
          row,
          static_cast<int32_t>(blockIdx.x),
          first_token,
          left < kSplitTokens ? left : kSplitTokens,
          y / parts,
          y / parts * group + first,
          group - first < kHeads ? group - first : kHeads};
}

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
  const int32_t state_floats = kStateValues + 2 * split.args.kv.head_size;
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
      float* state = states + int64_t{head} * state_floats;
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
  const Split split = MakeSplit(args);
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

  const int64_t state_floats = kStateValues + int64_t{2} * size;
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

// ---- Merging ------------------------------------------------------------------------------------

struct MergeShared {
  SharedSlice<float> rotated;  // [D]
};

/// Channel d of what the rotated sums are in the space of the others.
__device__ float TurnedBack(const AttentionArgs& args, int32_t item, float weight, int32_t d,
                            SharedArray<float> rotated) {
  if (args.kv.items[item].codec == KvCodec::kFitted) return rotated[d];  // turned in place
  const PlaneCodeView code = args.kv.codes[item];
  const int32_t size = args.kv.head_size;
  float sum = weight * code.mean[d];
  for (int32_t i = 0; i < size; ++i) {
    sum = fmaf(rotated[i], code.decode[int64_t{i} * size + d], sum);
  }
  return sum;
}

/// Block (x, y): row x, query head y; a thread for a channel.
__global__ void MergeKernel(AttentionArgs args, MergeShared shared) {
  const AttentionRow row = args.rows[blockIdx.x];
  const auto head = static_cast<int32_t>(blockIdx.y);
  const int32_t size = args.kv.head_size;
  const int32_t d = Thread();
  const int64_t state_floats = kStateValues + int64_t{2} * size;
  float largest = -INFINITY;
  float sum = 0.0f;
  float rotated_sum = 0.0f;
  float natural = 0.0f;
  float rotated = 0.0f;
  for (int32_t split = 0; split < row.splits; ++split) {
    const float* state =
        args.states + (int64_t{row.first_work + split} * args.heads + head) * state_floats;
    const float top = fmaxf(largest, state[0]);
    const float mine = split == 0 ? 0.0f : expf(largest - top);
    const float other = expf(state[0] - top);
    largest = top;
    sum = fmaf(sum, mine, state[1] * other);
    rotated_sum = fmaf(rotated_sum, mine, state[2] * other);
    if (d < size) {
      natural = fmaf(natural, mine, state[kStateValues + d] * other);
      rotated = fmaf(rotated, mine, state[kStateValues + size + d] * other);
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
  if (error != cudaSuccess) return error;
  SharedPlan merge_plan;
  MergeShared merge;
  merge.rotated = merge_plan.Take<float>(size);
  const int32_t threads = (size + kWarpLanes - 1) / kWarpLanes * kWarpLanes;
  return Launch<MergeKernel>(
      dim3(static_cast<unsigned>(args.row_count), static_cast<unsigned>(args.heads)),
      dim3(static_cast<unsigned>(threads)), merge_plan.bytes(), stream, args, merge);
}

}  // namespace asymserve::cuda
