#include "server/rpc_status.h"

#include <gtest/gtest.h>

namespace asymserve::testing {
namespace {

TEST(RpcStatusTest, OverloadHasTheBytesOfGoogleRpcStatusWithRetryInfo) {
  const grpc::Status status = OverloadStatus("full", std::chrono::milliseconds(2500));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "full");
  // Written out by hand from google/rpc/status.proto, error_details.proto and duration.proto.
  const std::string duration = std::string("\x08\x02\x10\x80\xCA\xB5\xEE\x01", 8);  // 2 s, 5e8 ns
  const std::string retry = std::string("\x0A\x08", 2) + duration;
  const std::string url = "type.googleapis.com/google.rpc.RetryInfo";
  const std::string any = std::string("\x0A\x28", 2) + url + std::string("\x12\x0A", 2) + retry;
  const std::string expected = std::string("\x08\x08\x12\x04", 4) + "full" +
                               std::string("\x1A", 1) + static_cast<char>(any.size()) + any;
  ASSERT_EQ(url.size(), 0x28u);
  EXPECT_EQ(status.error_details(), expected);
}

TEST(RpcStatusTest, KeepsCodeAndMessage) {
  const grpc::Status status = ToGrpcStatus(absl::InvalidArgumentError("n: 0"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "n: 0");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

}  // namespace
}  // namespace asymserve::testing
