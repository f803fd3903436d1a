#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>
#include <vector>

#include "engine/backend/cpu/kv_arena.h"
#include "engine/base/thread_pool.h"
#include "tests/engine/backend/cuda/device_arena.h"
#include "tests/simt/orders.h"

// Near and sealed blocks that the kernels write are those of the CPU backend, byte for byte.

namespace asymserve {
namespace {

using ::asymserve::testing::DeviceArena;
using ::asymserve::testing::IsOk;
using ::asymserve::testing::KernelsOf;
using ::asymserve::testing::LaunchFault;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::SealOpOf;
using ::asymserve::testing::TestScheme;

constexpr int32_t kP = kKvPageTokens;
constexpr int32_t kPages = 10;         // two frames of 512 tokens
constexpr int32_t kSealed[] = {3, 9};  // the first without its refinement
constexpr int32_t kHeads = 3;          // query heads before k and v

const std::vector<KvItem> kItems = {
    {.codec = KvCodec::kPlanes, .base_planes = 8, .fresh_planes = 20},
    {.codec = KvCodec::kMinMax, .bits = 2},
    {.codec = KvCodec::kFitted, .bits = 4},
    {.codec = KvCodec::kInt8},
    {.codec = KvCodec::kMinMax, .bits = 1},
    {.codec = KvCodec::kFitted, .bits = 2},
    {.codec = KvCodec::kPlanes, .base_planes = 6, .fresh_planes = 6},
    {.codec = KvCodec::kFitted, .bits = 1},
    {.codec = KvCodec::kMinMax, .bits = 4},
    {.codec = KvCodec::kPlanes, .base_planes = 4, .fresh_planes = 8},
    {.codec = KvCodec::kHalf},
};

struct Case {
  int32_t head_size;
  KvCodec near;
  bool interleaved;
};

/// What is written into the pages that are sealed, among ordinary numbers.
enum class Damage { kNone, kNan, kInfinity, kTooLarge };

class KvBytesTest : public ::testing::TestWithParam<Case> {
 protected:
  // With 11 kinds of items over 12 blocks, every kind is that of keys or of values somewhere, and
  // in the second scheme, begun one item later, of the other.
  void Init(size_t first_item, Damage damage = Damage::kNone) {
    std::vector<KvItem> items(kItems.begin() + static_cast<int64_t>(first_item), kItems.end());
    items.insert(items.end(), kItems.begin(), kItems.begin() + static_cast<int64_t>(first_item));
    const Case& c = GetParam();
    shape_ = {2, 3, c.head_size};
    scheme_ = std::make_unique<TestScheme>(shape_, c.near, items, kPages * kP, c.interleaved);
    device_ = std::make_unique<DeviceArena>(*scheme_, kPages);
    pages_.clear();
    for (int32_t page = 0; page < kPages; ++page) pages_.push_back(device_->NewPage());
    qkv_ = Matrix::Random(kPages * kP, (kHeads + 2 * shape_.kv_heads) * c.head_size, 11);
    DamagePage(kSealed[0], damage == Damage::kNan ? Damage::kInfinity : damage);
    DamagePage(kSealed[1], damage);
    AttentionPlan plan;
    positions_.resize(kPages * kP);
    std::iota(positions_.begin(), positions_.end(), 0);
    PlanAttention(positions_, token_offset_, page_offset_, &plan);
    for (int32_t layer = 0; layer < shape_.layers; ++layer) {
      ASSERT_EQ(cuda::KvWrite(device_->view(), layer, qkv_.row(0), qkv_.cols, plan.rows.data(),
                              pages_.data(), kPages * kP, nullptr),
                cudaSuccess)
          << LaunchFault();
    }
    seals_.clear();
    for (const int32_t page : kSealed) {
      seals_.push_back(SealOpOf(pages_[static_cast<size_t>(page)], page));
    }
    seals_.front().refinement = kNoPage;
  }

  /// Of every block of a page the first token and channel, and others beside it.
  void DamagePage(int32_t page, Damage damage) {
    const int32_t size = shape_.head_size;
    for (int32_t block = 0; damage != Damage::kNone && block < 2 * shape_.kv_heads; ++block) {
      const auto at = [&, this](int32_t token, int32_t channel) -> float& {
        return qkv_.row(page * kP + token)[(kHeads + block) * size + channel];
      };
      switch (damage) {
        case Damage::kNone:
          break;
        case Damage::kNan:
          at(0, 0) = std::numeric_limits<float>::quiet_NaN();
          break;
        case Damage::kInfinity:
          at(37, size - 1) = std::numeric_limits<float>::infinity();
          at(63, 1) = -std::numeric_limits<float>::infinity();
          break;
        case Damage::kTooLarge:  // for fp16; a near token of int8 holds up to 8.3e6
          at(0, 0) = GetParam().near == KvCodec::kInt8 ? 8e6f : 6.5e4f;
          at(5, size - 1) = GetParam().near == KvCodec::kInt8 ? -8e6f : -6.5e4f;
          at(40, 2) = -1e9f;
          at(41, 3) = 1e-30f;
          break;
      }
    }
  }

  void SealOnDevice() {
    ASSERT_EQ(cuda::Seal(device_->view(), seals_.data(), static_cast<int64_t>(seals_.size()),
                         device_->max_planes(), nullptr),
              cudaSuccess)
        << LaunchFault();
  }

  /// The same on the CPU backend.
  void RunCpu(KvArena* arena) {
    KvSetup setup = scheme_->setup;
    setup.arena_bytes = device_->ArenaBytes(kPages);
    ASSERT_THAT(arena->Init(setup), IsOk());
    for (int32_t layer = 0; layer < shape_.layers; ++layer) {
      ASSERT_THAT(
          arena->Write({positions_, token_offset_, pages_, page_offset_}, layer, qkv_.view()),
          IsOk());
    }
    ASSERT_THAT(arena->Seal(seals_), IsOk());
  }

  void ExpectSameBytes(const KvArena& arena, KvTier tier) {
    for (const int32_t index : kSealed) {
      KvPage page = pages_[static_cast<size_t>(index)];
      const bool refined = index != kSealed[0];
      page.key_tier = page.value_tier = tier == KvTier::kFresh && !refined ? KvTier::kAged : tier;
      for (int32_t layer = 0; layer < shape_.layers; ++layer) {
        for (int32_t head = 0; head < shape_.kv_heads; ++head) {
          const KvPageBlocks blocks = arena.Blocks(page, layer, head);
          ExpectSameBlock(page, layer, KvTensor::kKey, head, blocks.key);
          ExpectSameBlock(page, layer, KvTensor::kValue, head, blocks.value);
        }
      }
    }
  }

  void ExpectSameBlock(const KvPage& page, int32_t layer, KvTensor tensor, int32_t head,
                       const KvBlock& expected) {
    const cuda::KvView& view = device_->view();
    const int32_t index = view.ItemIndex(layer, tensor, head);
    const KvItem item = expected.sealed ? view.items[index] : KvItem{.codec = view.near};
    const int64_t bytes =
        PadKvBlock(KvBlockBytes(item, tensor, shape_.head_size, item.base_planes));
    const uint8_t* base = expected.sealed ? view.Block(KvRecord::kBase, page.base, index)
                                          : view.NearBlock(page, layer, tensor, head);
    SCOPED_TRACE(::testing::Message()
                 << "near record " << Index(page.near) << " layer " << layer
                 << (tensor == KvTensor::kKey ? " keys" : " values") << " head " << head
                 << " codec " << static_cast<int>(item.codec) << " bits " << int{item.bits}
                 << (expected.sealed ? " sealed" : " near"));
    EXPECT_TRUE(std::equal(base, base + bytes, expected.bytes));
    if (expected.refinement == nullptr) return;
    const int64_t finer = int64_t{item.fresh_planes - item.base_planes} / 2 * kP;
    const uint8_t* refinement = view.Block(KvRecord::kRefinement, page.refinement, index);
    EXPECT_TRUE(std::equal(refinement, refinement + finer, expected.refinement));
  }

  /// Else sealing sees nothing of it.
  void ExpectEveryNearBlockIsDamaged() {
    std::vector<float> rows(static_cast<size_t>(kP * shape_.head_size));
    for (const int32_t page : kSealed) {
      for (int32_t index = 0; index < 4 * shape_.kv_heads; ++index) {
        const KvTensor tensor =
            index / shape_.kv_heads % 2 == 0 ? KvTensor::kKey : KvTensor::kValue;
        const PageId near = pages_[static_cast<size_t>(page)].near;
        LoadNear(GetParam().near, tensor, shape_.head_size,
                 device_->view().Block(KvRecord::kNear, near, index), rows.data());
        EXPECT_TRUE(
            std::any_of(rows.begin(), rows.end(), [](float x) { return !(std::fabs(x) < 6e4f); }))
            << "page " << page << " block " << index;
      }
    }
  }

  KvShape shape_;
  std::unique_ptr<TestScheme> scheme_;
  std::unique_ptr<DeviceArena> device_;
  Matrix qkv_ = Matrix(1, 1);
  std::vector<int32_t> positions_;
  std::vector<int32_t> token_offset_ = {0, kPages* kP};
  std::vector<int32_t> page_offset_ = {0, kPages};
  std::vector<KvPage> pages_;
  std::vector<KvSealOp> seals_;
};

TEST_P(KvBytesTest, NearAndSealedBytesAreThoseOfTheCpuBackend) {
  for (const size_t first_item : {0u, 3u}) {
    Init(first_item);
    SealOnDevice();
    const Kernels& kernels = KernelsOf(SupportedIsas().back());
    ThreadPool pool(1);
    const CpuMemory memory;
    KvArena arena(kernels, pool, memory);
    RunCpu(&arena);
    for (const KvTier tier : {KvTier::kNear, KvTier::kAged, KvTier::kFresh}) {
      ExpectSameBytes(arena, tier);
    }
  }
}

TEST_P(KvBytesTest, NumbersThatNoFormatHoldsGiveTheBytesOfTheCpuBackend) {
  for (const Damage damage : {Damage::kNan, Damage::kTooLarge}) {
    for (const size_t first_item : {0u, 3u}) {
      SCOPED_TRACE(::testing::Message()
                   << "damage " << static_cast<int>(damage) << " items from " << first_item);
      Init(first_item, damage);
      ExpectEveryNearBlockIsDamaged();
      SealOnDevice();
      const Kernels& kernels = KernelsOf(SupportedIsas().back());
      ThreadPool pool(1);
      const CpuMemory memory;
      KvArena arena(kernels, pool, memory);
      RunCpu(&arena);
      for (const KvTier tier : {KvTier::kNear, KvTier::kFresh}) ExpectSameBytes(arena, tier);
    }
  }
}

TEST_P(KvBytesTest, SealedBytesDoNotDependOnTheOrderOfThreads) {
  simt::SameInEveryOrder([&] {
    Init(0);
    SealOnDevice();
    return device_->Bytes();
  });
}

TEST_P(KvBytesTest, ASealOfOneTensorLeavesTheBytesOfTheOtherAlone) {
  for (const bool keys : {true, false}) {
    Init(0);
    for (KvSealOp& op : seals_) {
      op.keys = keys;
      op.values = !keys;
    }
    SealOnDevice();
    const cuda::KvView& view = device_->view();
    for (int32_t head = 0; head < shape_.kv_heads; ++head) {
      const KvTensor sealed = keys ? KvTensor::kKey : KvTensor::kValue;
      const KvTensor other = keys ? KvTensor::kValue : KvTensor::kKey;
      const auto untouched = [&](KvTensor tensor) {
        const uint8_t* block =
            view.Block(KvRecord::kBase, pages_[9].base, view.ItemIndex(1, tensor, head));
        return std::count(block, block + 64, 0xA5);
      };
      EXPECT_NE(untouched(sealed), 64) << "head " << head;
      EXPECT_EQ(untouched(other), 64) << "head " << head;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryFormat, KvBytesTest,
                         ::testing::Values(Case{64, KvCodec::kInt8, false},
                                           Case{24, KvCodec::kHalf, true},
                                           Case{80, KvCodec::kInt8, true}),
                         [](const auto& c) {
                           return std::to_string(c.param.head_size) +
                                  (c.param.near == KvCodec::kInt8 ? "_int8" : "_half");
                         });

// ---- Open and exact pages -----------------------------------------------------------------------

TEST(KvWriteTest, WritesItsTokensAndNothingElseInNearAndExactPages) {
  const KvShape shape = {2, 2, 40};
  const std::vector<int32_t> positions = {62, 63, 64, 65, 66, 5};
  const Matrix qkv = Matrix::Random(6, (4 + 4) * 40, 12);
  for (const KvCodec near : {KvCodec::kInt8, KvCodec::kHalf}) {
    const TestScheme scheme(shape, near, kItems, 4 * kP, false);
    simt::ForEachOrder([&] {
      DeviceArena device(scheme, 4);
      const std::vector<KvPage> pages = {device.NewPage(), device.NewPage(), device.NewPage(true)};
      std::vector<uint8_t> expected = device.Bytes();
      // Two sequences: tokens 62 to 66 of one, token 5 of an exact one.
      AttentionPlan plan;
      PlanAttention(positions, std::vector<int32_t>{0, 5, 6}, std::vector<int32_t>{0, 2, 3}, &plan);
      ASSERT_EQ(cuda::KvWrite(device.view(), 1, qkv.row(0), qkv.cols, plan.rows.data(),
                              pages.data(), 6, nullptr),
                cudaSuccess)
          << LaunchFault();
      for (int32_t t = 0; t < 6; ++t) {
        const int32_t position = positions[static_cast<size_t>(t)];
        const KvPage& page = pages[t == 5 ? 2 : static_cast<size_t>(position / kP)];
        for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
          for (int32_t head = 0; head < 2; ++head) {
            StoreNear(page.exact ? KvCodec::kHalf : near, tensor, 40, position % kP,
                      qkv.row(t) + (4 + 2 * static_cast<int32_t>(tensor) + head) * 40,
                      expected.data() + device.NearOffset(page, 1, tensor, head));
          }
        }
      }
      const std::vector<uint8_t> got = device.Bytes();
      const auto differs = std::mismatch(got.begin(), got.end(), expected.begin()).first;
      EXPECT_TRUE(differs == got.end())
          << "byte " << differs - got.begin() << " of the arena, near " << static_cast<int>(near);
    });
  }
}

TEST(SealTest, PagesInSeveralLaunchesGetTheBytesOfOneLaunch) {
  const TestScheme scheme({1, 1, 16}, KvCodec::kHalf, {{.codec = KvCodec::kFitted, .bits = 2}},
                          4 * kP, false);
  const Matrix qkv = Matrix::Random(4 * kP, 3 * 16, 13);
  std::vector<int32_t> positions(4 * kP);
  std::iota(positions.begin(), positions.end(), 0);
  AttentionPlan plan;
  PlanAttention(positions, std::vector<int32_t>{0, 4 * kP}, std::vector<int32_t>{0, 4}, &plan);
  const auto sealed = [&](int64_t pages_at_once) {
    DeviceArena device(scheme, 4);
    std::vector<KvPage> pages;
    std::vector<KvSealOp> ops;
    for (int32_t page = 0; page < 4; ++page) {
      pages.push_back(device.NewPage());
      ops.push_back(SealOpOf(pages.back(), page));
    }
    EXPECT_EQ(cuda::KvWrite(device.view(), 0, qkv.row(0), qkv.cols, plan.rows.data(), pages.data(),
                            4 * kP, nullptr),
              cudaSuccess)
        << LaunchFault();
    // The fourth is not asked for.
    EXPECT_EQ(cuda::Seal(device.view(), ops.data(), 3, 0, nullptr, pages_at_once), cudaSuccess)
        << LaunchFault();
    return device.Bytes();
  };
  EXPECT_EQ(sealed(2), sealed(cuda::kMostBlocksInY));
}

TEST(SealTest, AViewWithoutItemsIsRefused) {
  EXPECT_EQ(cuda::Seal({}, nullptr, 1, 0, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace asymserve
