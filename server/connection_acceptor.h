#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

#include "engine/base/metrics.h"
#include "server/listen_socket.h"

namespace asymserve {

/// Accepts the connections of a listening socket on a thread of its own. gRPC 1.51 stops listening
/// for ever when the process is out of descriptors (CVE-2023-4785); this closes what would leave
/// fewer than kReserve or be one more than max_connections, and goes on.
class ConnectionAcceptor {
 public:
  static constexpr int kReserve = 64;  // metrics, logs, /proc, gRPC's own

  /// Takes over a connected, non-blocking socket; `listener` is the one it came from. Must not
  /// block.
  using Handler = std::function<void(int listener, int connection)>;

  /// `refused` counts connections that were closed at once; it outlives the acceptor.
  static absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> Start(ListenSocket socket,
                                                                   int32_t max_connections,
                                                                   Handler handler,
                                                                   Counter& refused);
  ConnectionAcceptor(const ConnectionAcceptor&) = delete;
  ConnectionAcceptor& operator=(const ConnectionAcceptor&) = delete;
  /// Stops listening; who waits to be accepted is reset.
  ~ConnectionAcceptor();

  const std::string& address() const { return socket_.address(); }

  /// Accepts no more and ends the sending half of every connection, behind what was written to it:
  /// whatever its client waits for then ends UNAVAILABLE. The one that owns the acceptor calls it,
  /// as with the next.
  void HangUp();
  /// How many of those are still open.
  size_t open_connections() const;

 private:
  ConnectionAcceptor(ListenSocket socket, int32_t max_connections, Handler handler,
                     Counter& refused, Descriptor wake);
  void Run();
  /// Ends the thread. May be called again.
  void Stop();
  /// Everybody who waits at a listener; false when the system has no room for them now.
  bool AcceptAll(const Descriptor& listener);
  /// Whether one more may be open. Forgets those that are not any more, when it would be too many,
  /// but not all the time.
  bool HasRoom();
  void LogRefusals(const char* hint);

  ListenSocket socket_;
  const size_t max_connections_;
  const Handler handler_;
  Counter& refused_;
  const Descriptor wake_;  // an eventfd that ends the thread
  std::chrono::steady_clock::time_point next_log_ = {}, next_sweep_ = {};
  // Descriptors that were handed over, with the cookies of their sockets: numbers are used again.
  // The thread's own until it has ended.
  std::map<int, uint64_t> connections_;
  std::thread thread_;
};

}  // namespace asymserve
