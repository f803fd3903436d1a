#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "engine/backend/cuda/paged_attention.h"
#include "tests/engine/backend/cuda/device_arena.h"
#include "tests/simt/orders.h"

namespace asymserve::testing {

constexpr KvItem Planes(uint8_t base, uint8_t fresh) {
  return {.codec = KvCodec::kPlanes, .base_planes = base, .fresh_planes = fresh};
}
constexpr KvItem Scalar(KvCodec codec, uint8_t bits = 0) {
  return {.codec = codec, .bits = bits};
}

/// A sequence whose last `rows` tokens are the step's.
struct AttendedSequence {
  int32_t tokens;
  int32_t rows;
  bool exact = false;
  Matrix qkv = Matrix(1, 1);
  std::vector<KvPage> pages = {};
};

/// What a test of attention runs on.
struct AttentionCase {
  const char* name;
  AttentionShape shape;
  KvCodec near;
  std::vector<KvItem> items;  // [L][2][G]; as many as there are, in turn; none: never sealed
  bool interleaved = false;
  int32_t layers = 1;  // attention is that of the last
  bool unequal_windows = false;
  int32_t frame_tokens = 512;
};

/// Ragged sequences in an arena "on the device", and attention of steps that they make.
class AttentionFixture : public ::testing::TestWithParam<AttentionCase> {
 protected:
  static constexpr int32_t kP = kKvPageTokens;
  using Operation = cudaError_t(const cuda::AttentionArgs&, cudaStream_t);

  explicit AttentionFixture(Operation* operation, int32_t pages = 24)
      : operation_(operation),
        shape_(GetParam().shape),
        layer_(GetParam().layers - 1),
        scheme_({GetParam().layers, shape_.kv_heads, shape_.head_size}, GetParam().near,
                GetParam().items, 12 * kP, GetParam().interleaved, GetParam().unequal_windows,
                GetParam().frame_tokens),
        device_(scheme_, pages),
        view_(device_.view()) {
    sequences_ = {{10 * kP + 7, 1}, {1, 1}, {70, 3, true}, {4 * kP + 1, 2}};
    uint32_t seed = 20;
    for (AttendedSequence& s : sequences_) Fill(&s, ++seed);
  }

  /// Writes all tokens, sets the tiers that the step's rows see, and seals the pages that are read
  /// so; the sealed records of others stay unwritten.
  void Fill(AttendedSequence* s, uint32_t seed) {
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

  /// Writes a token again, as qkv has it now.
  void Rewrite(const AttendedSequence& s, int32_t token) {
    const std::vector<AttentionRow> row = {{.position = token}};
    EXPECT_EQ(cuda::KvWrite(device_.view(), layer_, s.qkv.row(token), Cols(), row.data(),
                            s.pages.data(), 1, nullptr),
              cudaSuccess)
        << LaunchFault();
  }

  int64_t Cols() const { return (shape_.heads + int64_t{2} * shape_.kv_heads) * shape_.head_size; }

  /// Attention of the step that those sequences make.
  Matrix Attend(const std::vector<const AttendedSequence*>& sequences) {
    Matrix out(1, 1);
    EXPECT_EQ(TryAttend(sequences, &out), cudaSuccess) << LaunchFault();
    return out;
  }

  cudaError_t TryAttend(const std::vector<const AttendedSequence*>& sequences, Matrix* out) {
    std::vector<int32_t> positions;
    std::vector<int32_t> token_offset = {0};
    std::vector<int32_t> page_offset = {0};
    std::vector<KvPage> pages;
    std::vector<float> qkv;
    for (const AttendedSequence* s : sequences) {
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
                                      .tiles = plan.tiles.data(),
                                      .tile_count = static_cast<int32_t>(plan.tiles.size()),
                                      .single_tiles = plan.single_tiles,
                                      .most_rows = plan.most_rows,
                                      .states = states.data()};
    return operation_(args, nullptr);
  }

  std::vector<const AttendedSequence*> All() const {
    std::vector<const AttendedSequence*> all;
    for (const AttendedSequence& s : sequences_) all.push_back(&s);
    return all;
  }

  /// [tokens of the pages][D] as stored, keys at their absolute positions.
  std::vector<double> Stored(const AttendedSequence& s, KvTensor tensor, int32_t head) const {
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
      const int32_t frame = scheme_.setup.scheme.frame_tokens;
      const float* angles = scheme_.rope.row(static_cast<int32_t>(i) * kP / frame * frame);
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
  double WorstError(const AttendedSequence& s, const Matrix& out, int64_t first_row) const {
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

  Operation* operation_;
  AttentionShape shape_;
  int32_t layer_;
  TestScheme scheme_;
  DeviceArena device_;
  cuda::KvView view_;  // what attention gets
  std::vector<AttendedSequence> sequences_;
};

}  // namespace asymserve::testing
