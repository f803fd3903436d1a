#include "bench/cuda/bench_scheme.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <utility>

namespace asymserve::bench {

void NeedOk(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

std::vector<float> Random(int64_t count, uint32_t seed, float sigma) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

BenchScheme::BenchScheme(const std::string& name, const KvShape& shape) {
  if (name != "balanced" && name != "dense") {
    auto named = NamedKvScheme(name, shape);
    NeedOk(named.status());
    scheme = *std::move(named);
    return;
  }
  const int32_t size = shape.head_size;
  // A plane has 4 bits for a token and 4 channels.
  const auto base = static_cast<uint8_t>(name == "balanced" ? size / 4 : size * 3 / 16);
  const auto fresh = static_cast<uint8_t>(size * 3 / 4);
  scheme.name = name;
  scheme.near = KvCodec::kInt8;
  scheme.sink_pages = 1;
  scheme.fresh_pages = 4;
  scheme.key_window = scheme.value_window = {.recent_pages = 1, .block_pages = 1};
  const auto items = static_cast<size_t>(2 * shape.layers * shape.kv_heads);
  scheme.items.assign(items,
                      {.codec = KvCodec::kPlanes, .base_planes = base, .fresh_planes = fresh});
  PlaneCode code;
  code.head_size = size;
  for (int32_t p = 0; p < fresh; ++p)
    code.subvector.push_back(static_cast<uint8_t>(p % (size / 4)));
  const float norm = 1.0f / std::sqrt(static_cast<float>(size));
  code.codebooks = Random(int64_t{fresh} * 64, 1, 1);
  code.encode = Random(int64_t{size} * size, 2, norm);
  code.decode = Random(int64_t{size} * size, 3, norm);
  code.mean = Random(size, 4, 1);
  codes.assign(items, code);
}

double PageBytes(const KvLayout& layout, const KvPage& page) {
  if (page.key_tier == KvTier::kNear) {
    return static_cast<double>(layout.record_bytes(KvRecord::kNear));
  }
  const int64_t finer =
      page.key_tier == KvTier::kFresh ? layout.record_bytes(KvRecord::kRefinement) : int64_t{0};
  return static_cast<double>(layout.record_bytes(KvRecord::kBase) + finer);
}

}  // namespace asymserve::bench
