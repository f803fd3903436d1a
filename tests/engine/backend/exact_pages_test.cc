#include <cmath>
#include <string>
#include <vector>

#include "engine/kv/page_store.h"
#include "tests/engine/backend/backend_fixture.h"
#include "tests/engine/kv/toy_profile.h"

// Exact sequences beside quantized ones in one arena: the bits of attention are those of an exact
// arena, and the neighbours' are those without the exact one.

namespace asymserve {
namespace {

using ::asymserve::testing::FailsWith;
using ::asymserve::testing::IsOk;
using ::asymserve::testing::MakeBackend;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::SameBits;
using ::asymserve::testing::ToyCode;

constexpr int32_t kP = kKvPageTokens;
constexpr int32_t kPages = 40;

Matrix Rope(int32_t positions, int32_t head_size) {
  Matrix rope(positions, head_size);
  for (int32_t p = 0; p < positions; ++p) {
    for (int32_t i = 0; i < head_size / 2; ++i) {
      const double angle = p * std::pow(1e4, -2.0 * i / head_size);
      rope.row(p)[i] = static_cast<float>(std::cos(angle));
      rope.row(p)[head_size / 2 + i] = static_cast<float>(std::sin(angle));
    }
  }
  return rope;
}

/// Fields that a case needs to differ from a named scheme.
struct Case {
  const char* name;
  const char* scheme;
  KvCodec near;
  bool learned;
};

KvScheme SchemeOf(const Case& c, const KvShape& shape) {
  KvScheme scheme = *NamedKvScheme(c.scheme, shape);
  scheme.near = c.near;
  if (c.learned) {
    scheme.fresh_pages = 1;
    const KvItem item = {.codec = KvCodec::kPlanes, .base_planes = 4, .fresh_planes = 8};
    scheme.items.assign(scheme.items.size(), item);
  }
  return scheme;
}

/// A sequence: what was projected, one row for each token, and where it is stored.
struct Stored {
  Matrix qkv;
  std::vector<KvPage> pages;
};

class Arena {
 public:
  Arena(const KvScheme& scheme, const AttentionShape& shape, Isa isa, int threads)
      : shape_(shape), backend_(MakeBackend(isa, threads)), rope_(Rope(1024, shape.head_size)) {
    setup_.shape = {1, shape.kv_heads, shape.head_size};
    setup_.scheme = scheme;
    codes_.assign(static_cast<size_t>(2 * shape.kv_heads), ToyCode(8, 1.5f));
    setup_.codes = &codes_;
    setup_.rope = rope_.view();
    const KvLayout layout(setup_.shape, scheme);
    setup_.arena_bytes = 2 * ArenaBytesFor(layout, KvRecord::kNear, kPages);
    store_ = std::make_unique<PageStore>(scheme, ArenaCut(layout, setup_.arena_bytes));
    EXPECT_THAT(backend_->KvInit(setup_), IsOk());
    EXPECT_THAT(backend_->Reserve(1024, 64), IsOk());
  }

  /// Stores a sequence of random tokens and seals what is complete.
  Stored Store(int32_t tokens, uint32_t seed, KvPrecision precision) {
    const int64_t heads = shape_.heads + int64_t{2} * shape_.kv_heads;
    Stored stored = {Matrix::Random(tokens, heads * shape_.head_size, seed), {}};
    std::vector<KvSealOp> seals;
    EXPECT_TRUE(store_->Prepare(stored.pages, tokens, 0, seals, precision));
    store_->EndPlan();
    const Step step({&stored}, 0);
    EXPECT_THAT(backend_->KvWrite(step.kv(), 0, stored.qkv.view()), IsOk());
    EXPECT_TRUE(store_->Prepare(stored.pages, tokens, tokens / kP, seals, precision));
    if (!seals.empty()) {
      EXPECT_THAT(backend_->KvSeal(seals), IsOk());
    }
    store_->EndPlan();
    return stored;
  }

  /// Attention of the last `count` tokens of each sequence in one step: the rows of each.
  std::vector<std::vector<float>> Attend(const std::vector<const Stored*>& sequences,
                                         int32_t count) {
    const Step step(sequences, count);
    Matrix qkv(static_cast<int64_t>(step.positions.size()), sequences.front()->qkv.cols);
    int64_t row = 0;
    for (const Stored* sequence : sequences) {
      const Matrix& from = sequence->qkv;
      for (int64_t t = from.rows - count; t < from.rows; ++t) {
        std::copy_n(from.row(t), from.cols, qkv.row(row++));
      }
    }
    Matrix out(qkv.rows, int64_t{shape_.heads} * shape_.head_size);
    EXPECT_THAT(backend_->Attention(step.kv(), 0, shape_, out.view(), qkv.view()), IsOk());
    std::vector<std::vector<float>> rows;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const float* first = out.row(static_cast<int64_t>(s) * count);
      rows.emplace_back(first, first + count * out.cols);
    }
    return rows;
  }

  absl::Status Write(Stored& stored) {
    return backend_->KvWrite(Step({&stored}, 0).kv(), 0, stored.qkv.view());
  }
  absl::Status Read(Stored& stored) {
    Matrix out(stored.qkv.rows, int64_t{shape_.heads} * shape_.head_size);
    return backend_->Attention(Step({&stored}, 0).kv(), 0, shape_, out.view(), stored.qkv.view());
  }

 private:
  /// The last `count` tokens of each sequence; 0: all.
  struct Step {
    Step(const std::vector<const Stored*>& sequences, int32_t count) {
      for (const Stored* sequence : sequences) {
        const auto tokens = static_cast<int32_t>(sequence->qkv.rows);
        for (int32_t t = count == 0 ? 0 : tokens - count; t < tokens; ++t) positions.push_back(t);
        pages.insert(pages.end(), sequence->pages.begin(), sequence->pages.end());
        token_offset.push_back(static_cast<int32_t>(positions.size()));
        page_offset.push_back(static_cast<int32_t>(pages.size()));
      }
    }
    KvStep kv() const { return {positions, token_offset, pages, page_offset}; }

    std::vector<int32_t> positions;
    std::vector<int32_t> token_offset = {0};
    std::vector<KvPage> pages;
    std::vector<int32_t> page_offset = {0};
  };

  AttentionShape shape_;
  std::unique_ptr<Backend> backend_;
  Matrix rope_;
  KvSetup setup_;
  PlaneCodes codes_;
  std::unique_ptr<PageStore> store_;
};

constexpr Case kCases[] = {
    {"int8", "int8", KvCodec::kInt8, false},      {"minmax", "kivi-2", KvCodec::kHalf, false},
    {"fitted", "fit-2/1", KvCodec::kHalf, false}, {"fitted_int8", "fit-2/1", KvCodec::kInt8, false},
    {"learned", "fit-2/2", KvCodec::kInt8, true},
};
constexpr AttentionShape kLearnedShape = {4, 2, 8};  // what ToyCode fits
constexpr AttentionShape kShapes[] = {{3, 1, 64}, {4, 2, 80}, {2, 2, 24}};

void ExpectNeighboursUnchanged(const Case& c, const AttentionShape& shape, Isa isa, int threads) {
  const KvShape kv = {1, shape.kv_heads, shape.head_size};
  const KvScheme scheme = SchemeOf(c, kv);
  constexpr int32_t kTokens = 9 * kP + 21;
  constexpr auto kExact = KvPrecision::kExact;
  constexpr auto kScheme = KvPrecision::kScheme;
  for (const int32_t count : {1, 13}) {  // decode and prefill
    Arena exact(KvScheme{}, shape, isa, threads);
    const Stored alone = exact.Store(kTokens, 3, kScheme);
    const std::vector<float> expected = exact.Attend({&alone}, count).front();

    Arena quantized(scheme, shape, isa, threads);
    const Stored first = quantized.Store(7 * kP + 40, 1, kScheme);
    const Stored last = quantized.Store(3 * kP + 30, 2, kScheme);
    const auto others = quantized.Attend({&first, &last}, count);

    Arena mixed(scheme, shape, isa, threads);
    const Stored a = mixed.Store(7 * kP + 40, 1, kScheme);
    const Stored b = mixed.Store(kTokens, 3, kExact);
    const Stored d = mixed.Store(3 * kP + 30, 2, kScheme);
    const auto rows = mixed.Attend({&a, &b, &d}, count);
    EXPECT_TRUE(SameBits(rows[0], others[0])) << "a neighbour changed";
    EXPECT_TRUE(SameBits(rows[1], expected)) << "exact pages do not give the bits of 16 bit";
    EXPECT_TRUE(SameBits(rows[2], others[1])) << "a neighbour changed";

    Arena same(scheme, shape, isa, threads);
    const Stored coarse = same.Store(kTokens, 3, kScheme);
    EXPECT_FALSE(SameBits(same.Attend({&coarse}, count).front(), expected))
        << "the scheme loses nothing: this test tests nothing";
  }
}

class ExactPagesTest : public ::testing::TestWithParam<Case> {};

TEST_P(ExactPagesTest, HaveTheBitsOfAnExactArenaAndLeaveTheirNeighboursAlone) {
  const Case& c = GetParam();
  const std::vector<AttentionShape> shapes =
      c.learned ? std::vector<AttentionShape>{kLearnedShape}
                : std::vector<AttentionShape>(std::begin(kShapes), std::end(kShapes));
  for (const AttentionShape& shape : shapes) {
    for (const Isa isa : SupportedIsas()) {
      for (const int threads : {1, 3}) {
        SCOPED_TRACE(::testing::Message() << "head size " << shape.head_size << ", " << IsaName(isa)
                                          << ", " << threads << " threads");
        ExpectNeighboursUnchanged(c, shape, isa, threads);
      }
    }
  }
}

TEST_P(ExactPagesTest, APageWithoutItsRecordsOrSealedIsRefused) {
  const Case& c = GetParam();
  const AttentionShape shape = c.learned ? kLearnedShape : kShapes[0];
  const KvShape kv = {1, shape.kv_heads, shape.head_size};
  Arena arena(SchemeOf(c, kv), shape, Isa::kAuto, 1);
  const Stored good = arena.Store(2 * kP, 1, KvPrecision::kExact);
  Stored bad = good;
  EXPECT_THAT(arena.Read(bad), IsOk());
  bad.pages[1].key_tier = KvTier::kAged;
  EXPECT_THAT(arena.Read(bad), FailsWith(absl::StatusCode::kInternal, "exact KV page is sealed"));
  if (c.near == KvCodec::kHalf) return;  // one record
  for (const int32_t id : {-1, 1 << 20}) {
    bad = good;
    bad.pages[1].exact_values = PageId{id};
    EXPECT_THAT(arena.Read(bad), FailsWith(absl::StatusCode::kInternal, "exact value record"));
    EXPECT_THAT(arena.Write(bad), FailsWith(absl::StatusCode::kInternal, "exact value record"));
  }
}

INSTANTIATE_TEST_SUITE_P(EveryScheme, ExactPagesTest, ::testing::ValuesIn(kCases),
                         [](const auto& param_info) { return std::string(param_info.param.name); });

}  // namespace
}  // namespace asymserve
