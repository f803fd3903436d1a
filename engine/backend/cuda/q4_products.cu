#include "engine/backend/cuda/mma_products.cuh"
#include "engine/backend/cuda/q4_decode.cuh"
#include "engine/backend/cuda/q4_products.h"

namespace asymserve::cuda {
namespace {

static_assert(kQ4Block == kProductBlock && kQ4TileRows == kTileOutputs);

struct Q4_0 {
  static constexpr DType kType = DType::kQ4_0;
};
struct Q4_1 {
  static constexpr DType kType = DType::kQ4_1;
};
struct Q4K {
  static constexpr DType kType = DType::kQ4K;
};

template <typename Format>
struct Q4Weights {
  static constexpr DType kType = Format::kType;
  static constexpr bool kHasMinimum = kType != DType::kQ4_0;
  static constexpr bool kHasSingleTile = true;
  static constexpr int kWarpTiles = 2;  // of a warp of many_rows.cuh
  static constexpr int32_t kCodeQuads = kQ4TileRows * kQ4CodeBytes / 16;
  static constexpr int32_t kScaleQuads = kType == DType::kQ4_1 ? 8 : 4;
  static constexpr int32_t kSuperQuads = kType == DType::kQ4K ? 8 : 0;
  static constexpr int32_t kStageQuads = kCodeQuads + kScaleQuads + kSuperQuads;

  struct Block {
    FourWords codes;
    Q4ScaleWords scales;
  };
  /// Of so many times 16 rows.
  template <int kCount>
  struct Decoded {
    WeightFragments codes[kCount];
    Q4Scale scales[kCount][2];  // of rows g and g + 8
  };

  /// What a lane copies of a tile, block after block: codes, and some lanes scales, others super
  /// scales.
  class Cursor {
   public:
    __device__ Cursor(const Q4Weights& w, int32_t tile, int32_t block, int32_t lane)
        : codes_(w.tiles + tile * w.layout.tile_bytes + w.layout.CodesAt(block, lane)),
          others_(w.tiles + tile * w.layout.tile_bytes +
                  (IsForSupers(lane) ? w.layout.SupersAt(block, lane - kFirstSuperLane)
                                     : w.layout.ScalesAt(block, 0) + 16 * lane)),
          block_(block) {}
    __device__ __forceinline__ void Copy(SharedArray<FourWords> to, int32_t lane) {
      CopyAsync16(to, lane, codes_);
      codes_ += 16 * kCodeQuads;
      ++block_;
      const bool supers = IsForSupers(lane);
      if (lane < kScaleQuads || supers) {
        const int32_t at = supers ? kScaleQuads + lane - kFirstSuperLane : lane;
        CopyAsync16(to, kCodeQuads + at, others_);
      }
      if (!supers) {
        others_ += 16 * kScaleQuads;
      } else if (block_ % kQ4SuperBlocks == 0) {
        others_ += 16 * kSuperQuads;
      }
    }

   private:
    static constexpr int32_t kFirstSuperLane = 8;
    __device__ static bool IsForSupers(int32_t lane) {
      return lane >= kFirstSuperLane && lane < kFirstSuperLane + kSuperQuads;
    }

    const uint8_t* codes_;
    const uint8_t* others_;
    int32_t block_;
  };

  /// What Copy brought to `quad`.
  __device__ __forceinline__ Block Staged(SharedSlice<FourWords> ring, int32_t quad,
                                          int32_t lane) const {
    const SharedArray<FourWords> quads = Shared("ring", ring) + quad;
    const int32_t group = lane / 4;
    Block block = {quads[lane], {}};
    if constexpr (kType == DType::kQ4_1) {
      block.scales.pairs = quads[kCodeQuads + group];
    } else {
      block.scales.bytes =
          Shared<TwoWords>("ring", {ring.offset, 2 * ring.count})[2 * (quad + kCodeQuads) + group];
      if constexpr (kSuperQuads > 0) block.scales.pairs = quads[kCodeQuads + kScaleQuads + group];
    }
    return block;
  }
  /// All of a block but what LoadLate brings.
  __device__ __forceinline__ Block Load(int32_t tile, int32_t block, int32_t lane) const {
    const uint8_t* from = tiles + tile * layout.tile_bytes;
    Block loaded = {*reinterpret_cast<const FourWords*>(from + layout.CodesAt(block, lane)), {}};
    const uint8_t* scales = from + layout.ScalesAt(block, lane / 4);
    if constexpr (kType == DType::kQ4_1) {
      loaded.scales.pairs = *reinterpret_cast<const FourWords*>(scales);
    } else {
      loaded.scales.bytes = *reinterpret_cast<const TwoWords*>(scales);
    }
    return loaded;
  }
  /// The super scales, which the first-level cache has for seven blocks of eight.
  __device__ __forceinline__ void LoadLate(Block& loaded, int32_t tile, int32_t block,
                                           int32_t lane) const {
    if constexpr (kType == DType::kQ4K) {
      loaded.scales.pairs = *reinterpret_cast<const FourWords*>(tiles + tile * layout.tile_bytes +
                                                                layout.SupersAt(block, lane / 4));
    }
  }
  /// A tile, into decoded[first] and the next.
  template <int kCount>
  __device__ __forceinline__ void Decode(const Block& block, Decoded<kCount>& decoded,
                                         int first) const {
    ASYMSERVE_UNROLL
    for (int half = 0; half < 2; ++half) {
      CodeFragments<kHasMinimum ? 0 : 8>(block.codes.of[2 * half], block.codes.of[2 * half + 1],
                                         decoded.codes[first + half].of);
      decoded.scales[first + half][0] = ScaleOf(kType, block.scales, 2 * half);
      decoded.scales[first + half][1] = ScaleOf(kType, block.scales, 2 * half + 1);
    }
  }
  template <int kCount>
  __device__ __forceinline__ static void Add(const Decoded<kCount>& w, const BlockInputs& x,
                                             float (&sums)[kCount][4]) {
    float parts[kCount][4] = {};
    MultiplyAdd(parts, w.codes, x.fragments);
    ASYMSERVE_UNROLL
    for (int m = 0; m < kCount; ++m) {
      ASYMSERVE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const Q4Scale& scale = w.scales[m][i / 2];
        sums[m][i] = fmaf(scale.scale, parts[m][i], sums[m][i]);
        if constexpr (kHasMinimum) {
          sums[m][i] = fmaf(scale.minimum, x.sums.of[i % 2], sums[m][i]);
        }
      }
    }
  }

  const uint8_t* tiles;
  Q4Layout layout;
};

}  // namespace

cudaError_t Q4Product(float* out, int64_t out_stride, const ProductInputs& x, int64_t rows,
                      const MatrixView& w, cudaStream_t stream, int64_t enough_blocks) {
  if (!IsQ4(w.type) || x.order != kQ4InputOrder) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  const ProductArgs args = {.out = out,
                            .out_stride = out_stride,
                            .x = x,
                            .rows = rows,
                            .outputs = w.rows,
                            .blocks = w.cols / kProductBlock,
                            .row_tiles = 0};
  const auto* tiles = static_cast<const uint8_t*>(w.data);
  const Q4Layout layout(w.type, w.cols);
  switch (w.type) {
    case DType::kQ4_0:
      return MmaProduct(args, Q4Weights<Q4_0>{tiles, layout}, enough_blocks, stream);
    case DType::kQ4_1:
      return MmaProduct(args, Q4Weights<Q4_1>{tiles, layout}, enough_blocks, stream);
    default:
      return MmaProduct(args, Q4Weights<Q4K>{tiles, layout}, enough_blocks, stream);
  }
}

}  // namespace asymserve::cuda
