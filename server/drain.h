#pragma once

#include <chrono>

#include "server/grpc_server.h"

namespace asymserve {

/// Ends service in order: NOT_SERVING first, then new calls are refused with UNAVAILABLE, what was
/// accepted finishes within `budget`, and what is left is ended with UNAVAILABLE. True when
/// everything finished.
bool Drain(GrpcServer& server, InferenceService& service, Engine& engine,
           std::chrono::milliseconds budget);

}  // namespace asymserve
