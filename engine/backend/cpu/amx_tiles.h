#pragma once

#include <cstdint>

#include "engine/backend/cpu/packed_format.h"

// AMX's tiles, as products of quantized blocks use them. Its own assembly: the intrinsics of g++ 12
// load 8 of the 64 bytes of a configuration, and do not say that they read and write memory.

namespace asymserve {

// The first registers of: sums (four), int8 activations of 16 rows (two), codes of 16 columns
// (two).
inline constexpr int kAmxSums = 0, kAmxRows = 4, kAmxCodes = 6;

struct alignas(64) AmxConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(AmxConfig) == 64);

/// For this thread, until ReleaseTiles: blocks of kQuantBlock inputs.
[[gnu::always_inline]] inline void ConfigureTiles() {
  constexpr uint16_t kSumBytes = kPanelColumns * sizeof(int32_t);
  static constexpr AmxConfig kConfig = {
      .palette = 1,
      .start_row = 0,
      .reserved = {},
      .row_bytes = {kSumBytes, kSumBytes, kSumBytes, kSumBytes, kQuantBlock, kQuantBlock,
                    kTileBytes, kTileBytes},
      .rows = {kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTilesPerBlock,
               kTilesPerBlock}};
  __asm__ volatile("ldtilecfg %0" : : "m"(kConfig));
}

/// Afterwards a switch to another thread has no tiles to save.
[[gnu::always_inline]] inline void ReleaseTiles() {
  __asm__ volatile("tilerelease" : : : "memory");
}

template <int kTile>
[[gnu::always_inline]] inline void LoadTile(const void* from, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                   :
                   : "r"(from), "r"(stride), "i"(kTile)
                   : "memory");
}

template <int kTile>
[[gnu::always_inline]] inline void StoreTile(void* to, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                   :
                   : "r"(to), "r"(stride), "i"(kTile)
                   : "memory");
}

template <int kTile>
[[gnu::always_inline]] inline void ZeroTile() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

/// sums[m][n] += sum over k of the signed x[m][k] times the unsigned code of column n and input k.
template <int kSums, int kRows, int kCodes>
[[gnu::always_inline]] inline void DotTiles() {
  __asm__ volatile("tdpbsud %%tmm%c0, %%tmm%c1, %%tmm%c2" : : "i"(kCodes), "i"(kRows), "i"(kSums));
}

}  // namespace asymserve
