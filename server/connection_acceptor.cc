#include "server/connection_acceptor.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>
#include <vector>

#include "engine/base/log.h"

namespace asymserve {
namespace {

constexpr std::chrono::milliseconds kPause(50);  // without descriptors
constexpr std::chrono::seconds kLogInterval(10);
constexpr std::chrono::milliseconds kSweepInterval(20);
constexpr int kBurst = 64;  // connections of one listener taken in a row
constexpr char kFewDescriptors[] = "too few file descriptors are left: ulimit -n";

/// What no other socket has; 0: the descriptor is none.
uint64_t Cookie(int socket) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(socket, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) return 0;
  return cookie;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> ConnectionAcceptor::Start(
    ListenSocket socket, int32_t max_connections, Handler handler, Counter& refused) {
  Descriptor wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return absl::ErrnoToStatus(errno, "eventfd");
  return std::unique_ptr<ConnectionAcceptor>(new ConnectionAcceptor(
      std::move(socket), max_connections, std::move(handler), refused, std::move(wake)));
}

ConnectionAcceptor::ConnectionAcceptor(ListenSocket socket, int32_t max_connections,
                                       Handler handler, Counter& refused, Descriptor wake)
    : socket_(std::move(socket)),
      max_connections_(static_cast<size_t>(max_connections)),
      handler_(std::move(handler)),
      refused_(refused),
      wake_(std::move(wake)),
      thread_([this] { Run(); }) {}

ConnectionAcceptor::~ConnectionAcceptor() {
  Stop();
}

void ConnectionAcceptor::Stop() {
  eventfd_write(wake_.get(), 1);
  if (thread_.joinable()) thread_.join();
}

void ConnectionAcceptor::HangUp() {
  Stop();
  socket_.Close();
  for (const auto& [socket, cookie] : connections_) {
    if (Cookie(socket) == cookie) shutdown(socket, SHUT_WR);
  }
}

size_t ConnectionAcceptor::open_connections() const {
  return static_cast<size_t>(
      std::count_if(connections_.begin(), connections_.end(),
                    [](const auto& entry) { return Cookie(entry.first) == entry.second; }));
}

void ConnectionAcceptor::Run() {
  std::vector<pollfd> polled = {{wake_.get(), POLLIN, 0}};
  for (const Descriptor& listener : socket_.sockets())
    polled.push_back({listener.get(), POLLIN, 0});
  bool exhausted = false;
  while (true) {
    // While there is no room only the wish to stop is awaited.
    const nfds_t count = exhausted ? 1 : polled.size();
    const int ready = poll(polled.data(), count, exhausted ? static_cast<int>(kPause.count()) : -1);
    if (ready < 0 && errno != EINTR) return;
    if (ready > 0 && polled[0].revents != 0) return;
    exhausted = false;
    for (const Descriptor& listener : socket_.sockets()) {
      exhausted = !AcceptAll(listener) || exhausted;
    }
  }
}

bool ConnectionAcceptor::AcceptAll(const Descriptor& listener) {
  for (int i = 0; i < kBurst; ++i) {
    Accepted accepted = Accept(listener, kReserve);
    switch (accepted.outcome) {
      case Accepted::Outcome::kConnection:
        if (!HasRoom()) {
          refused_.Add();
          LogRefusals("max_connections are open");
          break;
        }
        connections_[accepted.connection.get()] = Cookie(accepted.connection.get());
        handler_(listener.get(), accepted.connection.Release());
        break;
      case Accepted::Outcome::kNone:
        return true;
      case Accepted::Outcome::kRefused:
        refused_.Add();
        LogRefusals(kFewDescriptors);
        break;
      case Accepted::Outcome::kExhausted:
        LogRefusals(kFewDescriptors);
        return false;
    }
  }
  return true;  // the rest after a look at the wish to stop
}

bool ConnectionAcceptor::HasRoom() {
  if (connections_.size() < max_connections_) return true;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_sweep_) return false;
  next_sweep_ = now + kSweepInterval;
  std::erase_if(connections_,
                [](const auto& entry) { return Cookie(entry.first) != entry.second; });
  return connections_.size() < max_connections_;
}

void ConnectionAcceptor::LogRefusals(const char* hint) {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_log_) return;
  next_log_ = now + kLogInterval;
  Log(LogLevel::kWarn, "connections_refused", {{"total", refused_.value()}, {"hint", hint}});
}

}  // namespace asymserve
