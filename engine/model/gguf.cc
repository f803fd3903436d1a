#include "engine/model/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/base/byte_reader.h"
#include "engine/base/status.h"
#include "engine/model/ggml_type.h"
#include "engine/model/printable.h"

namespace asymserve {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
// More than any model has; they bound the memory of a directory of tiny entries.
constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint64_t kMaxTensors = 1 << 17;
constexpr uint64_t kMaxNameBytes = 1024;
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr int kMaxArrayDepth = 4;

/// Bytes of a value of fixed size, 0 for strings and arrays.
uint64_t FixedSize(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

bool IsKnown(GgufType type) {
  return type <= GgufType::kFloat64;
}

std::string_view AsString(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

/// One pass over the bytes, filling a Gguf.
class GgufParser {
 public:
  explicit GgufParser(std::span<const std::byte> file) : file_(file), reader_(file) {}

  absl::StatusOr<Gguf> Run() {
    uint64_t tensors = 0;
    uint64_t keys = 0;
    ASYMSERVE_RETURN_IF_ERROR(ReadHeader(tensors, keys));
    for (uint64_t i = 0; i < keys; ++i) {
      ASYMSERVE_RETURN_IF_ERROR(ReadKey(i));
    }
    ASYMSERVE_ASSIGN_OR_RETURN(const uint64_t alignment, Alignment());
    for (uint64_t i = 0; i < tensors; ++i) {
      ASYMSERVE_RETURN_IF_ERROR(ReadTensor(i, alignment));
    }
    ASYMSERVE_RETURN_IF_ERROR(PlaceTensors(alignment));
    ASYMSERVE_RETURN_IF_ERROR(CheckOverlap());
    return std::move(gguf_);
  }

 private:
  absl::Status Truncated(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("the file ends within ", std::string(what),
                                                   " at byte ", reader_.offset(), ", ",
                                                   reader_.remaining(), " bytes left"));
  }

  absl::Status ReadHeader(uint64_t& tensors, uint64_t& keys) {
    uint32_t magic = 0;
    uint32_t version = 0;
    if (!reader_.Read(magic)) return Truncated("the magic number");
    if (magic != kMagic) return absl::InvalidArgumentError("not a GGUF file: wrong magic number");
    if (!reader_.Read(version)) return Truncated("the version");
    if (version == 0x02000000 || version == 0x03000000) {
      return absl::UnimplementedError("a big-endian GGUF file");
    }
    if (version != 2 && version != 3) {
      return absl::UnimplementedError(absl::StrCat("GGUF version ", version, ", need 2 or 3"));
    }
    if (!reader_.Read(tensors)) return Truncated("the tensor count");
    if (!reader_.Read(keys)) return Truncated("the key count");
    if (keys > kMaxKeys) {
      return absl::InvalidArgumentError(absl::StrCat(keys, " keys, at most ", kMaxKeys));
    }
    if (tensors > kMaxTensors) {
      return absl::InvalidArgumentError(absl::StrCat(tensors, " tensors, at most ", kMaxTensors));
    }
    return absl::OkStatus();
  }

  absl::Status ReadName(const std::string& what, std::string_view& name) {
    uint64_t length = 0;
    std::span<const std::byte> bytes;
    if (!reader_.Read(length)) return Truncated(what);
    if (length == 0 || length > kMaxNameBytes) {
      return absl::InvalidArgumentError(absl::StrCat(what, " has a name of ", length,
                                                     " bytes, allowed are 1 to ", kMaxNameBytes));
    }
    if (!reader_.Take(length, bytes)) return Truncated(what);
    name = AsString(bytes);
    return absl::OkStatus();
  }

  absl::Status ReadKey(uint64_t index) {
    std::string_view key;
    ASYMSERVE_RETURN_IF_ERROR(ReadName(absl::StrCat("key ", index), key));
    const std::string what = absl::StrCat("key ", Printable(key));
    GgufValue value;
    if (!reader_.Read(value.type)) return Truncated(what);
    ASYMSERVE_RETURN_IF_ERROR(ReadValue(what, 0, value));
    if (!gguf_.values_.emplace(key, value).second) {
      return absl::InvalidArgumentError(absl::StrCat(what, " appears twice"));
    }
    return absl::OkStatus();
  }

  /// Checks a value of value.type at the cursor, moves behind it and fills the view.
  absl::Status ReadValue(const std::string& what, int depth, GgufValue& value) {
    if (!IsKnown(value.type)) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " has unknown type ", static_cast<uint32_t>(value.type)));
    }
    if (value.type == GgufType::kArray) return ReadArray(what, depth, value);
    uint64_t size = FixedSize(value.type);
    if (value.type == GgufType::kString && !reader_.Read(size)) return Truncated(what);
    if (!reader_.Take(size, value.bytes)) {
      return absl::InvalidArgumentError(absl::StrCat(what, " is ", size, " bytes long, but only ",
                                                     reader_.remaining(),
                                                     " bytes of the file are left"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadArray(const std::string& what, int depth, GgufValue& value) {
    if (depth >= kMaxArrayDepth) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " nests arrays more than ", kMaxArrayDepth, " deep"));
    }
    if (!reader_.Read(value.element) || !reader_.Read(value.count)) return Truncated(what);
    if (!IsKnown(value.element)) {
      return absl::InvalidArgumentError(absl::StrCat(what, " has elements of unknown type ",
                                                     static_cast<uint32_t>(value.element)));
    }
    const uint64_t element_bytes = FixedSize(value.element);
    const uint64_t least = element_bytes != 0 ? element_bytes : sizeof(uint64_t);
    if (value.count > reader_.remaining() / least) {
      return absl::InvalidArgumentError(absl::StrCat(what, " claims ", value.count,
                                                     " elements, but only ", reader_.remaining(),
                                                     " bytes of the file are left"));
    }
    const size_t begin = reader_.offset();
    if (element_bytes != 0) {
      if (!reader_.Skip(value.count * element_bytes)) return Truncated(what);
    } else {
      for (uint64_t i = 0; i < value.count; ++i) {
        GgufValue element{.type = value.element, .bytes = {}};
        ASYMSERVE_RETURN_IF_ERROR(ReadValue(what, depth + 1, element));
      }
    }
    value.bytes = file_.subspan(begin, reader_.offset() - begin);
    return absl::OkStatus();
  }

  absl::StatusOr<uint64_t> Alignment() const {
    if (gguf_.Find("general.alignment") == nullptr) return 32;
    ASYMSERVE_ASSIGN_OR_RETURN(const int64_t value, gguf_.Integer("general.alignment"));
    const auto alignment = static_cast<uint64_t>(value);
    if (value <= 0 || alignment > kMaxAlignment || !std::has_single_bit(alignment)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "general.alignment is ", value, ", need a power of two up to ", kMaxAlignment));
    }
    return alignment;
  }

  absl::Status ReadTensor(uint64_t index, uint64_t alignment) {
    GgufTensor tensor;
    ASYMSERVE_RETURN_IF_ERROR(ReadName(absl::StrCat("tensor ", index), tensor.name));
    const std::string what = absl::StrCat("tensor ", Printable(tensor.name));
    uint32_t rank = 0;
    if (!reader_.Read(rank)) return Truncated(what);
    if (rank < 1 || rank > 4) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " has ", rank, " dimensions, allowed are 1 to 4"));
    }
    tensor.rank = static_cast<int8_t>(rank);
    int64_t elements = 1;
    for (uint32_t i = 0; i < rank; ++i) {
      uint64_t extent = 0;
      if (!reader_.Read(extent)) return Truncated(what);
      if (extent == 0 || extent > static_cast<uint64_t>(INT64_MAX / 8) / elements) {
        return absl::InvalidArgumentError(absl::StrCat(what, " has extent ", extent,
                                                       " in dimension ", i,
                                                       extent == 0 ? "" : ", which overflows"));
      }
      tensor.extents[i] = static_cast<int64_t>(extent);
      elements *= tensor.extents[i];
    }
    uint32_t type = 0;
    uint64_t offset = 0;
    if (!reader_.Read(type) || !reader_.Read(offset)) return Truncated(what);
    ASYMSERVE_ASSIGN_OR_RETURN(tensor.dtype, DTypeFromGgml(type, what));
    const DTypeInfo info = Info(tensor.dtype);
    if (tensor.extents[0] % info.block_elements != 0) {
      return absl::InvalidArgumentError(absl::StrCat(what, " has rows of ", tensor.extents[0],
                                                     " elements, ", info.name,
                                                     " needs a multiple of ", info.block_elements));
    }
    if (offset % alignment != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          what, " has offset ", offset, ", which is not a multiple of the alignment ", alignment));
    }
    if (!gguf_.tensor_index_.emplace(tensor.name, gguf_.tensors_.size()).second) {
      return absl::InvalidArgumentError(absl::StrCat(what, " appears twice"));
    }
    gguf_.tensors_.push_back(tensor);
    offsets_.push_back(offset);
    return absl::OkStatus();
  }

  /// The directory is complete: data begins at the next multiple of the alignment.
  absl::Status PlaceTensors(uint64_t alignment) {
    const uint64_t begin = (reader_.offset() + alignment - 1) / alignment * alignment;
    const uint64_t data_bytes = begin < file_.size() ? file_.size() - begin : 0;
    for (size_t i = 0; i < gguf_.tensors_.size(); ++i) {
      GgufTensor& tensor = gguf_.tensors_[i];
      const auto& extents = tensor.extents;
      const auto bytes = static_cast<uint64_t>(
          RowBytes(tensor.dtype, extents[0] * extents[1] * extents[2] * extents[3]));
      if (offsets_[i] > data_bytes || bytes > data_bytes - offsets_[i]) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", Printable(tensor.name), " has ", bytes, " bytes at offset ",
                         offsets_[i], ", but the file has ", data_bytes, " bytes of tensor data"));
      }
      tensor.data = file_.subspan(begin + offsets_[i], bytes);
    }
    return absl::OkStatus();
  }

  absl::Status CheckOverlap() const {
    std::vector<const GgufTensor*> by_offset;
    by_offset.reserve(gguf_.tensors_.size());
    for (const GgufTensor& tensor : gguf_.tensors_) by_offset.push_back(&tensor);
    std::sort(by_offset.begin(), by_offset.end(), [](const GgufTensor* a, const GgufTensor* b) {
      return a->data.data() < b->data.data();
    });
    for (size_t i = 1; i < by_offset.size(); ++i) {
      const auto& before = by_offset[i - 1]->data;
      if (before.data() + before.size() > by_offset[i]->data.data()) {
        return absl::InvalidArgumentError(absl::StrCat("tensors ",
                                                       Printable(by_offset[i - 1]->name), " and ",
                                                       Printable(by_offset[i]->name), " overlap"));
      }
    }
    return absl::OkStatus();
  }

  std::span<const std::byte> file_;
  ByteReader reader_;
  Gguf gguf_;
  std::vector<uint64_t> offsets_;  // by tensor, relative to the data
};

absl::StatusOr<Gguf> Gguf::Parse(std::span<const std::byte> file) {
  return GgufParser(file).Run();
}

const GgufValue* Gguf::Find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

const GgufTensor* Gguf::FindTensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace asymserve
