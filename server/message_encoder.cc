#include "server/message_encoder.h"

#include "grpcpp/impl/codegen/proto_utils.h"

#include "engine/base/check.h"

namespace asymserve {

void EncodeMessage(const google::protobuf::MessageLite& message, grpc::ByteBuffer& bytes) {
  bytes.Clear();  // the writer fills empty buffers only
  bool own_buffer = false;
  const grpc::Status status =
      grpc::GenericSerialize<grpc::ProtoBufferWriter, google::protobuf::MessageLite>(
          message, &bytes, &own_buffer);
  ASYMSERVE_CHECK(status.ok());
}

}  // namespace asymserve
