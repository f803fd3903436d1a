#include <gtest/gtest.h>

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

class KvBytesTest : public ::testing::TestWithParam<Case> {
 protected:
  // With 11 kinds of items over 12 blocks, every kind is that of keys or of values somewhere, and
  // in the second scheme, begun one item later, of the other.
  void Init(size_t first_item, bool damaged) {
    std::vector<KvItem> items(kItems.begin() + static_cast<int64_t>(first_item), kItems.end());
    items.insert(items.end(), kItems.begin(), kItems.begin() + static_cast<int64_t>(first_item));
    const Case& c = GetParam();
    shape_ = {2, 3, c.head_size};
    scheme_ = std::make_unique<TestScheme>(shape_, c.near, items, kPages * kP, c.interleaved);
    device_ = std::make_unique<DeviceArena>(*scheme_, kPages);
    pages_.clear();
    for (int32_t page = 0; page < kPages; ++page) pages_.push_back(device_->NewPage());
    qkv_ = Matrix::Random(kPages * kP, (kHeads + 2 * shape_.kv_heads) * c.head_size, 11);
    if (damaged) {
      constexpr float kBad[] = {std::numeric_limits<float>::quiet_NaN(),
                                std::numeric_limits<float>::infinity(), -1e9f, 1e-30f};
      for (int32_t i = 0; i < 40; ++i) {
        qkv_.row(i * 13)[i * 37 % qkv_.cols] = kBad[i % 4];
      }
    }
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
    Init(first_item, false);
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
  Init(0, true);
  SealOnDevice();
  const Kernels& kernels = KernelsOf(SupportedIsas().back());
  ThreadPool pool(1);
  const CpuMemory memory;
  KvArena arena(kernels, pool, memory);
  RunCpu(&arena);
  for (const KvTier tier : {KvTier::kNear, KvTier::kFresh}) ExpectSameBytes(arena, tier);
}

TEST_P(KvBytesTest, SealedBytesDoNotDependOnTheOrderOfThreads) {
  const cuda::KvView* view = nullptr;
  simt::SameInEveryOrder([&] {
    Init(0, false);
    SealOnDevice();
    view = &device_->view();
    const int64_t slabs = device_->ArenaBytes(kPages) / view->slab_bytes;
    return std::vector<uint8_t>(view->arena, view->arena + slabs * view->slab_bytes);
  });
}

TEST_P(KvBytesTest, ASealOfKeysOnlyLeavesTheValuesBytesAlone) {
  Init(0, false);
  for (KvSealOp& op : seals_) op.values = false;
  SealOnDevice();
  const cuda::KvView& view = device_->view();
  for (int32_t head = 0; head < shape_.kv_heads; ++head) {
    const int32_t key = view.ItemIndex(1, KvTensor::kKey, head);
    const int32_t value = view.ItemIndex(1, KvTensor::kValue, head);
    const uint8_t* keys = view.Block(KvRecord::kBase, pages_[9].base, key);
    const uint8_t* values = view.Block(KvRecord::kBase, pages_[9].base, value);
    EXPECT_NE(std::count(keys, keys + 64, 0xA5), 64);
    EXPECT_EQ(std::count(values, values + 64, 0xA5), 64);
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
  for (const KvCodec near : {KvCodec::kInt8, KvCodec::kHalf}) {
    const KvShape shape = {2, 2, 40};
    const TestScheme scheme(shape, near, kItems, 4 * kP, false);
    DeviceArena device(scheme, 4);
    const std::vector<KvPage> pages = {device.NewPage(), device.NewPage(), device.NewPage(true)};
    // Two sequences: tokens 62 to 66 of one, token 5 of an exact one.
    const std::vector<int32_t> positions = {62, 63, 64, 65, 66, 5};
    AttentionPlan plan;
    PlanAttention(positions, std::vector<int32_t>{0, 5, 6}, std::vector<int32_t>{0, 2, 3}, &plan);
    const Matrix qkv = Matrix::Random(6, (4 + 4) * 40, 12);
    ASSERT_EQ(cuda::KvWrite(device.view(), 1, qkv.row(0), qkv.cols, plan.rows.data(), pages.data(),
                            6, nullptr),
              cudaSuccess)
        << LaunchFault();
    for (size_t page = 0; page < pages.size(); ++page) {
      for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
        for (int32_t head = 0; head < 2; ++head) {
          const KvCodec codec = page == 2 ? KvCodec::kHalf : near;
          const int64_t bytes = KvBlockBytes({.codec = codec}, tensor, 40, 0);
          std::vector<uint8_t> expected(static_cast<size_t>(bytes), 0xA5);
          for (int32_t t = 0; t < 6; ++t) {
            const size_t at =
                t == 5 ? 2 : static_cast<size_t>(positions[static_cast<size_t>(t)] / kP);
            if (at != page) continue;
            const float* x = qkv.row(t) + (4 + 2 * static_cast<int32_t>(tensor) + head) * 40;
            StoreNear(codec, tensor, 40, positions[static_cast<size_t>(t)] % kP, x,
                      expected.data());
          }
          const uint8_t* got = device.view().NearBlock(pages[page], 1, tensor, head);
          EXPECT_TRUE(std::equal(expected.begin(), expected.end(), got))
              << "page " << page << " head " << head << " tensor " << static_cast<int>(tensor);
        }
      }
    }
  }
}

TEST(SealTest, AViewWithoutItemsIsRefused) {
  EXPECT_EQ(cuda::Seal({}, nullptr, 1, 0, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace asymserve
