#include "tools/client/print_message.h"

#include <iostream>
#include <string>

#include "google/protobuf/util/json_util.h"

namespace asymserve::client {

void PrintMessage(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  options.add_whitespace = true;
  std::string json;
  if (google::protobuf::util::MessageToJsonString(message, &json, options).ok()) std::cout << json;
}

}  // namespace asymserve::client
