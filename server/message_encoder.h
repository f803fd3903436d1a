#pragma once

#include "google/protobuf/message_lite.h"
#include "grpcpp/support/byte_buffer.h"

namespace asymserve {

/// Replaces `bytes` by the wire form of `message`, the counterpart of DecodeRequest.
void EncodeMessage(const google::protobuf::MessageLite& message, grpc::ByteBuffer& bytes);

}  // namespace asymserve
