#pragma once

namespace asymserve {

/// Takes the lines that gRPC would write to stderr, as for every handshake that fails, into the
/// log: one in ten seconds as a warning, all at level debug. Once, from main.
void TakeGrpcLog();

}  // namespace asymserve
