#include "engine/model/mapped_weight_file.h"

#include <functional>
#include <span>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/model/printable.h"

namespace asymserve {

absl::StatusOr<WeightSource> MappedWeightFile::Find(std::string_view name) const {
  const WeightSource* source = table_.Find(name);
  if (source == nullptr) {
    return absl::NotFoundError(absl::StrCat("tensor ", Printable(name), " is missing"));
  }
  return *source;
}

void MappedWeightFile::Discard(const WeightSource& source) const {
  const auto bytes = static_cast<size_t>(source.rows * RowBytes(source.dtype, source.cols));
  const std::less<const std::byte*> before;
  for (const MappedFile& file : files_) {
    const std::span<const std::byte> all = file.bytes();
    if (before(source.data, all.data()) || !before(source.data, all.data() + all.size())) continue;
    file.Discard({source.data, bytes});
    return;
  }
}

}  // namespace asymserve
