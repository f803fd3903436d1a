// The safetensors header, and the JSON reader and configuration of the folder around it.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <nlohmann/json.hpp>

#include "engine/model/hf_config.h"
#include "engine/model/hf_names.h"
#include "engine/model/json_document.h"
#include "engine/model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto tensors = asymserve::ParseSafetensors(bytes);
  if (tensors.ok()) {
    size_t sum = 0;
    for (const auto& tensor : *tensors) {
      sum += asymserve::GgufNameOfHf(tensor.name).value_or("").size();
      for (const std::byte byte : tensor.data) sum += static_cast<size_t>(byte);
    }
    volatile size_t sink = sum;
    (void)sink;
  }
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto document = asymserve::ParseJsonObject(text, "input");
  if (document.ok()) (void)asymserve::ModelConfigFromHf(*document).ok();
  return 0;
}
