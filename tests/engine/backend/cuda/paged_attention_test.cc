#include "engine/backend/cuda/paged_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/engine/backend/cuda/device_arena.h"
#include "tests/simt/orders.h"

// Attention straight from packed pages against doubles on what DecodeBlock says is stored.

namespace asymserve {
namespace {

using ::asymserve::testing::DeviceArena;
using ::asymserve::testing::LaunchFault;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::SameBits;
using ::asymserve::testing::SealOpOf;
using ::asymserve::testing::TestScheme;

constexpr int32_t kP = kKvPageTokens;
constexpr int32_t kMaxTokens = 10 * kP;

/// A sequence whose last `rows` tokens are the step's.
struct Sequence {
  int32_t tokens;
  int32_t rows;
  bool exact = false;
  Matrix qkv = Matrix(1, 1);
  std::vector<KvPage> pages = {};
};

struct Case {
  const char* name;
  AttentionShape shape;
  KvCodec near;
  std::vector<KvItem> items;  // [L][2][G]; as many as there are, in turn; none: never sealed
  bool interleaved = false;
  int32_t layers = 1;  // attention is that of the last
  bool unequal_windows = false;
};

class PagedAttentionTest : public ::testing::TestWithParam<Case> {
 protected:
  PagedAttentionTest()
      : shape_(GetParam().shape),
        layer_(GetParam().layers - 1),
        scheme_({GetParam().layers, shape_.kv_heads, shape_.head_size}, GetParam().near,
                GetParam().items, kMaxTokens, GetParam().interleaved, GetParam().unequal_windows),
        device_(scheme_, 24),
        view_(device_.view()) {
    sequences_ = {{9 * kP + 7, 1}, {1, 1}, {70, 3, true}, {4 * kP + 1, 2}};
    uint32_t seed = 20;
    for (Sequence& s : sequences_) Fill(&s, ++seed);
  }

  /// Writes all tokens, sets the tiers that the step's rows see, and seals the pages that are read
  /// so; the sealed records of others stay unwritten.
  void Fill(Sequence* s, uint32_t seed) {
    s->qkv = Matrix::Random(s->tokens, Cols(), seed);
    AttentionPlan plan;
    std::vector<int32_t> positions;
    for (int32_t t = 0; t < s->tokens; ++t) positions.push_back(t);
    std::vector<KvSealOp> ops;
    const KvScheme& scheme = scheme_.setup.scheme;
    const int32_t complete = s->exact ? 0 : (s->tokens - s->rows) / kP;
    for (int32_t page = 0; page * kP < s->tokens; ++page) {
      s->pages.push_back(device_.NewPage(s->exact));
      KvPage& one = s->pages.back();
      one.key_tier = TierOf(scheme, KvTensor::kKey, page, complete);
      one.value_tier = TierOf(scheme, KvTensor::kValue, page, complete);
      if (one.key_tier != KvTier::kNear || one.value_tier != KvTier::kNear) {
        ops.push_back(SealOpOf(one, page));
      }
    }
    const std::vector<int32_t> offset = {0, s->tokens};
    const std::vector<int32_t> page_offset = {0, static_cast<int32_t>(s->pages.size())};
    PlanAttention(positions, offset, page_offset, &plan);
    for (int32_t layer = 0; layer <= layer_; ++layer) {
      const Matrix other = Matrix::Random(s->tokens, Cols(), seed + 100);
      EXPECT_EQ(cuda::KvWrite(device_.view(), layer, (layer == layer_ ? s->qkv : other).row(0),
                              Cols(), plan.rows.data(), s->pages.data(), s->tokens, nullptr),
                cudaSuccess)
          << LaunchFault();
    }
    if (ops.empty()) return;
    EXPECT_EQ(cuda::Seal(device_.view(), ops.data(), static_cast<int64_t>(ops.size()),
                         device_.max_planes(), nullptr),
              cudaSuccess)
        << LaunchFault();
  }

  int64_t Cols() const { return (shape_.heads + int64_t{2} * shape_.kv_heads) * shape_.head_size; }

  /// Attention of the step that those sequences make.
  Matrix Attend(const std::vector<const Sequence*>& sequences) {
    Matrix out(1, 1);
    EXPECT_EQ(TryAttend(sequences, &out), cudaSuccess) << LaunchFault();
    return out;
  }

  cudaError_t TryAttend(const std::vector<const Sequence*>& sequences, Matrix* out) {
    std::vector<int32_t> positions;
    std::vector<int32_t> token_offset = {0};
    std::vector<int32_t> page_offset = {0};
    std::vector<KvPage> pages;
    std::vector<float> qkv;
    for (const Sequence* s : sequences) {
      for (int32_t t = s->tokens - s->rows; t < s->tokens; ++t) positions.push_back(t);
      qkv.insert(qkv.end(), s->qkv.row(s->tokens - s->rows), s->qkv.row(s->tokens));
      pages.insert(pages.end(), s->pages.begin(), s->pages.end());
      token_offset.push_back(static_cast<int32_t>(positions.size()));
      page_offset.push_back(static_cast<int32_t>(pages.size()));
    }
    AttentionPlan plan;
    PlanAttention(positions, token_offset, page_offset, &plan);
    const auto rows = static_cast<int32_t>(plan.rows.size());
    const auto work = static_cast<int32_t>(plan.work.size());
    std::vector<float> states(
        static_cast<size_t>(cuda::AttentionStateFloats(work, shape_.heads, shape_.head_size)),
        std::nanf(""));
    *out = Matrix(rows, shape_.heads * shape_.head_size);
    const cuda::AttentionArgs args = {.kv = view_,
                                      .layer = layer_,
                                      .heads = shape_.heads,
                                      .qkv = qkv.data(),
                                      .row_elements = Cols(),
                                      .out = out->row(0),
                                      .pages = pages.data(),
                                      .rows = plan.rows.data(),
                                      .row_count = rows,
                                      .work = plan.work.data(),
                                      .work_count = work,
                                      .states = states.data()};
    return cuda::PagedAttention(args, nullptr);
  }

  std::vector<const Sequence*> All() const {
    std::vector<const Sequence*> all;
    for (const Sequence& s : sequences_) all.push_back(&s);
    return all;
  }

  /// [tokens of the pages][D] as stored, keys at their absolute positions.
  std::vector<double> Stored(const Sequence& s, KvTensor tensor, int32_t head) const {
    const int32_t size = shape_.head_size;
    const cuda::KvView& view = device_.view();
    const int32_t index = view.ItemIndex(layer_, tensor, head);
    std::vector<double> all;
    for (size_t i = 0; i < s.pages.size(); ++i) {
      const KvPage& page = s.pages[i];
      const KvTier tier = tensor == KvTensor::kKey ? page.key_tier : page.value_tier;
      std::vector<float> rows(static_cast<size_t>(size) * kP);
      if (tier == KvTier::kNear) {
        LoadNear(view.NearCodec(page), tensor, size, view.NearBlock(page, layer_, tensor, head),
                 rows.data());
        all.insert(all.end(), rows.begin(), rows.end());
        continue;
      }
      const KvItem& item = scheme_.setup.scheme.items[static_cast<size_t>(index)];
      const PlaneCode& code = scheme_.codes[static_cast<size_t>(index)];
      const bool fresh = tier == KvTier::kFresh && item.fresh_planes > item.base_planes;
      DecodeBlock(item, tensor, size, &code, view.Block(KvRecord::kBase, page.base, index),
                  fresh ? view.Block(KvRecord::kRefinement, page.refinement, index) : nullptr,
                  rows.data());
      const float* angles = scheme_.rope.row(static_cast<int32_t>(i) / 8 * 512);
      const bool framed = item.codec == KvCodec::kPlanes && tensor == KvTensor::kKey;
      for (int32_t token = 0; token < kP; ++token) {
        std::vector<double> row(rows.begin() + token * size, rows.begin() + (token + 1) * size);
        for (int32_t p = 0; framed && p < size / 2; ++p) {
          double& a = row[static_cast<size_t>(view.interleaved ? 2 * p : p)];
          double& b = row[static_cast<size_t>(view.interleaved ? 2 * p + 1 : p + size / 2)];
          const double c = angles[p];
          const double sine = angles[size / 2 + p];
          const double turned = a * c - b * sine;
          b = b * c + a * sine;
          a = turned;
        }
        all.insert(all.end(), row.begin(), row.end());
      }
    }
    return all;
  }

  /// The largest difference from doubles over all rows of a sequence; NaN counts as 1e9.
  double WorstError(const Sequence& s, const Matrix& out, int64_t first_row) const {
    const auto size = static_cast<size_t>(shape_.head_size);
    const int32_t group = shape_.heads / shape_.kv_heads;
    double worst = 0;
    std::vector<double> keys;
    std::vector<double> values;
    for (int32_t head = 0; head < shape_.heads; ++head) {
      if (head % group == 0) {
        keys = Stored(s, KvTensor::kKey, head / group);
        values = Stored(s, KvTensor::kValue, head / group);
      }
      for (int32_t row = 0; row < s.rows; ++row) {
        const int32_t position = s.tokens - s.rows + row;
        const float* q = s.qkv.row(position) + head * shape_.head_size;
        std::vector<double> sums(size + 1);
        for (size_t t = 0; t <= static_cast<size_t>(position); ++t) {
          double score = 0;
          for (size_t d = 0; d < size; ++d) score += q[d] * keys[t * size + d];
          const double weight = std::exp(score / std::sqrt(static_cast<double>(size)));
          for (size_t d = 0; d < size; ++d) sums[d] += weight * values[t * size + d];
          sums[size] += weight;
        }
        for (size_t d = 0; d < size; ++d) {
          const double got =
              out.at(first_row + row, head * shape_.head_size + static_cast<int64_t>(d));
          const double off = std::fabs(got - sums[d] / sums[size]);
          worst = std::isnan(off) ? 1e9 : std::max(worst, off);
        }
      }
    }
    return worst;
  }

  AttentionShape shape_;
  int32_t layer_;
  TestScheme scheme_;
  DeviceArena device_;
  cuda::KvView view_;  // what attention gets
  std::vector<Sequence> sequences_;
};

TEST_P(PagedAttentionTest, IsWithinFloatErrorOfADoubleReference) {
  const Matrix out = Attend(All());
  int64_t row = 0;
  for (const Sequence& s : sequences_) {
    EXPECT_LT(WorstError(s, out, row), 5e-5) << "sequence of " << s.tokens << " tokens";
    row += s.rows;
  }
}

TEST_P(PagedAttentionTest, ARowHasTheSameBitsAloneAndAmongOthersInEveryOrderOfThreads) {
  const Matrix together = Attend(All());
  int64_t row = 0;
  for (const Sequence& s : sequences_) {
    simt::ForEachOrder([&] {
      const Matrix alone = Attend({&s});
      EXPECT_TRUE(SameBits(alone.values, {together.row(row), together.row(row + s.rows)}))
          << "sequence of " << s.tokens << " tokens";
    });
    row += s.rows;
  }
}

TEST_P(PagedAttentionTest, ANanQueryMakesItsOwnHeadNanAndChangesNoOther) {
  const Matrix expected = Attend(All());
  Sequence& s = sequences_.back();
  s.qkv.row(s.tokens - 1)[1] = std::nanf("");
  const Matrix got = Attend(All());
  const auto size = static_cast<size_t>(shape_.head_size);
  const size_t last_row = got.values.size() - size * static_cast<size_t>(shape_.heads);
  for (size_t i = 0; i < got.values.size(); ++i) {
    if (i >= last_row && i < last_row + size) {
      EXPECT_TRUE(std::isnan(got.values[i])) << i;
    } else {
      EXPECT_EQ(got.values[i], expected.values[i]) << i;
    }
  }
}

TEST_P(PagedAttentionTest, AFrameThatASplitWouldCrossIsRefusedWhenThereAreCodes) {
  const Sequence& s = sequences_.front();
  const Matrix expected = Attend({&s});
  Matrix out(1, 1);
  for (const int32_t frame : {0, 64, 256, 448, 768}) {
    view_.frame_tokens = frame;
    EXPECT_EQ(TryAttend({&s}, &out), view_.codes == nullptr ? cudaSuccess : cudaErrorInvalidValue)
        << "frames of " << frame;
    if (view_.codes != nullptr) continue;
    EXPECT_TRUE(SameBits(out.values, expected.values));
  }
}

constexpr KvItem Planes(uint8_t base, uint8_t fresh) {
  return {.codec = KvCodec::kPlanes, .base_planes = base, .fresh_planes = fresh};
}
constexpr KvItem Scalar(KvCodec codec, uint8_t bits = 0) {
  return {.codec = codec, .bits = bits};
}
constexpr KvItem kHalf = Scalar(KvCodec::kHalf);
constexpr KvItem kInt8 = Scalar(KvCodec::kInt8);
constexpr KvItem kFitted1 = Scalar(KvCodec::kFitted, 1);
constexpr KvItem kFitted2 = Scalar(KvCodec::kFitted, 2);
constexpr KvItem kFitted4 = Scalar(KvCodec::kFitted, 4);
constexpr KvItem kMinMax1 = Scalar(KvCodec::kMinMax, 1);
constexpr KvItem kMinMax2 = Scalar(KvCodec::kMinMax, 2);
constexpr KvItem kMinMax4 = Scalar(KvCodec::kMinMax, 4);

// Every codec and number of bits is that of keys and of values somewhere.
INSTANTIATE_TEST_SUITE_P(
    EveryCodec, PagedAttentionTest,
    ::testing::Values(
        Case{"planes_64", {3, 1, 64}, KvCodec::kInt8, {Planes(8, 20)}},
        Case{"planes_interleaved_24", {4, 2, 24}, KvCodec::kHalf, {Planes(8, 20)}, true},
        Case{"more_than_eight_heads_16", {10, 1, 16}, KvCodec::kInt8, {Planes(8, 20)}},
        Case{"fitted_80",
             {3, 3, 80},
             KvCodec::kInt8,
             {kFitted1, kFitted2, kFitted4, kFitted4, kFitted1, kFitted2}},
        Case{"minmax_40",
             {6, 3, 40},
             KvCodec::kHalf,
             {kMinMax1, kMinMax2, kMinMax4, kMinMax4, kMinMax1, kMinMax2}},
        Case{"half_and_int8_24", {2, 2, 24}, KvCodec::kHalf, {kHalf, kInt8, kInt8, kHalf}},
        Case{"second_layer_of_two_groups_of_ten_128",
             {20, 2, 128},
             KvCodec::kInt8,
             {kMinMax1, kMinMax1, kMinMax1, kMinMax1, Planes(8, 8), kFitted2, kHalf, Planes(6, 6)},
             false,
             2,
             true},
        Case{"never_sealed_half_32", {2, 1, 32}, KvCodec::kHalf, {}},
        Case{"never_sealed_int8_32", {4, 2, 32}, KvCodec::kInt8, {}, false, 2}),
    [](const auto& c) { return std::string(c.param.name); });

// ---- The plan -----------------------------------------------------------------------------------

TEST(AttentionPlanTest, EveryRowHasItsSplitsInOrder) {
  AttentionPlan plan;
  PlanAttention(std::vector<int32_t>{511, 512, 0, 1024}, std::vector<int32_t>{0, 2, 2, 3, 4},
                std::vector<int32_t>{0, 9, 9, 10, 27}, &plan);
  const std::vector<AttentionRow> rows = {
      {511, 0, 0, 1}, {512, 0, 1, 2}, {0, 9, 3, 1}, {1024, 10, 4, 3}};
  const std::vector<AttentionWork> work = {{0, 0}, {1, 0}, {1, 1}, {2, 0}, {3, 0}, {3, 1}, {3, 2}};
  EXPECT_EQ(plan.rows, rows);
  EXPECT_EQ(plan.work, work);
}

}  // namespace
}  // namespace asymserve
