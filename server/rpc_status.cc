#include "server/rpc_status.h"

#include "asymserve/v1/rpc_status.pb.h"

namespace asymserve {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

grpc::Status OverloadStatus(const std::string& message, std::chrono::milliseconds retry_after) {
  v1::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(retry_after.count() / 1000);
  retry.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>(retry_after.count() % 1000 * 1'000'000));
  v1::RpcStatus details;
  details.set_code(grpc::StatusCode::RESOURCE_EXHAUSTED);
  details.set_message(message);
  google::protobuf::Any& any = *details.add_details();
  any.set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  any.set_value(retry.SerializeAsString());
  return {grpc::StatusCode::RESOURCE_EXHAUSTED, message, details.SerializeAsString()};
}

}  // namespace asymserve
