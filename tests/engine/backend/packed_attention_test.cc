#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "engine/kv/codec.h"
#include "engine/kv/record_pool.h"
#include "tests/engine/backend/backend_fixture.h"

// Attention over sealed pages against a double reference on the decoded blocks, for every codec,
// head size and instruction set. fp16 pages are within float error; scalar codes within that of the
// other factor's fixed point of 14 to 15 bits; learned codes go through int8 tables and are within
// the bound that follows from their rounding.

namespace asymserve {
namespace {

using ::asymserve::testing::IsOk;
using ::asymserve::testing::MakeBackend;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::SameBits;

constexpr int32_t kTokens = 64 * 11 + 9;  // two frames of 512, two groups of pages and a bit
constexpr int32_t kP = kKvPageTokens;

struct Case {
  const char* name;
  KvItem item;
  KvCodec near;
};

PlaneCode RandomCode(int32_t head_size, int32_t planes, uint32_t seed) {
  const auto numbers = [&](int64_t count, uint32_t salt) {
    const Matrix m = Matrix::Random(1, count, seed * 16 + salt);
    return std::vector<float>(m.row(0), m.row(0) + count);
  };
  PlaneCode code;
  code.head_size = head_size;
  for (int32_t p = 0; p < planes; ++p) {
    code.subvector.push_back(static_cast<uint8_t>(p * 5 % (head_size / 4)));
  }
  code.codebooks = numbers(int64_t{planes} * 64, 1);
  code.encode = numbers(int64_t{head_size} * head_size, 2);
  code.decode = numbers(int64_t{head_size} * head_size, 3);
  code.mean = numbers(head_size, 4);
  const float norm = 1.0f / std::sqrt(static_cast<float>(head_size));
  for (float& x : code.encode) x *= norm;
  for (float& x : code.decode) x *= norm;
  return code;
}

/// Rotates x by the angles of a table row, `sign` -1 back.
void Rotate(const float* rope, bool interleaved, int32_t head_size, double sign, double* x) {
  const int32_t half = head_size / 2;
  for (int32_t i = 0; i < half; ++i) {
    double& a = interleaved ? x[2 * i] : x[i];
    double& b = interleaved ? x[2 * i + 1] : x[i + half];
    const double c = rope[i];
    const double s = sign * rope[half + i];
    const double rotated = a * c - b * s;
    b = b * c + a * s;
    a = rotated;
  }
}

class Cache {
 public:
  /// `edit` changes the tokens' q | k | v before they are stored.
  Cache(Isa isa, int threads, const Case& c, const AttentionShape& shape, bool interleaved,
        const std::function<void(Matrix&)>& edit = nullptr)
      : shape_(shape),
        backend_(MakeBackend(isa, threads)),
        qkv_(Matrix::Random(kTokens, (shape.heads + 2 * shape.kv_heads) * shape.head_size, 7)),
        rope_(kTokens + 64, shape.head_size) {
    if (edit) edit(qkv_);
    for (int32_t p = 0; p < rope_.rows; ++p) {
      for (int32_t i = 0; i < shape.head_size / 2; ++i) {
        const double angle = p * std::pow(1e4, -2.0 * i / shape.head_size);
        rope_.row(p)[i] = static_cast<float>(std::cos(angle));
        rope_.row(p)[shape.head_size / 2 + i] = static_cast<float>(std::sin(angle));
      }
    }
    setup_.shape = {1, shape.kv_heads, shape.head_size};
    setup_.scheme.near = c.near;
    setup_.scheme.items.assign(static_cast<size_t>(2 * shape.kv_heads), c.item);
    setup_.scheme.sink_pages = 1;
    setup_.scheme.fresh_pages = 2;
    setup_.scheme.key_window = setup_.scheme.value_window = {.recent_pages = 1, .block_pages = 1};
    for (uint32_t i = 0; i < setup_.scheme.items.size(); ++i) {
      codes_.push_back(RandomCode(shape.head_size, c.item.fresh_planes, i + 1));
    }
    setup_.codes = &codes_;
    setup_.rope = rope_.view();
    setup_.rope_style = interleaved ? RopeStyle::kInterleaved : RopeStyle::kHalves;
    const KvLayout layout(setup_.shape, setup_.scheme);
    setup_.arena_bytes = 3 * ArenaBytesFor(layout, KvRecord::kNear, 16);
    EXPECT_THAT(backend_->KvInit(setup_), IsOk());
    EXPECT_THAT(backend_->Reserve(kTokens, 64), IsOk());
    Fill(layout);
  }

  /// Attention of the tokens [first, kTokens), pages sealed as for the first of them.
  Matrix Attend(int32_t first) {
    Views(first / kP);
    std::vector<int32_t> positions;
    for (int32_t t = first; t < kTokens; ++t) positions.push_back(t);
    const std::vector<int32_t> offset = {0, kTokens - first};
    const std::vector<int32_t> page_offset = {0, static_cast<int32_t>(pages_.size())};
    Matrix out(kTokens - first, shape_.heads * shape_.head_size);
    const TensorView rows =
        MakeMatrix(qkv_.row(first), kTokens - first, qkv_.view().row_elements());
    EXPECT_THAT(
        backend_->Attention({positions, offset, pages_, page_offset}, 0, shape_, out.view(), rows),
        IsOk());
    return out;
  }

  struct Error {
    double worst = 0;  // largest difference over its bound
    double worst_absolute = 0;
    double mean_square = 0;
    double expected_mean_square = 0;
  };

  /// How far `out` is from attention in doubles over what the codec stored. Learned codes: a score
  /// is off by at most half a unit a plane, e, and a value by at most v, so that a mean over values
  /// of magnitude up to V is off by (exp(2 e) - 1) V + v at most. `float_bound` comes on top.
  Error ErrorOf(const Matrix& out, int32_t first, double float_bound) {
    Views(first / kP);
    Error error;
    int64_t count = 0;
    for (int32_t head = 0; head < shape_.heads; ++head) {
      const int32_t kv_head = head / (shape_.heads / shape_.kv_heads);
      const std::vector<double> keys = Stored(KvTensor::kKey, kv_head);
      const std::vector<double> values = Stored(KvTensor::kValue, kv_head);
      double largest = 0;
      for (const double x : values) largest = std::max(largest, std::fabs(x));
      for (int32_t t = first; t < kTokens; ++t) {
        const std::vector<double> expected = Row(head, t, keys, values);
        const double spread = (std::exp(2 * ScoreRounding(head, t)) - 1) * largest;
        for (int32_t d = 0; d < shape_.head_size; ++d) {
          const double got = out.row(t - first)[head * shape_.head_size + d];
          const double off = std::fabs(got - expected[static_cast<size_t>(d)]);
          const double bound = spread + ValueRounding(kv_head, d) + float_bound;
          error.worst = std::max(error.worst, std::isnan(got) ? 1e9 : off / bound);
          error.worst_absolute = std::max(error.worst_absolute, off);
          error.mean_square += off * off;
          error.expected_mean_square += std::pow(expected[static_cast<size_t>(d)], 2);
          ++count;
        }
      }
    }
    error.mean_square /= static_cast<double>(count);
    error.expected_mean_square /= static_cast<double>(count);
    return error;
  }

 private:
  const float* Token(KvTensor tensor, int32_t head, int32_t token) const {
    const int32_t index = shape_.heads + static_cast<int32_t>(tensor) * shape_.kv_heads + head;
    return qkv_.row(token) + index * shape_.head_size;
  }

  /// Writes all tokens and seals every complete page.
  void Fill(const KvLayout& layout) {
    RecordPool pool(ArenaCut(layout, setup_.arena_bytes));
    std::vector<KvSealOp> ops;
    std::vector<int32_t> positions;
    for (int32_t t = 0; t < kTokens; ++t) positions.push_back(t);
    for (int32_t page = 0; page * kP < kTokens; ++page) {
      KvPage records = {.near = pool.Allocate(KvRecord::kNear),
                        .base = pool.Allocate(KvRecord::kBase)};
      if (layout.record_bytes(KvRecord::kRefinement) > 0) {
        records.refinement = pool.Allocate(KvRecord::kRefinement);
      }
      pages_.push_back(records);
      if ((page + 1) * kP <= kTokens) {
        ops.push_back({.near = records.near,
                       .base = records.base,
                       .refinement = records.refinement,
                       .page = page});
      }
    }
    const std::vector<int32_t> offset = {0, kTokens};
    const std::vector<int32_t> page_offset = {0, static_cast<int32_t>(pages_.size())};
    EXPECT_THAT(backend_->KvWrite({positions, offset, pages_, page_offset}, 0, qkv_.view()),
                IsOk());
    EXPECT_THAT(backend_->KvSeal(ops), IsOk());
  }

  void Views(int32_t complete) {
    for (size_t page = 0; page < pages_.size(); ++page) {
      const auto index = static_cast<int32_t>(page);
      pages_[page].key_tier = TierOf(setup_.scheme, KvTensor::kKey, index, complete);
      pages_[page].value_tier = TierOf(setup_.scheme, KvTensor::kValue, index, complete);
    }
  }

  /// What attention should see of a head: [tokens][D], keys at their absolute positions.
  std::vector<double> Stored(KvTensor tensor, int32_t head) {
    const int32_t size = shape_.head_size;
    const KvItem& item = setup_.scheme.item(setup_.shape, 0, tensor, head);
    const PlaneCode& code =
        codes_[static_cast<size_t>(static_cast<int32_t>(tensor) * shape_.kv_heads + head)];
    std::vector<double> all;
    for (size_t page = 0; page < pages_.size(); ++page) {
      std::vector<uint8_t> near(static_cast<size_t>(size) * kP * 2 + 256);
      for (int32_t slot = 0; slot < kP; ++slot) {
        const int32_t t = static_cast<int32_t>(page) * kP + slot;
        if (t >= kTokens) break;
        StoreNear(setup_.scheme.near, tensor, size, slot, Token(tensor, head, t), near.data());
      }
      std::vector<float> rows(static_cast<size_t>(size) * kP);
      LoadNear(setup_.scheme.near, tensor, size, near.data(), rows.data());
      const KvTier tier =
          tensor == KvTensor::kKey ? pages_[page].key_tier : pages_[page].value_tier;
      if (tier == KvTier::kNear) {
        all.insert(all.end(), rows.begin(), rows.end());
        continue;
      }
      const bool framed = item.codec == KvCodec::kPlanes && tensor == KvTensor::kKey;
      const float* start = rope_.row(static_cast<int32_t>(page) / 8 * 512);
      const bool interleaved = setup_.rope_style == RopeStyle::kInterleaved;
      const auto rotate_all = [&](double sign, auto& x) {
        for (int32_t slot = 0; framed && slot < kP; ++slot) {
          std::vector<double> row(x.begin() + slot * size, x.begin() + (slot + 1) * size);
          Rotate(start, interleaved, size, sign, row.data());
          std::copy(row.begin(), row.end(), x.begin() + slot * size);
        }
      };
      rotate_all(-1, rows);
      std::vector<uint8_t> base(static_cast<size_t>(size) * kP * 2 + 4096);
      std::vector<uint8_t> refinement(base.size());
      EncodeBlock(item, tensor, size, &code, rows.data(), base.data(), refinement.data());
      const bool fresh = tier == KvTier::kFresh && item.fresh_planes > item.base_planes;
      DecodeBlock(item, tensor, size, &code, base.data(), fresh ? refinement.data() : nullptr,
                  rows.data());
      std::vector<double> decoded(rows.begin(), rows.end());
      rotate_all(1, decoded);
      all.insert(all.end(), decoded.begin(), decoded.end());
    }
    return all;
  }

  std::vector<double> Row(int32_t head, int32_t token, const std::vector<double>& keys,
                          const std::vector<double>& values) const {
    const int32_t size = shape_.head_size;
    const float* q = qkv_.row(token) + head * size;
    std::vector<double> scores;
    double top = -1e300;
    for (int32_t t = 0; t <= token; ++t) {
      double score = 0;
      for (int32_t d = 0; d < size; ++d) {
        score += q[d] * keys[static_cast<size_t>(t * size + d)] / std::sqrt(size);
      }
      scores.push_back(score);
      top = std::max(top, score);
    }
    std::vector<double> out(static_cast<size_t>(size));
    double sum = 0;
    for (int32_t t = 0; t <= token; ++t) {
      const double weight = std::exp(scores[static_cast<size_t>(t)] - top);
      sum += weight;
      for (int32_t d = 0; d < size; ++d) {
        out[static_cast<size_t>(d)] += weight * values[static_cast<size_t>(t * size + d)];
      }
    }
    for (double& x : out) x /= sum;
    return out;
  }

  const KvItem& item() const { return setup_.scheme.items.front(); }

  /// Half a unit of the int8 key tables a plane, over the frames: the most a score can be off.
  double ScoreRounding(int32_t head, int32_t token) const {
    if (item().codec != KvCodec::kPlanes) return 0;
    const int32_t size = shape_.head_size;
    const PlaneCode& code = codes_[static_cast<size_t>(head / (shape_.heads / shape_.kv_heads))];
    double worst = 0;
    for (int32_t frame = 0; frame <= token; frame += 512) {
      std::vector<double> q(qkv_.row(token) + head * size, qkv_.row(token) + (head + 1) * size);
      Rotate(rope_.row(frame), setup_.rope_style == RopeStyle::kInterleaved, size, -1, q.data());
      for (int32_t p = 0; p < item().fresh_planes; ++p) {
        for (int32_t entry = 0; entry < 16; ++entry) {
          double score = 0;
          for (int32_t c = 0; c < 4; ++c) {
            const int32_t z = 4 * code.subvector[static_cast<size_t>(p)] + c;
            double along = 0;
            for (int32_t d = 0; d < size; ++d) {
              along += q[static_cast<size_t>(d)] * code.decode[static_cast<size_t>(z * size + d)];
            }
            score += along * code.codebook(p)[c * 16 + entry] / std::sqrt(size);
          }
          worst = std::max(worst, std::fabs(score));
        }
      }
    }
    return 0.5 * item().fresh_planes * worst / 127;
  }

  /// Half a unit a plane of every channel of z', through the decoding matrix, to channel d.
  double ValueRounding(int32_t kv_head, int32_t d) const {
    if (item().codec != KvCodec::kPlanes) return 0;
    const int32_t size = shape_.head_size;
    const PlaneCode& code = codes_[static_cast<size_t>(shape_.kv_heads + kv_head)];
    std::vector<double> reach(static_cast<size_t>(size));
    std::vector<double> planes(static_cast<size_t>(size));
    for (int32_t p = 0; p < item().fresh_planes; ++p) {
      for (int32_t c = 0; c < 4; ++c) {
        const auto z = static_cast<size_t>(4 * code.subvector[static_cast<size_t>(p)] + c);
        const float* row = code.codebook(p) + c * 16;
        double largest = 0;
        for (int32_t e = 0; e < 16; ++e) largest = std::max(largest, std::fabs(double{row[e]}));
        reach[z] += largest;
        planes[z] += 1;
      }
    }
    double sum = 0;
    for (size_t z = 0; z < reach.size(); ++z) {
      const double unit = reach[z] / (127 - 0.5 * planes[z]);
      sum += 0.5 * planes[z] * unit *
             std::fabs(code.decode[z * static_cast<size_t>(size) + static_cast<size_t>(d)]);
    }
    return sum;
  }

  AttentionShape shape_;
  std::unique_ptr<Backend> backend_;
  Matrix qkv_;
  Matrix rope_;
  KvSetup setup_;
  PlaneCodes codes_;
  std::vector<KvPage> pages_;
};

constexpr Case kCases[] = {
    {"minmax1", {.codec = KvCodec::kMinMax, .bits = 1}, KvCodec::kHalf},
    {"minmax2", {.codec = KvCodec::kMinMax, .bits = 2}, KvCodec::kHalf},
    {"minmax4", {.codec = KvCodec::kMinMax, .bits = 4}, KvCodec::kInt8},
    {"fitted1", {.codec = KvCodec::kFitted, .bits = 1}, KvCodec::kHalf},
    {"fitted2", {.codec = KvCodec::kFitted, .bits = 2}, KvCodec::kInt8},
    {"fitted4", {.codec = KvCodec::kFitted, .bits = 4}, KvCodec::kHalf},
    {"int8", {.codec = KvCodec::kInt8}, KvCodec::kInt8},
    {"half", {.codec = KvCodec::kHalf}, KvCodec::kHalf},
    {"planes", {.codec = KvCodec::kPlanes, .base_planes = 8, .fresh_planes = 20}, KvCodec::kInt8},
    {"planes_aged",
     {.codec = KvCodec::kPlanes, .base_planes = 6, .fresh_planes = 6},
     KvCodec::kHalf},
};
constexpr AttentionShape kShapes[] = {{3, 1, 64}, {4, 2, 80}, {2, 2, 24}, {2, 1, 128}, {1, 1, 96}};

class PackedAttentionTest : public ::testing::TestWithParam<std::tuple<Case, AttentionShape>> {};

struct Tolerance {
  double worst;
  double root_mean_square;
};

Tolerance ToleranceOf(const Case& c) {
  if (c.item.codec == KvCodec::kPlanes) return {1e-3, 1e-2};  // worst: on top of the bound
  if (c.item.codec == KvCodec::kHalf && c.near == KvCodec::kHalf) return {2e-5, 5e-6};
  return {1e-3, 2e-4};
}

TEST_P(PackedAttentionTest, IsWithinItsBoundOfADoubleReference) {
  const auto& [c, shape] = GetParam();
  const Tolerance tolerance = ToleranceOf(c);
  for (const Isa isa : SupportedIsas()) {
    for (const bool interleaved : {false, true}) {
      Cache cache(isa, 1, c, shape, interleaved);
      for (const int32_t first : {kTokens - 1, kTokens - 9}) {
        const auto error = cache.ErrorOf(cache.Attend(first), first, tolerance.worst);
        EXPECT_LT(error.worst, 1.0) << IsaName(isa) << " from token " << first << " interleaved "
                                    << interleaved << ": " << error.worst_absolute;
        EXPECT_LT(std::sqrt(error.mean_square), tolerance.root_mean_square)
            << IsaName(isa) << " from token " << first;
      }
    }
  }
}

/// All heads of token 0 draw nearly all of the last token's attention and have no value, as the
/// first token of a Llama model does.
void MakeSink(const AttentionShape& shape, Matrix& qkv) {
  constexpr float kGap =
      14;  // a weight of e^-14 fell under one step of fixed point against the sink
  const int32_t size = shape.head_size;
  const int32_t group = shape.heads / shape.kv_heads;
  for (int32_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
    float* key = qkv.row(0) + (shape.heads + kv_head) * size;
    float* value = key + shape.kv_heads * size;
    for (int32_t h = 0; h < group; ++h) {  // one query for the group
      float* q = qkv.row(kTokens - 1) + (kv_head * group + h) * size;
      float square = 0;
      for (int32_t d = 0; d < size; ++d) {
        q[d] = qkv.row(kTokens - 1)[kv_head * group * size + d];
        square += q[d] * q[d];
      }
      const float norm = kGap * std::sqrt(static_cast<float>(size)) / square;
      for (int32_t d = 0; d < size; ++d) key[d] = q[d] * norm;
    }
    std::fill_n(value, size, 0.0f);
  }
}

TEST_P(PackedAttentionTest, SeesOldValuesBesideASinkThatDrawsNearlyAllAttention) {
  const auto& [c, shape] = GetParam();
  if (c.item.codec != KvCodec::kPlanes) return;  // the others have a scale of their own a page
  const AttentionShape& s = shape;
  for (const Isa isa : SupportedIsas()) {
    Cache cache(isa, 1, c, shape, false, [&](Matrix& qkv) { MakeSink(s, qkv); });
    const auto error = cache.ErrorOf(cache.Attend(kTokens - 1), kTokens - 1, 1e-3);
    EXPECT_LT(error.mean_square, 0.05 * error.expected_mean_square) << IsaName(isa);
  }
}

TEST_P(PackedAttentionTest, GivesNanForANanQueryAndChangesNoOtherRow) {
  const auto& [c, shape] = GetParam();
  for (const Isa isa : SupportedIsas()) {
    Cache whole(isa, 1, c, shape, false);
    Cache broken(isa, 1, c, shape, false, [](Matrix& qkv) {
      qkv.row(kTokens - 2)[1] = std::numeric_limits<float>::quiet_NaN();
      qkv.row(kTokens - 2)[3] = std::numeric_limits<float>::infinity();
    });
    const Matrix expected = whole.Attend(kTokens - 3);
    const Matrix got = broken.Attend(kTokens - 3);
    for (int32_t d = 0; d < shape.head_size; ++d) {
      EXPECT_TRUE(std::isnan(got.row(1)[d])) << IsaName(isa) << " channel " << d;
      for (const int32_t row : {0, 2}) {
        EXPECT_EQ(got.row(row)[d], expected.row(row)[d]) << IsaName(isa) << " row " << row;
      }
    }
    EXPECT_EQ(got.row(1)[shape.head_size], expected.row(1)[shape.head_size]) << "the next head";
  }
}

TEST_P(PackedAttentionTest, HasTheSameBitsForEveryInstructionSetAndThreadCount) {
  const auto& [c, shape] = GetParam();
  const Matrix expected = Cache(Isa::kPortable, 1, c, shape, true).Attend(kTokens - 9);
  for (const Isa isa : SupportedIsas()) {
    for (const int threads : {1, 3}) {
      EXPECT_TRUE(
          SameBits(Cache(isa, threads, c, shape, true).Attend(kTokens - 9).values, expected.values))
          << IsaName(isa) << " with " << threads << " threads";
    }
  }
}

std::string CaseName(const ::testing::TestParamInfo<std::tuple<Case, AttentionShape>>& info) {
  return std::string(std::get<0>(info.param).name) + "_" +
         std::to_string(std::get<1>(info.param).head_size);
}
INSTANTIATE_TEST_SUITE_P(EveryCodecAndShape, PackedAttentionTest,
                         ::testing::Combine(::testing::ValuesIn(kCases),
                                            ::testing::ValuesIn(kShapes)),
                         CaseName);

}  // namespace
}  // namespace asymserve
