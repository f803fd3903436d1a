#include "engine/kv/codec.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "engine/base/float16.h"
#include "engine/kv/quantizer.h"

namespace asymserve {
namespace {

constexpr int32_t kP = kKvPageTokens;

std::vector<float> RandomBlock(int32_t head_size, uint32_t seed, float sigma = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> x(static_cast<size_t>(kP * head_size));
  for (float& value : x) value = normal(generator);
  return x;
}

/// Encodes and decodes; the bytes past the block must stay as they were.
std::vector<float> RoundTrip(const KvItem& item, KvTensor tensor, int32_t head_size,
                             const std::vector<float>& x, const PlaneCode* code = nullptr,
                             bool fresh = false) {
  const auto bytes =
      static_cast<size_t>(PadKvBlock(KvBlockBytes(item, tensor, head_size, item.base_planes)));
  std::vector<uint8_t> base(bytes + 64, 0xA5);
  std::vector<uint8_t> refinement(bytes + 4096, 0xA5);
  EncodeBlock(item, tensor, head_size, code, x.data(), base.data(), refinement.data());
  for (size_t i = bytes; i < base.size(); ++i) EXPECT_EQ(base[i], 0xA5) << "byte " << i;
  std::vector<float> out(x.size(), std::nanf(""));
  DecodeBlock(item, tensor, head_size, code, base.data(), fresh ? refinement.data() : nullptr,
              out.data());
  return out;
}

double RelativeError(const std::vector<float>& x, const std::vector<float>& y) {
  double error = 0;
  double power = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
    power += double{x[i]} * x[i];
  }
  return error / power;
}

struct DistortionCase {
  KvItem item;
  double at_least = 0;  // squared error relative to the power of normal values
  double at_most = 0;
};

TEST(CodecTest, DistortionOfNormalValuesIsThatOfTheQuantizer) {
  // Lloyd-Max gives 0.3634 (1 bit), 0.1175 (2), 0.00954 (4); evenly spaced levels a little more.
  const DistortionCase kCases[] = {
      {{.codec = KvCodec::kHalf}, 1e-9, 1e-6},
      {{.codec = KvCodec::kInt8}, 1e-5, 1e-4},
      {{.codec = KvCodec::kFitted, .bits = 1}, 0.30, 0.37},
      {{.codec = KvCodec::kFitted, .bits = 2}, 0.09, 0.13},
      {{.codec = KvCodec::kFitted, .bits = 4}, 0.005, 0.015},
      {{.codec = KvCodec::kMinMax, .bits = 1}, 1.2, 2.6},
      {{.codec = KvCodec::kMinMax, .bits = 2}, 0.10, 0.20},
      {{.codec = KvCodec::kMinMax, .bits = 4}, 0.003, 0.008},
  };
  for (const DistortionCase& c : kCases) {
    for (const int32_t head_size : {8, 24, 64, 80, 96, 128, 256}) {
      for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
        if (tensor == KvTensor::kValue && head_size < 64) continue;  // small groups fit better
        const std::vector<float> x = RandomBlock(head_size, 1);
        const double error = RelativeError(x, RoundTrip(c.item, tensor, head_size, x));
        EXPECT_GT(error, c.at_least) << int{c.item.bits} << " bits, head " << head_size;
        EXPECT_LT(error, c.at_most) << int{c.item.bits} << " bits, head " << head_size;
      }
    }
  }
}

TEST(CodecTest, OneBitMinMaxStoresExactlyTheSmallestAndTheLargestValue) {
  std::vector<float> x(size_t{kP} * 8);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 8) - (i / 8 % 32 == 3);
  const auto y = RoundTrip({.codec = KvCodec::kMinMax, .bits = 1}, KvTensor::kKey, 8, x);
  EXPECT_EQ(x, y);  // each group of 32 tokens of a channel holds two values
}

TEST(CodecTest, ConstantAndZeroBlocksComeBackExactly) {
  for (const KvCodec codec : {KvCodec::kMinMax, KvCodec::kFitted}) {
    for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
      for (const float value : {0.0f, 1.0f, -2.5f}) {
        if (codec == KvCodec::kFitted && tensor == KvTensor::kValue && value != 0) continue;
        const std::vector<float> x(size_t{kP} * 64, value);
        EXPECT_EQ(RoundTrip({.codec = codec, .bits = 2}, tensor, 64, x), x) << value;
      }
    }
  }
}

TEST(CodecTest, ExtremeButFiniteValuesStayFinite) {
  for (const float sigma : {1e-30f, 1e-8f, 1e4f, 2e4f}) {
    for (const KvCodec codec : {KvCodec::kInt8, KvCodec::kMinMax, KvCodec::kFitted}) {
      for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
        const std::vector<float> x = RandomBlock(64, 3, sigma);
        for (const float y : RoundTrip({.codec = codec, .bits = 2}, tensor, 64, x)) {
          ASSERT_TRUE(std::isfinite(y)) << sigma;
          ASSERT_LT(std::fabs(y), 20 * sigma + 1e-6f);
        }
      }
    }
  }
}

TEST(CodecTest, ANearTokenThatDoesNotFitIsNaNAndLeavesTheOthersAlone) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const KvCodec near : {KvCodec::kHalf, KvCodec::kInt8}) {
    for (const float bad : {std::nanf(""), kInfinity, -kInfinity, 1e9f}) {
      std::vector<uint8_t> block(size_t{kP} * 8 * 2 + 128);
      std::vector<float> x(8, 1.0f);
      for (int32_t slot = 0; slot < kP; ++slot) {
        x[5] = slot == 9 ? bad : 1.0f;
        StoreNear(near, KvTensor::kKey, 8, slot, x.data(), block.data());
      }
      std::vector<float> out(size_t{kP} * 8);
      LoadNear(near, KvTensor::kKey, 8, block.data(), out.data());
      for (int32_t slot = 0; slot < kP; ++slot) {
        const float y = out[static_cast<size_t>(slot * 8 + 5)];
        EXPECT_EQ(std::isnan(y), slot == 9) << slot << " " << bad;
      }
    }
  }
}

TEST(CodecTest, WhichNanABlockHoldsDoesNotShowInItsBytes) {
  constexpr int32_t kSize = 80;
  constexpr uint32_t kNans[] = {0x7FC00000u, 0x7FFFFFFFu, 0xFFC00000u, 0x7FC12345u};
  const KvItem kItems[] = {{.codec = KvCodec::kHalf},
                           {.codec = KvCodec::kInt8},
                           {.codec = KvCodec::kMinMax, .bits = 1},
                           {.codec = KvCodec::kMinMax, .bits = 4},
                           {.codec = KvCodec::kFitted, .bits = 1},
                           {.codec = KvCodec::kFitted, .bits = 4}};
  for (const KvItem& item : kItems) {
    for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
      // Of all tokens and channels the first, so that group 0 begins with it, and one in a group.
      for (const size_t at : {size_t{0}, size_t{40} * kSize + 70}) {
        std::vector<float> x = RandomBlock(kSize, 5);
        std::vector<uint8_t> first;
        for (const uint32_t nan : kNans) {
          x[at] = std::bit_cast<float>(nan);
          std::vector<uint8_t> block(
              static_cast<size_t>(PadKvBlock(KvBlockBytes(item, tensor, kSize, 0))));
          EncodeBlock(item, tensor, kSize, nullptr, x.data(), block.data(), nullptr);
          if (first.empty()) first = block;
          EXPECT_EQ(block, first) << "NaN " << nan << " at " << at << " codec "
                                  << static_cast<int>(item.codec) << " bits " << int{item.bits};
        }
      }
    }
  }
}

TEST(CodecTest, HadamardIsOrthonormalAndItsOwnInverseForEveryHeadSize) {
  for (const int32_t n : {8, 24, 64, 80, 96, 128, 256}) {
    std::vector<float> x = RandomBlock(n, 5);
    x.resize(static_cast<size_t>(n));
    std::vector<float> y = x;
    Hadamard(y.data(), n);
    double before = 0;
    double after = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      before += x[i] * x[i];
      after += y[i] * y[i];
    }
    EXPECT_NEAR(after / before, 1, 1e-5);
    EXPECT_GT(RelativeError(x, y), 0.1);
    Hadamard(y.data(), n);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], y[i], 1e-5);
  }
}

/// A code whose first planes are coarse and whose later ones refine, with an orthonormal transform.
PlaneCode ToyCode(int32_t head_size, int32_t stages) {
  PlaneCode code;
  code.head_size = head_size;
  std::mt19937 generator(9);
  std::normal_distribution<float> normal(0, 1);
  for (int32_t stage = 0; stage < stages; ++stage) {
    for (int32_t s = 0; s < head_size / 4; ++s) {
      code.subvector.push_back(static_cast<uint8_t>(s));
      for (int32_t i = 0; i < 64; ++i) {
        code.codebooks.push_back(normal(generator) * std::pow(0.6f, static_cast<float>(stage)));
      }
    }
  }
  const auto n = static_cast<size_t>(head_size);
  code.encode.resize(n * n);
  for (size_t i = 0; i < n; ++i) {
    code.encode[i * n + i] = 1;
    Hadamard(code.encode.data() + i * n, head_size);
  }
  code.decode = code.encode;
  code.mean.assign(n, 0.25f);
  return code;
}

TEST(CodecTest, RefinementPlanesOnlyAddToTheBase) {
  const PlaneCode code = ToyCode(64, 3);
  const std::vector<float> x = RandomBlock(64, 11);
  double before = 1e9;
  for (const uint8_t planes : {16, 32, 48}) {
    const KvItem item = {.codec = KvCodec::kPlanes, .base_planes = planes, .fresh_planes = 48};
    const double base = RelativeError(x, RoundTrip(item, KvTensor::kKey, 64, x, &code));
    EXPECT_LT(base, before);
    before = base;
    // Base and refinement together are the whole code, wherever the cut is.
    const KvItem whole = {.codec = KvCodec::kPlanes, .base_planes = 48, .fresh_planes = 48};
    if (planes < 48) {
      EXPECT_EQ(RoundTrip(item, KvTensor::kKey, 64, x, &code, true),
                RoundTrip(whole, KvTensor::kKey, 64, x, &code));
    }
  }
}

TEST(CodecTest, TheNearestEntryWinsAndTiesGoToTheLowestIndex) {
  PlaneCode code = ToyCode(8, 1);
  std::fill(code.codebooks.begin(), code.codebooks.end(), 1.0f);
  const float z[8] = {};
  uint8_t codes[2] = {7, 7};
  EncodePlanes(code, 2, z, codes);
  EXPECT_EQ(codes[0], 0);
  for (int32_t c = 0; c < 4; ++c) code.codebooks[static_cast<size_t>(64 + c * 16 + 13)] = 0.1f;
  EncodePlanes(code, 2, z, codes);
  EXPECT_EQ(codes[1], 13);
}

TEST(QuantizerTest, ScaleCodesRoundTripAndRoundInTheLogarithm) {
  for (int code = 0; code < 256; ++code) {
    EXPECT_EQ(ScaleToCode(ScaleFromCode(static_cast<uint8_t>(code))), code);
    EXPECT_NEAR(std::log2(ScaleFromCode(static_cast<uint8_t>(code))), -code / 16.0, 1e-6);
  }
  EXPECT_EQ(ScaleToCode(2.0f), 0);
  EXPECT_EQ(ScaleToCode(0.0f), 255);
  EXPECT_EQ(ScaleToCode(std::nanf("")), 255);
  EXPECT_EQ(ScaleToCode(std::exp2(-1.49f / 16)), 1);
  EXPECT_EQ(ScaleToCode(std::exp2(-1.51f / 16)), 2);
}

TEST(QuantizerTest, CodesOfARowAreABijection) {
  for (const int32_t bits : {1, 2, 4}) {
    const int64_t row_bytes = 64 * bits / 8;
    std::vector<uint8_t> row(static_cast<size_t>(row_bytes));
    for (int32_t i = 0; i < 64; ++i) {
      StoreCode(row.data(), row_bytes, bits, i, static_cast<uint8_t>(i * 7 % (1 << bits)));
    }
    for (int32_t i = 0; i < 64; ++i) {
      EXPECT_EQ(LoadCode(row.data(), row_bytes, bits, i), i * 7 % (1 << bits));
    }
  }
}

}  // namespace
}  // namespace asymserve
