#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/base/tensor.h"

// The GGUF container, versions 2 and 3, little-endian:
//
//   "GGUF" | u32 version | u64 tensors | u64 keys
//   key    = string name | u32 type | value          string = u64 length | bytes
//   value  = number | u8 bool | string | u32 type, u64 count, elements
//   tensor = string name | u32 rank | u64 extents[rank], fastest first | u32 type | u64 offset
//   padding to general.alignment (32 if absent), then tensor data; offsets count from there
//
// Everything in a file is untrusted: lengths, counts, offsets and types are checked before use, and
// memory stays proportional to the file.

namespace asymserve {

/// Value types, as the file numbers them.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

/// A metadata value: a view of its bytes in the file.
struct GgufValue {
  GgufType type = GgufType::kUint8;
  GgufType element = GgufType::kUint8;  // kArray
  uint64_t count = 0;                   // kArray: number of elements
  std::span<const std::byte> bytes;     // kString: its characters; kArray: its elements
};

struct GgufTensor {
  std::string_view name;
  DType dtype = DType::kF32;
  int8_t rank = 0;
  std::array<int64_t, 4> extents = {1, 1, 1, 1};  // fastest first: a matrix is {columns, rows}
  std::span<const std::byte> data;
};

/// The directory of a GGUF file. A view: the bytes given to Parse outlive it. Immutable.
class Gguf {
 public:
  /// InvalidArgument names the key or tensor and what is wrong; Unimplemented: a tensor type or
  /// file version outside the supported ones.
  static absl::StatusOr<Gguf> Parse(std::span<const std::byte> file);

  /// Null when the file has no such key.
  const GgufValue* Find(std::string_view key) const;
  const GgufTensor* FindTensor(std::string_view name) const;
  const std::vector<GgufTensor>& tensors() const { return tensors_; }

  // Typed access. NotFound: no such key; InvalidArgument: another type, or out of range. Both name
  // the key. Integers are accepted in any width, floats in both.
  absl::StatusOr<int64_t> Integer(std::string_view key) const;
  absl::StatusOr<float> Float(std::string_view key) const;
  absl::StatusOr<bool> Bool(std::string_view key) const;
  absl::StatusOr<std::string_view> String(std::string_view key) const;
  absl::StatusOr<std::vector<std::string_view>> Strings(std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> Integers(std::string_view key) const;
  absl::StatusOr<std::vector<float>> Floats(std::string_view key) const;

 private:
  friend class GgufParser;
  Gguf() = default;
  std::map<std::string_view, GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string_view, size_t> tensor_index_;
};

/// "u32", "string", "array of f32"; for messages.
std::string_view Name(GgufType type);

}  // namespace asymserve
