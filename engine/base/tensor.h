#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

// Included by device code: no absl, no iostream.

namespace asymserve {

/// Element types of tensors and of weights in model files. The q types are GGUF's blocks:
/// kQ8_0 32 weights in 34 B, kQ4_0 32 in 18 B, kQ4_1 32 in 20 B, kQ4K 256 in 144 B,
/// kQ5K 256 in 176 B, kQ6K 256 in 210 B.
enum class DType : uint8_t { kF32, kF16, kBF16, kI32, kI8, kQ8_0, kQ4_0, kQ4_1, kQ4K, kQ5K, kQ6K };

/// Where the bytes of a tensor live.
enum class Place : uint8_t { kHost, kDevice };

struct DTypeInfo {
  const char* name;
  int32_t block_elements;  // a row's length must be a multiple of this
  int32_t block_bytes;
};

constexpr DTypeInfo Info(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return {"F32", 1, 4};
    case DType::kF16:
      return {"F16", 1, 2};
    case DType::kBF16:
      return {"BF16", 1, 2};
    case DType::kI32:
      return {"I32", 1, 4};
    case DType::kI8:
      return {"I8", 1, 1};
    case DType::kQ8_0:
      return {"Q8_0", 32, 34};
    case DType::kQ4_0:
      return {"Q4_0", 32, 18};
    case DType::kQ4_1:
      return {"Q4_1", 32, 20};
    case DType::kQ4K:
      return {"Q4_K", 256, 144};
    case DType::kQ5K:
      return {"Q5_K", 256, 176};
    case DType::kQ6K:
      return {"Q6_K", 256, 210};
  }
  return {"?", 1, 1};
}

/// Bytes of a dense row of `elements`, which must be a multiple of the type's block.
constexpr int64_t RowBytes(DType dtype, int64_t elements) {
  return elements / Info(dtype).block_elements * Info(dtype).block_bytes;
}

/// A borrowed, dense, row-major tensor of 1 to 4 dimensions (unused trailing extents are 1). It
/// owns nothing; whoever made it says how long the bytes live.
struct TensorView {
  void* data = nullptr;
  std::array<int64_t, 4> shape = {1, 1, 1, 1};
  int8_t rank = 0;
  DType dtype = DType::kF32;
  Place place = Place::kHost;

  int64_t rows() const { return shape[0]; }
  /// Elements in one index of the first dimension.
  int64_t row_elements() const { return shape[1] * shape[2] * shape[3]; }
  int64_t elements() const { return shape[0] * row_elements(); }
  int64_t bytes() const { return shape[0] * RowBytes(dtype, row_elements()); }

  template <typename T>
  T* As() const {
    return static_cast<T*>(data);
  }
  template <typename T>
  T* Row(int64_t row) const {
    return static_cast<T*>(data) + row * row_elements();
  }
  /// The first `count` rows of a view with at least that many.
  TensorView FirstRows(int64_t count) const {
    TensorView view = *this;
    view.shape[0] = count;
    return view;
  }
};

inline TensorView MakeVector(void* data, int64_t n, DType dtype = DType::kF32,
                             Place place = Place::kHost) {
  return {data, {n, 1, 1, 1}, 1, dtype, place};
}
inline TensorView MakeMatrix(void* data, int64_t rows, int64_t cols, DType dtype = DType::kF32,
                             Place place = Place::kHost) {
  return {data, {rows, cols, 1, 1}, 2, dtype, place};
}

}  // namespace asymserve
