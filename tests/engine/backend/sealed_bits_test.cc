#include <array>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "engine/backend/cpu/kv_arena.h"
#include "engine/backend/cpu/paged_attention.h"
#include "engine/base/thread_pool.h"
#include "tests/engine/backend/backend_fixture.h"

// Attention reads the sealed bytes themselves: a nibble that changes in a record changes what comes
// out, and nothing else remembers what it was.

namespace asymserve {
namespace {

using ::asymserve::testing::IsOk;
using ::asymserve::testing::KernelsOf;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::SameBits;

constexpr AttentionShape kShape = {4, 2, 64};
constexpr int32_t kPages = 7;
constexpr int32_t kTokens = kKvPageTokens * kPages + 5;

struct Case {
  const char* name;
  KvItem item;
};
constexpr Case kCases[] = {
    {"minmax1", {.codec = KvCodec::kMinMax, .bits = 1}},
    {"minmax2", {.codec = KvCodec::kMinMax, .bits = 2}},
    {"minmax4", {.codec = KvCodec::kMinMax, .bits = 4}},
    {"fitted1", {.codec = KvCodec::kFitted, .bits = 1}},
    {"fitted2", {.codec = KvCodec::kFitted, .bits = 2}},
    {"int8", {.codec = KvCodec::kInt8}},
    {"planes", {.codec = KvCodec::kPlanes, .base_planes = 16, .fresh_planes = 32}},
};

PlaneCode RandomCode(int32_t planes, uint32_t seed) {
  const auto numbers = [&](int64_t count, uint32_t salt, float sigma) {
    return Matrix::Random(1, count, 8 * seed + salt, sigma).values;
  };
  const int32_t size = kShape.head_size;
  const float norm = 1.0f / std::sqrt(static_cast<float>(size));
  PlaneCode code;
  code.head_size = size;
  for (int32_t p = 0; p < planes; ++p) {
    code.subvector.push_back(static_cast<uint8_t>(p * 5 % (size / 4)));
  }
  code.codebooks = numbers(int64_t{planes} * 64, 1, 1);
  code.encode = numbers(int64_t{size} * size, 2, norm);
  code.decode = numbers(int64_t{size} * size, 3, norm);
  code.mean = numbers(size, 4, 1);
  return code;
}

/// A sequence of kTokens tokens in one layer, sealed as a token decoded at its end reads it: page 0
/// is the sink, the last complete page is near, the two before it are fresh.
class SealedBitsTest : public ::testing::TestWithParam<std::tuple<Case, Isa>> {
 protected:
  SealedBitsTest()
      : kernels_(KernelsOf(std::get<1>(GetParam()))),
        pool_(1),
        arena_(kernels_, pool_, memory_),
        attention_(kernels_, pool_, arena_, memory_),
        rope_(kTokens + kKvPageTokens, kShape.head_size),
        qkv_(Matrix::Random(kTokens, (kShape.heads + 2 * kShape.kv_heads) * kShape.head_size, 3)) {
    for (int32_t p = 0; p < rope_.rows; ++p) {
      for (int32_t i = 0; i < kShape.head_size / 2; ++i) {
        const double angle = p * std::pow(1e4, -2.0 * i / kShape.head_size);
        rope_.row(p)[i] = static_cast<float>(std::cos(angle));
        rope_.row(p)[kShape.head_size / 2 + i] = static_cast<float>(std::sin(angle));
      }
    }
  }

  void SetUp() override {
    const KvItem& item = std::get<0>(GetParam()).item;
    KvSetup setup;
    setup.shape = {1, kShape.kv_heads, kShape.head_size};
    setup.scheme.near = KvCodec::kInt8;
    setup.scheme.items.assign(static_cast<size_t>(2 * kShape.kv_heads), item);
    setup.scheme.sink_pages = 1;
    setup.scheme.fresh_pages = 2;
    setup.scheme.key_window = setup.scheme.value_window = {.recent_pages = 1, .block_pages = 1};
    PlaneCodes codes;
    for (uint32_t i = 0; i < setup.scheme.items.size(); ++i) {
      codes.push_back(RandomCode(item.fresh_planes, i + 1));
    }
    setup.codes = &codes;
    setup.rope = rope_.view();
    const KvLayout layout(setup.shape, setup.scheme);
    setup.arena_bytes = 3 * ArenaBytesFor(layout, KvRecord::kNear, kPages + 1);
    ASSERT_THAT(arena_.Init(setup), IsOk());
    ASSERT_THAT(attention_.Reserve(kTokens), IsOk());

    RecordPool records(ArenaCut(layout, setup.arena_bytes));
    std::vector<KvSealOp> seals;
    for (int32_t page = 0; page <= kPages; ++page) {
      KvPage& one = pages_.emplace_back();
      one.near = records.Allocate(KvRecord::kNear);
      if (TierOf(setup.scheme, KvTensor::kKey, page, kPages) == KvTier::kNear) continue;
      one.base = records.Allocate(KvRecord::kBase);
      if (layout.record_bytes(KvRecord::kRefinement) > 0) {
        one.refinement = records.Allocate(KvRecord::kRefinement);
      }
      seals.push_back(
          {.near = one.near, .base = one.base, .refinement = one.refinement, .page = page});
    }
    std::vector<int32_t> positions(kTokens);
    std::iota(positions.begin(), positions.end(), 0);
    ASSERT_THAT(arena_.Write(StepOf(positions), 0, qkv_.view()), IsOk());
    ASSERT_THAT(arena_.Seal(seals), IsOk());
    for (int32_t page = 0; page <= kPages; ++page) {
      KvPage& one = pages_[static_cast<size_t>(page)];
      one.key_tier = one.value_tier = TierOf(setup.scheme, KvTensor::kKey, page, kPages);
    }
  }

  KvStep StepOf(const std::vector<int32_t>& positions) {
    token_offset_ = {0, static_cast<int32_t>(positions.size())};
    page_offset_ = {0, static_cast<int32_t>(pages_.size())};
    return {positions, token_offset_, pages_, page_offset_};
  }

  /// Of the last token.
  std::vector<float> Attend() {
    const std::vector<int32_t> positions = {kTokens - 1};
    Matrix out(1, kShape.heads * kShape.head_size);
    const TensorView row = MakeMatrix(qkv_.row(kTokens - 1), 1, qkv_.view().row_elements());
    EXPECT_THAT(attention_.Attend(StepOf(positions), 0, kShape, out.view(), row), IsOk());
    return out.values;
  }

  /// The heads that `a` and `b` differ in.
  static std::vector<int32_t> ChangedHeads(const std::vector<float>& a,
                                           const std::vector<float>& b) {
    std::vector<int32_t> heads;
    for (int32_t head = 0; head < kShape.heads; ++head) {
      const auto part = [&](const std::vector<float>& x) {
        return std::span(x).subspan(static_cast<size_t>(head * kShape.head_size),
                                    static_cast<size_t>(kShape.head_size));
      };
      if (!SameBits(part(a), part(b))) heads.push_back(head);
    }
    return heads;
  }

  /// Flips nibbles of a block one after the other and expects each to show, in the query heads of
  /// `kv_head` only.
  void ExpectEachShows(const uint8_t* bytes, int32_t kv_head, const std::vector<float>& sound) {
    constexpr int64_t kAcross = 16 * kKvPageTokens / 8;  // bytes that every codec has as codes
    for (int64_t i = 0; i < kAcross; i += 21) {
      for (const uint8_t nibble : {0x0F, 0xF0}) {
        // The arena hands out its own memory as const; a test may damage it.
        auto* const byte = const_cast<uint8_t*>(bytes + i);
        *byte ^= nibble;
        const std::vector<int32_t> changed = ChangedHeads(Attend(), sound);
        EXPECT_FALSE(changed.empty()) << "byte " << i << " nibble " << int{nibble};
        for (const int32_t head : changed) {
          EXPECT_EQ(head / (kShape.heads / kShape.kv_heads), kv_head);
        }
        *byte ^= nibble;
      }
    }
  }

  const Kernels& kernels_;
  ThreadPool pool_;
  const CpuMemory memory_;
  KvArena arena_;
  AttentionRunner attention_;
  Matrix rope_, qkv_;
  std::vector<KvPage> pages_;
  std::array<int32_t, 2> token_offset_ = {}, page_offset_ = {};
};

TEST_P(SealedBitsTest, AFlippedNibbleChangesWhatItsHeadReads) {
  const std::vector<float> sound = Attend();
  for (const int32_t page : {2, 5}) {  // aged and fresh
    ASSERT_EQ(pages_[static_cast<size_t>(page)].key_tier,
              page == 2 ? KvTier::kAged : KvTier::kFresh);
    for (int32_t head = 0; head < kShape.kv_heads; ++head) {
      const KvPageBlocks blocks = arena_.Blocks(pages_[static_cast<size_t>(page)], 0, head);
      for (const KvBlock& block : {blocks.key, blocks.value}) {
        SCOPED_TRACE("page " + std::to_string(page) + " head " + std::to_string(head) +
                     (block.bytes == blocks.key.bytes ? " keys" : " values"));
        ExpectEachShows(block.bytes, head, sound);
        if (block.refinement != nullptr) ExpectEachShows(block.refinement, head, sound);
      }
    }
  }
  EXPECT_TRUE(SameBits(Attend(), sound));
}

std::string CaseName(const ::testing::TestParamInfo<std::tuple<Case, Isa>>& info) {
  return std::string(std::get<0>(info.param).name) + "_" +
         std::string(IsaName(std::get<1>(info.param)));
}
INSTANTIATE_TEST_SUITE_P(EveryCodecAndIsa, SealedBitsTest,
                         ::testing::Combine(::testing::ValuesIn(kCases),
                                            ::testing::ValuesIn(SupportedIsas())),
                         CaseName);

}  // namespace
}  // namespace asymserve
