#pragma once

#include <cstdint>
#include <vector>

namespace asymserve {

/// The right factor [k][n] of a product, in tiles of kTile columns, the last one padded with zeros:
/// [tiles][k][kTile].
class PackedMatrix {
 public:
  static constexpr int64_t kTile = 32;

  /// From b [k][n] with rows `stride` floats apart. Keeps its memory when packed again.
  void Pack(const float* b, int64_t k, int64_t n, int64_t stride);
  /// From the transpose b [n][k].
  void PackTransposed(const float* b, int64_t k, int64_t n, int64_t stride);

  int64_t k() const { return k_; }
  int64_t n() const { return n_; }
  const float* tile(int64_t index) const { return values_.data() + index * k_ * kTile; }

 private:
  void Resize(int64_t k, int64_t n);

  int64_t k_ = 0;
  int64_t n_ = 0;
  std::vector<float> values_;
};

/// out [m][n] = a [m][k] b, or out += a b with `add`; rows are `a_stride` and `out_stride` floats
/// apart. Every sum runs over k in order, products and sums rounded one by one, so that the bits
/// are the same whatever m and the instruction set. One thread.
void Multiply(const float* a, int64_t m, int64_t a_stride, const PackedMatrix& b, bool add,
              float* out, int64_t out_stride);

}  // namespace asymserve
