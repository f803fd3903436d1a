// Weights as the backend keeps them: 4-bit types as they are, alone, stacked and as tables.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/engine/backend/backend_fixture.h"
#include "tests/engine/backend/cuda/device/toy_server.h"

namespace asymserve {
namespace {

using ::asymserve::testing::DeviceLog;
using ::asymserve::testing::FailsWith;
using ::asymserve::testing::FileWeight;
using ::asymserve::testing::IsOk;
using ::asymserve::testing::MakeCuda;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::Pack;
using ::testing::IsEmpty;

constexpr DType kFourBitTypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ4K};

class DeviceWeightTest : public ::testing::Test {
 protected:
  ~DeviceWeightTest() override { EXPECT_THAT(log_->misuse, IsEmpty()); }

  /// x, of several rows, times a weight, on the host.
  Matrix Times(const Matrix& x, const Weight& weight) {
    Matrix product(x.rows, weight.rows());
    EXPECT_THAT(backend_->Reserve(x.rows, x.cols), IsOk());
    const auto in = backend_->Upload(x.values, x.rows);
    const auto out = backend_->AllocateResult(x.rows, weight.rows());
    EXPECT_THAT(in, IsOk());
    EXPECT_THAT(out, IsOk());
    EXPECT_THAT(backend_->MatMul(*out, *in, weight), IsOk());
    const auto result = backend_->Download(*out);
    EXPECT_THAT(result, IsOk());
    product.values.assign(result->As<float>(), result->As<float>() + product.values.size());
    return product;
  }

  const std::shared_ptr<DeviceLog> log_ = std::make_shared<DeviceLog>();
  // Pieces of 80 bytes, so that no tile is copied at once.
  const std::unique_ptr<Backend> backend_ = MakeCuda(log_, {.staging_bytes = 80});
};

TEST_F(DeviceWeightTest, FourBitTypesTakeTheBytesOfTheFileAndOthersThoseOfF16) {
  for (const DType type : kFourBitTypes) {
    const FileWeight file(type, 96, 2048, 41);
    const auto weight = Pack(*backend_, file);
    const int64_t grown = type == DType::kQ4K ? file.file_bytes() / 36 : 0;  // 148 bytes for 144
    EXPECT_EQ(weight->bytes(), file.file_bytes() + grown) << Info(type).name;
    EXPECT_EQ(weight->rows(), 96);
    EXPECT_EQ(weight->cols(), 2048);
  }
  EXPECT_EQ(Pack(*backend_, FileWeight(DType::kQ8_0, 96, 2048, 41))->bytes(), 2 * 96 * 2048);
}

TEST_F(DeviceWeightTest, TheCounterCountsWhatPartsOfAnyTypesTake) {
  const FileWeight a(DType::kQ4_1, 40, 256, 42);
  const FileWeight b(DType::kF32, 3, 256, 43);
  const FileWeight c(DType::kQ4K, 33, 256, 44);
  const FileWeight d(DType::kQ6K, 5, 256, 45);
  const WeightSource parts[] = {a.source(), b.source(), c.source(), d.source()};
  const std::unique_ptr<Backend> counter = backend_->MakeCounter();
  const auto counted = counter->PackWeight(parts);
  ASSERT_THAT(counted, IsOk());
  const int64_t before = log_->used;
  const auto weight = Pack(*backend_, parts);
  EXPECT_EQ((*counted)->bytes(), weight->bytes());
  EXPECT_EQ((*counted)->rows(), weight->rows());
  EXPECT_EQ(counter->CountedMemory(), backend_->CountedMemory());
  EXPECT_EQ(backend_->CountedMemory().total(), log_->used - before);
}

// Parts end within tiles; those of one type after one another share them.
TEST_F(DeviceWeightTest, StackedPartsGiveTheBitsOfEachAlone) {
  const FileWeight q(DType::kQ4K, 40, 512, 46);
  const FileWeight k(DType::kQ4K, 9, 512, 47);
  const FileWeight v(DType::kQ6K, 9, 512, 48);
  const FileWeight gate(DType::kQ4_1, 35, 512, 49);
  const FileWeight up(DType::kQ4_0, 35, 512, 50);
  const FileWeight down(DType::kQ4_0, 1, 512, 51);
  const FileWeight half(DType::kF16, 3, 512, 52);
  const std::vector<const FileWeight*> all = {&q, &k, &v, &gate, &up, &down, &half};
  std::vector<WeightSource> parts;
  for (const FileWeight* part : all) parts.push_back(part->source());
  const auto stacked = Pack(*backend_, parts);
  ASSERT_EQ(stacked->rows(), 132);
  const Matrix x = Matrix::Random(11, 512, 53);
  const Matrix out = Times(x, *stacked);
  int64_t column = 0;
  for (const FileWeight* part : all) {
    const Matrix expected = Times(x, *Pack(*backend_, *part));
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t n = 0; n < expected.cols; ++n) {
        ASSERT_EQ(out.at(t, column + n), expected.at(t, n)) << t << " " << column + n;
      }
    }
    column += expected.cols;
  }
}

TEST_F(DeviceWeightTest, ProductsAreThoseOfTheDequantizedWeights) {
  for (const DType type : kFourBitTypes) {
    SCOPED_TRACE(Info(type).name);
    const FileWeight file(type, 37, 768, 54);
    const Matrix x = Matrix::Random(3, 768, 55);
    const Matrix out = Times(x, *Pack(*backend_, file));
    for (int64_t n = 0; n < 37; ++n) {
      const std::vector<float> w = file.Dequantized(n);
      for (int64_t t = 0; t < 3; ++t) {
        double value = 0;
        double magnitude = 0;
        for (int64_t i = 0; i < 768; ++i) {
          const double term = double{w[static_cast<size_t>(i)]} * x.at(t, i);
          value += term;
          magnitude += std::fabs(term);
        }
        ASSERT_NEAR(out.at(t, n), value, magnitude * 0x1p-11) << t << " " << n;
      }
    }
  }
}

TEST_F(DeviceWeightTest, FourBitTablesEmbedTheDequantizedRows) {
  ASSERT_THAT(backend_->Reserve(5, 512), IsOk());
  const std::vector<int32_t> tokens = {0, 48, 40, 39, 40};
  for (const DType type : kFourBitTypes) {
    const FileWeight first(type, 40, 512, 56);
    const FileWeight second(type, 9, 512, 57);
    const WeightSource parts[] = {first.source(), second.source()};
    const auto table = Pack(*backend_, parts);
    const TensorView out = *backend_->AllocateResult(5, 512);
    ASSERT_THAT(backend_->Embed(out, *table, tokens), IsOk());
    const auto rows = backend_->Download(out);
    ASSERT_THAT(rows, IsOk());
    for (int64_t t = 0; t < 5; ++t) {
      const int32_t token = tokens[static_cast<size_t>(t)];
      const std::vector<float> expected =
          token < 40 ? first.Dequantized(token) : second.Dequantized(token - 40);
      const float* row = rows->Row<float>(t);
      for (size_t i = 0; i < 512; ++i) ASSERT_EQ(row[i], expected[i]) << token << " " << i;
    }
  }
}

TEST_F(DeviceWeightTest, ProductsOfMoreThanIsReservedAreRefused) {
  const auto weight = Pack(*backend_, FileWeight(DType::kF16, 4, 64, 61));
  const auto in = backend_->AllocateActivation(3, 64);
  const auto out = backend_->AllocateResult(3, 4);
  ASSERT_THAT(in, IsOk());
  ASSERT_THAT(out, IsOk());
  ASSERT_THAT(backend_->Reserve(2, 64), IsOk());
  EXPECT_THAT(backend_->MatMul(*out, *in, *weight),
              FailsWith(absl::StatusCode::kInternal, "x [3, 64]; reserved for [2, 64]"));
  ASSERT_THAT(backend_->Reserve(3, 32), IsOk());
  EXPECT_THAT(backend_->MatMul(*out, *in, *weight),
              FailsWith(absl::StatusCode::kInternal, "x [3, 64]; reserved for [3, 32]"));
}

TEST_F(DeviceWeightTest, BF16WeightsBeyondF16AreRefusedWithTheirRow) {
  // 65280, the largest bf16 that fits, and the next.
  std::vector<uint16_t> brains(3 * 32, 0x477F);
  const WeightSource source = {reinterpret_cast<const std::byte*>(brains.data()), DType::kBF16, 3,
                               32};
  EXPECT_THAT(backend_->PackWeight({&source, 1}), IsOk());
  for (const uint16_t brain : {0x4780, 0xC780, 0x7F80, 0x7FC0}) {
    brains[2 * 32 + 31] = brain;
    EXPECT_THAT(backend_->PackWeight({&source, 1}),
                FailsWith(absl::StatusCode::kInvalidArgument, "a BF16 weight of row 2"));
  }
}

TEST_F(DeviceWeightTest, ScalesThatAreNotFiniteAreRefusedWithTheirRow) {
  const FileWeight file(DType::kQ4_1, 3, 64, 58);
  const WeightSource good = file.source();
  std::vector<std::byte> bytes(good.data, good.data + file.file_bytes());
  bytes[2 * 40 + 20 + 3] = std::byte{0x7C};  // the minimum of the second block of row 2
  bytes[2 * 40 + 20 + 2] = std::byte{0};
  const WeightSource bad = {bytes.data(), DType::kQ4_1, 3, 64};
  EXPECT_THAT(backend_->PackWeight(std::span(&bad, 1)),
              FailsWith(absl::StatusCode::kInvalidArgument, "a Q4_1 scale of row 2 is not finite"));
  EXPECT_EQ(log_->used, 0);
}

}  // namespace
}  // namespace asymserve
