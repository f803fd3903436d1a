#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/attention_split.cuh"

namespace asymserve::cuda {

/// A block's columns of the products: query heads of a KV head for the rows of a tile, numbered by
/// row, then head. Rows are in order of their positions.
struct TilePart {
  const AttentionArgs& args;
  SplitTile tile = {};
  int32_t kv_head = 0;
  int32_t group = 0;    // query heads of a KV head
  int32_t first = 0;    // number of column 0
  int32_t columns = 0;  // that there are; none if not above 0
  int32_t tokens = 0;   // of the split, that the last row sees

  __device__ int32_t Row(int32_t column) const { return tile.first_row + (first + column) / group; }
  __device__ int32_t Head(int32_t column) const {
    return kv_head * group + (first + column) % group;
  }
  /// The columns of the row of `column` end before that one.
  __device__ int32_t RowEnd(int32_t column) const {
    const int32_t end = ((first + column) / group + 1) * group - first;
    return end < columns ? end : columns;
  }
  /// Of the split, that a column's row sees.
  __device__ int32_t Tokens(int32_t column) const {
    const int32_t left = args.rows[Row(column)].position + 1 - tile.split * kSplitTokens;
    return left < kSplitTokens ? left : kSplitTokens;
  }
  /// The softmax state of a column.
  __device__ float* State(int32_t column) const {
    const int32_t work = args.rows[Row(column)].first_work + tile.split;
    return args.states + (int64_t{work} * args.heads + Head(column)) * StateFloats(args.kv);
  }
  __device__ int32_t pages() const { return (tokens + kKvPageTokens - 1) / kKvPageTokens; }
  __device__ PageBlock Block(int32_t page, KvTensor tensor) const {
    const int32_t first_page = args.rows[tile.first_row].first_page + tile.split * kSplitPages;
    return BlockOf(args.kv, args.pages[first_page + page], args.layer, tensor, kv_head);
  }
  __device__ const PlaneCodeView* Code(KvTensor tensor) const {
    if (args.kv.codes == nullptr) return nullptr;
    return args.kv.codes + args.kv.ItemIndex(args.layer, tensor, kv_head);
  }
};

/// How many parts of `columns` columns tiles of `rows` rows have.
constexpr int32_t PartsOf(int32_t rows, int32_t group, int32_t columns) {
  return (rows * group + columns - 1) / columns;
}

/// The part of the block that runs: block (x, y) has tile first_tile + x, and of each KV head in
/// turn one of `parts` parts of kColumns columns.
template <int32_t kColumns>
__device__ TilePart MakePart(const AttentionArgs& args, int32_t first_tile, int32_t parts) {
  TilePart part = {args};
  part.tile = args.tiles[first_tile + static_cast<int32_t>(blockIdx.x)];
  part.group = args.heads / args.kv.kv_heads;
  const auto y = static_cast<int32_t>(blockIdx.y);
  part.kv_head = y / parts;
  part.first = y % parts * kColumns;
  const int32_t left = part.tile.rows * part.group - part.first;
  part.columns = left < kColumns ? left : kColumns;
  if (part.columns > 0) part.tokens = part.Tokens(part.columns - 1);
  return part;
}

}  // namespace asymserve::cuda
