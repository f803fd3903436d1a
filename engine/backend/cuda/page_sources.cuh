#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/packed_fragments.cuh"

// Pages as sources of tiles: Load reads what is stored of a subvector for eight tokens of a lane,
// `token` being a multiple of 8, and Decode makes two tiles of it, four tokens each. They are apart
// so that a loop can load for its next turn before it decodes. Of keys rows are tokens and columns
// the channels of the subvector, of values the reverse; values are zero from `tokens` on, where
// nothing may have been written.

namespace asymserve::cuda {

/// Keys and values of learned codes, tokens in rows. kCopyBits: those of the tables, or -1 for any.
template <int kCopyBits>
class PlaneSource {
 public:
  struct Raw {
    uint32_t head;
    Quad words;
  };

  __device__ PlaneSource(const PageBlock& block, const PlaneTables& tables)
      : tables_(tables),
        base_(block.bytes),
        finer_(block.refinement == nullptr
                   ? nullptr
                   : block.refinement - block.item.base_planes / 2 * kKvPageTokens),
        base_planes_(block.item.base_planes),
        planes_(block.refinement != nullptr ? block.item.fresh_planes : block.item.base_planes) {
    const auto lane = static_cast<int32_t>(threadIdx.x);
    entries_ = SharedAddress(tables.entries, lane & ((1 << copy_bits()) - 1));
    zeros_ = SharedAddress(tables.entries, tables.zeros + (lane & (kMostCopies - 1)));
  }

  __device__ __forceinline__ Raw Load(int32_t subvector, int32_t token) const {
    Raw raw = {tables_.heads[subvector], {}};
    const auto plane = static_cast<int32_t>(raw.head & 255);
    if (plane < planes_) raw.words = Words(plane, token);
    return raw;
  }
  __device__ __forceinline__ void Decode(const Raw& raw, int32_t token,
                                         Tile (&tiles)[kTiles]) const {
    const auto plane = static_cast<int32_t>(raw.head & 255);
    Add<true>(plane, plane < planes_ ? EntriesOf(plane) : zeros_, raw.words, tiles);
    const auto end = static_cast<int32_t>(raw.head >> 16);
    ASYMSERVE_KEEP_LOOP
    for (auto i = static_cast<int32_t>(raw.head >> 8 & 255); i < end; ++i) {
      const int32_t next = tables_.by_subvector[i];
      if (next >= planes_) break;
      Add<false>(next, EntriesOf(next), Words(next, token), tiles);
    }
  }

 private:
  __device__ __forceinline__ int copy_bits() const {
    return kCopyBits >= 0 ? kCopyBits : tables_.copy_bits;
  }
  __device__ __forceinline__ Quad Words(int32_t plane, int32_t token) const {
    const uint8_t* rows = plane < base_planes_ ? base_ : finer_;
    return *reinterpret_cast<const Quad*>(rows + (plane / 2 * kKvPageTokens + token));
  }
  __device__ __forceinline__ uint32_t EntriesOf(int32_t plane) const {
    return entries_ + (static_cast<uint32_t>(plane) * kEntries * sizeof(Quad) << copy_bits());
  }
  /// Adds the entries of a plane's codes, or begins with them.
  template <bool kFirst>
  __device__ __forceinline__ void Add(int32_t plane, uint32_t entries, Quad words,
                                      Tile (&tiles)[kTiles]) const {
    const int shift = plane % 2 * 4;
    const uint32_t codes[kTiles] = {words.low >> shift & 0x0F0F0F0Fu,
                                    words.high >> shift & 0x0F0F0F0Fu};
    const uint32_t entry_bytes = sizeof(Quad) << copy_bits();
    ASYMSERVE_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      ASYMSERVE_UNROLL
      for (int j = 0; j < 4; ++j) {
        const Quad entry =
            LoadShared(tables_.entries, AddByteTimes(codes[n], j, entry_bytes, entries));
        uint32_t(&row)[2] = tiles[n].of[j];
        row[0] = kFirst ? entry.low : AddHalves(row[0], entry.low);
        row[1] = kFirst ? entry.high : AddHalves(row[1], entry.high);
      }
    }
  }

  const PlaneTables& tables_;
  const uint8_t* base_;   // two planes in 64 bytes
  const uint8_t* finer_;  // from where plane 0 would be
  const int32_t base_planes_, planes_;
  uint32_t entries_;  // the lane's copies
  uint32_t zeros_;
};

/// Without their scales.
class Int8Keys {
 public:
  struct Raw {
    FourWords words[kTiles];
  };

  __device__ explicit Int8Keys(const PageBlock& block) : bytes_(block.bytes) {}
  __device__ __forceinline__ Raw Load(int32_t subvector, int32_t token) const {
    const auto* words =
        reinterpret_cast<const FourWords*>(bytes_ + (subvector * kKvPageTokens + token) * 4);
    return {{words[0], words[1]}};
  }
  __device__ __forceinline__ void Decode(const Raw& raw, int32_t /*token*/,
                                         Tile (&tiles)[kTiles]) const {
    for (int n = 0; n < kTiles; ++n) {
      for (int j = 0; j < 4; ++j) Int8Halves(raw.words[n].of[j], tiles[n].of[j]);
    }
  }

 private:
  const uint8_t* bytes_;
};

class HalfKeys {
 public:
  struct Raw {
    FourWords channels[4];
  };

  __device__ explicit HalfKeys(const PageBlock& block) : bytes_(block.bytes) {}
  __device__ __forceinline__ Raw Load(int32_t subvector, int32_t token) const {
    Raw raw;
    ASYMSERVE_UNROLL
    for (int c = 0; c < 4; ++c) {
      raw.channels[c] = *reinterpret_cast<const FourWords*>(
          bytes_ + ((4 * subvector + c) * kKvPageTokens + token) * 2);
    }
    return raw;
  }
  __device__ __forceinline__ void Decode(const Raw& raw, int32_t /*token*/,
                                         Tile (&tiles)[kTiles]) const {
    ASYMSERVE_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      Tile channels;
      for (int c = 0; c < 4; ++c) {
        channels.of[c][0] = raw.channels[c].of[2 * n];
        channels.of[c][1] = raw.channels[c].of[2 * n + 1];
      }
      tiles[n] = Transposed(channels);
    }
  }

 private:
  const uint8_t* bytes_;
};

template <int kCopyBits>
class CodedValues {
 public:
  using Raw = typename PlaneSource<kCopyBits>::Raw;

  __device__ CodedValues(const PageBlock& block, const PlaneTables& tables)
      : rows_(block, tables) {}
  __device__ __forceinline__ Raw Load(int32_t subvector, int32_t token) const {
    return rows_.Load(subvector, token);
  }
  __device__ __forceinline__ void Decode(const Raw& raw, int32_t token,
                                         Tile (&tiles)[kTiles]) const {
    rows_.Decode(raw, token, tiles);
    for (Tile& tile : tiles) tile = Transposed(tile);
  }

 private:
  const PlaneSource<kCopyBits> rows_;
};

template <int32_t kSize>
class Int8Values {
 public:
  struct Raw {
    FourWords words[kTiles];
    FourWords scales;
  };

  __device__ Int8Values(const PageBlock& block, int32_t tokens)
      : bytes_(block.bytes), tokens_(tokens) {}
  __device__ __forceinline__ Raw Load(int32_t subvector, int32_t token) const {
    const auto* words =
        reinterpret_cast<const FourWords*>(bytes_ + (token / 4 * kSize + 4 * subvector) * 4);
    const auto* scales =
        reinterpret_cast<const FourWords*>(bytes_ + kSize * kKvPageTokens + 2 * token);
    return {{words[0], words[kSize / 4]}, *scales};
  }
  __device__ __forceinline__ void Decode(const Raw& raw, int32_t token,
                                         Tile (&tiles)[kTiles]) const {
    ASYMSERVE_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      const int32_t first = token + 4 * n;
      Quad scales = {raw.scales.of[2 * n], raw.scales.of[2 * n + 1]};
      if (first + 1 >= tokens_) scales.low &= first < tokens_ ? 0xFFFFu : 0u;
      if (first + 3 >= tokens_) scales.high &= first + 2 < tokens_ ? 0xFFFFu : 0u;
      for (int c = 0; c < 4; ++c) {
        Int8Halves(raw.words[n].of[c] ^ 0x80808080u, tiles[n].of[c]);
        tiles[n].of[c][0] = MultiplyHalves(tiles[n].of[c][0], scales.low);
        tiles[n].of[c][1] = MultiplyHalves(tiles[n].of[c][1], scales.high);
      }
    }
  }

 private:
  const uint8_t* bytes_;
  const int32_t tokens_;
};

template <int32_t kSize>
class HalfValues {
 public:
  struct Raw {
    Quad rows[kTiles][4];
  };

  __device__ HalfValues(const PageBlock& block, int32_t tokens)
      : bytes_(block.bytes), tokens_(tokens) {}
  __device__ __forceinline__ Raw Load(int32_t subvector, int32_t token) const {
    Raw raw = {};
    ASYMSERVE_UNROLL
    for (int i = 0; i < 4 * kTiles; ++i) {
      if (token + i >= tokens_) continue;
      raw.rows[i / 4][i % 4] =
          *reinterpret_cast<const Quad*>(bytes_ + ((token + i) * kSize + 4 * subvector) * 2);
    }
    return raw;
  }
  __device__ __forceinline__ void Decode(const Raw& raw, int32_t /*token*/,
                                         Tile (&tiles)[kTiles]) const {
    ASYMSERVE_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      Tile rows;
      for (int j = 0; j < 4; ++j) {
        rows.of[j][0] = raw.rows[n][j].low;
        rows.of[j][1] = raw.rows[n][j].high;
      }
      tiles[n] = Transposed(rows);
    }
  }

 private:
  const uint8_t* bytes_;
  const int32_t tokens_;
};

}  // namespace asymserve::cuda
