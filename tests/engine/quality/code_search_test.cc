#include "engine/quality/code_search.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace asymserve {
namespace {

TEST(RereadingTest, ThePassageIsFollowedByItsFirstThird) {
  std::vector<int32_t> passage(384);
  std::iota(passage.begin(), passage.end(), 0);
  const std::vector<int32_t> tokens = Reread(passage);
  ASSERT_EQ(static_cast<int64_t>(tokens.size()), Rereading{384}.tokens());
  EXPECT_EQ(tokens[383], 383);
  EXPECT_EQ(tokens[384], 0);
  EXPECT_EQ(tokens.back(), 127);
}

TEST(RereadingTest, NewTextWeighsOneAndCopyingWhatItIsTold) {
  const Rereading reading = {384};
  const std::vector<float> weights = reading.Weights(0.25);
  const auto sum = [&](int64_t from, int64_t end) {
    double total = 0;
    for (int64_t t = from; t < end; ++t)
      total += static_cast<double>(weights[static_cast<size_t>(t)]);
    return total;
  };
  EXPECT_EQ(sum(0, 64), 0);
  EXPECT_NEAR(sum(64, 384), 1, 1e-4);
  EXPECT_EQ(sum(383, 448), 0);  // the first page of the second reading has not caught on yet
  EXPECT_NEAR(sum(448, 512), 0.25, 1e-4);
  EXPECT_EQ(weights.back(), 0);  // its next token is not known
}

}  // namespace
}  // namespace asymserve
