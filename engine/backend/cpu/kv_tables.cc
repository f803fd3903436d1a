#include "engine/backend/cpu/kv_tables.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

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

PlaneTables PlaceCode(const PlaneCode& code, int32_t planes, KvTensor tensor, Carver& carver) {
  const int64_t size = code.head_size;
  auto* subvector = carver.Take<uint8_t>(planes);
  auto* by_channel = carver.Take<float>(int64_t{planes} * 64);
  auto* by_entry = carver.Take<float>(int64_t{planes} * 64);
  auto* transform = carver.Take<float>(size * Padded(size));
  auto* mean = carver.Take<float>(Padded(size));
  if (subvector == nullptr) return {};
  std::copy_n(code.subvector.begin(), planes, subvector);
  std::copy_n(code.codebooks.begin(), int64_t{planes} * 64, by_channel);
  for (int64_t p = 0; p < planes; ++p) {
    for (int64_t entry = 0; entry < 16; ++entry) {
      for (int64_t c = 0; c < 4; ++c) {
        by_entry[p * 64 + entry * 4 + c] = by_channel[p * 64 + c * 16 + entry];
      }
    }
  }
  FillTransform(code, tensor, transform);
  std::copy(code.mean.begin(), code.mean.end(), mean);
  return {planes, subvector, by_channel, by_entry, transform, mean};
}

absl::Status CheckCode(const KvSetup& setup, size_t index) {
  const KvItem& item = setup.scheme.items[index];
  const auto size = static_cast<size_t>(setup.shape.head_size);
  if (setup.codes == nullptr || setup.codes->size() != setup.scheme.items.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV scheme '", setup.scheme.name, "' needs the learned codes of a profile"));
  }
  const PlaneCode& code = (*setup.codes)[index];
  const size_t planes = code.subvector.size();
  const bool fits = code.head_size == setup.shape.head_size && planes >= item.fresh_planes &&
                    code.codebooks.size() == planes * 64 && code.encode.size() == size * size &&
                    code.decode.size() == size * size && code.mean.size() == size &&
                    std::all_of(code.subvector.begin(), code.subvector.end(),
                                [&](uint8_t s) { return s < size / 4; });
  if (!fits) {
    return absl::InvalidArgumentError(absl::StrCat(
        "KV item ", index, ": a code of ", planes, " planes for head size ", code.head_size,
        " does not fit ", int{item.fresh_planes}, " planes of head size ", size));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<KvTables> KvTables::Make(const KvSetup& setup) {
  KvTables tables;
  tables.kv_heads_ = setup.shape.kv_heads;
  tables.heads_.resize(size_t{2} * static_cast<size_t>(setup.shape.layers) *
                       static_cast<size_t>(setup.shape.kv_heads));
  const auto place_all = [&](Carver& carver) -> absl::Status {
    for (size_t i = 0; i < tables.heads_.size(); ++i) {
      KvHead& head = tables.heads_[i];
      head.near = setup.scheme.near;
      if (!setup.scheme.seals()) continue;
      head.item = setup.scheme.items[i];
      if (head.item.codec != KvCodec::kPlanes) continue;
      ASYMSERVE_RETURN_IF_ERROR(CheckCode(setup, i));
      const auto tensor = static_cast<KvTensor>(i / static_cast<size_t>(setup.shape.kv_heads) % 2);
      head.planes = PlaceCode((*setup.codes)[i], head.item.fresh_planes, tensor, carver);
    }
    return absl::OkStatus();
  };
  Carver counter(nullptr);
  ASYMSERVE_RETURN_IF_ERROR(place_all(counter));
  if (counter.used() == 0) return tables;
  ASYMSERVE_ASSIGN_OR_RETURN(tables.buffer_, AlignedBuffer::Allocate(counter.used()));
  Carver carver(tables.buffer_.data());
  ASYMSERVE_RETURN_IF_ERROR(place_all(carver));
  return tables;
}

}  // namespace asymserve
