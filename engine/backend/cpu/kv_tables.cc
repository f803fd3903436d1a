#include "engine/backend/cpu/kv_tables.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

#include "engine/backend/kv_checks.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

int64_t Padded(int64_t head_size) {
  return (head_size + 15) / 16 * 16;
}

/// Hands out cache lines of a buffer; with a null base it only counts.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}

  template <typename T>
  T* Take(int64_t count) {
    T* place = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return place;
  }
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

/// out [D][Dp]: the decoding matrix for values, its transpose for queries.
void FillTransform(const PlaneCode& code, KvTensor tensor, float* out) {
  const int64_t size = code.head_size;
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < size; ++j) {
      out[i * Padded(size) + j] = tensor == KvTensor::kKey
                                      ? code.decode[static_cast<size_t>(j * size + i)]
                                      : code.decode[static_cast<size_t>(i * size + j)];
    }
  }
}

/// The planes of each subvector, in order.
void ListPlanes(const PlaneCode& code, int32_t planes, uint8_t* by_subvector, uint8_t* first_of) {
  const int32_t subvectors = code.head_size / 4;
  uint8_t count = 0;
  for (int32_t s = 0; s < subvectors; ++s) {
    first_of[s] = count;
    for (int32_t p = 0; p < planes; ++p) {
      if (code.subvector[static_cast<size_t>(p)] == s) {
        by_subvector[count++] = static_cast<uint8_t>(p);
      }
    }
  }
  first_of[subvectors] = count;
}

/// Rounds the codebooks to int8 with a scale per channel, so that no sum over the planes of a
/// subvector leaves [-127, 127]: rounding adds half a unit a plane at most.
void RoundCodebooks(const PlaneCode& code, int32_t planes, int8_t* entries, float* scale) {
  std::vector<float> reach(static_cast<size_t>(code.head_size));
  std::vector<float> count(static_cast<size_t>(code.head_size));
  const auto channel = [&](int32_t p, int32_t c) {
    return static_cast<size_t>(4 * code.subvector[static_cast<size_t>(p)] + c);
  };
  const auto each = [&](auto visit) {
    for (int32_t p = 0; p < planes; ++p) {
      for (int32_t c = 0; c < 4; ++c) visit(p, c, code.codebook(p) + int64_t{c} * 16);
    }
  };
  each([&](int32_t p, int32_t c, const float* values) {
    float largest = 0.0f;
    for (int32_t e = 0; e < 16; ++e) largest = std::max(largest, std::fabs(values[e]));
    reach[channel(p, c)] += largest;
    count[channel(p, c)] += 1.0f;
  });
  for (size_t d = 0; d < reach.size(); ++d) scale[d] = reach[d] / (127.0f - 0.5f * count[d]);
  each([&](int32_t p, int32_t c, const float* values) {
    const float unit = scale[channel(p, c)];
    for (int32_t e = 0; e < 16; ++e) {
      entries[(int64_t{p} * 4 + c) * 16 + e] =
          unit > 0.0f ? static_cast<int8_t>(std::nearbyint(values[e] / unit)) : int8_t{0};
    }
  });
}

/// Where the tables of a code are, and with a null base only how much they take.
struct PlacedCode {
  uint8_t* subvector;
  float* transform;
  float* mean;
  float* encode;
  float* codebooks;
  int8_t* entries;
  float* scale;
  uint8_t* by_subvector;
  uint8_t* first_of;
};

PlacedCode PlaceTables(int64_t size, int64_t planes, KvTensor tensor, Carver& carver) {
  const bool value = tensor == KvTensor::kValue;
  PlacedCode placed = {};
  placed.subvector = carver.Take<uint8_t>(planes);
  placed.transform = carver.Take<float>(size * Padded(size));
  placed.mean = carver.Take<float>(Padded(size));
  placed.encode = carver.Take<float>(size * size);
  placed.codebooks = carver.Take<float>(planes * 64);
  placed.entries = carver.Take<int8_t>(value ? planes * 64 : 0);
  placed.scale = carver.Take<float>(value ? Padded(size) : 0);
  placed.by_subvector = carver.Take<uint8_t>(value ? planes : 0);
  placed.first_of = carver.Take<uint8_t>(value ? size / 4 + 1 : 0);
  return placed;
}

PlaneTables Fill(const PlacedCode& placed, const PlaneCode& code, int32_t planes, KvTensor tensor) {
  std::copy_n(code.subvector.begin(), planes, placed.subvector);
  FillTransform(code, tensor, placed.transform);
  std::copy(code.mean.begin(), code.mean.end(), placed.mean);
  std::copy(code.encode.begin(), code.encode.end(), placed.encode);
  std::copy_n(code.codebooks.begin(), int64_t{planes} * 64, placed.codebooks);
  if (tensor == KvTensor::kValue) {
    ListPlanes(code, planes, placed.by_subvector, placed.first_of);
    RoundCodebooks(code, planes, placed.entries, placed.scale);
  }
  return {.subvector = placed.subvector,
          .transform = placed.transform,
          .mean = placed.mean,
          .encode = placed.encode,
          .codebooks = placed.codebooks,
          .entries = placed.entries,
          .scale = placed.scale,
          .by_subvector = placed.by_subvector,
          .first_of = placed.first_of};
}

KvTensor TensorOf(const KvShape& shape, size_t item) {
  return static_cast<KvTensor>(item / static_cast<size_t>(shape.kv_heads) % 2);
}

absl::Status CheckStages(const KvSetup& setup, size_t index) {
  const PlaneCode& code = (*setup.codes)[index];
  const auto size = static_cast<size_t>(setup.shape.head_size);
  // The int8 sum of a subvector's planes would be left with too few steps a plane.
  constexpr int64_t kMaxStages = 64;
  for (size_t s = 0; s < size / 4; ++s) {
    const int64_t stages = std::count(code.subvector.begin(), code.subvector.end(), s);
    if (stages > kMaxStages) {
      return absl::InvalidArgumentError(absl::StrCat("KV item ", index, ": ", stages,
                                                     " planes of subvector ", s, "; the cpu reads ",
                                                     kMaxStages, " at most"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status KvTables::Check(const KvSetup& setup) {
  ASYMSERVE_RETURN_IF_ERROR(CheckPlaneCodes(setup));
  for (size_t i = 0; i < setup.scheme.items.size(); ++i) {
    if (setup.scheme.items[i].codec != KvCodec::kPlanes) continue;
    ASYMSERVE_RETURN_IF_ERROR(CheckStages(setup, i));
  }
  return absl::OkStatus();
}

int64_t KvTables::Bytes(const KvShape& shape, const KvScheme& scheme) {
  Carver counter(nullptr);
  for (size_t i = 0; i < scheme.items.size(); ++i) {
    const KvItem& item = scheme.items[i];
    if (item.codec != KvCodec::kPlanes) continue;
    PlaceTables(shape.head_size, item.fresh_planes, TensorOf(shape, i), counter);
  }
  return counter.used();
}

absl::StatusOr<KvTables> KvTables::Make(const KvSetup& setup,
                                        const std::shared_ptr<MemoryRegion>& region) {
  ASYMSERVE_RETURN_IF_ERROR(Check(setup));
  KvTables tables;
  tables.kv_heads_ = setup.shape.kv_heads;
  tables.heads_.resize(size_t{2} * static_cast<size_t>(setup.shape.layers) *
                       static_cast<size_t>(setup.shape.kv_heads));
  ASYMSERVE_ASSIGN_OR_RETURN(tables.buffer_,
                             AlignedBuffer::Allocate(region, Bytes(setup.shape, setup.scheme)));
  Carver carver(tables.buffer_.data());
  for (size_t i = 0; i < tables.heads_.size(); ++i) {
    KvHead& head = tables.heads_[i];
    head.near = setup.scheme.near;
    if (!setup.scheme.seals()) continue;
    head.item = setup.scheme.items[i];
    if (head.item.codec != KvCodec::kPlanes) continue;
    const KvTensor tensor = TensorOf(setup.shape, i);
    const int32_t planes = head.item.fresh_planes;
    const PlacedCode placed = PlaceTables(setup.shape.head_size, planes, tensor, carver);
    head.planes = Fill(placed, (*setup.codes)[i], planes, tensor);
  }
  return tables;
}

}  // namespace asymserve
