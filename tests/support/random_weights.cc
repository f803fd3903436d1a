#include "tests/support/random_weights.h"

#include <bit>
#include <cmath>

#include "engine/base/check.h"
#include "engine/base/float16.h"
#include "engine/base/philox.h"

namespace asymserve::testing {
namespace {

/// A stream of random numbers for one row of one tensor.
class Stream {
 public:
  Stream(uint64_t seed, std::string_view tensor, int64_t row) : row_(static_cast<uint64_t>(row)) {
    key_ = 1469598103934665603u ^ seed;  // FNV-1a
    for (const char c : tensor) key_ = (key_ ^ static_cast<unsigned char>(c)) * 1099511628211u;
  }
  double Uniform() { return PhiloxUniform(key_, row_, draw_++); }
  int Below(int limit) { return static_cast<int>(Uniform() * limit); }
  char Byte() { return static_cast<char>(Below(256)); }

 private:
  uint64_t key_;
  uint64_t row_;
  uint32_t draw_ = 0;
};

void AppendHalf(std::string& bytes, double value) {
  const uint16_t half = FloatToHalf(static_cast<float>(value));
  bytes.push_back(static_cast<char>(half));
  bytes.push_back(static_cast<char>(half >> 8));
}

void AppendRandom(std::string& bytes, int count, Stream& stream) {
  for (int i = 0; i < count; ++i) bytes.push_back(stream.Byte());
}

void AppendFloat(DType dtype, double value, std::string& bytes) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
  if (dtype == DType::kF16) return AppendHalf(bytes, value);
  for (int i = dtype == DType::kBF16 ? 2 : 0; i < 4; ++i) {
    bytes.push_back(static_cast<char>(bits >> (8 * i)));
  }
}

/// Standard deviation of the integers 0 .. n - 1.
double Spread(int n) {
  return std::sqrt((static_cast<double>(n) * n - 1) / 12);
}

/// The 12 bytes of Q4_K and Q5_K: eight 6-bit scales of 24 to 55, and minima within 3 above them.
void AppendPackedScales(std::string& bytes, Stream& stream) {
  int scale[8];
  int min[8];
  for (int j = 0; j < 8; ++j) {
    scale[j] = 24 + stream.Below(32);
    min[j] = scale[j] + stream.Below(4);
  }
  for (int j = 0; j < 4; ++j) {
    bytes.push_back(static_cast<char>(scale[j] | (scale[j + 4] >> 4 << 6)));
  }
  for (int j = 0; j < 4; ++j) {
    bytes.push_back(static_cast<char>(min[j] | (min[j + 4] >> 4 << 6)));
  }
  for (int j = 4; j < 8; ++j) {
    bytes.push_back(static_cast<char>((scale[j] & 15) | (min[j] & 15) << 4));
  }
}

void AppendBlock(DType dtype, double sigma, Stream& stream, std::string& bytes) {
  constexpr double kMeanScale = 39.5;                 // of AppendPackedScales
  const double vary = 0.75 + 0.5 * stream.Uniform();  // scales differ from block to block
  switch (dtype) {
    case DType::kQ8_0:
      AppendHalf(bytes, vary * sigma / Spread(256));
      return AppendRandom(bytes, 32, stream);
    case DType::kQ4_0:
      AppendHalf(bytes, vary * sigma / Spread(16));
      return AppendRandom(bytes, 16, stream);
    case DType::kQ4_1:
      AppendHalf(bytes, vary * sigma / Spread(16));
      AppendHalf(bytes, -7.5 * vary * sigma / Spread(16));
      return AppendRandom(bytes, 16, stream);
    case DType::kQ4K:
    case DType::kQ5K: {
      const int levels = dtype == DType::kQ4K ? 16 : 32;
      const double d = vary * sigma / Spread(levels) / kMeanScale;
      AppendHalf(bytes, d);
      AppendHalf(bytes, d * (levels - 1) / 2);
      AppendPackedScales(bytes, stream);
      return AppendRandom(bytes, dtype == DType::kQ4K ? 128 : 160, stream);
    }
    case DType::kQ6K:
      AppendRandom(bytes, 192 + 16, stream);  // quants, signed scales
      return AppendHalf(bytes, vary * sigma / Spread(64) / Spread(256));
    default:
      ASYMSERVE_CHECK(false && "not a type of weights");
  }
}

}  // namespace

std::string RandomRow(DType dtype, int64_t elements, float mean, float sigma, uint64_t seed,
                      std::string_view tensor, int64_t row) {
  const DTypeInfo info = Info(dtype);
  ASYMSERVE_CHECK(elements % info.block_elements == 0);
  Stream stream(seed, tensor, row);
  std::string bytes;
  bytes.reserve(static_cast<size_t>(RowBytes(dtype, elements)));
  for (int64_t i = 0; i < elements / info.block_elements; ++i) {
    if (info.block_elements == 1) {
      const double uniform = std::sqrt(12.0) * (stream.Uniform() - 0.5);
      AppendFloat(dtype, mean + sigma * uniform, bytes);
    } else {
      AppendBlock(dtype, sigma, stream, bytes);
    }
  }
  return bytes;
}

}  // namespace asymserve::testing
