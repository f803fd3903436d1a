#include "engine/quality/kv_statistics.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/check.h"
#include "engine/base/float16.h"
#include "engine/base/philox.h"
#include "engine/base/status.h"
#include "engine/kv/item_name.h"
#include "engine/model/dequantize.h"
#include "engine/quality/pseudo_decode.h"

namespace asymserve {
namespace {

void AppendHalves(std::span<const float> values, std::vector<uint16_t>& halves) {
  for (const float value : values) halves.push_back(FloatToHalf(value));
}

/// Adds x x^T to the lower triangle of sums [n][n].
template <typename T>
void AddOuterProduct(std::span<const float> x, std::vector<T>& sums) {
  const size_t n = x.size();
  for (size_t row = 0; row < n; ++row) {
    const T factor = x[row];
    T* out = sums.data() + row * n;
    for (size_t col = 0; col <= row; ++col) out[col] += factor * static_cast<T>(x[col]);
  }
}

}  // namespace

KvStatistics::KvStatistics(const ModelConfig& config, int32_t positions,
                           const KvStatisticsOptions& options)
    : attention_(config.attention),
      rope_style_(config.rope_style),
      options_(options),
      shape_{config.layers, config.attention.kv_heads, config.attention.head_size},
      rope_(RopeTable(config, std::max(positions, options.query_offsets))),
      items_(KvItemCount(shape_)) {
  for (Item& item : items_) item.metric = SquareMatrix(shape_.head_size);
}

KvStatistics::Item& KvStatistics::At(int32_t layer, KvTensor tensor, int32_t head) {
  return items_[KvItemIndex(shape_, layer, tensor, head)];
}

int64_t KvStatistics::rows() const {
  return static_cast<int64_t>(items_.front().rows.size()) / shape_.head_size;
}

int32_t KvStatistics::QueryOffset(int32_t layer, int64_t token) const {
  const double uniform =
      PhiloxUniform(options_.seed, static_cast<uint64_t>(token), static_cast<uint32_t>(layer));
  return static_cast<int32_t>(uniform * options_.query_offsets);
}

void KvStatistics::Turn(float* head, int32_t positions, bool back) const {
  const int32_t pairs = shape_.head_size / 2;
  const float* row = rope_.data() + int64_t{positions} * shape_.head_size;
  const bool interleaved = rope_style_ == RopeStyle::kInterleaved;
  const int32_t step = interleaved ? 2 : 1;
  const int32_t distance = interleaved ? 1 : pairs;
  for (int32_t pair = 0; pair < pairs; ++pair) {
    const float cosine = row[pair];
    const float sine = back ? -row[pairs + pair] : row[pairs + pair];
    float& first = head[step * pair];
    float& second = head[step * pair + distance];
    const float x = first;
    const float y = second;
    first = x * cosine - y * sine;
    second = x * sine + y * cosine;
  }
}

void KvStatistics::AddKey(Item& item, const float* key, int32_t position) {
  std::vector<float> turned(key, key + shape_.head_size);
  Turn(turned.data(), position - position % options_.frame_tokens, /*back=*/true);
  AppendHalves(turned, item.rows);
}

void KvStatistics::AddQueries(Item& item, std::span<const float> queries) {
  const auto width = static_cast<size_t>(shape_.head_size);
  // In float over one step, in double over all.
  std::vector<float> sums(width * width);
  for (size_t begin = 0; begin < queries.size(); begin += width) {
    AddOuterProduct(queries.subspan(begin, width), sums);
  }
  for (size_t i = 0; i < sums.size(); ++i) item.metric.values[i] += static_cast<double>(sums[i]);
}

void KvStatistics::Observe(int32_t layer, TensorView qkv, std::span<const int32_t> positions) {
  const int32_t width = shape_.head_size;
  const int32_t group = attention_.heads / attention_.kv_heads;
  ASYMSERVE_CHECK(qkv.place == Place::kHost && qkv.dtype == DType::kF32 &&
                  qkv.rows() == static_cast<int64_t>(positions.size()) &&
                  qkv.row_elements() == (attention_.heads + 2 * attention_.kv_heads) * width);
  std::vector<float> queries;
  for (int32_t head = 0; head < attention_.kv_heads; ++head) {
    Item& keys = At(layer, KvTensor::kKey, head);
    Item& values = At(layer, KvTensor::kValue, head);
    queries.clear();
    for (size_t t = 0; t < positions.size(); ++t) {
      const int32_t position = positions[t];
      if (position < options_.skip_tokens) continue;
      const int64_t token = static_cast<int64_t>(keys.rows.size()) / width;
      const float* q = qkv.Row<float>(static_cast<int64_t>(t));
      const float* k = q + int64_t{attention_.heads + head} * width;
      const float* v = k + int64_t{attention_.kv_heads} * width;
      AddKey(keys, k, position);
      AppendHalves({v, static_cast<size_t>(width)}, values.rows);
      for (int32_t h = head * group; h < (head + 1) * group; ++h) {
        const float* query = q + int64_t{h} * width;
        queries.insert(queries.end(), query, query + width);
        Turn(queries.data() + queries.size() - width, position, /*back=*/true);
        Turn(queries.data() + queries.size() - width, QueryOffset(layer, token), /*back=*/false);
      }
    }
    AddQueries(keys, queries);
  }
}

void KvStatistics::SetOutputWeight(int32_t layer, const WeightSource& weight) {
  const auto width = static_cast<size_t>(shape_.head_size);
  const int32_t group = attention_.heads / attention_.kv_heads;
  ASYMSERVE_CHECK(weight.cols == int64_t{attention_.heads} * shape_.head_size);
  for (int32_t head = 0; head < attention_.kv_heads; ++head) {
    At(layer, KvTensor::kValue, head).metric = SquareMatrix(shape_.head_size);
  }
  for (int64_t row = 0; row < weight.rows; ++row) {
    const std::byte* bytes = weight.data + row * RowBytes(weight.dtype, weight.cols);
    const std::vector<float> values = DequantizeRow(weight.dtype, bytes, weight.cols);
    for (int32_t h = 0; h < attention_.heads; ++h) {
      AddOuterProduct(std::span(values).subspan(static_cast<size_t>(h) * width, width),
                      At(layer, KvTensor::kValue, h / group).metric.values);
    }
  }
}

std::vector<float> KvStatistics::Rows(size_t item) const {
  std::vector<float> rows;
  rows.reserve(items_[item].rows.size());
  for (const uint16_t half : items_[item].rows) rows.push_back(HalfToFloat(half));
  return rows;
}

SquareMatrix KvStatistics::Metric(size_t item) const {
  SquareMatrix metric = items_[item].metric;
  const bool key = item / static_cast<size_t>(shape_.kv_heads) % 2 == 0;
  const int64_t queries = rows() * (attention_.heads / attention_.kv_heads);
  for (int32_t row = 0; row < metric.n; ++row) {
    for (int32_t col = 0; col <= row; ++col) {
      if (key) metric.at(row, col) /= static_cast<double>(std::max<int64_t>(queries, 1));
      metric.at(col, row) = metric.at(row, col);
    }
  }
  return metric;
}

namespace {

/// Runs every sequence with exact pages.
absl::Status RunSequences(LlamaModel& model, Backend& backend,
                          std::span<const std::vector<int32_t>> sequences) {
  const ModelConfig& config = model.config();
  KvSetup setup;
  setup.shape = {config.layers, config.attention.kv_heads, config.attention.head_size};
  ASYMSERVE_ASSIGN_OR_RETURN(setup.scheme, NamedKvScheme("exact", setup.shape));
  size_t longest = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    longest = std::max(longest, sequences[i].size());
    if (sequences[i].size() > static_cast<size_t>(model.context_length())) {
      return absl::InvalidArgumentError(absl::StrCat("sequence ", i, " has ", sequences[i].size(),
                                                     " tokens, the context ",
                                                     model.context_length()));
    }
  }
  ASYMSERVE_ASSIGN_OR_RETURN(
      PseudoDecoder decoder,
      PseudoDecoder::Create(model, backend, std::move(setup), static_cast<int32_t>(longest)));
  for (const std::vector<int32_t>& sequence : sequences) {
    const auto none = static_cast<int32_t>(sequence.size());
    ASYMSERVE_RETURN_IF_ERROR(decoder.Run(sequence, none, nullptr));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<KvStatistics> CollectKvStatistics(LlamaModel& model, Backend& backend,
                                                 const WeightFile& file,
                                                 std::span<const std::vector<int32_t>> sequences,
                                                 const KvStatisticsOptions& options) {
  KvStatistics statistics(model.config(), model.context_length(), options);
  for (int32_t layer = 0; layer < model.config().layers; ++layer) {
    ASYMSERVE_ASSIGN_OR_RETURN(const WeightSource weight,
                               file.Find(absl::StrCat("blk.", layer, ".attn_output.weight")));
    statistics.SetOutputWeight(layer, weight);
    file.Discard(weight);
  }
  model.SetTap([&](int32_t layer, TensorView qkv, std::span<const int32_t> positions) {
    statistics.Observe(layer, qkv, positions);
  });
  const absl::Status status = RunSequences(model, backend, sequences);
  model.SetTap(nullptr);
  if (!status.ok()) return status;
  return statistics;
}

}  // namespace asymserve
