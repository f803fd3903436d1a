#include "engine/kv/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>

#include "engine/base/float16.h"
#include "tests/engine/kv/toy_profile.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace asymserve {
namespace {

using testing::FailsWith;
using testing::IsOk;
using testing::SignProfile;
using testing::ToyProfile;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string Serialized(const KvProfile& profile) {
  const auto bytes = SerializeProfile(profile);
  EXPECT_THAT(bytes, IsOk());
  return bytes.ok() ? *bytes : std::string();
}

void ExpectEqual(const PlaneCode& a, const PlaneCode& b) {
  EXPECT_EQ(a.head_size, b.head_size);
  EXPECT_EQ(a.subvector, b.subvector);
  EXPECT_EQ(a.codebooks, b.codebooks);
  EXPECT_EQ(a.encode, b.encode);
  EXPECT_EQ(a.decode, b.decode);
  EXPECT_EQ(a.mean, b.mean);
}

void ExpectEqual(const KvProfile& a, const KvProfile& b) {
  EXPECT_EQ(a.shape.layers, b.shape.layers);
  EXPECT_EQ(a.shape.kv_heads, b.shape.kv_heads);
  EXPECT_EQ(a.shape.head_size, b.shape.head_size);
  EXPECT_EQ(a.model_digest, b.model_digest);
  EXPECT_EQ(a.frame_tokens, b.frame_tokens);
  EXPECT_EQ(a.description, b.description);
  EXPECT_EQ(a.tiers, b.tiers);
  ASSERT_EQ(a.codes.size(), b.codes.size());
  for (size_t i = 0; i < a.codes.size(); ++i) ExpectEqual(a.codes[i], b.codes[i]);
}

TEST(ProfileTest, ComesBackFromItsBytesBitForBit) {
  const KvProfile profile = ToyProfile();
  const std::string bytes = Serialized(profile);
  const auto parsed = ParseProfile(Bytes(bytes));
  ASSERT_THAT(parsed, IsOk());
  ExpectEqual(*parsed, profile);
  EXPECT_EQ(Serialized(*parsed), bytes);
}

TEST(ProfileTest, HasTheBytesOfItsDescription) {
  const std::string bytes = Serialized(ToyProfile());
  EXPECT_EQ(bytes.substr(0, 12), std::string("ASYMKVPF\1\0\0\0", 12));
  EXPECT_EQ(static_cast<uint8_t>(bytes[12]) | static_cast<uint8_t>(bytes[13]) << 8,
            static_cast<int>(bytes.size()));
  EXPECT_EQ(bytes.substr(20, 16), std::string("\2\0\0\0\1\0\0\0\x08\0\0\0\x80\0\0\0", 16));
  EXPECT_EQ(bytes.substr(68, 16), std::string("\x0C\0\0\0", 4) + "made by hand");
  EXPECT_EQ(bytes.substr(84, 8), std::string("\4\0\0\0\0\x40\0\x34", 8));  // 4 planes; 2.0, 0.25
}

TEST(ProfileTest, OfSmolLm2WithFortyEightPlanesTakesLessThanThreeMegabytes) {
  KvProfile profile = ToyProfile();
  profile.shape = {30, 3, 64};
  PlaneCode code;
  code.head_size = 64;
  code.encode.resize(64 * 64);
  for (size_t i = 0; i < 64; ++i) code.encode[65 * i] = 1;
  code.decode = code.encode;
  code.mean.resize(64);
  for (uint8_t p = 0; p < 48; ++p) code.subvector.push_back(p / 3);
  code.codebooks.resize(size_t{48} * 64);
  profile.codes.assign(180, code);
  for (KvProfileTier& tier : profile.tiers) tier.items.assign(180, {.codec = KvCodec::kInt8});
  const size_t bytes = Serialized(profile).size();
  EXPECT_LE(bytes, 3u << 20);
  EXPECT_GT(bytes, size_t{180} * (64 * 64 * 2 + 48 * 128));
}

TEST(ProfileTest, GivesTheSchemeOfATier) {
  const KvProfile profile = ToyProfile();
  const auto scheme = TierScheme(profile, "balanced");
  ASSERT_THAT(scheme, IsOk());
  EXPECT_EQ(scheme->name, "balanced");
  EXPECT_EQ(scheme->near, KvCodec::kInt8);
  EXPECT_EQ(scheme->sink_pages, 1);
  EXPECT_EQ(scheme->key_window.recent_pages, 1);
  EXPECT_EQ(scheme->value_window.recent_pages, 1);
  EXPECT_EQ(scheme->key_window.block_pages, 1);
  EXPECT_EQ(scheme->value_window.block_pages, 1);
  EXPECT_EQ(scheme->fresh_pages, 4);
  EXPECT_EQ(scheme->frame_tokens, 128);
  EXPECT_EQ(scheme->items, profile.tiers[0].items);
  EXPECT_THAT(CheckKvScheme(*scheme, profile.shape), IsOk());
  EXPECT_THAT(TierScheme(profile, "light"),
              FailsWith(absl::StatusCode::kNotFound, "no tier 'light'; it has balanced, dense.v2"));
}

TEST(ProfileTest, ResolvesTiersAndBuiltInNamesAndListsThemForAnyOther) {
  const KvProfile profile = ToyProfile();
  const auto tier = ResolveKvScheme("dense.v2", profile.shape, &profile);
  ASSERT_THAT(tier, IsOk());
  EXPECT_EQ(tier->items, profile.tiers[1].items);
  const auto named = ResolveKvScheme("kivi-2", profile.shape, &profile);
  ASSERT_THAT(named, IsOk());
  EXPECT_EQ(named->name, "kivi-2");
  EXPECT_THAT(ResolveKvScheme("light", profile.shape, &profile),
              FailsWith(absl::StatusCode::kNotFound, "which are balanced, dense.v2"));
  EXPECT_THAT(ResolveKvScheme("balanced", profile.shape, nullptr),
              FailsWith(absl::StatusCode::kNotFound, "but no profile was found"));
  EXPECT_THAT(ResolveKvScheme("fit-3/3", profile.shape, &profile),
              FailsWith(kInvalid, "1, 2 or 4 bits"));
}

// ---- Values that are wrong --------------------------------------------------------------------

struct BadProfile {
  const char* message;
  std::function<void(KvProfile&)> spoil;
};

TEST(ProfileTest, SaysWhatIsWrongWithAValue) {
  const float nan = std::nanf("");
  const BadProfile kCases[] = {
      {"profile: 0 layers", [](KvProfile& p) { p.shape.layers = 0; }},
      {"of 1000 KV heads", [](KvProfile& p) { p.shape.kv_heads = 1000; }},
      {"head size 12", [](KvProfile& p) { p.shape.head_size = 12; }},
      {"codes of 3 items, the model has 4", [](KvProfile& p) { p.codes.pop_back(); }},
      {"description of 70000 bytes", [](KvProfile& p) { p.description.assign(70000, 'x'); }},
      {"chunk and frame", [](KvProfile& p) { p.frame_tokens = 100; }},
      {"item 0 (keys of layer 0, head 0): 3 planes; must be even",
       [](KvProfile& p) { p.codes[0].subvector.pop_back(); }},
      {"item 3 (values of layer 1, head 0): 256 planes",
       [](KvProfile& p) { p.codes[3].subvector.resize(256); }},
      {"item 3 (values of layer 1, head 0): a plane of subvector 2, there are 2",
       [](KvProfile& p) { p.codes[3].subvector[5] = 2; }},
      {"item 0 (keys of layer 0, head 0): value 77 of codebooks is NaN",
       [=](KvProfile& p) { p.codes[0].codebooks[77] = nan; }},
      {"value 63 of encode is infinite",
       [](KvProfile& p) { p.codes[0].encode[63] = std::numeric_limits<float>::infinity(); }},
      {"value 1 of decode is NaN", [=](KvProfile& p) { p.codes[0].decode[1] = nan; }},
      {"value 7 of mean is NaN", [=](KvProfile& p) { p.codes[0].mean[7] = nan; }},
      {"codebooks has 255 values, expected 256",
       [](KvProfile& p) { p.codes[0].codebooks.pop_back(); }},
      {"mean has 7 values, expected 8", [](KvProfile& p) { p.codes[0].mean.pop_back(); }},
      {"head size 16, the profile's is 8", [](KvProfile& p) { p.codes[0].head_size = 16; }},
      {"profile: 0 tiers", [](KvProfile& p) { p.tiers.clear(); }},
      {"33 tiers", [](KvProfile& p) { p.tiers.resize(33, p.tiers[0]); }},
      {"the name of tier 1 is not", [](KvProfile& p) { p.tiers[1].name = "Dense"; }},
      {"the name of tier 0 is not", [](KvProfile& p) { p.tiers[0].name.clear(); }},
      {"the name of tier 0 is not", [](KvProfile& p) { p.tiers[0].name.assign(65, 'x'); }},
      {"tier 'balanced': appears twice", [](KvProfile& p) { p.tiers[1].name = "balanced"; }},
      {"tier 'kivi-2': is the name of a built-in",
       [](KvProfile& p) { p.tiers[0].name = "kivi-2"; }},
      {"tier 'balanced': -1 pages", [](KvProfile& p) { p.tiers[0].recent_pages = -1; }},
      {"tier 'balanced': 3 items, the model has 4",
       [](KvProfile& p) { p.tiers[0].items.pop_back(); }},
      {"tier 'balanced': item 0 (keys of layer 0, head 0): 6 planes, its code has 4",
       [](KvProfile& p) { p.tiers[0].items[0].fresh_planes = 6; }},
      {"tier 'balanced': item 1 (values of layer 0, head 0): codec 0",
       [](KvProfile& p) { p.tiers[0].items[1].codec = KvCodec::kHalf; }},
      {"codec 9", [](KvProfile& p) { p.tiers[0].items[1].codec = static_cast<KvCodec>(9); }},
      {"KV item 0: 3 base and 4 fresh planes",
       [](KvProfile& p) { p.tiers[0].items[0].base_planes = 3; }},
      {"KV item 2: 3 bits", [](KvProfile& p) { p.tiers[0].items[2].bits = 3; }},
      {"tier 'balanced': a loss of KL",
       [=](KvProfile& p) { p.tiers[0].losses[1].mean_kl = static_cast<double>(nan); }},
      {"over 0 tokens", [](KvProfile& p) { p.tiers[0].losses[0].tokens = 0; }},
      {"a name of 0 bytes", [](KvProfile& p) { p.tiers[0].losses[0].text.clear(); }},
      {"65 losses", [](KvProfile& p) { p.tiers[0].losses.resize(65, p.tiers[0].losses[0]); }},
  };
  for (const BadProfile& bad : kCases) {
    KvProfile profile = ToyProfile();
    bad.spoil(profile);
    EXPECT_THAT(CheckProfile(profile), FailsWith(kInvalid, bad.message));
    EXPECT_THAT(SerializeProfile(profile), FailsWith(kInvalid, bad.message));
  }
}

TEST(ProfileTest, WritesNoValueThatWouldComeBackDifferent) {
  KvProfile profile = ToyProfile();
  profile.codes[3].codebooks[5] = 0.1f;
  EXPECT_THAT(SerializeProfile(profile),
              FailsWith(kInvalid,
                        "profile: item 3 (values of layer 1, head 0): value 5 of codebooks is not "
                        "a number of fp16: 0.1"));
  profile = ToyProfile();
  profile.codes[0].mean[2] = 70000;
  EXPECT_THAT(SerializeProfile(profile), FailsWith(kInvalid, "value 2 of mean is not a number"));
}

// ---- Bytes that are wrong ---------------------------------------------------------------------

constexpr size_t kShape = 20;
constexpr size_t kDescription = 68;
constexpr size_t kCodes = 84;  // of the toy profile
constexpr size_t kEncode = kCodes + 4;
constexpr size_t kMean = kEncode + 128;
constexpr size_t kSubvectors = kMean + 16;
constexpr size_t kCodebooks = kSubvectors + 4;
constexpr size_t kSecondItem = kCodebooks + 4 * 128;
constexpr size_t kTiers = kSecondItem + 4 + 4 + (4 + 128 + 16 + 8 + 8 * 128);

/// The toy profile without its digest.
std::string Content() {
  const std::string bytes = Serialized(ToyProfile());
  return bytes.substr(0, bytes.size() - sizeof(Sha256Digest));
}

struct Patch {
  const char* message;
  size_t offset;
  std::string bytes;
};

TEST(ProfileTest, SaysWhatIsWrongWithBytes) {
  const std::string huge("\xff\xff\xff\x7f", 4);
  const std::string negative("\xff\xff\xff\xff", 4);
  const Patch kPatches[] = {
      {"does not begin with ASYMKVPF", 3, "X"},
      {"2147483647 layers", kShape, huge},
      {"-1 layers", kShape, negative},
      {"ends within the codes", kShape, std::string("\0\2\0\0", 4)},
      {"of 2147483647 KV heads", kShape + 4, huge},
      {"head size 2147483647", kShape + 8, huge},
      {"chunk and frame", kShape + 12, std::string(4, '\0')},
      {"2147483647 bytes of the description, at most 65536", kDescription, huge},
      {"item 0 (keys of layer 0, head 0): 51 planes; must be even and at most 254", kCodes, "\x33"},
      {"item 0 (keys of layer 0, head 0): 2147483647 planes", kCodes, huge},
      {"item 0 (keys of layer 0, head 0): encode: value 1 is NaN or infinite", kEncode + 2,
       std::string("\1\x7e", 2)},
      {"mean: value 0 is NaN or infinite", kMean, std::string("\0\xfc", 2)},
      {"codebooks: value 255 is NaN or infinite", kSecondItem - 2, std::string("\0\x7c", 2)},
      {"item 0 (keys of layer 0, head 0): encode: the matrix is singular", kEncode,
       std::string(128, '\0')},
      {"item 0 (keys of layer 0, head 0): a plane of subvector 255", kSubvectors, "\xff"},
      {"2147483647 tiers, at most 32", kTiers, huge},
      {"ends within", kTiers, "\3"},
      {"2147483647 bytes of the name of a tier, at most 64", kTiers + 4, huge},
      {"the name of tier 0 is not", kTiers + 8, "\x1b"},
      {"tier 'balanced': 2147483647 pages", kTiers + 16, huge},
      {"tier 'balanced': item 0 (keys of layer 0, head 0): codec 200", kTiers + 28, "\xc8"},
      {"2147483647 losses, at most 64", kTiers + 44, huge},
  };
  for (const Patch& patch : kPatches) {
    std::string content = Content();
    content.replace(patch.offset, patch.bytes.size(), patch.bytes);
    EXPECT_THAT(ParseProfile(Bytes(SignProfile(content))), FailsWith(kInvalid, patch.message));
  }
}

TEST(ProfileTest, RefusesAnotherVersion) {
  std::string content = Content();
  content[8] = 2;
  EXPECT_THAT(
      ParseProfile(Bytes(SignProfile(content))),
      FailsWith(absl::StatusCode::kUnimplemented, "version 2, this program reads version 1"));
}

TEST(ProfileTest, NoticesEveryFlippedBit) {
  const std::string good = Serialized(ToyProfile());
  for (size_t byte = 0; byte < good.size(); ++byte) {
    std::string bad = good;
    bad[byte] = static_cast<char>(bad[byte] ^ 1 << byte % 8);
    ASSERT_FALSE(ParseProfile(Bytes(bad)).ok()) << "byte " << byte;
  }
  std::string bad = good;
  bad[kCodebooks] = static_cast<char>(bad[kCodebooks] ^ 1);
  EXPECT_THAT(ParseProfile(Bytes(bad)), FailsWith(kInvalid, "is damaged"));
}

TEST(ProfileTest, NoticesEveryMissingOrAddedByte) {
  const std::string good = Serialized(ToyProfile());
  for (size_t length = 0; length < good.size(); ++length) {
    ASSERT_FALSE(ParseProfile(Bytes(good).first(length)).ok()) << length << " bytes";
  }
  EXPECT_THAT(ParseProfile(Bytes(good).first(500)),
              FailsWith(kInvalid, "500 bytes, its header says " + std::to_string(good.size())));
  EXPECT_THAT(ParseProfile(Bytes(good + "x")), FailsWith(kInvalid, "its header says"));
  // As somebody would who can compute a digest.
  const std::string content = Content();
  for (size_t length = 0; length < content.size(); ++length) {
    ASSERT_FALSE(ParseProfile(Bytes(SignProfile(content.substr(0, length)))).ok()) << length;
  }
  EXPECT_THAT(ParseProfile(Bytes(SignProfile(content + "x"))),
              FailsWith(kInvalid, "1 bytes after its last tier"));
}

// ---- Files ------------------------------------------------------------------------------------

TEST(ProfileTest, ComesBackFromAFile) {
  const testing::TempDir folder;
  const std::string path = folder.Path("toy.kvprofile");
  ASSERT_THAT(WriteProfile(ToyProfile(), path), IsOk());
  const auto read = ReadProfile(path);
  ASSERT_THAT(read, IsOk());
  ExpectEqual(*read, ToyProfile());
}

TEST(ProfileTest, NamesTheFile) {
  const testing::TempDir folder;
  const std::string path = folder.Path("toy.kvprofile");
  EXPECT_THAT(ReadProfile(path), FailsWith(absl::StatusCode::kNotFound, path));
  std::ofstream(path) << "something else";
  EXPECT_THAT(ReadProfile(path), FailsWith(kInvalid, path + ": profile: does not begin"));
  KvProfile bad = ToyProfile();
  bad.tiers.clear();
  EXPECT_THAT(WriteProfile(bad, path), FailsWith(kInvalid, path + ": profile: 0 tiers"));
  EXPECT_THAT(WriteProfile(ToyProfile(), folder.Path("none/x")),
              FailsWith(absl::StatusCode::kNotFound, "none/x"));
}

}  // namespace
}  // namespace asymserve
