#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/tensor.h"

namespace asymserve::testing {

/// GGUF's number of an element type.
uint32_t GgmlType(DType dtype);

/// Builds GGUF files, also broken ones: nothing is checked, and the Raw calls write anything. Keys
/// and tensors appear in call order.
class GgufWriter {
 public:
  void AddU32(std::string_view key, uint32_t value);
  void AddF32(std::string_view key, float value);
  void AddBool(std::string_view key, bool value);
  void AddString(std::string_view key, std::string_view value);
  void AddStrings(std::string_view key, std::span<const std::string> values);
  void AddI32s(std::string_view key, std::span<const int32_t> values);
  void AddF32s(std::string_view key, std::span<const float> values);
  /// A key whose type number and value bytes are taken as they are.
  void AddRaw(std::string_view key, uint32_t type, std::string_view value);

  /// `extents` fastest first. The data lands at the next multiple of the alignment.
  void AddTensor(std::string_view name, std::vector<uint64_t> extents, DType dtype,
                 const std::string& data);
  /// A tensor entry whose type number and offset are taken as they are, without data.
  void AddRawTensor(std::string_view name, std::vector<uint64_t> extents, uint32_t type,
                    uint64_t offset);

  /// What the file says of itself; Build writes the true counts where these are negative.
  uint32_t version = 3;
  int64_t stated_keys = -1;
  int64_t stated_tensors = -1;
  uint64_t alignment = 32;  // of the data; AddU32("general.alignment") states it

  std::string Build() const;

 private:
  struct Tensor {
    std::string name;
    std::vector<uint64_t> extents;
    uint32_t type;
    uint64_t offset;
  };
  std::string keys_;
  uint64_t key_count_ = 0;
  std::vector<Tensor> tensors_;
  std::string data_;
};

/// Little-endian bytes of a number, and GGUF's form of a string: u64 length, characters.
std::string U32Bytes(uint32_t value);
std::string U64Bytes(uint64_t value);
std::string StringBytes(std::string_view value);

}  // namespace asymserve::testing
