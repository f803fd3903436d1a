#include <bit>

#include "engine/backend/cuda/dense_products.h"
#include "engine/backend/cuda/mma_products.cuh"

namespace asymserve::cuda {
namespace {

static_assert(kDenseBlock == kProductBlock);

/// Rows as they are in a file: a lane reads eight columns of four rows of a tile. kHalf: F16;
/// otherwise BF16, which is rounded to fp16.
template <bool kHalf>
struct DenseWeights {
  static constexpr bool kHasMinimum = false;
  static constexpr bool kHasSingleTile = false;
  static constexpr int kWarpTiles = 1;
  static constexpr int32_t kLaneRows = 4;
  static constexpr int32_t kStageQuads = kLaneRows * kWarpLanes;

  struct Block {
    FourWords rows[kLaneRows];
  };
  /// Of so many times 16 rows.
  template <int kCount>
  struct Decoded {
    WeightFragments rows[kCount];
  };

  /// A last row stands for others.
  __device__ __forceinline__ const uint16_t* At(int32_t tile, int32_t block, int32_t lane,
                                                int i) const {
    const int32_t row = tile * kTileOutputs + lane / 4 + 8 * i;
    return data + int64_t{row < rows ? row : rows - 1} * cols + block * kProductBlock +
           lane % 4 * 8;
  }
  /// What a lane copies of a tile, block after block.
  class Cursor {
   public:
    __device__ Cursor(const DenseWeights& w, int32_t tile, int32_t block, int32_t lane) {
      ASYMSERVE_UNROLL
      for (int i = 0; i < kLaneRows; ++i) rows_[i] = w.At(tile, block, lane, i);
    }
    __device__ __forceinline__ void Copy(SharedArray<FourWords> to, int32_t lane) {
      ASYMSERVE_UNROLL
      for (int i = 0; i < kLaneRows; ++i) {
        CopyAsync16(to, i * kWarpLanes + lane, rows_[i]);
        rows_[i] += kProductBlock;
      }
    }

   private:
    const uint16_t* rows_[kLaneRows];
  };

  __device__ __forceinline__ Block Staged(SharedSlice<FourWords> ring, int32_t quad,
                                          int32_t lane) const {
    const SharedArray<FourWords> quads = Shared("ring", ring) + (quad + lane);
    Block block;
    ASYMSERVE_UNROLL
    for (int i = 0; i < kLaneRows; ++i) block.rows[i] = quads[i * kWarpLanes];
    return block;
  }
  __device__ __forceinline__ Block Load(int32_t tile, int32_t block, int32_t lane) const {
    Block loaded;
    ASYMSERVE_UNROLL
    for (int i = 0; i < kLaneRows; ++i) {
      loaded.rows[i] = *reinterpret_cast<const FourWords*>(At(tile, block, lane, i));
    }
    return loaded;
  }
  __device__ __forceinline__ void LoadLate(Block&, int32_t, int32_t, int32_t) const {}

  /// A tile, into decoded[first] and the next.
  template <int kCount>
  __device__ __forceinline__ void Decode(const Block& block, Decoded<kCount>& decoded,
                                         int first) const {
    ASYMSERVE_UNROLL
    for (int i = 0; i < 16; ++i) {
      const int half = i / 8;
      const int step = i / 4 % 2;
      const int at = i % 4;  // of the fragment
      const uint32_t pair = block.rows[2 * half + at % 2].of[2 * step + at / 2];
      decoded.rows[first + half].of[step][at] =
          kHalf ? pair
                : PackHalves(std::bit_cast<float>(pair << 16),
                             std::bit_cast<float>(pair & 0xFFFF0000u));
    }
  }
  template <int kCount>
  __device__ __forceinline__ static void Add(const Decoded<kCount>& w, const BlockInputs& x,
                                             float (&sums)[kCount][4]) {
    float parts[kCount][4] = {};
    MultiplyAdd(parts, w.rows, x.fragments);
    ASYMSERVE_UNROLL
    for (int m = 0; m < kCount; ++m) {
      ASYMSERVE_UNROLL
      for (int i = 0; i < 4; ++i) sums[m][i] += parts[m][i];
    }
  }

  const uint16_t* data;
  int32_t rows;
  int32_t cols;
};

}  // namespace

cudaError_t DenseProduct(float* out, int64_t out_stride, const ProductInputs& x, int64_t rows,
                         const MatrixView& w, cudaStream_t stream, int64_t enough_blocks) {
  if (!IsForDenseProduct(w) || x.order != kDenseInputOrder) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  const ProductArgs args = {.out = out,
                            .out_stride = out_stride,
                            .x = x,
                            .rows = rows,
                            .outputs = w.rows,
                            .blocks = w.cols / kProductBlock,
                            .row_tiles = 0};
  const auto* data = static_cast<const uint16_t*>(w.data);
  if (w.type == DType::kF16) {
    return MmaProduct(args, DenseWeights<true>{data, w.rows, w.cols}, enough_blocks, stream);
  }
  return MmaProduct(args, DenseWeights<false>{data, w.rows, w.cols}, enough_blocks, stream);
}

}  // namespace asymserve::cuda
