#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"

// Requests arrive as raw bytes, because gRPC answers bytes it cannot parse with UNIMPLEMENTED and
// no reason. Protobuf wire format: protobuf.dev/programming-guides/encoding.

namespace asymserve {

/// Parses a request. InvalidArgument names the field that is wrong:
/// "messages[1].content: invalid UTF-8 at byte 17".
absl::Status DecodeRequest(const grpc::ByteBuffer& bytes, google::protobuf::Message& message);

/// The first error in the wire form of a message of type `type`; OK when there is none. Linear in
/// the size of `wire`.
absl::Status FindWireError(std::string_view wire, const google::protobuf::Descriptor& type);

}  // namespace asymserve
