#include "engine/quality/matrix_product.h"

#include <algorithm>
#include <array>

namespace asymserve {
namespace {

constexpr int64_t kTile = PackedMatrix::kTile;

/// rows [m][k] times a tile [k][kTile] into sums [m][kTile].
using TileProduct = void (*)(const float* a, int64_t m, int64_t a_stride, const float* tile,
                             int64_t k, float* sums);

void TilePortable(const float* a, int64_t m, int64_t a_stride, const float* tile, int64_t k,
                  float* sums) {
  std::fill_n(sums, m * kTile, 0.0f);
  for (int64_t row = 0; row < m; ++row) {
    float* sum = sums + row * kTile;
    for (int64_t i = 0; i < k; ++i) {
      const float factor = a[row * a_stride + i];
      for (int64_t c = 0; c < kTile; ++c) sum[c] += factor * tile[i * kTile + c];
    }
  }
}

#if defined(__x86_64__)

using Wide = float __attribute__((vector_size(64)));
using Half = float __attribute__((vector_size(32)));

template <int kRows>
[[gnu::target("avx512f")]] void RowsAvx512(const float* a, int64_t a_stride, const float* tile,
                                           int64_t k, float* sums) {
  Wide low[kRows] = {};
  Wide high[kRows] = {};
  for (int64_t i = 0; i < k; ++i) {
    Wide first;
    Wide second;
    __builtin_memcpy(&first, tile + i * kTile, sizeof(first));
    __builtin_memcpy(&second, tile + i * kTile + 16, sizeof(second));
    for (int row = 0; row < kRows; ++row) {
      const float factor = a[row * a_stride + i];
      low[row] += factor * first;
      high[row] += factor * second;
    }
  }
  for (int row = 0; row < kRows; ++row) {
    __builtin_memcpy(sums + row * kTile, &low[row], sizeof(Wide));
    __builtin_memcpy(sums + row * kTile + 16, &high[row], sizeof(Wide));
  }
}

[[gnu::target("avx512f")]] void TileAvx512(const float* a, int64_t m, int64_t a_stride,
                                           const float* tile, int64_t k, float* sums) {
  int64_t row = 0;
  for (; row + 8 <= m; row += 8) {
    RowsAvx512<8>(a + row * a_stride, a_stride, tile, k, sums + row * kTile);
  }
  for (; row < m; ++row) RowsAvx512<1>(a + row * a_stride, a_stride, tile, k, sums + row * kTile);
}

template <int kRows>
[[gnu::target("avx2")]] void RowsAvx2(const float* a, int64_t a_stride, const float* tile,
                                      int64_t k, float* sums) {
  for (int64_t half = 0; half < kTile; half += 16) {
    Half low[kRows] = {};
    Half high[kRows] = {};
    for (int64_t i = 0; i < k; ++i) {
      Half first;
      Half second;
      __builtin_memcpy(&first, tile + i * kTile + half, sizeof(first));
      __builtin_memcpy(&second, tile + i * kTile + half + 8, sizeof(second));
      for (int row = 0; row < kRows; ++row) {
        const float factor = a[row * a_stride + i];
        low[row] += factor * first;
        high[row] += factor * second;
      }
    }
    for (int row = 0; row < kRows; ++row) {
      __builtin_memcpy(sums + row * kTile + half, &low[row], sizeof(Half));
      __builtin_memcpy(sums + row * kTile + half + 8, &high[row], sizeof(Half));
    }
  }
}

[[gnu::target("avx2")]] void TileAvx2(const float* a, int64_t m, int64_t a_stride,
                                      const float* tile, int64_t k, float* sums) {
  int64_t row = 0;
  for (; row + 4 <= m; row += 4) {
    RowsAvx2<4>(a + row * a_stride, a_stride, tile, k, sums + row * kTile);
  }
  for (; row < m; ++row) RowsAvx2<1>(a + row * a_stride, a_stride, tile, k, sums + row * kTile);
}

#endif

TileProduct ChooseTileProduct() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return TileAvx512;
  if (__builtin_cpu_supports("avx2")) return TileAvx2;
#endif
  return TilePortable;
}

}  // namespace

void PackedMatrix::Resize(int64_t k, int64_t n) {
  k_ = k;
  n_ = n;
  values_.resize(static_cast<size_t>((n + kTile - 1) / kTile * kTile * k));
}

void PackedMatrix::Pack(const float* b, int64_t k, int64_t n, int64_t stride) {
  Resize(k, n);
  float* out = values_.data();
  for (int64_t begin = 0; begin < n; begin += kTile) {
    const int64_t columns = std::min(kTile, n - begin);
    for (int64_t i = 0; i < k; ++i, out += kTile) {
      std::copy_n(b + i * stride + begin, columns, out);
      std::fill(out + columns, out + kTile, 0.0f);
    }
  }
}

void PackedMatrix::PackTransposed(const float* b, int64_t k, int64_t n, int64_t stride) {
  Resize(k, n);
  float* out = values_.data();
  for (int64_t begin = 0; begin < n; begin += kTile, out += k * kTile) {
    for (int64_t c = 0; c < kTile; ++c) {
      const bool padding = begin + c >= n;
      const float* column = b + (padding ? 0 : (begin + c) * stride);
      for (int64_t i = 0; i < k; ++i) out[i * kTile + c] = padding ? 0.0f : column[i];
    }
  }
}

void Multiply(const float* a, int64_t m, int64_t a_stride, const PackedMatrix& b, bool add,
              float* out, int64_t out_stride) {
  static const TileProduct product = ChooseTileProduct();
  constexpr int64_t kRows = 64;
  std::array<float, kRows * kTile> sums;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  for (int64_t first = 0; first < m; first += kRows) {
    const int64_t rows = std::min(kRows, m - first);
    for (int64_t begin = 0; begin < b.n(); begin += kTile) {
      const int64_t columns = std::min(kTile, b.n() - begin);
      product(a + first * a_stride, rows, a_stride, b.tile(begin / kTile), b.k(), sums.data());
      for (int64_t row = 0; row < rows; ++row) {
        float* to = out + (first + row) * out_stride + begin;
        const float* from = sums.data() + row * kTile;
        for (int64_t c = 0; c < columns; ++c) to[c] = add ? to[c] + from[c] : from[c];
      }
    }
  }
}

}  // namespace asymserve
