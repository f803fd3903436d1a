#include <iostream>

#include "google/protobuf/util/json_util.h"

#include "tools/client/commands.h"
#include "tools/client/exit_status.h"

namespace asymserve::client {

int Info(const Connection& connection) {
  const auto stub = v1::Inference::NewStub(connection.Connect());
  grpc::ClientContext context;
  connection.Prepare(context);
  v1::GetModelInfoResponse info;
  const grpc::Status status = stub->GetModelInfo(&context, {}, &info);
  if (!status.ok()) {
    PrintError(status);
    return kExitFailed;
  }
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  options.add_whitespace = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(info, &json, options).ok()) return kExitFailed;
  std::cout << json;
  return kExitOk;
}

}  // namespace asymserve::client
