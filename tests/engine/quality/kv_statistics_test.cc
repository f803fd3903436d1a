#include "engine/quality/kv_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/base/float16.h"
#include "engine/kv/item_name.h"
#include "engine/model/dequantize.h"
#include "engine/quality/pseudo_decode.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using testing::FailsWith;
using testing::IsOk;

constexpr int32_t kFrame = 128;
constexpr int32_t kSkip = 64;

/// A matrix of the file in double: [rows][cols].
struct Weights {
  std::vector<std::vector<double>> rows;

  std::vector<double> Times(const std::vector<double>& x) const {
    std::vector<double> out;
    for (const std::vector<double>& row : rows) {
      double sum = 0;
      for (size_t i = 0; i < x.size(); ++i) sum += row[i] * x[i];
      out.push_back(sum);
    }
    return out;
  }
};

/// A trained model of 260 K parameters, and its first layer computed by hand: keys and values there
/// depend on their own token only.
class KvStatisticsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto backend = MakeCpuBackend({.threads = 1});
    ASSERT_THAT(backend, IsOk());
    backend_ = *std::move(backend);
    auto file = OpenWeightFile(ASYMSERVE_SOURCE_DIR "/tests/golden/stories260K.gguf");
    ASSERT_THAT(file, IsOk());
    file_ = *std::move(file);
    auto model = LlamaModel::Load(*file_, *backend_, {});
    ASSERT_THAT(model, IsOk());
    model_ = *std::move(model);
    for (const int32_t length : {333, 100}) {
      std::vector<int32_t> tokens;
      for (int32_t i = 0; i < length; ++i) tokens.push_back(1 + (i * i * 7 + 3 * i) % 500);
      sequences_.push_back(tokens);
    }
    embedding_ = Read("token_embd.weight");
    norm_ = Read("blk.0.attn_norm.weight");
    q_ = Read("blk.0.attn_q.weight");
    k_ = Read("blk.0.attn_k.weight");
    v_ = Read("blk.0.attn_v.weight");
  }

  Weights Read(const std::string& name) {
    const auto source = file_->Find(name);
    EXPECT_THAT(source, IsOk());
    Weights weights;
    for (int64_t row = 0; row < source->rows; ++row) {
      const std::vector<float> values = DequantizeRow(
          source->dtype, source->data + row * RowBytes(source->dtype, source->cols), source->cols);
      weights.rows.emplace_back(values.begin(), values.end());
    }
    return weights;
  }

  std::vector<double> Normed(int32_t token) const {
    std::vector<double> x = embedding_.rows[static_cast<size_t>(token)];
    double squares = 0;
    for (const double value : x) squares += value * value;
    const double mean = squares / static_cast<double>(x.size());
    const double factor = 1 / std::sqrt(mean + static_cast<double>(model_->config().norm_epsilon));
    for (size_t i = 0; i < x.size(); ++i) x[i] *= factor * norm_.rows[0][i];
    return x;
  }

  /// Head `head` of `x`, rotated to `position`; pairs are (2i, 2i + 1).
  std::vector<double> Rotated(const std::vector<double>& x, int32_t head, int32_t position) const {
    const int32_t size = model_->config().attention.head_size;
    const auto begin = x.begin() + static_cast<ptrdiff_t>(head) * size;
    std::vector<double> out(begin, begin + size);
    for (int32_t i = 0; i < size / 2; ++i) {
      const auto pair = static_cast<size_t>(2 * i);
      const double angle =
          position * std::pow(static_cast<double>(model_->config().rope_base), -2.0 * i / size);
      const double a = out[pair];
      const double b = out[pair + 1];
      out[pair] = a * std::cos(angle) - b * std::sin(angle);
      out[pair + 1] = a * std::sin(angle) + b * std::cos(angle);
    }
    return out;
  }

  absl::StatusOr<KvStatistics> Collect(uint64_t seed = 1) {
    return CollectKvStatistics(
        *model_, *backend_, *file_, sequences_,
        {.frame_tokens = kFrame, .skip_tokens = kSkip, .query_offsets = 2048, .seed = seed});
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<WeightFile> file_;
  std::unique_ptr<LlamaModel> model_;
  std::vector<std::vector<int32_t>> sequences_;
  Weights embedding_, norm_, q_, k_, v_;
};

void ExpectNear(const SquareMatrix& actual, const SquareMatrix& expected, double tolerance) {
  double largest = 0;
  for (const double value : expected.values) largest = std::max(largest, std::abs(value));
  for (int32_t i = 0; i < actual.n; ++i) {
    for (int32_t j = 0; j < actual.n; ++j) {
      ASSERT_NEAR(actual.at(i, j), expected.at(i, j), tolerance * largest) << i << ", " << j;
    }
  }
}

TEST_F(KvStatisticsTest, RowsOfTheFirstLayerAreThoseComputedDirectly) {
  const auto statistics = Collect();
  ASSERT_THAT(statistics, IsOk());
  const KvShape shape = statistics->shape();
  ASSERT_EQ(statistics->rows(), 333 - kSkip + 100 - kSkip);
  ASSERT_EQ(statistics->items(), KvItemCount(shape));
  for (int32_t head = 0; head < shape.kv_heads; ++head) {
    const auto keys = statistics->Rows(KvItemIndex(shape, 0, KvTensor::kKey, head));
    const auto values = statistics->Rows(KvItemIndex(shape, 0, KvTensor::kValue, head));
    size_t at = 0;
    for (const std::vector<int32_t>& sequence : sequences_) {
      for (int32_t t = kSkip; t < static_cast<int32_t>(sequence.size()); ++t) {
        const std::vector<double> h = Normed(sequence[static_cast<size_t>(t)]);
        for (const double key : Rotated(k_.Times(h), head, t % kFrame)) {
          ASSERT_NEAR(static_cast<double>(keys[at]), key, 2e-3 * (1 + std::abs(key))) << t;
          ++at;
        }
        at -= static_cast<size_t>(shape.head_size);
        for (const double value : Rotated(v_.Times(h), head, 0)) {
          ASSERT_NEAR(static_cast<double>(values[at]), value, 1e-3 * (1 + std::abs(value))) << t;
          ++at;
        }
      }
    }
    EXPECT_EQ(at, keys.size());
    EXPECT_EQ(at, values.size());
  }
}

TEST_F(KvStatisticsTest, KeyMetricOfTheFirstLayerIsThatComputedDirectly) {
  const auto statistics = Collect();
  ASSERT_THAT(statistics, IsOk());
  const KvShape shape = statistics->shape();
  const int32_t group = model_->config().attention.heads / shape.kv_heads;
  ASSERT_GT(group, 1);
  for (int32_t head = 0; head < shape.kv_heads; ++head) {
    SquareMatrix expected(shape.head_size);
    int64_t token = 0;
    for (const std::vector<int32_t>& sequence : sequences_) {
      for (size_t t = kSkip; t < sequence.size(); ++t) {
        const std::vector<double> q = q_.Times(Normed(sequence[t]));
        const int32_t offset = statistics->QueryOffset(0, token++);
        for (int32_t h = head * group; h < (head + 1) * group; ++h) {
          const std::vector<double> rotated = Rotated(q, h, offset);
          for (int32_t i = 0; i < shape.head_size; ++i) {
            for (int32_t j = 0; j < shape.head_size; ++j) {
              expected.at(i, j) += rotated[static_cast<size_t>(i)] *
                                   rotated[static_cast<size_t>(j)] /
                                   static_cast<double>(statistics->rows() * group);
            }
          }
        }
      }
    }
    ExpectNear(statistics->Metric(KvItemIndex(shape, 0, KvTensor::kKey, head)), expected, 1e-4);
  }
}

TEST_F(KvStatisticsTest, ValueMetricIsTheProductOfTheOutputWeights) {
  const auto statistics = Collect();
  ASSERT_THAT(statistics, IsOk());
  const KvShape shape = statistics->shape();
  const int32_t group = model_->config().attention.heads / shape.kv_heads;
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    const Weights output = Read("blk." + std::to_string(layer) + ".attn_output.weight");
    for (int32_t head = 0; head < shape.kv_heads; ++head) {
      SquareMatrix expected(shape.head_size);
      for (const std::vector<double>& row : output.rows) {
        for (int32_t h = head * group; h < (head + 1) * group; ++h) {
          const double* w = row.data() + static_cast<ptrdiff_t>(h) * shape.head_size;
          for (int32_t i = 0; i < shape.head_size; ++i) {
            for (int32_t j = 0; j < shape.head_size; ++j) expected.at(i, j) += w[i] * w[j];
          }
        }
      }
      ExpectNear(statistics->Metric(KvItemIndex(shape, layer, KvTensor::kValue, head)), expected,
                 1e-12);
    }
  }
}

TEST_F(KvStatisticsTest, RowsOfEveryLayerAreWhatAttentionGets) {
  const ModelConfig& config = model_->config();
  const AttentionShape& attention = config.attention;
  const int32_t size = attention.head_size;
  KvStatistics statistics(config, 512, {.frame_tokens = 512, .skip_tokens = 0});
  std::vector<std::vector<float>> expected(statistics.items());
  model_->SetTap([&](int32_t layer, TensorView qkv, std::span<const int32_t> positions) {
    statistics.Observe(layer, qkv, positions);
    for (int64_t t = 0; t < qkv.rows(); ++t) {
      const float* x = qkv.Row<float>(t) + attention.heads * size;
      for (int32_t head = 0; head < 2 * attention.kv_heads; ++head) {
        auto& rows = expected[static_cast<size_t>(layer * 2 * attention.kv_heads + head)];
        for (int32_t d = 0; d < size; ++d) {
          rows.push_back(HalfToFloat(FloatToHalf(x[head * size + d])));
        }
      }
    }
  });
  KvSetup setup;
  setup.shape = statistics.shape();
  auto decoder = PseudoDecoder::Create(*model_, *backend_, setup, 333);
  ASSERT_THAT(decoder, IsOk());
  ASSERT_THAT(decoder->Run(sequences_[0], 333, nullptr), IsOk());
  model_->SetTap(nullptr);
  EXPECT_EQ(statistics.rows(), 333);
  for (size_t item = 0; item < statistics.items(); ++item) {
    ASSERT_EQ(statistics.Rows(item), expected[item]) << item;
  }
}

TEST_F(KvStatisticsTest, OffsetsAreUniformAndDependOnTheSeedOnly) {
  const KvStatistics a(model_->config(), 512, {.seed = 1});
  const KvStatistics b(model_->config(), 512, {.seed = 2});
  double sum = 0;
  int equal = 0;
  for (int64_t token = 0; token < 4000; ++token) {
    const int32_t offset = a.QueryOffset(3, token);
    ASSERT_GE(offset, 0);
    ASSERT_LT(offset, 2048);
    sum += offset;
    equal += offset == b.QueryOffset(3, token) ? 1 : 0;
  }
  EXPECT_NEAR(sum / 4000, 1023.5, 40);
  EXPECT_LT(equal, 20);

  const auto first = Collect(7);
  const auto again = Collect(7);
  const auto other = Collect(8);
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(again, IsOk());
  ASSERT_THAT(other, IsOk());
  EXPECT_EQ(first->Metric(0).values, again->Metric(0).values);
  EXPECT_EQ(first->Rows(5), again->Rows(5));
  EXPECT_NE(first->Metric(0).values, other->Metric(0).values);
}

TEST_F(KvStatisticsTest, NamesASequenceThatDoesNotFit) {
  sequences_.emplace_back(600, 1);
  EXPECT_THAT(Collect(), FailsWith(absl::StatusCode::kInvalidArgument,
                                   "sequence 2 has 600 tokens, the context 512"));
}

}  // namespace
}  // namespace asymserve
