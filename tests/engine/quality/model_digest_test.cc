#include "engine/quality/model_digest.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/toy_model.h"

namespace asymserve {
namespace {

using testing::IsOk;
using testing::ToyModel;

std::string DigestOf(const ToyModel& toy) {
  const testing::TempDir folder;
  WriteToyGguf(toy, folder.Path("toy.gguf"));
  const auto file = OpenWeightFile(folder.Path("toy.gguf"));
  EXPECT_THAT(file, IsOk());
  const auto digest = ModelDigest(**file);
  EXPECT_THAT(digest, IsOk());
  return ToHex(*digest);
}

TEST(ModelDigestTest, IsTheSameForTheSameModel) {
  EXPECT_EQ(DigestOf(ToyModel()), DigestOf(ToyModel()));
}

TEST(ModelDigestTest, DiffersWhenAnythingDiffersThatKeysAndValuesDependOn) {
  ToyModel seed, rope, heads, type, bias, norm, scaling;
  seed.seed = 2;
  rope.rope_base = 20000;
  heads.kv_heads = 4;
  type.dtype = DType::kF16;
  bias.architecture = "qwen2";
  norm.architecture = "qwen3";
  scaling.rope_scaling = {.kind = RopeScaling::Kind::kLinear, .factor = 2};
  std::set<std::string> digests = {DigestOf(ToyModel())};
  for (const ToyModel& toy : {seed, rope, heads, type, bias, norm, scaling}) {
    digests.insert(DigestOf(toy));
  }
  EXPECT_EQ(digests.size(), 8u);
}

}  // namespace
}  // namespace asymserve
