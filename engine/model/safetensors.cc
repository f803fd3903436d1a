#include "engine/model/safetensors.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "engine/base/byte_reader.h"
#include "engine/base/status.h"
#include "engine/model/json_document.h"
#include "engine/model/printable.h"

namespace asymserve {
namespace {

constexpr uint64_t kMaxHeaderBytes = 16 << 20;
constexpr size_t kMaxRank = 8;

struct ElementType {
  const char* name = nullptr;
  int64_t bytes = 0;
  std::optional<DType> dtype = std::nullopt;
};

constexpr std::array<ElementType, 14> kElementTypes = {{
    {"F32", 4, DType::kF32},
    {"F16", 2, DType::kF16},
    {"BF16", 2, DType::kBF16},
    {"F64", 8, std::nullopt},
    {"I64", 8, std::nullopt},
    {"U64", 8, std::nullopt},
    {"I32", 4, std::nullopt},
    {"U32", 4, std::nullopt},
    {"I16", 2, std::nullopt},
    {"U16", 2, std::nullopt},
    {"I8", 1, std::nullopt},
    {"U8", 1, std::nullopt},
    {"BOOL", 1, std::nullopt},
    {"F8_E4M3", 1, std::nullopt},
}};

absl::Status Broken(std::string_view name, std::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", Printable(name), " ", std::string(what)));
}

/// Reads the shape of `entry` and returns its number of elements.
absl::StatusOr<int64_t> ReadShape(const nlohmann::json& entry, SafetensorsTensor& tensor) {
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array() || shape->size() > kMaxRank) {
    return Broken(tensor.name, absl::StrCat("has no shape of at most ", kMaxRank, " dimensions"));
  }
  int64_t elements = 1;
  for (const nlohmann::json& extent : *shape) {
    if (!extent.is_number_unsigned()) {
      return Broken(tensor.name, "has an extent that is no unsigned integer");
    }
    const auto value = extent.get<uint64_t>();
    if (value == 0 || value > static_cast<uint64_t>(INT64_MAX / 8 / elements)) {
      return Broken(tensor.name,
                    absl::StrCat("has extent ", value,
                                 value == 0 ? ", which is empty" : ", which overflows"));
    }
    tensor.shape.push_back(static_cast<int64_t>(value));
    elements *= static_cast<int64_t>(value);
  }
  return elements;
}

absl::StatusOr<SafetensorsTensor> ReadTensor(const std::string& name, const nlohmann::json& entry,
                                             std::span<const std::byte> data) {
  SafetensorsTensor tensor;
  tensor.name = name;
  if (!entry.is_object()) return Broken(name, "is no JSON object");
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string()) return Broken(name, "has no dtype");
  tensor.dtype_name = dtype->get<std::string>();
  const auto type =
      std::find_if(kElementTypes.begin(), kElementTypes.end(),
                   [&](const ElementType& known) { return tensor.dtype_name == known.name; });
  if (type == kElementTypes.end()) {
    return absl::UnimplementedError(absl::StrCat("tensor ", Printable(name), " has dtype ",
                                                 Printable(tensor.dtype_name),
                                                 ", supported are F32 F16 BF16"));
  }
  tensor.dtype = type->dtype;
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t elements, ReadShape(entry, tensor));

  const auto offsets = entry.find("data_offsets");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 ||
      !(*offsets)[0].is_number_unsigned() || !(*offsets)[1].is_number_unsigned()) {
    return Broken(name, "has no data_offsets of two unsigned integers");
  }
  const auto begin = (*offsets)[0].get<uint64_t>();
  const auto end = (*offsets)[1].get<uint64_t>();
  if (begin > end || end > data.size()) {
    return Broken(name, absl::StrCat("has data_offsets ", begin, " to ", end, ", but the file has ",
                                     data.size(), " bytes of data"));
  }
  if (end - begin != static_cast<uint64_t>(elements * type->bytes)) {
    return Broken(name,
                  absl::StrCat("has ", end - begin, " bytes of data, its shape and dtype need ",
                               elements * type->bytes));
  }
  tensor.data = data.subspan(begin, end - begin);
  return tensor;
}

absl::Status CheckCoverage(const std::vector<SafetensorsTensor>& tensors,
                           std::span<const std::byte> data) {
  const std::byte* expected = data.data();
  for (const SafetensorsTensor& tensor : tensors) {
    if (tensor.data.data() != expected) {
      return Broken(tensor.name, absl::StrCat("begins at byte ", tensor.data.data() - data.data(),
                                              " of the data, the one before ends at byte ",
                                              expected - data.data()));
    }
    expected += tensor.data.size();
  }
  if (expected != data.data() + data.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the tensors end at byte ", expected - data.data(), " of ", data.size(), " bytes of data"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<SafetensorsTensor>> ParseSafetensors(std::span<const std::byte> file) {
  ByteReader reader(file);
  uint64_t header_bytes = 0;
  std::span<const std::byte> header;
  if (!reader.Read(header_bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the file has ", file.size(), " bytes, too few for a safetensors header"));
  }
  if (header_bytes > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the header has ", header_bytes, " bytes, at most ", kMaxHeaderBytes));
  }
  if (!reader.Take(header_bytes, header)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the header has ", header_bytes, " bytes, the file only ", reader.remaining(), " more"));
  }
  const std::span<const std::byte> data = file.subspan(reader.offset());
  const std::string_view text(reinterpret_cast<const char*>(header.data()), header.size());
  ASYMSERVE_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJsonObject(text, "the header"));

  std::vector<SafetensorsTensor> tensors;
  for (const auto& [name, entry] : document.items()) {
    if (name == "__metadata__") continue;
    ASYMSERVE_ASSIGN_OR_RETURN(SafetensorsTensor tensor, ReadTensor(name, entry, data));
    tensors.push_back(std::move(tensor));
  }
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.data.data(), a.data.size()) < std::pair(b.data.data(), b.data.size());
  });
  ASYMSERVE_RETURN_IF_ERROR(CheckCoverage(tensors, data));
  return tensors;
}

}  // namespace asymserve
