#include <algorithm>
#include <tuple>

#include "engine/base/float16.h"
#include "engine/kv/layout.h"
#include "tests/engine/backend/backend_fixture.h"
#include "tests/support/kv_setup.h"

namespace asymserve {
namespace {

using ::asymserve::testing::ExactKvSetup;
using ::asymserve::testing::FailsWith;
using ::asymserve::testing::IsOk;
using ::asymserve::testing::MakeBackend;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::SameBits;

/// A sequence of random tokens: its rows q | k | v from position 0 on.
struct Sequence {
  Sequence(const AttentionShape& shape, int32_t tokens, uint32_t seed)
      : length(tokens),
        qkv(Matrix::Random(tokens, (shape.heads + 2 * shape.kv_heads) * shape.head_size, seed)) {}
  int32_t length;
  Matrix qkv;
  std::vector<KvPage> pages;
};

/// Part of a sequence that a step runs: tokens [first, last).
struct Span {
  Sequence* sequence;
  int32_t first;
  int32_t last;
};

/// A backend with KV pages, handed out in a scattered order. One layer of two is used.
class Cache {
 public:
  Cache(Isa isa, int threads, const AttentionShape& shape)
      : shape_(shape), backend_(MakeBackend(isa, threads)) {
    EXPECT_THAT(backend_->KvInit(ExactKvSetup({2, shape.kv_heads, shape.head_size}, kPages)),
                IsOk());
    EXPECT_THAT(backend_->Reserve(512, 64), IsOk());
  }

  PageId NextPage() { return PageId{(next_page_++ * 37) % kPages}; }

  /// Runs the spans as one step and returns their rows of the output.
  Matrix Run(const std::vector<Span>& spans) {
    std::vector<int32_t> positions;
    std::vector<int32_t> token_offset = {0};
    std::vector<int32_t> page_offset = {0};
    std::vector<KvPage> pages;
    std::vector<float> rows;
    for (const Span& span : spans) {
      Sequence& s = *span.sequence;
      while (static_cast<int32_t>(s.pages.size()) * 64 < span.last)
        s.pages.push_back({.near = NextPage()});
      for (int32_t t = span.first; t < span.last; ++t) positions.push_back(t);
      rows.insert(rows.end(), s.qkv.row(span.first), s.qkv.row(span.last));
      pages.insert(pages.end(), s.pages.begin(), s.pages.end());
      token_offset.push_back(static_cast<int32_t>(positions.size()));
      page_offset.push_back(static_cast<int32_t>(pages.size()));
    }
    const auto tokens = static_cast<int64_t>(positions.size());
    const int64_t cols = (shape_.heads + 2 * shape_.kv_heads) * shape_.head_size;
    const TensorView qkv = MakeMatrix(rows.data(), tokens, cols);
    const KvStep step = {positions, token_offset, pages, page_offset};
    EXPECT_THAT(backend_->KvWrite(step, 1, qkv), IsOk());
    Matrix out(tokens, shape_.heads * shape_.head_size);
    EXPECT_THAT(backend_->Attention(step, 1, shape_, out.view(), qkv), IsOk());
    return out;
  }

  Backend& backend() { return *backend_; }

 private:
  static constexpr int32_t kPages = 64;
  AttentionShape shape_;
  std::unique_ptr<Backend> backend_;
  int32_t next_page_ = 0;
};

double Stored(float value) {
  return HalfToFloat(FloatToHalf(value));
}

/// Row `token` of the attention output, in double on the stored keys and values.
std::vector<double> Reference(const AttentionShape& shape, const Sequence& s, int32_t token) {
  const int64_t size = shape.head_size;
  std::vector<double> out(static_cast<size_t>(shape.heads * size));
  for (int32_t head = 0; head < shape.heads; ++head) {
    const int32_t kv_head = head / (shape.heads / shape.kv_heads);
    const float* q = s.qkv.row(token) + head * size;
    std::vector<double> weights;
    double sum = 0;
    for (int32_t t = 0; t <= token; ++t) {
      const float* k = s.qkv.row(t) + (shape.heads + kv_head) * size;
      double score = 0;
      for (int64_t d = 0; d < size; ++d) score += q[d] * Stored(k[d]);
      weights.push_back(std::exp(score / std::sqrt(static_cast<double>(size))));
      sum += weights.back();
    }
    for (int32_t t = 0; t <= token; ++t) {
      const float* v = s.qkv.row(t) + (shape.heads + shape.kv_heads + kv_head) * size;
      for (int64_t d = 0; d < size; ++d) {
        out[static_cast<size_t>(head * size + d)] +=
            weights[static_cast<size_t>(t)] / sum * Stored(v[d]);
      }
    }
  }
  return out;
}

void ExpectNear(const Matrix& out, int64_t row, const std::vector<double>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(out.row(row)[i], expected[i], 2e-5) << "row " << row << " channel " << i;
  }
}

constexpr AttentionShape kShapes[] = {{6, 2, 8},  {3, 3, 24},  {9, 3, 64},
                                      {5, 1, 40}, {4, 2, 128}, {40, 1, 16}};

class AttentionTest : public ::testing::TestWithParam<std::tuple<Isa, AttentionShape>> {
 protected:
  Isa isa() const { return std::get<0>(GetParam()); }
  AttentionShape shape() const { return std::get<1>(GetParam()); }
};

TEST_P(AttentionTest, IsWithinFloatErrorOfADoubleReferenceInPrefillAndDecode) {
  for (const int32_t length : {1, 2, 63, 64, 65, 200, 330}) {
    SCOPED_TRACE(::testing::Message() << "length " << length << " seed " << 30 + length);
    Cache cache(isa(), 1, shape());
    Sequence s(shape(), length, 30 + static_cast<uint32_t>(length));
    if (length > 1) {
      const Matrix prefill = cache.Run({{&s, 0, length - 1}});
      for (const int32_t token : {0, (length - 1) / 2, length - 2}) {
        ExpectNear(prefill, token, Reference(shape(), s, token));
      }
    }
    ExpectNear(cache.Run({{&s, length - 1, length}}), 0, Reference(shape(), s, length - 1));
  }
}

TEST_P(AttentionTest, GivesTheSameBitsForEveryIsaThreadCountAndGrouping) {
  Sequence a(shape(), 300, 41);
  Sequence b(shape(), 70, 42);
  Cache reference(Isa::kPortable, 1, shape());
  Matrix expected_a(300, shape().heads * shape().head_size);
  for (int32_t t = 0; t < 300; t += 100) {
    const Matrix out = reference.Run({{&a, t, t + 100}});
    std::copy(out.values.begin(), out.values.end(), expected_a.row(t));
  }
  const Matrix expected_b = reference.Run({{&b, 0, 70}});
  for (const int threads : {1, 2, 3}) {
    Cache cache(isa(), threads, shape());
    a.pages.clear();
    b.pages.clear();
    cache.Run({{&a, 0, 33}});
    cache.Run({{&b, 0, 5}, {&a, 33, 40}});
    const Matrix mixed = cache.Run({{&a, 40, 261}, {&b, 5, 69}});
    EXPECT_TRUE(SameBits({mixed.row(0), mixed.row(221)}, {expected_a.row(40), expected_a.row(261)}))
        << threads << " threads, seed 41";
    EXPECT_TRUE(SameBits({mixed.row(221), mixed.row(285)}, {expected_b.row(5), expected_b.row(69)}))
        << threads << " threads, seed 42";
    const Matrix decode = cache.Run({{&a, 261, 262}, {&b, 69, 70}});
    EXPECT_TRUE(
        SameBits({decode.row(0), decode.row(1)}, {expected_a.row(261), expected_a.row(262)}));
    EXPECT_TRUE(SameBits({decode.row(1), decode.row(2)}, {expected_b.row(69), expected_b.row(70)}));
    for (int32_t t = 262; t < 300; ++t) {
      const Matrix alone = cache.Run({{&a, t, t + 1}});
      ASSERT_TRUE(SameBits(alone.values, {expected_a.row(t), expected_a.row(t + 1)}))
          << "token " << t << ", " << threads << " threads";
    }
  }
}

TEST_P(AttentionTest, NeverLetsUnwrittenSlotsLeak) {
  Cache cache(isa(), 1, shape());
  // A first owner fills its pages with NaN; the next one gets the same pages back.
  Sequence poison(shape(), 192, 43);
  std::fill(poison.qkv.values.begin(), poison.qkv.values.end(), std::nanf(""));
  cache.Run({{&poison, 0, 192}});
  for (const int32_t length : {1, 15, 16, 17, 64, 100, 129}) {
    Sequence s(shape(), length, 44);
    s.pages = poison.pages;
    const Matrix out = cache.Run({{&s, 0, length}});
    ExpectNear(out, length - 1, Reference(shape(), s, length - 1));
    ExpectNear(out, 0, Reference(shape(), s, 0));
    cache.Run({{&poison, 0, 192}});
  }
}

TEST_P(AttentionTest, CarriesANanToLaterTokensOnly) {
  for (const bool in_value : {false, true}) {
    Sequence s(shape(), 90, 45);
    const int64_t row_heads = in_value ? shape().heads + shape().kv_heads : shape().heads;
    // 70,000 does not fit fp16 and so is stored as NaN.
    s.qkv.row(70)[row_heads * shape().head_size] = 70000.0f;
    Cache cache(isa(), 1, shape());
    const Matrix out = cache.Run({{&s, 0, 90}});
    for (int32_t t = 0; t < 90; ++t) {
      const bool has_nan = std::any_of(out.row(t), out.row(t) + shape().head_size,
                                       [](float value) { return std::isnan(value); });
      ASSERT_EQ(has_nan, t >= 70) << "token " << t << (in_value ? " value" : " key");
    }
  }
}

TEST_P(AttentionTest, SharesLongSequencesAmongThreadsWithoutChangingBits) {
  if (isa() == Isa::kPortable) GTEST_SKIP() << "the split is the same for every instruction set";
  Sequence s(shape(), 1100, 46);
  std::vector<float> expected;
  for (const int threads : {1, 2, 3}) {
    s.pages.clear();
    Cache cache(isa(), threads, shape());
    cache.Run({{&s, 0, 500}});
    cache.Run({{&s, 500, 1000}});
    const Matrix out = cache.Run({{&s, 1000, 1001}});
    if (threads == 1) expected = out.values;
    EXPECT_TRUE(SameBits(out.values, expected)) << threads << " threads, seed 46";
    ExpectNear(out, 0, Reference(shape(), s, 1000));
  }
}

std::string AttentionTestName(
    const ::testing::TestParamInfo<std::tuple<Isa, AttentionShape>>& info) {
  const AttentionShape& shape = std::get<1>(info.param);
  return std::string(IsaName(std::get<0>(info.param))) + "_" + std::to_string(shape.heads) + "_" +
         std::to_string(shape.kv_heads) + "_" + std::to_string(shape.head_size);
}
INSTANTIATE_TEST_SUITE_P(EveryIsaAndShape, AttentionTest,
                         ::testing::Combine(::testing::ValuesIn(SupportedIsas()),
                                            ::testing::ValuesIn(kShapes)),
                         AttentionTestName);

TEST(KvArenaTest, RefusesShapesItCannotStore) {
  const auto backend = MakeBackend(Isa::kAuto);
  KvSetup setup;
  setup.arena_bytes = 1 << 20;
  setup.shape = {1, 1, 60};
  EXPECT_THAT(backend->KvInit(setup), FailsWith(absl::StatusCode::kInvalidArgument, "60;"));
  setup.shape = {1, 1, 264};
  EXPECT_THAT(backend->KvInit(setup), FailsWith(absl::StatusCode::kInvalidArgument, "264;"));
  setup.shape = {1 << 20, 1 << 20, 64};
  EXPECT_THAT(backend->KvInit(setup), FailsWith(absl::StatusCode::kInvalidArgument, "1048576"));
  setup.shape = {64, 64, 64};
  EXPECT_THAT(backend->KvInit(setup), FailsWith(absl::StatusCode::kInvalidArgument, "one slab"));
  setup.arena_bytes = int64_t{1} << 50;
  EXPECT_THAT(backend->KvInit(setup), FailsWith(absl::StatusCode::kResourceExhausted, "KV arena"));
  setup.scheme.page_tokens = 32;
  EXPECT_THAT(backend->KvInit(setup),
              FailsWith(absl::StatusCode::kInvalidArgument, "pages of 32 tokens"));
}

TEST(KvArenaTest, RefusesPositionsAndPagesOutsideTheirTables) {
  const auto backend = MakeBackend(Isa::kAuto);
  ASSERT_THAT(backend->KvInit(ExactKvSetup({1, 1, 8}, 4)), IsOk());
  ASSERT_THAT(backend->Reserve(4, 64), IsOk());
  Matrix qkv = Matrix::Random(1, 24, 1);
  const std::vector<int32_t> offset = {0, 1};
  std::vector<int32_t> positions = {64};
  std::vector<KvPage> pages = {{.near = PageId{0}}};
  EXPECT_THAT(backend->KvWrite({positions, offset, pages, offset}, 0, qkv.view()),
              FailsWith(absl::StatusCode::kInternal, "position 64"));
  positions = {0};
  pages = {{.near = PageId{4}}};
  EXPECT_THAT(backend->KvWrite({positions, offset, pages, offset}, 0, qkv.view()),
              FailsWith(absl::StatusCode::kInternal, "near record 4 of 4"));
}

}  // namespace
}  // namespace asymserve
