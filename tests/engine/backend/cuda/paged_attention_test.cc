#include "engine/backend/cuda/paged_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/engine/backend/cuda/attention_fixture.h"
#include "tests/simt/orders.h"

// Attention straight from packed pages against doubles on what DecodeBlock says is stored.

namespace asymserve {
namespace {

using ::asymserve::testing::AttendedSequence;
using ::asymserve::testing::AttentionCase;
using ::asymserve::testing::AttentionFixture;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::Planes;
using ::asymserve::testing::SameBits;
using ::asymserve::testing::Scalar;

class PagedAttentionTest : public AttentionFixture {
 protected:
  PagedAttentionTest() : AttentionFixture(&cuda::PagedAttention) {}
};

TEST_P(PagedAttentionTest, IsWithinFloatErrorOfADoubleReference) {
  const Matrix out = Attend(All());
  int64_t row = 0;
  for (const AttendedSequence& s : sequences_) {
    EXPECT_LT(WorstError(s, out, row), 5e-5) << "sequence of " << s.tokens << " tokens";
    row += s.rows;
  }
}

TEST_P(PagedAttentionTest, ARowHasTheSameBitsAloneAndAmongOthersInEveryOrderOfThreads) {
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

TEST_P(PagedAttentionTest, ANanQueryMakesItsOwnHeadNanAndChangesNoOther) {
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

TEST_P(PagedAttentionTest, AFrameThatASplitWouldCrossIsRefusedWhenThereAreCodes) {
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

constexpr KvItem kHalf = Scalar(KvCodec::kHalf);
constexpr KvItem kInt8 = Scalar(KvCodec::kInt8);
constexpr KvItem kFitted1 = Scalar(KvCodec::kFitted, 1);
constexpr KvItem kFitted2 = Scalar(KvCodec::kFitted, 2);
constexpr KvItem kFitted4 = Scalar(KvCodec::kFitted, 4);
constexpr KvItem kMinMax1 = Scalar(KvCodec::kMinMax, 1);
constexpr KvItem kMinMax2 = Scalar(KvCodec::kMinMax, 2);
constexpr KvItem kMinMax4 = Scalar(KvCodec::kMinMax, 4);

// Every codec and number of bits is that of keys and of values somewhere.
INSTANTIATE_TEST_SUITE_P(
    EveryCodec, PagedAttentionTest,
    ::testing::Values(
        AttentionCase{"planes_64", {3, 1, 64}, KvCodec::kInt8, {Planes(8, 20)}},
        AttentionCase{"planes_interleaved_24", {4, 2, 24}, KvCodec::kHalf, {Planes(8, 20)}, true},
        AttentionCase{"more_than_eight_heads_16", {10, 1, 16}, KvCodec::kInt8, {Planes(8, 20)}},
        AttentionCase{"fitted_80",
                      {3, 3, 80},
                      KvCodec::kInt8,
                      {kFitted1, kFitted2, kFitted4, kFitted4, kFitted1, kFitted2}},
        AttentionCase{"minmax_40",
                      {6, 3, 40},
                      KvCodec::kHalf,
                      {kMinMax1, kMinMax2, kMinMax4, kMinMax4, kMinMax1, kMinMax2}},
        AttentionCase{"half_and_int8_24", {2, 2, 24}, KvCodec::kHalf, {kHalf, kInt8, kInt8, kHalf}},
        AttentionCase{
            "second_layer_of_two_groups_of_ten_128",
            {20, 2, 128},
            KvCodec::kInt8,
            {kMinMax1, kMinMax1, kMinMax1, kMinMax1, Planes(8, 8), kFitted2, kHalf, Planes(6, 6)},
            false,
            2,
            true},
        AttentionCase{"never_sealed_half_32", {2, 1, 32}, KvCodec::kHalf, {}},
        AttentionCase{"never_sealed_int8_32", {4, 2, 32}, KvCodec::kInt8, {}, false, 2}),
    [](const auto& c) { return std::string(c.param.name); });

// ---- The plan -----------------------------------------------------------------------------------

TEST(AttentionPlanTest, EveryRowHasItsSplitsInOrder) {
  AttentionPlan plan;
  PlanAttention(std::vector<int32_t>{511, 512, 0, 1024}, std::vector<int32_t>{0, 2, 2, 3, 4},
                std::vector<int32_t>{0, 9, 9, 10, 27}, &plan);
  const std::vector<AttentionRow> rows = {
      {511, 0, 0, 1}, {512, 0, 1, 2}, {0, 9, 3, 1}, {1024, 10, 4, 3}};
  const std::vector<AttentionWork> work = {{0, 0}, {1, 0}, {1, 1}, {2, 0}, {3, 0}, {3, 1}, {3, 2}};
  EXPECT_EQ(plan.rows, rows);
  EXPECT_EQ(plan.work, work);
}

TEST(AttentionPlanTest, RowsOfASequenceShareTheTilesOfTheSplitsThatTheyHave) {
  std::vector<int32_t> positions = {600, 602, 603};  // a gap ends a tile
  for (int32_t p = 510; p < 510 + 35; ++p) positions.push_back(p);
  positions.push_back(545);  // of another sequence
  AttentionPlan plan;
  PlanAttention(positions, std::vector<int32_t>{0, 3, 38, 39}, std::vector<int32_t>{0, 10, 19, 28},
                &plan);
  const std::vector<SplitTile> tiles = {{0, 1, 0}, {0, 1, 1},  {38, 1, 0}, {38, 1, 1}, {1, 2, 0},
                                        {1, 2, 1}, {3, 32, 0}, {5, 30, 1}, {35, 3, 0}, {35, 3, 1}};
  EXPECT_EQ(plan.tiles, tiles);
  EXPECT_EQ(plan.single_tiles, 4);
  EXPECT_EQ(plan.most_rows, 32);
}

}  // namespace
}  // namespace asymserve
