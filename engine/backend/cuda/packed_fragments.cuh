#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/four_words.cuh"
#include "engine/backend/cuda/page_tile.cuh"
#include "engine/backend/cuda/ptx.cuh"
#include "engine/backend/cuda/shared_array.cuh"
#include "engine/backend/cuda/warp.cuh"

// Stored bytes decoded straight into the fragments of mma.m16n8k16, in registers: kHalf, kInt8 and
// kPlanes. A lane is `group` = lane / 4 and `in_group` = lane % 4 in the words of the PTX ISA.
//
// The matrix product leaves two orders free: that of the summed index, as long as both operands
// have the same, and that of the rows of the result. They are chosen so that a lane's part of two
// A fragments is four neighbouring tokens by four neighbouring channels, that is one entry of a
// codebook for each of four tokens, whose codes are the bytes of one word; or 16 bytes of an int8
// block. For scores rows are tokens and channels are summed, for values the reverse.

namespace asymserve::cuda {

/// Four 16-bit floats.
struct alignas(8) Quad {
  uint32_t low, high;
};

/// 4 x 4 floats of 16 bits: of[i] is row i.
struct Tile {
  uint32_t of[4][2];
};

__device__ __forceinline__ Tile Transposed(const Tile& m) {
  Tile t;
  for (int i = 0; i < 4; ++i) {
    for (int pair = 0; pair < 2; ++pair) {
      t.of[i][pair] = __byte_perm(m.of[2 * pair][i / 2], m.of[2 * pair + 1][i / 2],
                                  i % 2 == 0 ? 0x5410 : 0x7632);
    }
  }
  return t;
}

/// Of an A fragment whose rows `group` and `group` + 8 are rows 2 half and 2 half + 1 of the tile,
/// and whose columns 2 in_group, + 1, + 8 and + 9 are its columns.
__device__ __forceinline__ void ToFragment(const Tile& m, int half, uint32_t (&a)[4]) {
  a[0] = m.of[2 * half][0];
  a[1] = m.of[2 * half + 1][0];
  a[2] = m.of[2 * half][1];
  a[3] = m.of[2 * half + 1][1];
}

/// The learned code of an item in shared memory, as a lane reads it.
struct PlaneTables {
  // [planes][16][copies], a lane's copy its own bank if there are 16: entries of four channels.
  SharedArray<Quad> entries;
  SharedArray<FourWords> pairs;  // the same
  // [D/4] of a subvector: its first plane, or kNoPlane, and in by_subvector where its others begin
  // and end, a byte each.
  SharedArray<uint32_t> heads;
  SharedArray<uint8_t> by_subvector;  // as in PlaneCodeView
  int32_t copy_bits;                  // there are 2^copy_bits copies
  int32_t zeros;  // of kMostCopies entries of zero: what a subvector without a plane reads
};
inline constexpr uint32_t kNoPlane = 255;

inline constexpr int32_t kEntries = 16;
inline constexpr int32_t kMostCopyBits = 4;  // 16 lanes read 8 bytes at the same time
inline constexpr int32_t kMostCopies = 1 << kMostCopyBits;

/// How often tables of `planes` planes fit into `quads`.
__device__ __forceinline__ int32_t CopyBitsOf(int32_t planes, int32_t quads) {
  int32_t bits = kMostCopyBits;
  while (bits > 0 && (planes * kEntries << bits) > quads) --bits;
  return bits;
}

/// Entries of a code on their way to the tables: of each round of the block a lane has two.
struct HeldEntries {
  Quad of[2];
};
inline constexpr int32_t kWarpEntries = 64;  // of a round

/// The warp's entries of a round, of the first `planes` planes. To be called well before
/// FillTables.
__device__ __forceinline__ HeldEntries LoadEntries(const PlaneCodeView& code, int32_t planes,
                                                   int32_t round) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto warps = static_cast<int32_t>(blockDim.x) / kWarpLanes;
  const auto* entries = reinterpret_cast<const Quad*>(code.entries);
  HeldEntries held = {};
  for (int i = 0; i < 2; ++i) {
    const int32_t entry =
        (round * warps + thread / kWarpLanes) * kWarpEntries + i * kWarpLanes + thread % kWarpLanes;
    if (entry < planes * kEntries) held.of[i] = entries[entry];
  }
  return held;
}

/// Fills the tables for the first `planes` planes; `held`: those of round 0. All threads of the
/// block; barriers are the caller's.
__device__ __forceinline__ void FillTables(const PlaneCodeView& code, int32_t planes,
                                           int32_t subvectors, HeldEntries held,
                                           const PlaneTables& tables) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto threads = static_cast<int32_t>(blockDim.x);
  const int32_t lane = thread % kWarpLanes;
  const int32_t bits = tables.copy_bits;
  const int32_t count = planes * kEntries;
  if (thread < kMostCopies) tables.entries[tables.zeros + thread] = {};
  for (int32_t i = thread; i < code.planes; i += threads) {
    tables.by_subvector[i] = code.by_subvector[i];
  }
  for (int32_t i = thread; i < subvectors; i += threads) {
    const uint32_t start = code.starts[i];
    const uint32_t end = code.starts[i + 1];
    const uint32_t first = start < end ? code.by_subvector[start] : kNoPlane;
    tables.heads[i] = first | (start + 1) << 8 | end << 16;
  }
  for (int32_t round = 0;; ++round) {
    const int32_t first = (round * threads / kWarpLanes + thread / kWarpLanes) * kWarpEntries;
    if (first >= count) return;
    if (round > 0) held = LoadEntries(code, planes, round);
    const int32_t end = (first + kWarpEntries < count ? first + kWarpEntries : count) << bits;
    ASYMSERVE_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int32_t of_half = (first + i * kWarpLanes) << bits;
      if (bits == 0) {
        if (of_half + lane < end) tables.entries[of_half + lane] = held.of[i];
        continue;
      }
      // Two copies a lane; neighbouring lanes write neighbouring copies.
      ASYMSERVE_UNROLL_BY(4)
      for (int32_t k = 0; k < 1 << (bits - 1); ++k) {
        const int32_t from = (k * kWarpLanes + lane) >> (bits - 1);
        const uint32_t low = __shfl_sync(kWholeWarp, held.of[i].low, from);
        const uint32_t high = __shfl_sync(kWholeWarp, held.of[i].high, from);
        const int32_t at = of_half / 2 + k * kWarpLanes + lane;
        if (2 * at < end) tables.pairs[at] = {low, high, low, high};
      }
    }
  }
}

inline constexpr int kTiles = 2;  // decoded at a time: what they share is looked up once

/// Four bytes that are 128 + code as 16-bit floats, exactly.
__device__ __forceinline__ void Int8Halves(uint32_t bytes, uint32_t (&halves)[2]) {
  constexpr uint32_t k1024 = 0x64646464;       // upper bytes of 1024 + byte
  constexpr uint32_t kMinus1152 = 0xE480E480;  // twice
  halves[0] = AddHalves(__byte_perm(bytes, k1024, 0x4140), kMinus1152);
  halves[1] = AddHalves(__byte_perm(bytes, k1024, 0x4342), kMinus1152);
}

/// Asks for a sealed tensor of a page from global memory, by a warp, so that it is near when it is
/// read. Pages that are not sealed are large: they would push each other out again.
__device__ __forceinline__ void PrefetchCodes(const PageBlock& block) {
  if (block.item.codec != KvCodec::kPlanes) return;
  constexpr int32_t kLine = 128;
  const int32_t at = static_cast<int32_t>(threadIdx.x) % kWarpLanes * kLine;
  const int32_t base_planes = block.item.base_planes;
  if (at < (base_planes + 1) / 2 * kKvPageTokens) Prefetch(block.bytes + at);
  if (block.refinement == nullptr) return;
  const int32_t finer = block.item.fresh_planes - base_planes;
  if (at < (finer + 1) / 2 * kKvPageTokens) Prefetch(block.refinement + at);
}

}  // namespace asymserve::cuda
