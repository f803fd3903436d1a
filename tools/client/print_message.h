#pragma once

#include "google/protobuf/message.h"

namespace asymserve::client {

/// As JSON with all its fields on stdout.
void PrintMessage(const google::protobuf::Message& message);

}  // namespace asymserve::client
