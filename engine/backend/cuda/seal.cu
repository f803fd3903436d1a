#include <bit>

#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/near_tile.cuh"
#include "engine/backend/cuda/rotate.cuh"
#include "engine/backend/cuda/seal.h"
#include "engine/backend/cuda/warp.cuh"
#include "engine/kv/hadamard.h"
#include "engine/kv/quantizer.h"

// Every float operation is one of kv/codec.cc, in its order, so that the bytes are the same:
// compile with -fmad=false.

namespace asymserve::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int32_t kP = kKvPageTokens;
constexpr int32_t kSubvector = 4;  // channels
constexpr int32_t kEntries = 16;

struct SealShared {
  SharedSlice<float> rows;           // [P][D] what is to be stored
  SharedSlice<float> z;              // [P][D] kPlanes: transformed
  SharedSlice<uint8_t> codes;        // [planes][P]
  SharedSlice<CentredLevels> fits;   // [groups] kFitted
  SharedSlice<Levels> levels;        // [groups] kFitted, kMinMax; kInt8: of tokens
  SharedSlice<FittedHeader> header;  // [1]
};

/// The block of a thread block, and what is needed to encode it.
struct Target {
  KvItem item;
  KvTensor tensor;
  int32_t head_size;
  const SharedArray<float> rows;
  uint8_t* base;
  uint8_t* refinement;  // or null

  __device__ bool is_key() const { return tensor == KvTensor::kKey; }
};

__device__ __forceinline__ int32_t Thread() {
  return static_cast<int32_t>(threadIdx.x);
}

// ---- Unquantized blocks -------------------------------------------------------------------------

__device__ void EncodeHalf(const Target& target) {
  auto* halves = reinterpret_cast<uint16_t*>(target.base);
  for (int32_t i = Thread(); i < kP * target.head_size; i += kThreads) {
    const int32_t token = i / target.head_size;
    halves[HalfIndex(target.tensor, target.head_size, token, i % target.head_size)] =
        HalfOrNan(target.rows[i]);
  }
}

__device__ void EncodeInt8(const Target& target, SharedArray<Levels> levels) {
  const int32_t size = target.head_size;
  if (Thread() < kP) {
    uint32_t largest = 0;  // bits of a magnitude; NaN is the largest
    for (int32_t d = 0; d < size; ++d) {
      const float x = target.rows[Thread() * size + d];
      const uint32_t magnitude = std::bit_cast<uint32_t>(x) & 0x7FFFFFFFu;
      largest = magnitude > largest ? magnitude : largest;
    }
    const uint16_t half = Int8Scale(std::bit_cast<float>(largest));
    *reinterpret_cast<uint16_t*>(target.base + Int8ScaleOffset(size, Thread())) = half;
    levels[Thread()] = Levels{HalfToFloat(half), 0.0f};
  }
  __syncthreads();
  for (int32_t i = Thread(); i < kP * size; i += kThreads) {
    const int32_t token = i / size;
    const Levels level = levels[token];
    target.base[Int8Index(target.tensor, size, token, i % size)] =
        Int8Byte(target.tensor, target.rows[i], level.scale);
  }
}

// ---- Scalar blocks ------------------------------------------------------------------------------

/// Keys are rows of tokens by channel, values rows of channels by token; a row is cut into groups.
struct Rows {
  int32_t count, elements;
  int32_t row_stride, stride;  // in Target::rows
  int32_t group_size, row_groups;

  __device__ Rows(const Target& target, int32_t group)
      : count(target.is_key() ? target.head_size : kP),
        elements(target.is_key() ? kP : target.head_size),
        row_stride(target.is_key() ? 1 : target.head_size),
        stride(target.is_key() ? target.head_size : 1),
        group_size(group),
        row_groups(GroupsOf(elements, group)) {}

  __device__ int32_t groups() const { return count * row_groups; }
  __device__ int32_t GroupStart(int32_t group) const {
    return group / row_groups * row_stride + group % row_groups * group_size * stride;
  }
  __device__ int32_t GroupElements(int32_t group) const {
    const int32_t left = elements - group % row_groups * group_size;
    return left < group_size ? left : group_size;
  }
};

/// The codes of all rows, a byte a thread, and zeros for what is padding behind the block.
__device__ void StoreCodes(const Target& target, const Rows& rows, const ScalarBlock& layout,
                           SharedArray<Levels> levels) {
  const int32_t bits = target.item.bits;
  const auto row_bytes = static_cast<int32_t>(layout.row_bytes);
  for (int32_t i = Thread(); i < rows.count * row_bytes; i += kThreads) {
    const int32_t row = i / row_bytes;
    uint32_t byte = 0;
    for (int32_t k = 0; k < 8 / bits; ++k) {
      const int32_t element = i % row_bytes + k * row_bytes;
      const Levels level = levels[row * rows.row_groups + element / rows.group_size];
      const float x = target.rows[row * rows.row_stride + element * rows.stride];
      byte |= uint32_t{NearestCode(x, level, bits)} << (k * bits);
    }
    target.base[i] = static_cast<uint8_t>(byte);
  }
  for (int64_t i = layout.bytes + Thread(); i < PadKvBlock(layout.bytes); i += kThreads) {
    target.base[i] = 0;
  }
}

__device__ void EncodeMinMax(const Target& target, SharedArray<Levels> levels) {
  const ScalarBlock layout = ScalarBlockOf(target.item, target.tensor, target.head_size);
  const Rows rows(target, kMinMaxGroup);
  for (int32_t group = Thread(); group < rows.groups(); group += kThreads) {
    const Levels level = MinMaxLevels(target.rows + rows.GroupStart(group),
                                      rows.GroupElements(group), rows.stride, target.item.bits);
    auto* pair = reinterpret_cast<uint16_t*>(target.base + layout.scales) + int64_t{2} * group;
    pair[0] = FloatToHalf(level.scale);
    pair[1] = FloatToHalf(level.zero);
    levels[group] = level;
  }
  __syncthreads();
  StoreCodes(target, rows, layout, levels);
}

__device__ void EncodeFitted(const Target& target, SharedArray<CentredLevels> fits,
                             SharedArray<Levels> levels, SharedArray<FittedHeader> shared_header) {
  const ScalarBlock layout = ScalarBlockOf(target.item, target.tensor, target.head_size);
  const Rows rows(target, kFittedGroup);
  for (int32_t group = Thread(); group < rows.groups(); group += kThreads) {
    fits[group] = FitLevels(target.rows + rows.GroupStart(group), rows.GroupElements(group),
                            rows.stride, target.item.bits);
  }
  __syncthreads();
  if (Thread() == 0) {
    const FittedHeader header = FittedHeaderOf(fits, rows.groups());
    shared_header[0] = header;
    *reinterpret_cast<FittedHeader*>(target.base + layout.header) = header;
  }
  __syncthreads();
  const FittedHeader header = shared_header[0];
  for (int32_t group = Thread(); group < rows.groups(); group += kThreads) {
    const CentredLevels fit = fits[group];
    const uint8_t scale = FittedScaleCode(header, fit.scale);
    const uint8_t mean = FittedMeanCode(header, fit.mean);
    target.base[layout.scales + group] = scale;
    target.base[layout.means + group] = mean;
    levels[group] = FittedLevels(header, scale, mean, target.item.bits);
  }
  __syncthreads();
  StoreCodes(target, rows, layout, levels);
}

// ---- Planes -------------------------------------------------------------------------------------

/// The entry nearest to x, ties to the lowest.
__device__ int32_t NearestEntry(const float* codebook, const float (&x)[kSubvector]) {
  int32_t nearest = 0;
  float best = 0.0f;
  for (int32_t entry = 0; entry < kEntries; ++entry) {
    float distance = 0.0f;
    for (int32_t c = 0; c < kSubvector; ++c) {
      const float difference = x[c] - codebook[c * kEntries + entry];
      distance = distance + difference * difference;
    }
    if (entry == 0 || distance < best) {
      best = distance;
      nearest = entry;
    }
  }
  return nearest;
}

__device__ void EncodePlanes(const Target& target, const PlaneCodeView& code, SharedArray<float> z,
                             SharedArray<uint8_t> codes) {
  const int32_t size = target.head_size;
  for (int32_t i = Thread(); i < kP * size; i += kThreads) {
    const SharedArray<float> x = target.rows + i / size * size;
    float sum = 0.0f;
    for (int32_t d = 0; d < size; ++d) {
      sum = sum + (x[d] - code.mean[d]) * code.encode[d * size + i % size];
    }
    z[i] = sum;
  }
  __syncthreads();
  const int32_t base_planes = target.item.base_planes;
  const int32_t planes = target.refinement != nullptr ? target.item.fresh_planes : base_planes;
  // Planes of different subvectors do not depend on each other.
  for (int32_t i = Thread(); i < kP * size / kSubvector; i += kThreads) {
    const int32_t token = i % kP;
    const int32_t subvector = i / kP;
    float left[kSubvector];
    for (int32_t c = 0; c < kSubvector; ++c) left[c] = z[token * size + subvector * kSubvector + c];
    for (int32_t p = 0; p < planes; ++p) {
      if (code.subvector[p] != subvector) continue;
      const float* codebook = code.codebooks + p * kSubvector * kEntries;
      const int32_t entry = NearestEntry(codebook, left);
      codes[p * kP + token] = static_cast<uint8_t>(entry);
      for (int32_t c = 0; c < kSubvector; ++c) left[c] = left[c] - codebook[c * kEntries + entry];
    }
  }
  __syncthreads();
  for (int32_t i = Thread(); i < planes / 2 * kP; i += kThreads) {
    const int32_t plane = i / kP * 2;
    const uint32_t low = codes[plane * kP + i % kP];
    const uint32_t high = codes[(plane + 1) * kP + i % kP];
    const auto byte = static_cast<uint8_t>(low | high << 4);
    if (plane < base_planes) {
      target.base[i] = byte;
    } else {
      target.refinement[i - base_planes / 2 * kP] = byte;
    }
  }
}

// ---- A block ------------------------------------------------------------------------------------

/// What the codec wants to see: keys of kPlanes turned back to their frame, values of kFitted in
/// the space of the Hadamard matrix.
__device__ void Transform(const KvView& kv, const Target& target, int32_t page) {
  const int32_t size = target.head_size;
  if (target.item.codec == KvCodec::kPlanes && target.is_key()) {
    const int32_t half = size / 2;
    const int32_t frame_pages = kv.frame_tokens / kP;
    const float* angles = kv.rope + int64_t{page / frame_pages} * kv.frame_tokens * size;
    for (int32_t i = Thread(); i < kP * half; i += kThreads) {
      const int32_t pair = i % half;
      const RotaryPair at = PairOf(pair, size, kv.interleaved);
      const SharedArray<float> row = target.rows + i / half * size;
      const Rotated back =
          RotateBack(row[at.first], row[at.second], angles[pair], angles[half + pair]);
      row[at.first] = back.first;
      row[at.second] = back.second;
    }
    __syncthreads();
  }
  if (target.item.codec == KvCodec::kFitted && !target.is_key()) {
    if (Thread() < kP) HadamardInPlace(target.rows + Thread() * size, size);
    __syncthreads();
  }
}

/// Block (x, y): item x of page y.
__global__ void __launch_bounds__(kThreads, 2)
    SealKernel(KvView kv, const KvSealOp* ops, SealShared shared) {
  AwaitEarlierKernels();
  const KvSealOp op = ops[blockIdx.y];
  const auto index = static_cast<int32_t>(blockIdx.x);
  const bool key = index / kv.kv_heads % 2 == 0;
  if (!(key ? op.keys : op.values)) return;
  const KvItem item = kv.items[index];
  const bool refines = Index(op.refinement) >= 0 && item.codec == KvCodec::kPlanes &&
                       item.fresh_planes > item.base_planes;
  const Target target = {item,
                         key ? KvTensor::kKey : KvTensor::kValue,
                         kv.head_size,
                         Shared("rows", shared.rows),
                         kv.Block(KvRecord::kBase, op.base, index),
                         refines ? kv.Block(KvRecord::kRefinement, op.refinement, index) : nullptr};
  const uint8_t* near = kv.Block(KvRecord::kNear, op.near, index);
  for (int32_t i = Thread(); i < kP * kv.head_size; i += kThreads) {
    target.rows[i] =
        NearValue(kv.near, target.tensor, kv.head_size, near, i / kv.head_size, i % kv.head_size);
  }
  __syncthreads();
  Transform(kv, target, op.page);
  switch (item.codec) {
    case KvCodec::kHalf:
      return EncodeHalf(target);
    case KvCodec::kInt8:
      return EncodeInt8(target, Shared("levels", shared.levels));
    case KvCodec::kMinMax:
      return EncodeMinMax(target, Shared("levels", shared.levels));
    case KvCodec::kFitted:
      return EncodeFitted(target, Shared("fits", shared.fits), Shared("levels", shared.levels),
                          Shared("header", shared.header));
    case KvCodec::kPlanes:
      return EncodePlanes(target, kv.codes[index], Shared("z", shared.z),
                          Shared("codes", shared.codes));
  }
}

}  // namespace

cudaError_t Seal(const KvView& kv, const KvSealOp* ops, int64_t count, int32_t max_planes,
                 cudaStream_t stream, int64_t pages_at_once) {
  if (kv.items == nullptr) return cudaErrorInvalidValue;
  const int64_t elements = int64_t{kP} * kv.head_size;
  SharedPlan plan;
  SealShared shared;
  shared.rows = plan.Take<float>(elements);
  if (max_planes > 0) {
    shared.z = plan.Take<float>(elements);
    shared.codes = plan.Take<uint8_t>(int64_t{max_planes} * kP);
  }
  shared.fits = plan.Take<CentredLevels>(kMaxKvHeadSize);
  shared.levels = plan.Take<Levels>(elements / kMinMaxGroup + kP);
  shared.header = plan.Take<FittedHeader>(1);
  for (int64_t first = 0; first < count; first += pages_at_once) {
    const int64_t left = count - first;
    const dim3 grid(static_cast<unsigned>(2 * kv.layers * kv.kv_heads),
                    static_cast<unsigned>(left < pages_at_once ? left : pages_at_once));
    const cudaError_t error =
        Launch<SealKernel>(grid, dim3(kThreads), plan.bytes(), stream, kv, ops + first, shared);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace asymserve::cuda
