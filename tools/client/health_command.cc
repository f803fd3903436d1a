#include <iostream>

#include "grpc/health/v1/health.grpc.pb.h"

#include "tools/client/commands.h"
#include "tools/client/exit_status.h"

namespace asymserve::client {

int Health(const Connection& connection, const std::string& service) {
  using grpc::health::v1::HealthCheckResponse;
  const auto stub = grpc::health::v1::Health::NewStub(connection.Connect());
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::ClientContext context;
  connection.Prepare(context);
  HealthCheckResponse response;
  const grpc::Status status = stub->Check(&context, request, &response);
  if (!status.ok()) {
    PrintError(status);
    return kExitFailed;
  }
  std::cout << HealthCheckResponse::ServingStatus_Name(response.status()) << '\n';
  return response.status() == HealthCheckResponse::SERVING ? kExitOk : kExitFailed;
}

}  // namespace asymserve::client
