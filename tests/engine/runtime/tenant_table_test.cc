#include "engine/runtime/tenant_table.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace asymserve {
namespace {

const std::vector<TenantShare> kShares = {{"gold", 4}, {"silver", 2}};

TEST(TenantTableTest, ConfiguredTenantsHaveTheirWeightAndALabelOfTheirOwn) {
  TenantTable table(kShares);
  EXPECT_EQ(table.labels(), (std::vector<std::string>{"default", "gold", "silver", "other"}));
  const TenantTable::Tenant gold = table.Resolve("gold");
  EXPECT_EQ(gold.weight, 4);
  EXPECT_EQ(table.labels()[static_cast<size_t>(gold.label)], "gold");
  EXPECT_EQ(table.Resolve("silver").weight, 2);
  EXPECT_NE(table.Resolve("silver").id, gold.id);
}

TEST(TenantTableTest, NoNameIsTheTenantDefaultWhichMayBeConfigured) {
  TenantTable table(std::vector<TenantShare>{{"default", 7}});
  EXPECT_EQ(table.Resolve("").weight, 7);
  EXPECT_EQ(table.Resolve("default").id, table.Resolve("").id);
  EXPECT_EQ(TenantTable::NameOf("default"), TenantTable::NameOf(""));
  EXPECT_EQ(TenantTable::NameOf("gold"), "gold");
  EXPECT_EQ(table.labels(), (std::vector<std::string>{"default", "other"}));
}

TEST(TenantTableTest, OtherNamesHaveIdsOfTheirOwnAndOneLabel) {
  TenantTable table(kShares);
  const TenantTable::Tenant a = table.Resolve("a"), b = table.Resolve("b");
  EXPECT_NE(a.id, b.id);
  EXPECT_EQ(a.label, b.label);
  EXPECT_EQ(table.labels()[static_cast<size_t>(a.label)], "other");
  EXPECT_EQ(a.weight, 1);
  EXPECT_EQ(table.Resolve("a").id, a.id);
}

TEST(TenantTableTest, AnyNumberOfNamesSharesAFixedNumberOfIds) {
  TenantTable table(kShares);
  const int32_t kept = table.Resolve("kept").id;
  std::set<int32_t> ids;
  for (int i = 0; i < 10'000; ++i) {
    ids.insert(table.Resolve("name " + std::to_string(i)).id);
    EXPECT_EQ(table.Resolve("kept").id, kept);
  }
  EXPECT_EQ(ids.size(), TenantTable::kOthers - 1);
  EXPECT_FALSE(ids.contains(kept));
  for (const char* name : {"", "gold", "silver"}) {
    EXPECT_FALSE(ids.contains(table.Resolve(name).id)) << name;
  }
}

TEST(TenantTableTest, OtherWeightsReplaceAllOfThemAndLeaveIdsAndLabels) {
  TenantTable table(kShares);
  const TenantTable::Tenant gold = table.Resolve("gold"), bronze = table.Resolve("bronze");
  table.SetWeights(std::vector<TenantShare>{{"gold", 7}, {"bronze", 3}, {"default", 5}});
  EXPECT_EQ(table.Resolve("gold").weight, 7);
  EXPECT_EQ(table.Resolve("gold").id, gold.id);
  EXPECT_EQ(table.Resolve("gold").label, gold.label);
  EXPECT_EQ(table.Resolve("bronze").weight, 3);
  EXPECT_EQ(table.Resolve("bronze").id, bronze.id);
  EXPECT_EQ(table.Resolve("bronze").label, bronze.label);
  EXPECT_EQ(table.Resolve("").weight, 5);
  EXPECT_EQ(table.Resolve("silver").weight, 1);
  table.SetWeights({});
  EXPECT_EQ(table.Resolve("gold").weight, 1);
  EXPECT_EQ(table.Resolve("bronze").weight, 1);
  EXPECT_EQ(table.labels(), (std::vector<std::string>{"default", "gold", "silver", "other"}));
}

}  // namespace
}  // namespace asymserve
