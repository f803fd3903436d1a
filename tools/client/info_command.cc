#include "tools/client/commands.h"
#include "tools/client/exit_status.h"
#include "tools/client/print_message.h"

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
  PrintMessage(info);
  return kExitOk;
}

}  // namespace asymserve::client
