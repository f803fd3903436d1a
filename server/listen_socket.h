#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "server/descriptor.h"

namespace asymserve {

/// TCP sockets that listen on one address.
class ListenSocket {
 public:
  /// `address`: HOST:PORT, [IPV6]:PORT; a name takes all its addresses. 0.0.0.0 and [::] are all
  /// addresses of the machine, of both kinds if it has both. Port 0 takes a free one. Unavailable
  /// says why it cannot listen.
  static absl::StatusOr<ListenSocket> Bind(const std::string& address);

  /// `address` with the port that was bound.
  const std::string& address() const { return address_; }
  const std::vector<Descriptor>& sockets() const { return sockets_; }
  /// Listens no more; who was not accepted is reset.
  void Close() { sockets_.clear(); }
  /// Whether only this machine reaches it.
  bool loopback() const { return loopback_; }

 private:
  std::vector<Descriptor> sockets_;
  std::string address_;
  bool loopback_ = true;
};

struct Accepted {
  enum class Outcome : uint8_t {
    kConnection,
    kNone,       // nobody waits any more
    kRefused,    // closed at once: too few descriptors would be left
    kExhausted,  // the system gave no descriptor or memory: come back later
  };
  Outcome outcome = Outcome::kNone;
  Descriptor connection;  // non-blocking, closed on exec
};

/// Takes one connection from a listening socket; never blocks. A peer that acknowledges nothing for
/// 80 s loses it. Descriptors are numbered from the
/// lowest that is free, so a number within `reserve` of the process's limit says that no more than
/// `reserve` are left.
Accepted Accept(const Descriptor& socket, int reserve);

/// Raises the limit of descriptors to what the system lets this process have.
void RaiseDescriptorLimit();

}  // namespace asymserve
