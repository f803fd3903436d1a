#include "engine/kv/layout.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "engine/kv/page_tier.h"

namespace asymserve {
namespace {

constexpr KvShape kShape = {.layers = 3, .kv_heads = 2, .head_size = 80};

KvScheme Named(const char* name, const KvShape& shape = kShape) {
  auto scheme = NamedKvScheme(name, shape);
  EXPECT_TRUE(scheme.ok()) << scheme.status();
  return *scheme;
}

TEST(KvLayoutTest, BlocksFillTheRecordWithoutOverlapAndStartAtCacheLines) {
  for (const char* name : {"exact", "int8", "kivi-2", "asymkv-2/1", "fit-2/1", "fit-4/4"}) {
    const KvScheme scheme = Named(name);
    const KvLayout layout(kShape, scheme);
    for (const KvRecord kind : {KvRecord::kNear, KvRecord::kBase}) {
      if (kind == KvRecord::kBase && !scheme.seals()) continue;
      int64_t expected = 0;
      for (int32_t layer = 0; layer < kShape.layers; ++layer) {
        for (int32_t head = 0; head < kShape.kv_heads; ++head) {
          for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
            EXPECT_EQ(layout.Offset(kind, layer, tensor, head), expected) << name;
            EXPECT_EQ(expected % kKvBlockAlignment, 0);
            const KvItem item = kind == KvRecord::kNear ? KvItem{.codec = scheme.near}
                                                        : scheme.item(kShape, layer, tensor, head);
            expected += PadKvBlock(KvBlockBytes(item, tensor, kShape.head_size, 0));
          }
        }
      }
      EXPECT_EQ(layout.record_bytes(kind), expected) << name;
    }
  }
}

TEST(KvLayoutTest, TheKeysOrValuesOfAnExactPageFitOneInt8RecordForEveryHeadSize) {
  for (int32_t head_size = 8; head_size <= kMaxKvHeadSize; head_size += 8) {
    const KvShape shape = {.layers = 3, .kv_heads = 2, .head_size = head_size};
    const KvLayout layout(shape, Named("int8", shape));
    const int64_t block = KvBlockBytes({.codec = KvCodec::kHalf}, KvTensor::kKey, head_size, 0);
    EXPECT_EQ(block, KvBlockBytes({.codec = KvCodec::kHalf}, KvTensor::kValue, head_size, 0));
    int64_t expected = 0;
    for (int32_t layer = 0; layer < shape.layers; ++layer) {
      for (int32_t head = 0; head < shape.kv_heads; ++head) {
        EXPECT_EQ(layout.ExactOffset(layer, head), expected);
        EXPECT_EQ(expected % kKvBlockAlignment, 0);
        expected += block;
      }
    }
    EXPECT_LE(expected, layout.record_bytes(KvRecord::kNear)) << "head size " << head_size;
  }
}

TEST(KvLayoutTest, SealedBitsAreThePublishedOnes) {
  constexpr KvShape kLlama = {.layers = 32, .kv_heads = 8, .head_size = 128};
  EXPECT_DOUBLE_EQ(KvLayout(kLlama, Named("exact", kLlama)).sealed_bits(), 16.0);
  EXPECT_DOUBLE_EQ(KvLayout(kLlama, Named("kivi-2", kLlama)).sealed_bits(), 3.0);
  EXPECT_DOUBLE_EQ(KvLayout(kLlama, Named("kivi-4", kLlama)).sealed_bits(), 5.0);
  EXPECT_DOUBLE_EQ(KvLayout(kLlama, Named("asymkv-16/0", kLlama)).sealed_bits(), 2.25);
  EXPECT_DOUBLE_EQ(KvLayout(kLlama, Named("asymkv-0/0", kLlama)).sealed_bits(), 2.0);
  EXPECT_NEAR(KvLayout(kLlama, Named("fit-2/2", kLlama)).sealed_bits(), 2.25, 0.02);
  EXPECT_NEAR(KvLayout(kLlama, Named("fit-2/1", kLlama)).sealed_bits(), 1.75, 0.02);
}

TEST(KvLayoutTest, KeysAndValuesHaveTheirOwnSharesOfRecordsAndBits) {
  constexpr KvShape kLlama = {.layers = 32, .kv_heads = 8, .head_size = 128};
  for (const char* name : {"exact", "int8", "kivi-2", "asymkv-16/0", "fit-2/1"}) {
    const KvLayout layout(kLlama, Named(name, kLlama));
    for (const KvRecord record : {KvRecord::kNear, KvRecord::kBase, KvRecord::kRefinement}) {
      EXPECT_EQ(layout.tensor_bytes(record, KvTensor::kKey) +
                    layout.tensor_bytes(record, KvTensor::kValue),
                layout.record_bytes(record))
          << name;
    }
  }
  const KvLayout asymmetric(kLlama, Named("asymkv-16/0", kLlama));  // half of the keys in 2 bit
  EXPECT_DOUBLE_EQ(asymmetric.sealed_bits(KvTensor::kKey), 2.5);
  EXPECT_DOUBLE_EQ(asymmetric.sealed_bits(KvTensor::kValue), 2.0);
  EXPECT_GT(asymmetric.tensor_bytes(KvRecord::kBase, KvTensor::kKey),
            asymmetric.tensor_bytes(KvRecord::kBase, KvTensor::kValue));
}

TEST(KvLayoutTest, EffectiveBitsCountEveryRecordOfASequence) {
  const KvScheme scheme = Named("fit-2/2");
  const KvLayout layout(kShape, scheme);
  // 1,024 tokens: the sink, a recent and the newest page near, 13 sealed.
  const double bytes = 3.0 * static_cast<double>(layout.record_bytes(KvRecord::kNear)) +
                       13.0 * static_cast<double>(layout.record_bytes(KvRecord::kBase));
  EXPECT_DOUBLE_EQ(layout.EffectiveBits(1024), 8 * bytes / (2.0 * 3 * 2 * 80) / 1024);
  EXPECT_GE(KvLayout(kShape, Named("exact")).EffectiveBits(65), 2 * 16.0 * 64 / 65);
}

TEST(PageTierTest, KiviSealsKeysInBlocksOf128AndValuesBehind128Tokens) {
  const KvScheme scheme = Named("kivi-2");
  const auto near = [&](KvTensor tensor, int32_t page, int32_t complete) {
    return TierOf(scheme, tensor, page, complete) == KvTier::kNear;
  };
  EXPECT_TRUE(near(KvTensor::kKey, 0, 1));
  EXPECT_FALSE(near(KvTensor::kKey, 0, 2));
  EXPECT_FALSE(near(KvTensor::kKey, 1, 3));
  EXPECT_TRUE(near(KvTensor::kKey, 2, 3));
  EXPECT_TRUE(near(KvTensor::kValue, 0, 2));
  EXPECT_FALSE(near(KvTensor::kValue, 0, 3));
  EXPECT_TRUE(near(KvTensor::kValue, 1, 3));
}

TEST(PageTierTest, APageIsNearThenFreshThenAgedAndTheSinkStaysNear) {
  KvScheme scheme = Named("fit-2/2");
  scheme.fresh_pages = 2;
  const auto tier = [&](int32_t page) { return TierOf(scheme, KvTensor::kKey, page, 10); };
  EXPECT_EQ(tier(10), KvTier::kNear);
  EXPECT_EQ(tier(9), KvTier::kNear);
  EXPECT_EQ(tier(8), KvTier::kFresh);
  EXPECT_EQ(tier(7), KvTier::kFresh);
  EXPECT_EQ(tier(6), KvTier::kAged);
  EXPECT_EQ(tier(1), KvTier::kAged);
  EXPECT_EQ(tier(0), KvTier::kNear);
}

}  // namespace
}  // namespace asymserve
