#include "engine/backend/cuda/packed_attention_mma.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "engine/backend/cuda/attention_choice.h"
#include "tests/engine/backend/cuda/attention_fixture.h"
#include "tests/simt/orders.h"

// Attention by tensor cores against doubles on what DecodeBlock says is stored, and against the
// plain kernel.

namespace asymserve {
namespace {

using ::asymserve::testing::AttendedSequence;
using ::asymserve::testing::AttentionCase;
using ::asymserve::testing::AttentionFixture;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::Planes;
using ::asymserve::testing::SameBits;
using ::asymserve::testing::Scalar;

// Of outputs near 1, from queries, keys and values near 1 and codebooks of two or three planes a
// subvector. The bound of the header, with e = 4 u K, K <= 2 for most tokens and |v| <= 4, is 0.05;
// errors are independent and of either sign, so a tenth of that is far out. The largest seen is
// 1e-3, where a row has one token, which is a single value of an int8 or learned block rounded to
// u.
constexpr double kTolerance = 2e-3;

class PackedAttentionMmaTest : public AttentionFixture {
 protected:
  PackedAttentionMmaTest() : AttentionFixture(&cuda::PackedAttentionMma, 36) {
    sequences_.push_back({70, 3});
    Fill(&sequences_.back(), 30);
  }
};

/// The end of a prompt: positions 492 to 533, so that rows end in two pages and in two splits, and
/// are two tiles.
class PromptAttentionMmaTest : public PackedAttentionMmaTest {
 protected:
  PromptAttentionMmaTest() : prompt_({534, 42}) { Fill(&prompt_, 40); }

  /// Rows [first, first + rows) of the prompt as a step of their own.
  AttendedSequence Cut(int32_t first, int32_t rows) const {
    AttendedSequence cut = prompt_;
    cut.tokens = prompt_.tokens - prompt_.rows + first + rows;
    cut.rows = rows;
    return cut;
  }
  bool HasRows(const Matrix& whole, int32_t first, int32_t rows, const Matrix& got,
               int32_t first_got) const {
    return SameBits({whole.row(first), whole.row(first + rows)},
                    {got.row(first_got), got.row(first_got + rows)});
  }

  AttendedSequence prompt_;
};

TEST_P(PromptAttentionMmaTest, IsWithinTheRoundingOfItsInputsOfADoubleReference) {
  EXPECT_LT(WorstError(prompt_, Attend({&prompt_}), 0), kTolerance);
}

TEST_P(PromptAttentionMmaTest, ARowHasTheSameBitsAloneAndWhereverThePromptIsCut) {
  const Matrix whole = Attend({&prompt_});
  for (const int32_t row : {0, 19, 20, 41}) {
    const AttendedSequence alone = Cut(row, 1);
    EXPECT_TRUE(HasRows(whole, row, 1, Attend({&alone}), 0)) << "row " << row << " alone";
  }
  constexpr int32_t kLength = 13;
  for (int32_t first = 0; first < prompt_.rows; first += kLength) {
    const AttendedSequence cut = Cut(first, std::min(kLength, prompt_.rows - first));
    EXPECT_TRUE(HasRows(whole, first, cut.rows, Attend({&cut}), 0))
        << "rows " << first << " to " << first + cut.rows - 1;
  }
}

TEST_P(PromptAttentionMmaTest, ARowHasTheSameBitsInCompanyAndInEveryOrderOfThreads) {
  const Matrix whole = Attend({&prompt_});
  const AttendedSequence cut = Cut(15, 10);
  simt::ForEachOrder([&] {
    const Matrix together = Attend({&sequences_[2], &cut, &sequences_[3]});
    EXPECT_TRUE(HasRows(whole, 15, cut.rows, together, sequences_[2].rows));
  });
}

TEST_P(PromptAttentionMmaTest, NanInATokenChangesNoRowBeforeIt) {
  const Matrix expected = Attend({&prompt_});
  constexpr int32_t kRow = 25;  // position 517, in a page that some rows of its tile do not reach
  const int32_t token = prompt_.tokens - prompt_.rows + kRow;
  std::fill(prompt_.qkv.row(token) + shape_.heads * shape_.head_size, prompt_.qkv.row(token + 1),
            std::nanf(""));
  Rewrite(prompt_, token);
  const Matrix got = Attend({&prompt_});
  EXPECT_TRUE(HasRows(expected, 0, kRow, got, 0));
  EXPECT_TRUE(
      std::all_of(got.row(kRow), got.row(prompt_.rows), [](float x) { return std::isnan(x); }));
}

TEST_P(PackedAttentionMmaTest, IsWithinTheRoundingOfItsInputsOfADoubleReference) {
  EXPECT_TRUE(cuda::CanUsePackedAttentionMma(scheme_.setup.scheme, scheme_.setup.shape));
  const Matrix out = Attend(All());
  int64_t row = 0;
  for (const AttendedSequence& s : sequences_) {
    EXPECT_LT(WorstError(s, out, row), kTolerance) << "sequence of " << s.tokens << " tokens";
    row += s.rows;
  }
}

TEST_P(PackedAttentionMmaTest, IsWithinTheSameOfThePlainKernel) {
  const Matrix out = Attend(All());
  operation_ = &cuda::PagedAttention;
  const Matrix plain = Attend(All());
  for (size_t i = 0; i < out.values.size(); ++i) {
    ASSERT_NEAR(out.values[i], plain.values[i], kTolerance) << i;
  }
}

TEST_P(PackedAttentionMmaTest, ARowHasTheSameBitsAloneAndAmongOthersInEveryOrderOfThreads) {
  const Matrix together = Attend(All());
  int64_t row = 0;
  for (const AttendedSequence& s : sequences_) {
    simt::ForEachOrder([&] {
      const Matrix alone = Attend({&s});
      EXPECT_TRUE(SameBits(alone.values, {together.row(row), together.row(row + s.rows)}))
          << "sequence of " << s.tokens << " tokens";
    });
    row += s.rows;
  }
}

TEST_P(PackedAttentionMmaTest, ANanQueryMakesItsOwnHeadNanAndChangesNoOther) {
  const Matrix expected = Attend(All());
  AttendedSequence& s = sequences_.back();
  s.qkv.row(s.tokens - 1)[1] = std::nanf("");
  const Matrix got = Attend(All());
  const auto size = static_cast<size_t>(shape_.head_size);
  const size_t last_row = got.values.size() - size * static_cast<size_t>(shape_.heads);
  for (size_t i = 0; i < got.values.size(); ++i) {
    if (i >= last_row && i < last_row + size) {
      EXPECT_TRUE(std::isnan(got.values[i])) << i;
    } else {
      EXPECT_EQ(got.values[i], expected.values[i]) << i;
    }
  }
}

TEST_P(PackedAttentionMmaTest, NanInLaterTokensOfAPageChangesNoEarlierRow) {
  for (AttendedSequence& s : sequences_) {
    if (s.rows != 3) continue;
    const Matrix expected = Attend({&s});
    for (int32_t row = s.rows - 1; row > 0; --row) {
      const int32_t token = s.tokens - s.rows + row;
      std::fill(s.qkv.row(token) + shape_.heads * shape_.head_size, s.qkv.row(token + 1),
                std::nanf(""));
      Rewrite(s, token);
      const Matrix got = Attend({&s});
      EXPECT_TRUE(SameBits({got.row(0), got.row(row)}, {expected.row(0), expected.row(row)}))
          << "token " << token;
      EXPECT_TRUE(
          std::all_of(got.row(row), got.row(s.rows), [](float x) { return std::isnan(x); }));
    }
  }
}

TEST_P(PackedAttentionMmaTest, QueriesMayBeLargerThan16BitFloats) {
  for (AttendedSequence& s : sequences_) {
    if (!s.exact) continue;
    for (int32_t t = 0; t < s.tokens; ++t) {
      float* q = s.qkv.row(t);
      float* k = q + shape_.heads * shape_.head_size;
      float* v = k + shape_.kv_heads * shape_.head_size;
      std::for_each(q, k, [](float& x) { x *= 0x1p20f; });
      std::for_each(k, v, [](float& x) { x *= 0x1p-20f; });
      Rewrite(s, t);
    }
    EXPECT_LT(WorstError(s, Attend({&s}), 0), kTolerance);
  }
}

TEST_P(PackedAttentionMmaTest, AFrameThatASplitWouldCrossIsRefusedWhenThereAreCodes) {
  const AttendedSequence& s = sequences_.front();
  const Matrix expected = Attend({&s});
  Matrix out(1, 1);
  for (const int32_t frame : {0, 64, 256, 448, 768}) {
    view_.frame_tokens = frame;
    EXPECT_EQ(TryAttend({&s}, &out), view_.codes == nullptr ? cudaSuccess : cudaErrorInvalidValue)
        << "frames of " << frame;
    if (view_.codes != nullptr) continue;
    EXPECT_TRUE(SameBits(out.values, expected.values));
  }
}

class CodedQueriesMmaTest : public PackedAttentionMmaTest {};

// 64 rows of one split that has sealed keys: 64 times the group are full blocks of CodeQueries.
TEST_P(CodedQueriesMmaTest, AreThereForTheLastRowOfFullBlocks) {
  AttendedSequence s = {5 * kP, kP};
  Fill(&s, 50);
  ASSERT_NE(s.pages[1].key_tier, KvTier::kNear);
  const Matrix whole = Attend({&s});
  s.rows = 1;
  const Matrix alone = Attend({&s});
  EXPECT_TRUE(SameBits({whole.row(kP - 1), whole.row(kP)}, alone.values));
}

constexpr KvItem kHalf = Scalar(KvCodec::kHalf);
constexpr KvItem kInt8 = Scalar(KvCodec::kInt8);

// Groups of 1, 3, 4, 8, 12 and 20 heads; tables in 16, 8, 4 and 2 copies.
std::vector<AttentionCase> Cases() {
  return {
      AttentionCase{"planes_64_group_of_3", {3, 1, 64}, KvCodec::kInt8, {Planes(16, 52)}},
      AttentionCase{
          "planes_128_group_of_8", {8, 1, 128}, KvCodec::kInt8, {Planes(24, 100), Planes(40, 44)}},
      AttentionCase{"interleaved_64_two_groups_of_4",
                    {8, 2, 64},
                    KvCodec::kHalf,
                    {Planes(16, 20), kInt8, kHalf, Planes(2, 40)},
                    true,
                    1,
                    false,
                    1024},
      AttentionCase{"second_layer_of_two_groups_of_1_128",
                    {2, 2, 128},
                    KvCodec::kInt8,
                    {kInt8, kInt8, kHalf, kHalf, Planes(20, 20), kHalf, kInt8, Planes(200, 200)},
                    false,
                    2,
                    true},
      AttentionCase{"group_of_12_64", {12, 1, 64}, KvCodec::kInt8, {Planes(16, 52)}},
      AttentionCase{"group_of_20_128", {20, 1, 128}, KvCodec::kHalf, {kInt8, kHalf}},
      AttentionCase{"never_sealed_half_64", {4, 1, 64}, KvCodec::kHalf, {}},
      AttentionCase{"never_sealed_int8_128", {16, 2, 128}, KvCodec::kInt8, {}, false, 2}};
}
std::string NameOf(const ::testing::TestParamInfo<AttentionCase>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(DefaultCodecs, PackedAttentionMmaTest, ::testing::ValuesIn(Cases()),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(LearnedKeys, CodedQueriesMmaTest,
                         ::testing::Values(Cases()[0], Cases()[2]), NameOf);
INSTANTIATE_TEST_SUITE_P(DefaultCodecs, PromptAttentionMmaTest, ::testing::ValuesIn(Cases()),
                         NameOf);

TEST(CanUsePackedAttentionMmaTest, SaysForWhichSchemesAndShapes) {
  const auto can = [](const std::vector<KvItem>& items, int32_t head_size, int32_t frame_tokens) {
    KvScheme scheme;
    scheme.items = items;
    scheme.frame_tokens = frame_tokens;
    return cuda::CanUsePackedAttentionMma(scheme, {1, 1, head_size});
  };
  EXPECT_TRUE(can({}, 64, 512));
  EXPECT_TRUE(can({kHalf, kInt8}, 128, 0));
  EXPECT_TRUE(can({Planes(2, 4), kInt8}, 64, 512));
  EXPECT_TRUE(can({Planes(2, 4), kInt8}, 128, 1024));
  EXPECT_FALSE(can({Planes(2, 4), kInt8}, 64, 256)) << "a split crosses frames";
  EXPECT_FALSE(can({Planes(2, 4), kInt8}, 64, 0));
  for (const int32_t size : {16, 32, 80, 96, 256}) EXPECT_FALSE(can({}, size, 512)) << size;
  EXPECT_FALSE(can({kHalf, Scalar(KvCodec::kMinMax, 2)}, 64, 512));
  EXPECT_FALSE(can({Scalar(KvCodec::kFitted, 2), kHalf}, 64, 512));
}

}  // namespace
}  // namespace asymserve
