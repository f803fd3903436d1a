#pragma once

#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "grpcpp/grpcpp.h"

namespace asymserve {

/// The same code and message.
grpc::Status ToGrpcStatus(const absl::Status& status);

/// RESOURCE_EXHAUSTED whose details are a serialized google.rpc.Status with a google.rpc.RetryInfo;
/// gRPC sends them as the grpc-status-details-bin trailer.
grpc::Status OverloadStatus(const std::string& message, std::chrono::milliseconds retry_after);

}  // namespace asymserve
