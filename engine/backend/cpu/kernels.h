#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/backend/cpu/kv_block.h"
#include "engine/backend/cpu/packed_format.h"
#include "engine/base/tensor.h"

// The table of kernels that each instruction set fills in. Kernels are single-threaded, allocate
// nothing and check nothing: their callers did.

namespace asymserve {

/// Columns [first_panel, last_panel) of 16 and rows [first_row, last_row) of a product.
struct MatMulChunk {
  const std::byte* panels;  // of the whole segment
  int64_t panel_bytes;
  int64_t inputs;                      // K
  int64_t columns;                     // of the segment; the last panel may be partly padding
  const ActivationBlock* activations;  // quantized types
  const float* x;                      // F32, F16, BF16: [rows][x_stride]
  int64_t x_stride;
  float* out;  // [rows][out_stride], at the segment's first column
  int64_t out_stride;
  int32_t first_panel, last_panel;
  int64_t first_row, last_row;  // first_row is a multiple of kTileRows
};

/// What PrepareQkv does to one token.
struct QkvRow {
  float* qkv;
  int32_t heads, kv_heads, head_size;
  const float* bias;    // or null
  const float* q_norm;  // or null
  const float* k_norm;  // or null
  float norm_epsilon;
  const float* rope;  // the position's row, or null
  bool interleaved;
};

/// Softmax state of a row after some of its positions: the largest score, 16 partial sums of
/// exp(score - largest), the same over positions whose values are rotated, the weighted sum of
/// values [Dp], and that of rotated values [Dp]. Dp: D padded to a multiple of 16.
inline constexpr int kStateSum = 16;  // floats from the start of a state
inline constexpr int kStateRotatedSum = 32;
inline constexpr int kStateValue = 48;
inline constexpr int kMaxHeadSize = kMaxKvHeadSize;
inline constexpr int kPageTokens = kKvPageTokens;
inline constexpr int kAttentionRows = 32;  // rows of a tile at most
/// A softmax is computed over a group of pages at a time, and groups are merged in order.
inline constexpr int kGroupPages = 8;
inline constexpr int kGroupTokens = kGroupPages * kPageTokens;
inline constexpr int kMaxPlanes = 256;
inline constexpr float kWeightTop = 16383.0f;  // the largest weight as an integer of 14 bits

/// A query in fixed point, 15 bits: q = unit * (128 * high + low).
struct IntQuery {
  int8_t high[kMaxHeadSize];
  int8_t low[kMaxHeadSize];
  int32_t high_start, low_start;  // -128 times the sums: key codes are stored as 128 + code
  float unit;
};

/// Levels of a kMinMax or kFitted block: rows times groups of elements.
inline constexpr int kMaxScalarLevels = kPageTokens * kMaxHeadSize / kMinMaxGroup;

/// What an attention row multiplies the codes of a scalar block with: unit * (128 * high + low) by
/// group and row of the block, and `bias` by group on top.
struct ScalarFactors {
  int8_t high[kMaxScalarLevels];
  int8_t low[kMaxScalarLevels];
  float bias[kMaxHeadSize / kMinMaxGroup];
  float unit;
};

/// What a query scores with each entry of each plane: scale * entry, and `bias` for all.
struct KeyTable {
  int8_t entries[kMaxPlanes * 16];
  float scale;
  float bias;
};

/// A thread's scratch for a tile.
struct AttentionScratch {
  float* queries;          // [kAttentionRows][D] scaled by 1/sqrt(D)
  IntQuery* int_queries;   // [kAttentionRows] for kInt8 keys
  KeyTable* key_tables;    // [kAttentionRows] for kPlanes keys of a frame
  float* weights;          // [kAttentionRows][kGroupTokens] scores, then weights
  uint8_t* fixed_weights;  // [kAttentionRows][2][kGroupTokens] high and low seven bits
};

/// Rows [first_row, first_row + rows) of one sequence and one KV head: row i is query head
/// i % group of token i / group.
struct AttentionTile {
  const KvHead* key;
  const KvHead* value;
  bool int8_keys;            // some keys are kInt8
  bool rotated;              // the state has rotated values
  int64_t state_floats;      // of a row
  const int32_t* positions;  // of the sequence's tokens in this step
  int32_t head_size;
  int32_t group;
  int32_t first_row, rows;
  const float* q;  // first token of the sequence, first query head of the KV head
  int64_t q_stride;
  float* out;
  int64_t out_stride;
  // kPlanes keys: their frames and what rotates a query to the start of one.
  int32_t frame_pages;
  const float* rope;  // [positions][D] as in QkvParams
  bool interleaved;
  AttentionScratch scratch;
};

/// A learned code as sealing reads it; pointers into a PlaneCode.
struct PlaneEncoder {
  int32_t head_size;
  int32_t base_planes;
  int32_t planes;            // to be encoded: base planes, and those of the refinement if any
  const uint8_t* subvector;  // [planes]
  const float* codebooks;    // [planes][4][16]
  const float* encode;       // [D][D]
  const float* mean;         // [D]
};

struct Kernels {
  /// By DType; null where the type is not a weight type.
  void (*matmul[11])(const MatMulChunk& chunk);
  /// Quantizes the first `rows` rows of a row tile of `blocks` blocks; x's rows are `stride` apart.
  void (*quantize)(ActivationBlock* tile, const float* x, int64_t stride, int rows, int64_t blocks);
  void (*rms_norm)(float* out, const float* x, const float* weight, int64_t n, float epsilon);
  void (*add)(float* sum, const float* x, int64_t n);
  void (*swiglu)(float* out, const float* gate, const float* up, int64_t n);
  void (*prepare_qkv)(const QkvRow& row);
  /// fp16, with NaN for what does not fit.
  void (*to_half)(uint16_t* out, const float* x, int64_t n);
  /// y = exp(x).
  void (*exp)(float* out, const float* x, int64_t n);
  /// Encodes x [64][D] into a kPlanes block and its refinement, which may be null.
  void (*encode_planes)(const PlaneEncoder& encoder, const float* x, uint8_t* base,
                        uint8_t* refinement);
  /// Prepares the rows' queries in the scratch.
  void (*attention_load)(const AttentionTile& tile);
  /// states [rows][tile.state_floats] = the rows' softmax over pages [first_page, last_page), whose
  /// blocks begin at `blocks`. One group; the pages lie in one frame.
  void (*attention_scan)(const AttentionTile& tile, const KvPageBlocks* blocks, int32_t first_page,
                         int32_t last_page, float* states);
  /// states = states merged with `later`, which scanned from `first_page` on. Rows that end before
  /// that page stay as they are.
  void (*attention_merge)(const AttentionTile& tile, int32_t first_page, float* states,
                          const float* later);
  /// Writes the rows' outputs; overwrites the states.
  void (*attention_finish)(const AttentionTile& tile, float* states);
};

/// Null when compiled for a machine that cannot have the instruction set.
const Kernels* PortableKernels();
const Kernels* Avx2Kernels();
const Kernels* Avx512Kernels();
const Kernels* AmxKernels();

}  // namespace asymserve
