#include "config/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace asymserve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string kDigest(64, 'a');
const std::string kOther(64, 'b');

std::string Error(const std::string& text) {
  const auto keys = ParseApiKeys(text, "k.yaml");
  return keys.ok() ? "no error" : std::string(keys.status().message());
}

std::string Entry(const std::string& name, const std::string& digest,
                  const std::string& more = "") {
  return name + ":\n  sha256: " + digest + "\n" + more;
}

TEST(ApiKeysTest, ReadsHoldersWithTenantsAndLimits) {
  const auto keys =
      ParseApiKeys(Entry("alice", kDigest,
                         "  tenant: gold\n  requests_per_second: 0.5\n  concurrent: 8\n"
                         "  tokens_per_minute: 100000\n") +
                       "bob-2: {sha256: \"" + std::string(62, '0') + "Ff\", tenant: 7}\n",
                   "k.yaml");
  ASSERT_TRUE(keys.ok()) << keys.status();
  ASSERT_EQ(keys->size(), 2u);
  const ApiKey& alice = keys->front();
  EXPECT_EQ(alice.name, "alice");
  EXPECT_EQ(ToHex(alice.sha256), kDigest);
  EXPECT_EQ(alice.tenant, "gold");
  EXPECT_EQ(alice.limits, (ApiKeyLimits{0.5, 8, 100'000}));
  const ApiKey& bob = keys->back();
  EXPECT_EQ(bob.name, "bob-2");
  EXPECT_EQ(ToHex(bob.sha256), std::string(62, '0') + "ff");
  EXPECT_EQ(bob.tenant, "7");
  EXPECT_EQ(bob.limits, ApiKeyLimits());
}

TEST(ApiKeysTest, AFileWithoutKeysIsAnErrorUnlessItSaysThatNobodyMayCall) {
  EXPECT_TRUE(ParseApiKeys("{}\n", "k.yaml").value().empty());
  for (const char* text : {"", "\n", "# alice: {}\n", "---\n"}) {
    EXPECT_EQ(Error(text), "k.yaml: has no keys; a file with only {} in it locks everybody out");
  }
}

TEST(ApiKeysTest, WhatIsWrongIsNamedWithItsLine) {
  EXPECT_EQ(Error("alice:\nbob:\n"), "k.yaml:1: alice: sha256 is missing");
  EXPECT_EQ(Error(Entry("alice", kDigest) + "bob:\n  tenant: x\n"),
            "k.yaml:3: bob: sha256 is missing");
  EXPECT_EQ(Error(Entry("alice", kDigest) + Entry("bob", kDigest)),
            "k.yaml:3: bob.sha256: the same as that of alice");
  EXPECT_EQ(Error(Entry("alice", kDigest) + Entry("alice", kOther)),
            "k.yaml:3: alice: is there twice");
  EXPECT_EQ(Error("alice: " + kDigest), "k.yaml:1: alice: expected a section with sha256 in it");
  EXPECT_EQ(Error("alice: [" + kDigest + "]"),
            "k.yaml:1: alice: expected a section with sha256 in it");
  EXPECT_EQ(Error(Entry("alice", kDigest, "  tennant: x\n")),
            "k.yaml:3: alice.tennant: unknown key, did you mean tenant?");
  EXPECT_EQ(Error(Entry("alice", kDigest, "  limits: {concurrent: 1}\n")),
            "k.yaml:3: alice.limits: unknown key");
  EXPECT_THAT(Error("\"a b\":\n  sha256: " + kDigest), HasSubstr("k.yaml:1: \"a b\": expected a"));
  EXPECT_THAT(Error(Entry("-", kDigest)), HasSubstr("k.yaml:1: "));
  EXPECT_THAT(Error(Entry(std::string(65, 'a'), kDigest)), HasSubstr(": expected a name of 1 to"));
}

TEST(ApiKeysTest, LimitsOutOfRangeAreNamedWithWhatIsAllowed) {
  const auto with = [](const std::string& field) {
    return Error(Entry("a", kDigest, "  " + field + "\n"));
  };
  EXPECT_EQ(with("requests_per_second: 0"),
            "k.yaml:3: a.requests_per_second: expected a number from 0.001 to 1000000, got \"0\"");
  for (const char* value : {"-1", "nan", "inf", "1000001", "\"\"", "~", "[1]"}) {
    EXPECT_THAT(with(std::string("requests_per_second: ") + value),
                HasSubstr("expected a number from 0.001 to 1000000"));
  }
  for (const char* value : {"0", "-1", "1.5", "1000001", "{a: 1}"}) {
    EXPECT_THAT(with(std::string("concurrent: ") + value),
                HasSubstr("expected an integer from 1 to 1000000"));
  }
  EXPECT_EQ(
      with("tokens_per_minute: many"),
      "k.yaml:3: a.tokens_per_minute: expected an integer from 1 to 1000000000, got \"many\"");
  for (const char* value : {"\"a b\"", "a=b", "\"a,b\"", "\"\""}) {
    EXPECT_THAT(with(std::string("tenant: ") + value), HasSubstr("a.tenant: expected 1 to 64"));
  }
}

TEST(ApiKeysTest, AKeyExpiresAtTheTimeOfItsEntryAndNeverWithoutOne) {
  const auto expiry = [](const std::string& value) {
    const auto keys = ParseApiKeys(Entry("a", kDigest, "  expires: " + value + "\n"), "k.yaml");
    return keys.ok() ? keys->front().not_after_s : -1;
  };
  EXPECT_EQ(expiry("2027-01-31T00:00:00Z"), 1'801'353'600);
  EXPECT_EQ(expiry("\"2027-01-31T01:30:00+01:30\""), 1'801'353'600);
  EXPECT_EQ(expiry("1970-01-01T00:00:01Z"), 1);
  EXPECT_EQ(FormatExpiry(1'801'353'600), "2027-01-31T00:00:00Z");
  EXPECT_EQ(ParseApiKeys(Entry("a", kDigest), "k.yaml")->front().not_after_s, 0);
}

TEST(ApiKeysTest, WhatIsNoTimeOfExpiryIsNamed) {
  EXPECT_EQ(Error(Entry("a", kDigest, "  expires: 2027-01-31\n")),
            "k.yaml:3: a.expires: expected a time of RFC 3339 such as 2027-01-31T00:00:00Z, got "
            "\"2027-01-31\"");
  for (const char* value :
       {"2027-01-31T00:00:00", "2027-02-30T00:00:00Z", "\" 2027-01-31T00:00:00Z\"",
        "infinite-future", "1801353600", "1970-01-01T00:00:00Z", "99999-01-01T00:00:00Z", "\"\"",
        "~", "[2027-01-31T00:00:00Z]"}) {
    EXPECT_THAT(Error(Entry("a", kDigest, std::string("  expires: ") + value + "\n")),
                HasSubstr("a.expires: expected a time of RFC 3339"))
        << value;
  }
}

TEST(ApiKeysTest, AKeyInThePlaceOfItsDigestIsNotRepeated) {
  EXPECT_THAT(Error("alice:\n  sha256: ask_secret\n"),
              HasSubstr("k.yaml:2: alice.sha256: expected the key's SHA-256 in 64 hexadecimal "
                        "digits, got 10 characters"));
  EXPECT_THAT(Error("alice:\n  sha256: ask_secret\n"), Not(HasSubstr("secret")));
  EXPECT_THAT(Error(Entry("alice", std::string(63, 'a') + "g")), HasSubstr("got 64 characters"));
}

TEST(ApiKeysTest, TakesAThousandKeysAndNoMore) {
  std::string text;
  const auto add = [&text](size_t i) {
    std::string digest = std::to_string(i);
    digest.insert(0, 64 - digest.size(), '0');
    text += Entry("k" + std::to_string(i), digest);
  };
  for (size_t i = 0; i < kMaxApiKeys; ++i) add(i);
  EXPECT_EQ(ParseApiKeys(text, "k.yaml").value().size(), kMaxApiKeys);
  add(kMaxApiKeys);
  EXPECT_EQ(Error(text), "k.yaml:2001: more than 1000 keys");
}

}  // namespace
}  // namespace asymserve
