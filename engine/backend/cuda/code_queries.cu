#include <cmath>

#include "engine/backend/cuda/attention_split.cuh"
#include "engine/backend/cuda/code_queries.h"
#include "engine/backend/cuda/four_words.cuh"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/ptx.cuh"
#include "engine/backend/cuda/rotate.cuh"
#include "engine/backend/cuda/warp.cuh"

namespace asymserve::cuda {
namespace {

constexpr int kThreads = 128;

struct CodeShared {
  SharedSlice<float> turned;  // [kCodedRows][D]
};

/// A query head of a split.
struct CodedRow {
  AttentionWork work;
  int64_t state = 0;  // index of its first float
  int32_t head = 0;
};

__device__ CodedRow RowOf(const AttentionArgs& args, int32_t i) {
  const int32_t group = args.heads / args.kv.kv_heads;
  const auto kv_head = static_cast<int32_t>(blockIdx.y);
  CodedRow row;
  row.work = args.work[i / group];
  row.head = kv_head * group + i % group;
  row.state = (int64_t{i / group} * args.heads + row.head) * StateFloats(args.kv);
  return row;
}

/// Block (x, y): rows kCodedRows x .. of KV head y, by split, then query head; a thread for two
/// channels of some of them.
template <int32_t kSize>
__global__ void __launch_bounds__(kThreads)
    CodeQueriesKernel(AttentionArgs args, float scale, CodeShared shared) {
  AwaitEarlierKernels();
  constexpr int32_t kHalf = kSize / 2;
  constexpr int32_t kMine = kCodedRows * kHalf / kThreads;
  const KvView& kv = args.kv;
  const PlaneCodeView code =
      kv.codes[kv.ItemIndex(args.layer, KvTensor::kKey, static_cast<int32_t>(blockIdx.y))];
  if (code.planes == 0) return;
  const SharedArray<float> turned = Shared("turned", shared.turned);
  const int32_t first = static_cast<int32_t>(blockIdx.x) * kCodedRows;
  const int32_t left = args.work_count * (args.heads / kv.kv_heads) - first;
  const int32_t rows = left < kCodedRows ? left : kCodedRows;
  for (int32_t i = Thread(); i < kCodedRows * kHalf; i += kThreads) {
    const int32_t pair = i % kHalf;
    const RotaryPair at = PairOf(pair, kSize, kv.interleaved);
    Rotated back = {};
    if (i / kHalf < rows) {
      const CodedRow row = RowOf(args, first + i / kHalf);
      const float* q = args.qkv + row.work.row * args.row_elements + int64_t{row.head} * kSize;
      const int64_t frame = row.work.split * kSplitTokens / kv.frame_tokens * kv.frame_tokens;
      const float* angles = kv.rope + frame * kSize;
      back =
          RotateBack(q[at.first] * scale, q[at.second] * scale, angles[pair], angles[kHalf + pair]);
    }
    turned[i / kHalf * kSize + at.first] = back.first;
    turned[i / kHalf * kSize + at.second] = back.second;
  }
  __syncthreads();
  const SharedArray<FourFloats> fours =
      Shared<FourFloats>("turned", {shared.turned.offset, shared.turned.count / 4});
  const int32_t channel = Thread() % kHalf;
  const int32_t part = Thread() / kHalf * kMine;
  float sums[2][kMine] = {};
  ASYMSERVE_UNROLL_BY(2)
  for (int32_t d = 0; d < kSize / 4; ++d) {
    float m[2][4];
    ASYMSERVE_UNROLL
    for (int32_t k = 0; k < 4; ++k) {
      const float* column = code.decode_columns + (4 * d + k) * kSize + channel;
      m[0][k] = column[0];
      m[1][k] = column[kHalf];
    }
    ASYMSERVE_UNROLL
    for (int32_t i = 0; i < kMine; ++i) {
      const FourFloats q = fours[(part + i) * (kSize / 4) + d];
      ASYMSERVE_UNROLL
      for (int32_t k = 0; k < 4; ++k) {
        sums[0][i] = fmaf(q.of[k], m[0][k], sums[0][i]);
        sums[1][i] = fmaf(q.of[k], m[1][k], sums[1][i]);
      }
    }
  }
  ASYMSERVE_UNROLL
  for (int32_t i = 0; i < kMine; ++i) {
    if (part + i >= rows) break;
    float* coded = args.states + RowOf(args, first + part + i).state + kStateValues;
    coded[channel] = sums[0][i];
    coded[kHalf + channel] = sums[1][i];
  }
  const int32_t lane = Thread() % kWarpLanes;
  for (int32_t row = Thread() / kWarpLanes; row < rows; row += kThreads / kWarpLanes) {
    float bias = 0.0f;
    for (int32_t d = lane; d < kSize; d += kWarpLanes) {
      bias = fmaf(turned[row * kSize + d], code.mean[d], bias);
    }
    bias = WarpSum(bias);
    if (lane == 0) args.states[RowOf(args, first + row).state] = bias;
  }
}

template <int32_t kSize>
cudaError_t LaunchOf(const AttentionArgs& args, cudaStream_t stream) {
  SharedPlan plan;
  CodeShared shared;
  shared.turned = plan.Take<float>(int64_t{kCodedRows} * kSize);
  const int64_t rows = int64_t{args.work_count} * (args.heads / args.kv.kv_heads);
  const dim3 grid(static_cast<unsigned>((rows + kCodedRows - 1) / kCodedRows),
                  static_cast<unsigned>(args.kv.kv_heads));
  const float scale = 1.0f / std::sqrt(static_cast<float>(kSize));
  return Launch<CodeQueriesKernel<kSize>>(grid, dim3(kThreads), plan.bytes(), stream, args, scale,
                                          shared);
}

}  // namespace

cudaError_t CodeQueries(const AttentionArgs& args, cudaStream_t stream) {
  switch (args.kv.head_size) {
    case 64:
      return LaunchOf<64>(args, stream);
    case 128:
      return LaunchOf<128>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace asymserve::cuda
