#include "tests/support/gguf_writer.h"

#include <bit>
#include <utility>

#include "engine/base/check.h"

namespace asymserve::testing {
namespace {

// Value types, as the format numbers them.
constexpr uint32_t kU32 = 4;
constexpr uint32_t kI32 = 5;
constexpr uint32_t kF32 = 6;
constexpr uint32_t kBool = 7;
constexpr uint32_t kString = 8;
constexpr uint32_t kArray = 9;

std::string LittleEndian(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i)));
  return text;
}

std::string ArrayHead(uint32_t element, size_t count) {
  return U32Bytes(element) + U64Bytes(count);
}

void PadTo(std::string& text, uint64_t alignment) {
  while (text.size() % alignment != 0) text.push_back('\0');
}

}  // namespace

std::string U32Bytes(uint32_t value) {
  return LittleEndian(value, 4);
}

std::string U64Bytes(uint64_t value) {
  return LittleEndian(value, 8);
}

std::string StringBytes(std::string_view value) {
  return U64Bytes(value.size()) + std::string(value);
}

uint32_t GgmlType(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 8;
    case DType::kQ4K:
      return 12;
    case DType::kQ5K:
      return 13;
    case DType::kQ6K:
      return 14;
    case DType::kI8:
      return 24;
    case DType::kI32:
      return 26;
    case DType::kBF16:
      return 30;
  }
  ASYMSERVE_CHECK(false && "unknown type");
}

void GgufWriter::AddRaw(std::string_view key, uint32_t type, std::string_view value) {
  keys_ += StringBytes(key) + U32Bytes(type) + std::string(value);
  ++key_count_;
}

void GgufWriter::AddU32(std::string_view key, uint32_t value) {
  AddRaw(key, kU32, U32Bytes(value));
}

void GgufWriter::AddF32(std::string_view key, float value) {
  AddRaw(key, kF32, U32Bytes(std::bit_cast<uint32_t>(value)));
}

void GgufWriter::AddBool(std::string_view key, bool value) {
  AddRaw(key, kBool, std::string(1, value ? '\1' : '\0'));
}

void GgufWriter::AddString(std::string_view key, std::string_view value) {
  AddRaw(key, kString, StringBytes(value));
}

void GgufWriter::AddStrings(std::string_view key, std::span<const std::string> values) {
  std::string bytes = ArrayHead(kString, values.size());
  for (const std::string& value : values) bytes += StringBytes(value);
  AddRaw(key, kArray, bytes);
}

void GgufWriter::AddI32s(std::string_view key, std::span<const int32_t> values) {
  std::string bytes = ArrayHead(kI32, values.size());
  for (const int32_t value : values) bytes += U32Bytes(static_cast<uint32_t>(value));
  AddRaw(key, kArray, bytes);
}

void GgufWriter::AddF32s(std::string_view key, std::span<const float> values) {
  std::string bytes = ArrayHead(kF32, values.size());
  for (const float value : values) bytes += U32Bytes(std::bit_cast<uint32_t>(value));
  AddRaw(key, kArray, bytes);
}

void GgufWriter::AddTensor(std::string_view name, std::vector<uint64_t> extents, DType dtype,
                           const std::string& data) {
  PadTo(data_, alignment);
  AddRawTensor(name, std::move(extents), GgmlType(dtype), data_.size());
  data_ += data;
}

void GgufWriter::AddRawTensor(std::string_view name, std::vector<uint64_t> extents, uint32_t type,
                              uint64_t offset) {
  tensors_.push_back({std::string(name), std::move(extents), type, offset});
}

std::string GgufWriter::Build() const {
  const uint64_t tensors =
      stated_tensors < 0 ? tensors_.size() : static_cast<uint64_t>(stated_tensors);
  const uint64_t keys = stated_keys < 0 ? key_count_ : static_cast<uint64_t>(stated_keys);
  std::string file = "GGUF" + U32Bytes(version) + U64Bytes(tensors) + U64Bytes(keys) + keys_;
  for (const Tensor& tensor : tensors_) {
    file += StringBytes(tensor.name) + U32Bytes(static_cast<uint32_t>(tensor.extents.size()));
    for (const uint64_t extent : tensor.extents) file += U64Bytes(extent);
    file += U32Bytes(tensor.type) + U64Bytes(tensor.offset);
  }
  PadTo(file, alignment);
  return file + data_;
}

}  // namespace asymserve::testing
