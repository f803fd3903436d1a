#include "engine/quality/allocation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace asymserve {
namespace {

/// An item whose distortion halves with every four planes.
ItemLoss Item(double loss) {
  ItemLoss item;
  item.loss = loss;
  for (int p = 0; p <= 48; ++p) item.distortion.push_back(std::exp2(-p / 4.0));
  return item;
}

double BitsOf(const std::vector<KvItem>& items, int32_t head_size) {
  double bits = 0;
  for (const KvItem& item : items) {
    bits +=
        item.codec == KvCodec::kInt8 ? 8 + 16.0 / head_size : 4.0 * item.base_planes / head_size;
  }
  return bits / static_cast<double>(items.size());
}

TEST(AllocationTest, EqualItemsGetEqualBits) {
  const auto items = AllocatePlanes(std::vector<ItemLoss>(6, Item(1)), 64, 1.0, 2);
  for (const KvItem& item : items) {
    EXPECT_EQ(item.base_planes, 16);
    EXPECT_EQ(item.fresh_planes, 16);
  }
}

TEST(AllocationTest, TheBudgetIsKeptAndAlmostSpent) {
  std::vector<ItemLoss> losses;
  for (int i = 0; i < 60; ++i) losses.push_back(Item(std::exp2(-i % 11)));
  for (const double bits : {0.5, 0.75, 1.0, 1.5, 2.5}) {
    const double used = BitsOf(AllocatePlanes(losses, 64, bits, 2), 64);
    EXPECT_LE(used, bits);
    EXPECT_GT(used, bits - 0.01);
  }
}

TEST(AllocationTest, AnItemThatCarriesEverythingGetsEightBitsAndOneThatCarriesNothingTheLeast) {
  std::vector<ItemLoss> losses(20, Item(1));
  losses[3] = Item(1e6);
  losses[7] = Item(1e-9);
  const auto items = AllocatePlanes(losses, 64, 1.0, 2);
  EXPECT_EQ(items[3].codec, KvCodec::kInt8);
  EXPECT_EQ(items[7].base_planes, 2);
  EXPECT_GT(items[0].base_planes, 4);
}

TEST(AllocationTest, MoreLossNeverMeansFewerPlanes) {
  std::vector<ItemLoss> losses;
  for (int i = 0; i < 30; ++i) losses.push_back(Item(std::exp2(-i / 3.0)));
  const auto items = AllocatePlanes(losses, 64, 1.0, 2);
  const auto size = [](const KvItem& item) {
    return item.codec == KvCodec::kInt8 ? 132 : int{item.base_planes};
  };
  for (size_t i = 1; i < items.size(); ++i) EXPECT_LE(size(items[i]), size(items[i - 1])) << i;
}

TEST(AllocationTest, FreshPagesGetBitsByTheirOwnLosses) {
  std::vector<ItemLoss> losses(5, Item(1));
  std::vector<KvItem> items = AllocatePlanes(losses, 64, 1.0, 2);
  items[2] = {.codec = KvCodec::kInt8};
  losses[0].loss = 100;
  losses[1].loss = 0;
  AllocateFreshPlanes(losses, 64, 2.0, items);
  int planes = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i == 2) continue;
    EXPECT_GE(items[i].fresh_planes, items[i].base_planes);
    planes += items[i].fresh_planes;
  }
  EXPECT_EQ(planes, 4 * 32);  // 2.0 bits of the items with planes
  EXPECT_EQ(items[1].fresh_planes, items[1].base_planes);
  EXPECT_GT(items[0].fresh_planes, items[3].fresh_planes);
  EXPECT_EQ(items[2], (KvItem{.codec = KvCodec::kInt8}));
}

}  // namespace
}  // namespace asymserve
