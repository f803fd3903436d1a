#include <algorithm>
#include <bit>
#include <cmath>

#include "engine/backend/cuda/attention_tile.cuh"
#include "engine/backend/cuda/code_queries.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/merge_states.h"
#include "engine/backend/cuda/packed_attention_mma.h"
#include "engine/backend/cuda/page_sources.cuh"
#include "engine/backend/cuda/warp.cuh"

namespace asymserve::cuda {
namespace {

// A block has a split, and query heads of a KV head for rows of one sequence, in kColumns tiles of
// 8: the columns of the products. A warp has a page of the split, its keys and then its values, so
// every score and every partial sum has one owner and one order. What a column gets depends on its
// own row only: a page of which the rows see unequal parts is summed row by row.
constexpr int kWarps = kSplitPages;
constexpr int kThreads = kWarps * kWarpLanes;
constexpr int32_t kP = kKvPageTokens;
constexpr int32_t kTileHeads = 8;
constexpr int kSingleColumns = 2;  // at most, of blocks that have one row
constexpr int kManyColumns = 4;    // of the others

// In shared memory; + paddings that keep the lanes of one access in different banks.
constexpr int32_t QueryQuads(int32_t size) {
  return size / 4 + 4;
}
constexpr int32_t kScoreFloats = kSplitTokens + 5;  // of a head
constexpr int32_t kWeightQuads = kSplitTokens / 4 + 4;
constexpr int32_t SumFloats(int32_t size) {
  return size + 1;
}
/// 32 planes in 16 copies and 254 in two, or half of that.
constexpr int32_t TableQuads(int columns) {
  return columns > kSingleColumns ? 4096 : 8192;
}
/// Pages whose sums are in shared memory at a time.
constexpr int32_t SumPages(int columns) {
  return columns > kSingleColumns ? kSplitPages / 2 : kSplitPages;
}

struct PackedShared {
  SharedSlice<Quad> queries;    // [2][heads][QueryQuads]: as they are; in the space of the codes
  SharedSlice<float> units;     // [2][heads] what a query's 1 means
  SharedSlice<float> bias;      // [heads] what the mean of the keys' code scores
  SharedSlice<int32_t> seen;    // [heads] tokens of the split that a column sees; 0: no column
  SharedSlice<float> scores;    // [heads][kScoreFloats]
  SharedSlice<float> sums;      // [SumPages][heads][SumFloats]: where the scores were
  SharedSlice<Quad> weights;    // [heads][kWeightQuads]
  SharedSlice<Quad> entries;    // PlaneTables of the keys, then of the values
  SharedSlice<uint32_t> heads;  // [D/4]
  SharedSlice<uint8_t> by_subvector;  // [256]
};

/// What the pages of a split are, for all of the block.
struct SplitKinds {
  int32_t planes[2] = {};  // that they have at most, by KvTensor; 0: none is of kPlanes
  uint32_t own_pages = 0;  // a bit for each whose values are summed in a space of their own
};

/// A lane looks at a page; every warp at all of them.
__device__ SplitKinds KindsOf(const TilePart& part) {
  const int32_t lane = Thread() % kWarpLanes;
  SplitKinds kinds;
  bool has_own = false;
  ASYMSERVE_UNROLL
  for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
    uint32_t planes = 0;
    if (lane < part.pages()) {
      const PageBlock block = part.Block(lane, tensor);
      if (block.item.codec == KvCodec::kPlanes) {
        planes = block.refinement != nullptr ? block.item.fresh_planes : block.item.base_planes;
      }
      if (tensor == KvTensor::kValue) has_own = HasOwnSpace(block.item.codec);
    }
    kinds.planes[static_cast<int>(tensor)] =
        static_cast<int32_t>(__reduce_max_sync(kWholeWarp, planes));
  }
  kinds.own_pages = __ballot_sync(kWholeWarp, has_own);
  return kinds;
}

template <int kColumns>
__device__ PlaneTables TablesOf(const PackedShared& shared, int32_t planes) {
  const SharedSlice<FourWords> pairs = {shared.entries.offset, shared.entries.count / 2};
  return {Shared("entries", shared.entries),
          Shared("entries", pairs),
          Shared("heads", shared.heads),
          Shared("by_subvector", shared.by_subvector),
          CopyBitsOf(planes, TableQuads(kColumns)),
          TableQuads(kColumns)};
}

/// Tokens of a page, of the first `tokens` of a split; less than 1: none.
__device__ __forceinline__ int32_t TokensOf(int32_t tokens, int32_t page) {
  const int32_t left = tokens - page * kP;
  return left < kP ? left : kP;
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
    if (lane < kSize / 4) q[c] = from[4 * lane + c] * scale;
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

/// Queries of all columns, zero where there is none; those for codes are what CodeQueries left.
template <int32_t kSize, int kColumns>
__device__ void LoadQueries(const TilePart& part, float scale, bool planes,
                            const PackedShared& shared) {
  constexpr int32_t kHeads = kColumns * kTileHeads;
  const SharedArray<Quad> queries = Shared("queries", shared.queries);
  const SharedArray<float> units = Shared("units", shared.units);
  const SharedArray<float> bias = Shared("bias", shared.bias);
  const SharedArray<int32_t> seen = Shared("seen", shared.seen);
  const AttentionArgs& args = part.args;
  const int32_t lane = Thread() % kWarpLanes;
  for (int32_t head = Thread() / kWarpLanes; head < kHeads; head += kWarps) {
    const SharedArray<Quad> natural = queries + head * QueryQuads(kSize);
    const SharedArray<Quad> coded = queries + (kHeads + head) * QueryQuads(kSize);
    if (head >= part.columns) {
      if (lane < kSize / 4) natural[lane] = coded[lane] = {};
      if (lane == 0) units[head] = units[kHeads + head] = bias[head] = 0.0f;
      if (lane == 0) seen[head] = 0;
      continue;
    }
    if (lane == 0) seen[head] = part.Tokens(head);
    const float* q = args.qkv + part.Row(head) * args.row_elements;
    StoreQuery<kSize>(q + int64_t{part.Head(head)} * kSize, scale, natural, units + head);
    if (!planes) continue;
    const float* state = part.State(head);
    StoreQuery<kSize>(state + kStateValues, 1.0f, coded, units + (kHeads + head));
    if (lane == 0) bias[head] = state[0];
  }
}

/// Products of a page's keys, eight tokens of a lane, and the queries of a space.
template <int32_t kSize, int kColumns>
struct KeySums {
  float of[kTiles][2][kColumns][4] = {};

  template <typename Source>
  __device__ __forceinline__ void Add(const Source& source, SharedArray<Quad> queries) {
    constexpr int32_t kSteps = kSize / 16;
    const int32_t group = Thread() % kWarpLanes / 4;
    const int32_t in_group = Thread() % 4;
    const int32_t token = 8 * group;
    typename Source::Raw next = source.Load(in_group, token);
    ASYMSERVE_UNROLL_BY(2)
    for (int32_t step = 0; step < kSteps; ++step) {
      const int32_t subvector = 4 * step + in_group;
      const typename Source::Raw raw = next;
      if (step + 1 < kSteps) next = source.Load(subvector + 4, token);
      Tile tiles[kTiles];
      source.Decode(raw, token, tiles);
      for (int column = 0; column < kColumns; ++column) {
        const Quad q = queries[(column * kTileHeads + group) * QueryQuads(kSize) + subvector];
        const uint32_t b[2] = {q.low, q.high};
        for (int n = 0; n < kTiles; ++n) {
          for (int half = 0; half < 2; ++half) {
            uint32_t a[4];
            ToFragment(tiles[n], half, a);
            MmaF16(of[n][half][column], a, b);
          }
        }
      }
    }
  }
};

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
  const int32_t in_group = Thread() % 4;
  const int32_t token = Thread() % kWarpLanes / 4 * 8;
  KeySums<kSize, kColumns> sums;
  if (planes && tables.copy_bits == kMostCopyBits) {
    sums.Add(PlaneSource<kMostCopyBits>(block, tables), queries);
  } else if (planes) {
    sums.Add(PlaneSource<-1>(block, tables), queries);
  } else if (block.item.codec == KvCodec::kInt8) {
    sums.Add(Int8Keys(block), queries);
  } else {
    sums.Add(HalfKeys(block), queries);
  }
  ASYMSERVE_UNROLL
  for (int n = 0; n < kTiles; ++n) {
    ASYMSERVE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int32_t t = token + 4 * n + j;
      float scale = 1.0f;
      if (block.item.codec == KvCodec::kInt8) {
        scale = HalfToFloat(
            *reinterpret_cast<const uint16_t*>(block.bytes + Int8ScaleOffset(kSize, t)));
      }
      ASYMSERVE_UNROLL
      for (int column = 0; column < kColumns; ++column) {
        for (int i = 0; i < 2; ++i) {
          const int32_t head = column * kTileHeads + 2 * in_group + i;
          const float sum = sums.of[n][j / 2][column][j % 2 * 2 + i] * units[head] * scale;
          scores[head * kScoreFloats + t] = planes ? sum + bias[head] : sum;
        }
      }
    }
  }
}

/// A warp turns a column's scores into weights, two tokens of a page a lane, zero for tokens that
/// it does not see, and writes the first numbers of its state. NaN scores do not count for the
/// largest but make the sums NaN.
__device__ void Softmax(const TilePart& part, int32_t head, uint32_t own_pages,
                        const PackedShared& shared) {
  const int32_t lane = Thread() % kWarpLanes;
  const SharedArray<float> scores = Shared("scores", shared.scores) + head * kScoreFloats;
  const SharedArray<uint32_t> weights =
      Shared<uint32_t>("weights", {shared.weights.offset, 2 * shared.weights.count}) +
      head * 2 * kWeightQuads;
  const int32_t tokens = Shared("seen", shared.seen)[head];
  if (tokens == 0) {  // no column
    for (int page = 0; page < part.pages(); ++page) weights[page * (kP / 2) + lane] = 0;
    return;
  }
  float score[kSplitPages][2];
  float largest = -INFINITY;
  for (int page = 0; page < kSplitPages; ++page) {
    for (int i = 0; i < 2; ++i) {
      const int32_t t = page * kP + 2 * lane + i;
      score[page][i] = t < tokens ? static_cast<float>(scores[t]) : -INFINITY;
      largest = fmaxf(largest, score[page][i]);
    }
  }
  largest = WarpLargest(largest);
  float sum = 0.0f;
  float rotated = 0.0f;
  for (int page = 0; page < kSplitPages; ++page) {
    if (page >= part.pages()) break;
    float weight[2];
    for (int i = 0; i < 2; ++i) {
      const bool counts = page * kP + 2 * lane + i < tokens;
      weight[i] = counts ? expf(score[page][i] - largest) : 0.0f;
    }
    const uint32_t rounded = PackHalves(weight[0], weight[1]);
    weights[page * (kP / 2) + lane] = rounded;
    const float both = HalfToFloat(static_cast<uint16_t>(rounded & 0xFFFF)) +
                       HalfToFloat(static_cast<uint16_t>(rounded >> 16));
    sum += both;
    rotated += (own_pages >> page & 1) != 0 ? both : 0.0f;
  }
  sum = WarpSum(sum);
  rotated = WarpSum(rotated);
  if (lane == 0) {
    float* state = part.State(head);
    state[0] = largest;
    state[1] = sum;
    state[2] = rotated;
    state[3] = 0.0f;
  }
}

/// Columns [begin, end).
struct ColumnRange {
  int32_t begin, end;

  /// Whether a tile of columns has some of them.
  __device__ bool Meets(int tile) const {
    return begin < (tile + 1) * kTileHeads && end > tile * kTileHeads;
  }
};

/// The weighted sums of a page's values for some columns: rows are channels, tokens are summed,
/// columns are heads. Of the warp's part of the channels.
template <int32_t kSize, int kColumns, typename Source>
__device__ __forceinline__ void SumColumns(const Source& source, int32_t page,
                                           const ColumnRange& range, const PackedShared& shared) {
  constexpr int32_t kHeads = kColumns * kTileHeads;
  constexpr int32_t kPages = SumPages(kColumns);
  constexpr int32_t kChannels = kSize * kPages / kWarps;  // of a warp
  constexpr int kSteps = kP / 16;
  const SharedArray<Quad> weights = Shared("weights", shared.weights) + page * (kP / 4);
  const SharedArray<float> sums =
      Shared("sums", shared.sums) + page % kPages * kHeads * SumFloats(kSize);
  const int32_t first_channel = Thread() / kWarpLanes % (kWarps / kPages) * kChannels;
  const int32_t group = Thread() % kWarpLanes / 4;
  const int32_t in_group = Thread() % 4;
  uint32_t b[kSteps][kColumns][2];
  for (int step = 0; step < kSteps; ++step) {
    for (int column = 0; column < kColumns; ++column) {
      if (!range.Meets(column)) continue;
      const Quad w = weights[(column * kTileHeads + group) * kWeightQuads + step / kTiles * 8 +
                             kTiles * in_group + step % kTiles];
      b[step][column][0] = w.low;
      b[step][column][1] = w.high;
    }
  }
  const int32_t first = first_channel / 4 + group;  // subvector
  typename Source::Raw next = source.Load(first, 8 * in_group);
  for (int32_t channels = 0; channels < kChannels; channels += 32) {
    const int32_t subvector = first + channels / 4;
    float out[2][kColumns][4] = {};
    ASYMSERVE_UNROLL
    for (int step = 0; step < kSteps; step += kTiles) {
      const int32_t token = 16 * step + 8 * in_group;
      const typename Source::Raw raw = next;
      if (step + kTiles < kSteps) {
        next = source.Load(subvector, token + 32);
      } else if (channels + 32 < kChannels) {
        next = source.Load(subvector + 8, 8 * in_group);
      }
      Tile tiles[kTiles];
      source.Decode(raw, token, tiles);
      for (int n = 0; n < kTiles; ++n) {
        for (int half = 0; half < 2; ++half) {
          uint32_t a[4];
          ToFragment(tiles[n], half, a);
          for (int column = 0; column < kColumns; ++column) {
            if (!range.Meets(column)) continue;
            MmaF16(out[half][column], a, b[step + n][column]);
          }
        }
      }
    }
    for (int c = 0; c < 4; ++c) {
      for (int column = 0; column < kColumns; ++column) {
        for (int i = 0; i < 2; ++i) {
          const int32_t head = column * kTileHeads + 2 * in_group + i;
          if (head < range.begin || head >= range.end) continue;
          sums[head * SumFloats(kSize) + 4 * subvector + c] = out[c / 2][column][c % 2 * 2 + i];
        }
      }
    }
  }
}

/// The same of a page of which `tokens` are there.
template <int32_t kSize, int kColumns>
__device__ __forceinline__ void SumTokens(const PageBlock& block, int32_t page, int32_t tokens,
                                          const ColumnRange& range, const PlaneTables& tables,
                                          const PackedShared& shared) {
  if (block.item.codec == KvCodec::kPlanes && tables.copy_bits == kMostCopyBits) {
    SumColumns<kSize, kColumns>(CodedValues<kMostCopyBits>(block, tables), page, range, shared);
  } else if (block.item.codec == KvCodec::kPlanes) {
    SumColumns<kSize, kColumns>(CodedValues<-1>(block, tables), page, range, shared);
  } else if (block.item.codec == KvCodec::kInt8) {
    SumColumns<kSize, kColumns>(Int8Values<kSize>(block, tokens), page, range, shared);
  } else {
    SumColumns<kSize, kColumns>(HalfValues<kSize>(block, tokens), page, range, shared);
  }
}

/// The same for all columns that see some of the page. Rows that see different parts of it are
/// taken one by one: what was not there when a row was computed alone, a value that is not finite
/// maybe, must not be multiplied, not even by a weight of zero.
template <int32_t kSize, int kColumns>
__device__ void SumPage(const TilePart& part, int32_t page, const PlaneTables& tables,
                        const PackedShared& shared) {
  const PageBlock block = part.Block(page, KvTensor::kValue);
  const SharedArray<int32_t> seen = Shared("seen", shared.seen);
  const bool alike =
      kColumns <= kSingleColumns || TokensOf(seen[0], page) == TokensOf(part.tokens, page);
  ColumnRange range = {0, part.columns};
  while (range.begin < part.columns) {
    if (!alike) range.end = part.RowEnd(range.begin);
    const int32_t tokens = TokensOf(seen[range.begin], page);
    if (tokens > 0) {
      SumTokens<kSize, kColumns>(block, page, tokens, range, tables, shared);
    }
    range.begin = range.end;
  }
}

/// The sums of a block's columns: a thread has every kThreads-th channel of all, of pages whose
/// values are as they are and of those in a space of their own.
template <int32_t kSize, int kColumns>
struct ThreadSums {
  static constexpr int kMine = kColumns * kTileHeads * kSize / kThreads;
  float natural[kMine] = {};
  float rotated[kMine] = {};

  /// Adds pages [first, end), in order, of those that a column sees.
  __device__ __forceinline__ void Add(int32_t first, int32_t end, uint32_t own_pages,
                                      const PackedShared& shared) {
    constexpr int32_t kHeads = kColumns * kTileHeads;
    const SharedArray<float> sums = Shared("sums", shared.sums);
    const SharedArray<int32_t> seen = Shared("seen", shared.seen);
    int32_t tokens[kMine];
    ASYMSERVE_UNROLL
    for (int k = 0; k < kMine; ++k) tokens[k] = seen[(Thread() + k * kThreads) / kSize];
    for (int32_t page = first; page < end; ++page) {
      const bool own = (own_pages >> page & 1) != 0;
      ASYMSERVE_UNROLL
      for (int k = 0; k < kMine; ++k) {
        const int32_t i = Thread() + k * kThreads;
        if (page * kP >= tokens[k]) continue;
        const float sum =
            sums[((page - first) * kHeads + i / kSize) * SumFloats(kSize) + i % kSize];
        if (own) {
          rotated[k] += sum;
        } else {
          natural[k] += sum;
        }
      }
    }
  }
  __device__ __forceinline__ void Store(const TilePart& part) const {
    ASYMSERVE_UNROLL
    for (int k = 0; k < kMine; ++k) {
      const int32_t i = Thread() + k * kThreads;
      if (i / kSize >= part.columns) break;
      float* values = part.State(i / kSize) + kStateValues;
      values[i % kSize] = natural[k];
      values[kSize + i % kSize] = rotated[k];
    }
  }
};

/// Block (x, y): tile first_tile + x and part y of its columns; a warp for a page.
template <int32_t kSize, int kColumns>
__global__ void __launch_bounds__(kThreads, kColumns > 1 ? 1 : 2)
    PackedScanKernel(AttentionArgs args, int32_t first_tile, int32_t parts, float scale,
                     PackedShared shared) {
  AwaitEarlierKernels();
  constexpr int32_t kHeads = kColumns * kTileHeads;
  constexpr int32_t kPages = SumPages(kColumns);
  const TilePart part = MakePart<kHeads>(args, first_tile, parts);
  if (part.columns <= 0 || !IsAsked(args, args.rows[part.tile.first_row])) return;
  const int32_t warp = Thread() / kWarpLanes;
  const int32_t pages = part.pages();
  PageBlock keys;
  if (warp < pages) {
    keys = part.Block(warp, KvTensor::kKey);
    PrefetchCodes(keys);
    PrefetchCodes(part.Block(warp, KvTensor::kValue));
  }

  const SplitKinds kinds = KindsOf(part);
  const int32_t key_planes = kinds.planes[0];
  const int32_t value_planes = kinds.planes[1];
  HeldEntries key_entries = {};
  HeldEntries value_entries = {};
  if (key_planes > 0) key_entries = LoadEntries(*part.Code(KvTensor::kKey), key_planes, 0);
  if (value_planes > 0) value_entries = LoadEntries(*part.Code(KvTensor::kValue), value_planes, 0);
  const PlaneTables key_tables = TablesOf<kColumns>(shared, key_planes);
  LoadQueries<kSize, kColumns>(part, scale, key_planes > 0, shared);
  if (key_planes > 0) {
    FillTables(*part.Code(KvTensor::kKey), key_planes, kSize / 4, key_entries, key_tables);
  }
  __syncthreads();
  if (warp < pages) {
    ScorePage<kSize, kColumns>(keys, warp, key_tables, shared);
  }
  __syncthreads();

  const uint32_t own_pages = kinds.own_pages;
  const PlaneTables value_tables = TablesOf<kColumns>(shared, value_planes);
  for (int32_t head = warp; head < kHeads; head += kWarps) Softmax(part, head, own_pages, shared);
  if (value_planes > 0) {
    FillTables(*part.Code(KvTensor::kValue), value_planes, kSize / 4, value_entries, value_tables);
  }
  __syncthreads();

  ThreadSums<kSize, kColumns> sums;
  for (int32_t first = 0; first < pages; first += kPages) {
    if (first > 0) __syncthreads();  // the sums of the pages before were read
    const int32_t page = first + warp / (kWarps / kPages);
    if (page < pages) SumPage<kSize, kColumns>(part, page, value_tables, shared);
    __syncthreads();
    sums.Add(first, pages < first + kPages ? pages : first + kPages, own_pages, shared);
  }
  sums.Store(part);
}

template <int32_t kSize, int kColumns>
cudaError_t LaunchScan(const AttentionArgs& args, int32_t first_tile, int32_t tiles, int32_t rows,
                       cudaStream_t stream) {
  constexpr int32_t kHeads = kColumns * kTileHeads;
  if (tiles == 0) return cudaSuccess;
  SharedPlan plan;
  PackedShared shared;
  shared.queries = plan.Take<Quad>(2 * kHeads * QueryQuads(kSize));
  shared.units = plan.Take<float>(2 * kHeads);
  shared.bias = plan.Take<float>(kHeads);
  shared.seen = plan.Take<int32_t>(kHeads);
  constexpr int32_t kSums = SumPages(kColumns) * kHeads * SumFloats(kSize);
  shared.sums = plan.Take<float>(std::max(kSums, kHeads * kScoreFloats));
  shared.scores = {shared.sums.offset, kHeads * kScoreFloats};
  shared.weights = plan.Take<Quad>(kHeads * kWeightQuads);
  shared.entries = plan.Take<Quad>(TableQuads(kColumns) + kMostCopies);
  shared.heads = plan.Take<uint32_t>(kSize / 4);
  shared.by_subvector = plan.Take<uint8_t>(256);
  const int32_t parts = PartsOf(rows, args.heads / args.kv.kv_heads, kHeads);
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(args.kv.kv_heads * parts));
  const float scale = 1.0f / std::sqrt(static_cast<float>(kSize));
  return Launch<PackedScanKernel<kSize, kColumns>>(grid, dim3(kThreads), plan.bytes(), stream, args,
                                                   first_tile, parts, scale, shared);
}

/// The tiles of one row, then the others.
template <int32_t kSize>
cudaError_t LaunchScans(const AttentionArgs& args, cudaStream_t stream) {
  const bool one_tile = args.heads / args.kv.kv_heads <= kTileHeads;
  const auto single = one_tile ? LaunchScan<kSize, 1> : LaunchScan<kSize, kSingleColumns>;
  const cudaError_t error = single(args, 0, args.single_tiles, 1, stream);
  if (error != cudaSuccess) return error;
  return LaunchScan<kSize, kManyColumns>(
      args, args.single_tiles, args.tile_count - args.single_tiles, args.most_rows, stream);
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
  const cudaError_t error =
      size == 64 ? LaunchScans<64>(args, stream) : LaunchScans<128>(args, stream);
  return error != cudaSuccess ? error : MergeStates(args, stream);
}

}  // namespace asymserve::cuda
