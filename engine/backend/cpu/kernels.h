#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/backend/cpu/packed_format.h"
#include "engine/base/tensor.h"
#include "engine/kv/ids.h"

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
/// exp(score - largest), the weighted sum of values.
inline constexpr int kStateSum = 16;    // floats from the start of a state
inline constexpr int kStateValue = 32;  // D floats, padded to a multiple of 16
inline constexpr int kMaxHeadSize = 256;
inline constexpr int kPageTokens = 64;
inline constexpr int kAttentionRows = 32;  // rows of a tile at most

/// Rows [first_row, first_row + rows) of one sequence and one KV head: row i is query head
/// i % group of token i / group.
struct AttentionTile {
  const uint16_t* arena;
  int64_t record_elements;
  int64_t key_offset;  // of (layer, KV head) in a record
  int64_t value_offset;
  const PageId* pages;       // the sequence's page table
  const int32_t* positions;  // of the sequence's tokens in this step
  int32_t head_size;
  int32_t group;
  int32_t first_row, rows;
  const float* q;  // first token of the sequence, first query head of the KV head
  int64_t q_stride;
  float* out;
  int64_t out_stride;
  float* queries;  // [kAttentionRows][D] scratch: scaled queries
  float* weights;  // [kAttentionRows][64] scratch
};

struct Kernels {
  /// By DType; null where the type is not a weight type.
  void (*matmul[11])(const MatMulChunk& chunk);
  /// Quantizes row `row` of a row tile of `blocks` blocks.
  void (*quantize)(ActivationBlock* tile, int64_t row, const float* x, int64_t blocks);
  void (*rms_norm)(float* out, const float* x, const float* weight, int64_t n, float epsilon);
  void (*add)(float* sum, const float* x, int64_t n);
  void (*swiglu)(float* out, const float* gate, const float* up, int64_t n);
  void (*prepare_qkv)(const QkvRow& row);
  /// fp16, with NaN for what does not fit.
  void (*to_half)(uint16_t* out, const float* x, int64_t n);
  /// y = exp(x).
  void (*exp)(float* out, const float* x, int64_t n);
  /// Copies the rows' queries, scaled by 1/sqrt(D), to tile.queries.
  void (*attention_load)(const AttentionTile& tile);
  /// states [rows][StateFloats(D)] = the rows' softmax over pages [first_page, last_page).
  void (*attention_scan)(const AttentionTile& tile, int32_t first_page, int32_t last_page,
                         float* states);
  /// states = states merged with `later`, which scanned from `first_page` on. Rows that end before
  /// that page stay as they are.
  void (*attention_merge)(const AttentionTile& tile, int32_t first_page, float* states,
                          const float* later);
  /// Writes the rows' outputs.
  void (*attention_finish)(const AttentionTile& tile, const float* states);
};

/// Null when compiled for a machine that cannot have the instruction set.
const Kernels* PortableKernels();
const Kernels* Avx2Kernels();
const Kernels* Avx512Kernels();

}  // namespace asymserve
