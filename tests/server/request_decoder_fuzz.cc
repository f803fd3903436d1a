#include <cstddef>
#include <cstdint>
#include <string_view>

#include "asymserve/v1/inference.pb.h"
#include "google/protobuf/stubs/logging.h"

#include "engine/base/check.h"
#include "server/request_decoder.h"

// What libprotobuf can parse has no error for the walk; the rest must not crash or hang.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  google::protobuf::SetLogHandler(nullptr);
  const std::string_view wire(reinterpret_cast<const char*>(data), size);
  asymserve::v1::ChatRequest request;
  const bool readable = request.ParseFromArray(data, static_cast<int>(size));
  const absl::Status error = asymserve::FindWireError(wire, *request.GetDescriptor());
  if (readable) ASYMSERVE_CHECK(error.ok());
  return 0;
}
