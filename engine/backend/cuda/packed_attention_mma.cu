#include <algorithm>
#include <bit>
#include <cmath>

#include "engine/backend/cuda/attention_split.cuh"
#include "engine/backend/cuda/code_queries.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/merge_states.h"
#include "engine/backend/cuda/packed_attention_mma.h"
#include "engine/backend/cuda/packed_fragments.cuh"
#include "engine/backend/cuda/warp.cuh"

namespace asymserve::cuda {
namespace {

// A block has a split and the query heads of a KV head, in kColumns tiles of 8: the columns of the
// products. A warp has a page of the split, its keys and then its values, so every score and every
// partial sum has one owner and one order.
constexpr int kWarps = kSplitPages;
constexpr int kThreads = kWarps * kWarpLanes;
constexpr int32_t kP = kKvPageTokens;
constexpr int32_t kTileHeads = 8;

// In shared memory; + paddings that keep the lanes of one access in different banks.
constexpr int32_t QueryQuads(int32_t size) {
  return size / 4 + 4;
}
constexpr int32_t kScoreFloats = kSplitTokens + 4;  // of a head
constexpr int32_t kWeightQuads = kSplitTokens / 4 + 4;
constexpr int32_t SumFloats(int32_t size) {
  return size + 1;
}
constexpr int32_t kTableQuads = 8192;  // 32 planes in 16 copies, 255 in two

struct PackedShared {
  SharedSlice<Quad> queries;    // [2][heads][QueryQuads]: as they are; in the space of the codes
  SharedSlice<float> units;     // [2][heads] what a query's 1 means
  SharedSlice<float> bias;      // [heads] what the mean of the keys' code scores
  SharedSlice<float> scores;    // [heads][kScoreFloats]
  SharedSlice<float> sums;      // [pages][heads][SumFloats]: where the scores were
  SharedSlice<Quad> weights;    // [heads][kWeightQuads]
  SharedSlice<Quad> entries;    // PlaneTables of the keys, then of the values
  SharedSlice<uint8_t> list;    // [256]
  SharedSlice<int32_t> starts;  // [D/4 + 1]
};

/// The planes that the pages of a split have at most; 0: none is of kPlanes.
__device__ int32_t PlanesOf(const Split& split, KvTensor tensor) {
  int32_t planes = 0;
  for (int32_t page = 0; page < split.pages(); ++page) {
    const PageBlock block = split.Block(page, tensor);
    if (block.item.codec != KvCodec::kPlanes) continue;
    const int32_t mine =
        block.refinement != nullptr ? block.item.fresh_planes : block.item.base_planes;
    planes = mine > planes ? mine : planes;
  }
  return planes;
}

__device__ PlaneTables TablesOf(const PackedShared& shared, int32_t planes) {
  return {Shared("entries", shared.entries), Shared("list", shared.list),
          Shared("starts", shared.starts), CopiesOf(planes, kTableQuads)};
}

/// One head's query, four channels a lane, to shared memory as fp16: times a power of two, so that
/// the largest is near 2^13.
template <int32_t kSize>
__device__ void StoreQuery(const float* from, float scale, SharedArray<Quad> to,
                           SharedArray<float> unit) {
  const int32_t lane = Thread() % kWarpLanes;
  float q[4] = {};
  float largest = 0.0f;
  for (int c = 0; c < 4; ++c) {
    if (lane < kSize / 4 && from != nullptr) q[c] = from[4 * lane + c] * scale;
    largest = fmaxf(largest, fabsf(q[c]));
  }
  largest = WarpLargest(largest);
  const uint32_t bits = std::bit_cast<uint32_t>(largest) >> 23;
  const uint32_t exponent = bits < 14 ? 14 : bits;
  const float up = std::bit_cast<float>((267 - exponent) << 23);
  if (lane < kSize / 4)
    to[lane] = {PackHalves(q[0] * up, q[1] * up), PackHalves(q[2] * up, q[3] * up)};
  if (lane == 0) unit[0] = std::bit_cast<float>((exponent - 13) << 23);
}

/// Queries of all columns, zero beyond the heads; those for codes are what CodeQueries left.
template <int32_t kSize, int kColumns>
__device__ void LoadQueries(const Split& split, float scale, bool planes, const float* states,
                            const PackedShared& shared) {
  constexpr int32_t kHeads = kColumns * kTileHeads;
  const SharedArray<Quad> queries = Shared("queries", shared.queries);
  const SharedArray<float> units = Shared("units", shared.units);
  const SharedArray<float> bias = Shared("bias", shared.bias);
  const float* q = split.args.qkv + split.args.work[split.work].row * split.args.row_elements +
                   int64_t{split.first_head} * kSize;
  for (int32_t head = Thread() / kWarpLanes; head < kHeads; head += kWarps) {
    const bool real = head < split.heads;
    StoreQuery<kSize>(real ? q + head * kSize : nullptr, scale, queries + head * QueryQuads(kSize),
                      units + head);
    if (!planes) continue;
    const float* state = states + head * StateFloats(split.args.kv);
    StoreQuery<kSize>(real ? state + kStateValues : nullptr, 1.0f,
                      queries + (kHeads + head) * QueryQuads(kSize), units + (kHeads + head));
    if (Thread() % kWarpLanes == 0) bias[head] = real ? state[0] : 0.0f;
  }
}

/// Scores of a page: rows are tokens, channels are summed, columns are heads.
template <int32_t kSize, int kColumns>
__device__ void ScorePage(const PageBlock& block, int32_t page, const PlaneTables& tables,
                          const PackedShared& shared) {
  constexpr int32_t kHeads = kColumns * kTileHeads;
  const bool planes = block.item.codec == KvCodec::kPlanes;
  const int32_t space = planes ? kHeads : 0;
  const SharedArray<Quad> queries = Shared("queries", shared.queries) + space * QueryQuads(kSize);
  const SharedArray<float> units = Shared("units", shared.units) + space;
  const SharedArray<float> bias = Shared("bias", shared.bias);
  const SharedArray<float> scores = Shared("scores", shared.scores) + page * kP;
  const int32_t group = Thread() % kWarpLanes / 4;
  const int32_t in_group = Thread() % 4;
  const int32_t token[kTiles] = {4 * group, 32 + 4 * group};
  float sums[kTiles][2][kColumns][4] = {};
  for (int32_t step = 0; step < kSize / 16; ++step) {
    const int32_t subvector = 4 * step + in_group;
    Tile tiles[kTiles];
    KeyTiles(block, tables, subvector, token, tiles);
    for (int column = 0; column < kColumns; ++column) {
      const Quad q = queries[(column * kTileHeads + group) * QueryQuads(kSize) + subvector];
      const uint32_t b[2] = {q.low, q.high};
      for (int n = 0; n < kTiles; ++n) {
        for (int half = 0; half < 2; ++half) {
          uint32_t a[4];
          ToFragment(tiles[n], half, a);
          MmaF16(sums[n][half][column], a, b);
        }
      }
    }
  }
  ASYMSERVE_UNROLL
  for (int n = 0; n < kTiles; ++n) {
    ASYMSERVE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int32_t t = token[n] + j;
      float scale = 1.0f;
      if (block.item.codec == KvCodec::kInt8) {
        scale = HalfToFloat(
            *reinterpret_cast<const uint16_t*>(block.bytes + Int8ScaleOffset(kSize, t)));
      }
      ASYMSERVE_UNROLL
      for (int column = 0; column < kColumns; ++column) {
        for (int i = 0; i < 2; ++i) {
          const int32_t head = column * kTileHeads + 2 * in_group + i;
          const float sum = sums[n][j / 2][column][j % 2 * 2 + i] * units[head] * scale;
          scores[head * kScoreFloats + t] = planes ? sum + bias[head] : sum;
        }
      }
    }
  }
}

/// A warp turns a head's scores into weights, two tokens of a page a lane, and writes the first
/// numbers of its state. NaN scores do not count for the largest but make the sums NaN.
__device__ void Softmax(const Split& split, int32_t head, const PackedShared& shared,
                        float* state) {
  const int32_t lane = Thread() % kWarpLanes;
  const SharedArray<float> scores = Shared("scores", shared.scores) + head * kScoreFloats;
  const SharedArray<uint32_t> weights =
      Shared<uint32_t>("weights", {shared.weights.offset, 2 * shared.weights.count}) +
      head * 2 * kWeightQuads;
  float score[kSplitPages][2];
  float largest = -INFINITY;
  for (int page = 0; page < kSplitPages; ++page) {
    for (int i = 0; i < 2; ++i) {
      const int32_t t = page * kP + 2 * lane + i;
      score[page][i] =
          t < split.tokens && head < split.heads ? static_cast<float>(scores[t]) : -INFINITY;
      largest = fmaxf(largest, score[page][i]);
    }
  }
  largest = WarpLargest(largest);
  float sum = 0.0f;
  float rotated = 0.0f;
  for (int page = 0; page < kSplitPages; ++page) {
    if (page >= split.pages()) break;
    float weight[2];
    for (int i = 0; i < 2; ++i) {
      const bool counts = page * kP + 2 * lane + i < split.tokens && head < split.heads;
      weight[i] = counts ? expf(score[page][i] - largest) : 0.0f;
    }
    const uint32_t rounded = PackHalves(weight[0], weight[1]);
    weights[page * (kP / 2) + lane] = rounded;
    const float both = HalfToFloat(static_cast<uint16_t>(rounded & 0xFFFF)) +
                       HalfToFloat(static_cast<uint16_t>(rounded >> 16));
    sum += both;
    const KvCodec codec = split.Block(page, KvTensor::kValue).item.codec;
    rotated += HasOwnSpace(codec) ? both : 0.0f;
  }
  sum = WarpSum(sum);
  rotated = WarpSum(rotated);
  if (lane == 0 && head < split.heads) {
    state[0] = largest;
    state[1] = sum;
    state[2] = rotated;
    state[3] = 0.0f;
  }
}

/// The weighted sums of a page's values: rows are channels, tokens are summed, columns are heads.
template <int32_t kSize, int kColumns>
__device__ void SumPage(const PageBlock& block, int32_t page, int32_t tokens,
                        const PlaneTables& tables, const PackedShared& shared) {
  constexpr int32_t kHeads = kColumns * kTileHeads;
  constexpr int kSteps = kP / 16;
  const SharedArray<Quad> weights = Shared("weights", shared.weights) + page * (kP / 4);
  const SharedArray<float> sums = Shared("sums", shared.sums) + page * kHeads * SumFloats(kSize);
  const int32_t group = Thread() % kWarpLanes / 4;
  const int32_t in_group = Thread() % 4;
  uint32_t b[kSteps][kColumns][2];
  for (int step = 0; step < kSteps; ++step) {
    for (int column = 0; column < kColumns; ++column) {
      const Quad w = weights[(column * kTileHeads + group) * kWeightQuads + 4 * step + in_group];
      b[step][column][0] = w.low;
      b[step][column][1] = w.high;
    }
  }
  for (int32_t channels = 0; channels < kSize; channels += 32) {
    const int32_t subvector = channels / 4 + group;
    float out[2][kColumns][4] = {};
    ASYMSERVE_UNROLL
    for (int step = 0; step < kSteps; step += kTiles) {
      const int32_t token[kTiles] = {16 * step + 4 * in_group, 16 * step + 16 + 4 * in_group};
      Tile tiles[kTiles];
      ValueTiles<kSize>(block, tables, subvector, token, tokens, tiles);
      for (int n = 0; n < kTiles; ++n) {
        for (int half = 0; half < 2; ++half) {
          uint32_t a[4];
          ToFragment(tiles[n], half, a);
          for (int column = 0; column < kColumns; ++column) {
            MmaF16(out[half][column], a, b[step + n][column]);
          }
        }
      }
    }
    for (int c = 0; c < 4; ++c) {
      for (int column = 0; column < kColumns; ++column) {
        for (int i = 0; i < 2; ++i) {
          const int32_t head = column * kTileHeads + 2 * in_group + i;
          sums[head * SumFloats(kSize) + 4 * subvector + c] = out[c / 2][column][c % 2 * 2 + i];
        }
      }
    }
  }
}

/// Block (x, y): split x of the work and part y of the query heads; a warp for a page.
template <int32_t kSize, int kColumns>
__global__ void __launch_bounds__(kThreads)
    PackedScanKernel(AttentionArgs args, float scale, PackedShared shared) {
  constexpr int32_t kHeads = kColumns * kTileHeads;
  const Split split = MakeSplit<kHeads>(args);
  if (!IsAsked(args, split.row)) return;
  const int64_t state_floats = StateFloats(args.kv);
  float* states =
      args.states + (int64_t{split.work} * args.heads + split.first_head) * state_floats;
  const int32_t warp = Thread() / kWarpLanes;

  const int32_t key_planes = PlanesOf(split, KvTensor::kKey);
  const PlaneTables key_tables = TablesOf(shared, key_planes);
  LoadQueries<kSize, kColumns>(split, scale, key_planes > 0, states, shared);
  if (key_planes > 0) FillTables(*split.Code(KvTensor::kKey), key_planes, kSize / 4, key_tables);
  __syncthreads();
  if (warp < split.pages()) {
    ScorePage<kSize, kColumns>(split.Block(warp, KvTensor::kKey), warp, key_tables, shared);
  }
  __syncthreads();

  const int32_t value_planes = PlanesOf(split, KvTensor::kValue);
  const PlaneTables value_tables = TablesOf(shared, value_planes);
  for (int32_t head = warp; head < kHeads; head += kWarps) {
    Softmax(split, head, shared, states + head * state_floats);
  }
  if (value_planes > 0) {
    FillTables(*split.Code(KvTensor::kValue), value_planes, kSize / 4, value_tables);
  }
  __syncthreads();
  if (warp < split.pages()) {
    SumPage<kSize, kColumns>(split.Block(warp, KvTensor::kValue), warp, split.PageTokens(warp),
                             value_tables, shared);
  }
  __syncthreads();

  const SharedArray<float> sums = Shared("sums", shared.sums);
  for (int32_t i = Thread(); i < split.heads * kSize; i += kThreads) {
    float natural = 0.0f;
    float rotated = 0.0f;
    for (int32_t page = 0; page < split.pages(); ++page) {
      const float sum = sums[(page * kHeads + i / kSize) * SumFloats(kSize) + i % kSize];
      const bool own = HasOwnSpace(split.Block(page, KvTensor::kValue).item.codec);
      natural += own ? 0.0f : sum;
      rotated += own ? sum : 0.0f;
    }
    float* values = states + i / kSize * state_floats + kStateValues;
    values[i % kSize] = natural;
    values[kSize + i % kSize] = rotated;
  }
}

template <int32_t kSize, int kColumns>
cudaError_t LaunchScan(const AttentionArgs& args, cudaStream_t stream) {
  constexpr int32_t kHeads = kColumns * kTileHeads;
  SharedPlan plan;
  PackedShared shared;
  shared.queries = plan.Take<Quad>(2 * kHeads * QueryQuads(kSize));
  shared.units = plan.Take<float>(2 * kHeads);
  shared.bias = plan.Take<float>(kHeads);
  constexpr int32_t kSums = kSplitPages * kHeads * SumFloats(kSize);
  shared.sums = plan.Take<float>(std::max(kSums, kHeads * kScoreFloats));
  shared.scores = {shared.sums.offset, kHeads * kScoreFloats};
  shared.weights = plan.Take<Quad>(kHeads * kWeightQuads);
  shared.entries = plan.Take<Quad>(kTableQuads);
  shared.list = plan.Take<uint8_t>(256);
  shared.starts = plan.Take<int32_t>(kSize / 4 + 1);
  const int32_t group = args.heads / args.kv.kv_heads;
  const int32_t parts = (group + kHeads - 1) / kHeads;
  const dim3 grid(static_cast<unsigned>(args.work_count),
                  static_cast<unsigned>(args.kv.kv_heads * parts));
  const float scale = 1.0f / std::sqrt(static_cast<float>(kSize));
  return Launch<PackedScanKernel<kSize, kColumns>>(grid, dim3(kThreads), plan.bytes(), stream, args,
                                                   scale, shared);
}

}  // namespace

cudaError_t PackedAttentionMma(const AttentionArgs& args, cudaStream_t stream) {
  if (args.row_count == 0) return cudaSuccess;
  const int32_t size = args.kv.head_size;
  if ((size != 64 && size != 128) || args.heads % args.kv.kv_heads != 0) {
    return cudaErrorInvalidValue;
  }
  if (args.kv.codes != nullptr && args.row_set != RowSet::kExact) {
    const int32_t frame = args.kv.frame_tokens;
    if (frame <= 0 || frame % kSplitTokens != 0) return cudaErrorInvalidValue;
    const cudaError_t error = CodeQueries(args, stream);
    if (error != cudaSuccess) return error;
  }
  const bool one_tile = args.heads / args.kv.kv_heads <= kTileHeads;
  const auto scan = size == 64 ? (one_tile ? LaunchScan<64, 1> : LaunchScan<64, 2>)
                               : (one_tile ? LaunchScan<128, 1> : LaunchScan<128, 2>);
  const cudaError_t error = scan(args, stream);
  return error != cudaSuccess ? error : MergeStates(args, stream);
}

}  // namespace asymserve::cuda
