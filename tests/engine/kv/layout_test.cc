#include "engine/kv/layout.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace asymserve {
namespace {

struct LayoutCase {
  int32_t layers, kv_heads, head_size, page_tokens;
};

class ExactPageLayoutTest : public ::testing::TestWithParam<LayoutCase> {
 protected:
  ExactPageLayout layout() const {
    const auto [layers, kv_heads, head_size, page_tokens] = GetParam();
    return {{.layers = layers, .kv_heads = kv_heads, .head_size = head_size},
            {.page_tokens = page_tokens, .chunk_tokens = page_tokens}};
  }
};

TEST_P(ExactPageLayoutTest, OffsetsAreABijectionOntoTheRecord) {
  const ExactPageLayout record = layout();
  std::vector<int> hits(static_cast<size_t>(record.record_elements()), 0);
  for (int32_t layer = 0; layer < record.layers; ++layer) {
    for (int32_t head = 0; head < record.kv_heads; ++head) {
      for (int32_t i = 0; i < record.head_size * record.page_tokens; ++i) {
        const int32_t token = i % record.page_tokens;
        const int32_t channel = i / record.page_tokens;
        ++hits.at(static_cast<size_t>(record.Key(layer, head, channel, token)));
        ++hits.at(static_cast<size_t>(record.Value(layer, head, token, channel)));
      }
    }
  }
  for (size_t i = 0; i < hits.size(); ++i) ASSERT_EQ(hits[i], 1) << "element " << i;
}

TEST_P(ExactPageLayoutTest, ARecordHoldsTwoFp16PerTokenChannelHeadAndLayer) {
  const auto [layers, kv_heads, head_size, page_tokens] = GetParam();
  EXPECT_EQ(layout().record_bytes(), int64_t{2} * 2 * layers * kv_heads * head_size * page_tokens);
}

TEST_P(ExactPageLayoutTest, TokensOfAKeyChannelAndChannelsOfAValueTokenAreContiguous) {
  const ExactPageLayout record = layout();
  const int32_t layer = record.layers - 1;
  const int32_t head = record.kv_heads - 1;
  for (int32_t token = 1; token < record.page_tokens; ++token) {
    ASSERT_EQ(record.Key(layer, head, 0, token), record.Key(layer, head, 0, token - 1) + 1);
  }
  for (int32_t channel = 1; channel < record.head_size; ++channel) {
    ASSERT_EQ(record.Value(layer, head, 0, channel), record.Value(layer, head, 0, channel - 1) + 1);
  }
}

INSTANTIATE_TEST_SUITE_P(OddShapes, ExactPageLayoutTest,
                         ::testing::Values(LayoutCase{1, 1, 1, 1}, LayoutCase{1, 1, 1, 64},
                                           LayoutCase{3, 1, 5, 7}, LayoutCase{1, 3, 7, 5},
                                           LayoutCase{5, 3, 11, 3}, LayoutCase{2, 3, 64, 64}));

TEST(ExactPageLayoutLimitsTest, OffsetsOfALargeModelDoNotOverflow) {
  // 80 layers of 64 heads of 256 channels, 1024 tokens a page: 2^31.3 elements.
  const ExactPageLayout record({.layers = 80, .kv_heads = 64, .head_size = 256},
                               {.page_tokens = 1024, .chunk_tokens = 1024});
  EXPECT_EQ(record.record_elements(), int64_t{2} * 80 * 64 * 256 * 1024);
  EXPECT_EQ(record.Value(79, 63, 1023, 255), record.record_elements() - 1);
}

}  // namespace
}  // namespace asymserve
