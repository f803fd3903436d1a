#include "engine/kv/scheme.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace asymserve {
namespace {

using ::testing::HasSubstr;

constexpr KvShape kShape = {.layers = 30, .kv_heads = 3, .head_size = 64};

std::string ErrorOf(std::string_view name) {
  const auto scheme = NamedKvScheme(name, kShape);
  EXPECT_FALSE(scheme.ok()) << name;
  return std::string(scheme.status().message());
}

TEST(KvSchemeTest, EveryNameGivesAValidScheme) {
  for (const char* name : {"exact", "int8", "kivi-2", "kivi-4", "asymkv-30/0", "asymkv-0/30",
                           "asymkv-15/0", "fit-2/2", "fit-2/1", "fit-4/1"}) {
    const auto scheme = NamedKvScheme(name, kShape);
    ASSERT_TRUE(scheme.ok()) << scheme.status();
    EXPECT_EQ(scheme->name, name);
    EXPECT_TRUE(CheckKvScheme(*scheme, kShape).ok()) << name;
  }
}

TEST(KvSchemeTest, AsymKvGivesTwoBitsToTheFirstLayersOnly) {
  const KvScheme scheme = *NamedKvScheme("asymkv-16/5", kShape);
  EXPECT_EQ(scheme.item(kShape, 15, KvTensor::kKey, 2).bits, 2);
  EXPECT_EQ(scheme.item(kShape, 16, KvTensor::kKey, 0).bits, 1);
  EXPECT_EQ(scheme.item(kShape, 4, KvTensor::kValue, 2).bits, 2);
  EXPECT_EQ(scheme.item(kShape, 5, KvTensor::kValue, 0).bits, 1);
}

TEST(KvSchemeTest, BadNamesSayWhatIsWrong) {
  EXPECT_THAT(ErrorOf("asymkv-99/0"), HasSubstr("99 layers of 2 bits; the model has 30"));
  EXPECT_THAT(ErrorOf("asymkv--1/0"), HasSubstr("-1 layers"));
  EXPECT_THAT(ErrorOf("asymkv-1"), HasSubstr("expected asymkv-<lk>/<lv>"));
  EXPECT_THAT(ErrorOf("asymkv-1/2x"), HasSubstr("expected asymkv-<lk>/<lv>"));
  EXPECT_THAT(ErrorOf("asymkv-99999999999999999999/0"), HasSubstr("expected asymkv-<lk>/<lv>"));
  EXPECT_THAT(ErrorOf("fit-3/2"), HasSubstr("1, 2 or 4 bits"));
  EXPECT_THAT(ErrorOf("fit-/"), HasSubstr("expected fit-<k>/<v>"));
  EXPECT_THAT(ErrorOf("kivi-3"), HasSubstr("unknown; there are exact"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("unknown"));
}

TEST(KvSchemeTest, SchemesThatDoNotFitAreRefused) {
  KvScheme scheme = *NamedKvScheme("fit-2/2", kShape);
  const auto error = [&](const KvShape& shape = kShape) {
    return std::string(CheckKvScheme(scheme, shape).message());
  };
  EXPECT_THAT(error({.layers = 2, .kv_heads = 3, .head_size = 64}), HasSubstr("180 items"));
  EXPECT_THAT(error({.layers = 30, .kv_heads = 3, .head_size = 60}), HasSubstr("of 60;"));
  scheme.items[7].bits = 3;
  EXPECT_THAT(error(), HasSubstr("KV item 7: 3 bits"));
  scheme.items[7] = {.codec = KvCodec::kPlanes, .base_planes = 7, .fresh_planes = 8};
  EXPECT_THAT(error(), HasSubstr("7 base and 8 fresh planes"));
  scheme.items[7] = {.codec = KvCodec::kPlanes, .base_planes = 8, .fresh_planes = 6};
  EXPECT_THAT(error(), HasSubstr("8 base and 6 fresh planes"));
  scheme.items.clear();
  scheme.chunk_tokens = 100;
  EXPECT_THAT(error(), HasSubstr("multiples of the page"));
  scheme.chunk_tokens = 256;
  scheme.near = KvCodec::kPlanes;
  EXPECT_THAT(error(), HasSubstr("near pages"));
}

}  // namespace
}  // namespace asymserve
