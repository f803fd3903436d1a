#include <cmath>
#include <cstring>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/base/byte_reader.h"
#include "engine/base/status.h"
#include "engine/model/gguf.h"
#include "engine/model/printable.h"

// Typed access to the metadata of a Gguf.

namespace asymserve {
namespace {

template <typename T>
T Load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

/// Nothing when `type` is no integer type, or a u64 beyond 2^63 - 1.
std::optional<int64_t> LoadInteger(GgufType type, const std::byte* bytes) {
  switch (type) {
    case GgufType::kUint8:
      return Load<uint8_t>(bytes);
    case GgufType::kInt8:
      return Load<int8_t>(bytes);
    case GgufType::kUint16:
      return Load<uint16_t>(bytes);
    case GgufType::kInt16:
      return Load<int16_t>(bytes);
    case GgufType::kUint32:
      return Load<uint32_t>(bytes);
    case GgufType::kInt32:
      return Load<int32_t>(bytes);
    case GgufType::kInt64:
      return Load<int64_t>(bytes);
    case GgufType::kUint64: {
      const auto value = Load<uint64_t>(bytes);
      if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::string Describe(const GgufValue& value) {
  if (value.type != GgufType::kArray) return std::string(Name(value.type));
  return absl::StrCat("an array of ", value.count, " ", std::string(Name(value.element)));
}

absl::Status WrongType(std::string_view key, const GgufValue& value, std::string_view need) {
  return absl::InvalidArgumentError(
      absl::StrCat("key ", Printable(key), " is ", Describe(value), ", need ", std::string(need)));
}

absl::StatusOr<const GgufValue*> FindOrError(const Gguf& gguf, std::string_view key) {
  const GgufValue* value = gguf.Find(key);
  if (value == nullptr) {
    return absl::NotFoundError(absl::StrCat("key ", Printable(key), " is missing"));
  }
  return value;
}

/// An array with elements of `element`, or of any type when that is empty.
absl::StatusOr<const GgufValue*> FindArray(const Gguf& gguf, std::string_view key,
                                           std::optional<GgufType> element, std::string_view need) {
  ASYMSERVE_ASSIGN_OR_RETURN(const GgufValue* value, FindOrError(gguf, key));
  if (value->type != GgufType::kArray || (element && value->element != *element)) {
    return WrongType(key, *value, need);
  }
  return value;
}

}  // namespace

std::string_view Name(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
      return "u8";
    case GgufType::kInt8:
      return "i8";
    case GgufType::kUint16:
      return "u16";
    case GgufType::kInt16:
      return "i16";
    case GgufType::kUint32:
      return "u32";
    case GgufType::kInt32:
      return "i32";
    case GgufType::kFloat32:
      return "f32";
    case GgufType::kBool:
      return "bool";
    case GgufType::kString:
      return "string";
    case GgufType::kArray:
      return "array";
    case GgufType::kUint64:
      return "u64";
    case GgufType::kInt64:
      return "i64";
    case GgufType::kFloat64:
      return "f64";
  }
  return "unknown type";
}

absl::StatusOr<int64_t> Gguf::Integer(std::string_view key) const {
  ASYMSERVE_ASSIGN_OR_RETURN(const GgufValue* value, FindOrError(*this, key));
  const std::optional<int64_t> integer = LoadInteger(value->type, value->bytes.data());
  if (!integer) return WrongType(key, *value, "an integer below 2^63");
  return *integer;
}

absl::StatusOr<float> Gguf::Float(std::string_view key) const {
  ASYMSERVE_ASSIGN_OR_RETURN(const GgufValue* value, FindOrError(*this, key));
  float result = 0;
  if (value->type == GgufType::kFloat32) {
    result = Load<float>(value->bytes.data());
  } else if (value->type == GgufType::kFloat64) {
    const auto wide = Load<double>(value->bytes.data());
    result = std::abs(wide) <= 3.4e38 ? static_cast<float>(wide) : NAN;
  } else {
    return WrongType(key, *value, "a float");
  }
  if (!std::isfinite(result)) {
    return absl::InvalidArgumentError(absl::StrCat("key ", Printable(key), " is not finite"));
  }
  return result;
}

absl::StatusOr<bool> Gguf::Bool(std::string_view key) const {
  ASYMSERVE_ASSIGN_OR_RETURN(const GgufValue* value, FindOrError(*this, key));
  if (value->type != GgufType::kBool) return WrongType(key, *value, "a bool");
  const auto byte = Load<uint8_t>(value->bytes.data());
  if (byte > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("key ", Printable(key), " is ", byte, ", a bool is 0 or 1"));
  }
  return byte == 1;
}

absl::StatusOr<std::string_view> Gguf::String(std::string_view key) const {
  ASYMSERVE_ASSIGN_OR_RETURN(const GgufValue* value, FindOrError(*this, key));
  if (value->type != GgufType::kString) return WrongType(key, *value, "a string");
  return std::string_view(reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size());
}

absl::StatusOr<std::vector<std::string_view>> Gguf::Strings(std::string_view key) const {
  ASYMSERVE_ASSIGN_OR_RETURN(const GgufValue* value,
                             FindArray(*this, key, GgufType::kString, "an array of strings"));
  std::vector<std::string_view> strings;
  strings.reserve(value->count);
  ByteReader reader(value->bytes);
  for (uint64_t i = 0; i < value->count; ++i) {
    uint64_t length = 0;
    std::span<const std::byte> bytes;
    if (!reader.Read(length) || !reader.Take(length, bytes)) {
      return absl::InternalError(absl::StrCat("key ", Printable(key), " was not checked"));
    }
    strings.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return strings;
}

absl::StatusOr<std::vector<int64_t>> Gguf::Integers(std::string_view key) const {
  ASYMSERVE_ASSIGN_OR_RETURN(const GgufValue* value,
                             FindArray(*this, key, std::nullopt, "an array of integers"));
  std::vector<int64_t> integers;
  integers.reserve(value->count);
  const size_t size = value->count == 0 ? 0 : value->bytes.size() / value->count;
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto integer = LoadInteger(value->element, value->bytes.data() + i * size);
    if (!integer) return WrongType(key, *value, "an array of integers below 2^63");
    integers.push_back(*integer);
  }
  return integers;
}

absl::StatusOr<std::vector<float>> Gguf::Floats(std::string_view key) const {
  ASYMSERVE_ASSIGN_OR_RETURN(const GgufValue* value,
                             FindArray(*this, key, GgufType::kFloat32, "an array of f32"));
  std::vector<float> floats(value->count);
  if (!floats.empty()) std::memcpy(floats.data(), value->bytes.data(), value->bytes.size());
  return floats;
}

}  // namespace asymserve
