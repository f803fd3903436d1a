#include "server/key_ring.h"

#include <gtest/gtest.h>

#include "server/authentication.h"
#include "tests/server/api_key_file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace asymserve::testing {
namespace {

class KeyRingTest : public ::testing::Test {
 protected:
  std::string HolderOf(const std::string& key) const {
    const auto holder = ring_.Find(key);
    return holder == nullptr ? "nobody" : holder->name;
  }

  const TempDir directory_;
  const std::string path_ = directory_.Path("keys.yaml");
  KeyRing ring_{path_};
};

TEST_F(KeyRingTest, FindsTheHolderOfAKeyAndOfNothingElse) {
  WriteFile(path_, KeyEntry("alice", "secret-a", "tenant: gold") + KeyEntry("bob", "secret-b"));
  EXPECT_EQ(HolderOf("secret-a"), "nobody") << "before the file is read";
  ASSERT_THAT(ring_.Reload(), IsOk());
  EXPECT_EQ(ring_.size(), 2u);
  EXPECT_EQ(HolderOf("secret-a"), "alice");
  EXPECT_EQ(HolderOf("secret-b"), "bob");
  EXPECT_EQ(ring_.Find("secret-a")->tenant, "gold");
  for (const std::string key : {"", "secret-", "secret-aa", "Secret-a"}) {
    EXPECT_EQ(HolderOf(key), "nobody") << key;
  }
  EXPECT_EQ(HolderOf(ToHex(ring_.Find("secret-a")->sha256)), "nobody") << "the digest is no key";
}

TEST_F(KeyRingTest, KnowsWhenTheFirstOfItsKeysExpires) {
  EXPECT_EQ(ring_.first_expiry(), 0);
  WriteFile(path_, KeyEntry("alice", "a", "expires: 2031-01-01T00:00:00Z") + KeyEntry("bob", "b") +
                       KeyEntry("carol", "c", "expires: 2030-01-01T00:00:00Z"));
  ASSERT_THAT(ring_.Reload(), IsOk());
  EXPECT_EQ(ring_.first_expiry(), ParseExpiry("2030-01-01T00:00:00Z"));
  EXPECT_EQ(ring_.Find("b")->not_after_s, 0);
  WriteFile(path_, KeyEntry("bob", "b"));
  ASSERT_THAT(ring_.Reload(), IsOk());
  EXPECT_EQ(ring_.first_expiry(), 0);
}

TEST_F(KeyRingTest, ABrokenFileIsAnErrorAndKeepsTheKeys) {
  EXPECT_THAT(ring_.Reload(), FailsWith(absl::StatusCode::kNotFound, path_));
  WriteFile(path_, KeyEntry("alice", "secret-a"));
  ASSERT_THAT(ring_.Reload(), IsOk());
  WriteFile(path_, KeyEntry("bob", "secret-b") + "mallory:\n");
  EXPECT_THAT(ring_.Reload(), FailsWith(absl::StatusCode::kInvalidArgument, path_ + ":3: mallory"));
  EXPECT_EQ(HolderOf("secret-a"), "alice");
  EXPECT_EQ(HolderOf("secret-b"), "nobody");
}

TEST_F(KeyRingTest, ANameKeepsItsMeterWithAnotherKeyAndOtherLimits) {
  const auto now = std::chrono::steady_clock::now();
  WriteFile(path_, KeyEntry("alice", "old", "concurrent: 1"));
  ASSERT_THAT(ring_.Reload(), IsOk());
  ASSERT_FALSE(ring_.Find("old")->meter->Enter(true, now).has_value());
  WriteFile(path_, KeyEntry("alice", "new", "concurrent: 2"));
  ASSERT_THAT(ring_.Reload(), IsOk());
  EXPECT_EQ(HolderOf("old"), "nobody");
  EXPECT_FALSE(ring_.Find("new")->meter->Enter(true, now).has_value());
  EXPECT_TRUE(ring_.Find("new")->meter->Enter(true, now).has_value());
}

TEST(ExcludedKeyTest, IsRefusedWithBothFilesAndTheOldKeysStay) {
  const TempDir directory;
  const std::string callers = directory.Path("callers.yaml");
  const std::string operators = directory.Path("operators.yaml");
  WriteFile(callers, KeyEntry("alice", "a"));
  WriteFile(operators, KeyEntry("olga", "o"));
  KeyRing keys(callers), admin_keys(operators);
  admin_keys.Exclude(keys);
  ASSERT_TRUE(keys.Reload().ok());
  ASSERT_TRUE(admin_keys.Reload().ok());
  WriteFile(operators, KeyEntry("olga", "o") + KeyEntry("otto", "a"));
  EXPECT_EQ(admin_keys.Reload().message(),
            operators + ": otto: its key is one of " + callers + ", too");
  EXPECT_EQ(admin_keys.Find("a"), nullptr);
  EXPECT_NE(admin_keys.Find("o"), nullptr);
  WriteFile(callers, KeyEntry("alice", "another"));
  ASSERT_TRUE(keys.Reload().ok());
  EXPECT_TRUE(admin_keys.Reload().ok());
  EXPECT_NE(admin_keys.Find("a"), nullptr);
}

struct Metadatum {
  const char* name;
  const char* value;
};

std::string KeyIn(const std::vector<Metadatum>& metadata) {
  PresentedKey presented;
  for (const auto& [name, value] : metadata) presented.Add(name, value);
  return presented.malformed() ? "malformed" : std::string(presented.key());
}

TEST(PresentedKeyTest, IsBehindBearerOrInItsOwnHeader) {
  EXPECT_EQ(KeyIn({{"authorization", "Bearer s3"}}), "s3");
  EXPECT_EQ(KeyIn({{"x", "y"}, {"authorization", "bEARER a b"}}), "a b");
  EXPECT_EQ(KeyIn({{"x-api-key", "s3"}, {"x", "y"}}), "s3");
  EXPECT_EQ(KeyIn({}), "");
  EXPECT_EQ(KeyIn({{"x-api-keys", "s3"}, {"authorizations", "Bearer s3"}}), "");
}

TEST(PresentedKeyTest, AnotherSchemeAnEmptyKeyOrTwoOfThemAreMalformed) {
  for (const char* value : {"", "s3", "Bearer", "Bearer ", "Basic s3", "Bearers3"}) {
    EXPECT_EQ(KeyIn({{"authorization", value}}), "malformed") << value;
  }
  EXPECT_EQ(KeyIn({{"x-api-key", ""}}), "malformed");
  EXPECT_EQ(KeyIn({{"x-api-key", "a"}, {"x-api-key", "a"}}), "malformed");
  EXPECT_EQ(KeyIn({{"authorization", "Bearer a"}, {"x-api-key", "a"}}), "malformed");
  EXPECT_EQ(KeyIn({{"authorization", "Basic a"}, {"x-api-key", "a"}}), "malformed");
}

}  // namespace
}  // namespace asymserve::testing
