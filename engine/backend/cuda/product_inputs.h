#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "engine/backend/cuda/four_words.cuh"

// Activations as products by tensor cores want them (few_rows.cuh, many_rows.cuh): fp16, each row
// times a power of two of its own, in the order of B fragments of mma.m16n8k16. A tile is 8 rows,
// the last filled up with zeros; columns are taken in blocks of 32.

namespace asymserve::cuda {

inline constexpr int32_t kProductBlock = 32;  // columns that are multiplied at a time
inline constexpr int32_t kTileInputs = 8;     // rows of x of a product of matrices

/// Which columns of a block a lane t of four has in its two fragments, that is in four registers.
enum class InputOrder : uint8_t {
  kNeighbours,   // 8 t + 0, 1; 2, 3; 4, 5; 6, 7
  kInterleaved,  // 4 t + 0, 2; 1, 3, and the same + 16: as codes of 4 bits lie in a word
};

struct ProductInputs {
  FourWords* fragments = nullptr;  // [tiles][blocks][32]: of a lane, 4 x row of the tile + t
  float* sums = nullptr;           // [tiles][blocks][8]: of a row, of a block's fp16
  float* scales = nullptr;         // [tiles][8]: of a row; x is an fp16 times that
  InputOrder order = InputOrder::kNeighbours;
};

/// Of the memory that `rows` rows of `cols` columns take, at a multiple of 16.
int64_t ProductInputsBytes(int64_t rows, int64_t cols);
/// In such memory.
ProductInputs PlaceProductInputs(std::byte* memory, int64_t rows, int64_t cols, InputOrder order);

/// Rounds x [rows][cols], cols a multiple of 32, x at one of 16 bytes (cudaErrorInvalidValue). Of
/// an activation 2^-11 is lost at most and, where it is less than 2^-28 of the largest of its row,
/// 2^-39 of that. A row with NaN or infinity has the scale NaN. The sum of a block is made by pairs
/// of neighbours, then of pairs, and so on. A row depends on its own row of x only.
cudaError_t RoundInputs(const ProductInputs& to, const float* x, int64_t rows, int64_t cols,
                        cudaStream_t stream);

}  // namespace asymserve::cuda
