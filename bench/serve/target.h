#pragma once

#include <memory>
#include <utility>

#include "asymserve/v1/inference.grpc.pb.h"

#include "tools/client/connection.h"

namespace asymserve::load {

/// The server under load. Any thread.
class Target {
 public:
  explicit Target(client::Connection connection)
      : connection_(std::move(connection)), stub_(v1::Inference::NewStub(connection_.Connect())) {}

  v1::Inference::Stub& stub() const { return *stub_; }
  const std::string& address() const { return connection_.address; }
  /// Every call's context, before the call.
  void Prepare(grpc::ClientContext& context) const { connection_.Prepare(context); }

 private:
  const client::Connection connection_;
  const std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace asymserve::load
