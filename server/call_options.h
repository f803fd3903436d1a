#pragma once

#include <chrono>
#include <cstdint>

namespace asymserve {

/// What a client that does not read costs the server at most.
struct CallOptions {
  int32_t max_unread_deltas = 256;  // of a stream, times its n: a client further behind is cut off
  std::chrono::milliseconds cut_off_grace{5000};  // for its status to reach such a client
  std::chrono::milliseconds read_time{120'000};   // for the rest of a call that has ended
  int64_t max_unary_bytes = int64_t{16} << 20;    // of an answer that is one message, about
  int64_t max_unread_bytes = int64_t{64} << 20;   // of all answers to Tokenize and Detokenize
};

}  // namespace asymserve
