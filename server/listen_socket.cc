#include "server/listen_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

// How long a peer may leave what was sent unacknowledged. gRPC's keepalive, which takes as long,
// does not see it: its ping waits behind what was sent.
constexpr unsigned kSilenceMs = 80'000;

struct HostPort {
  std::string host, port;
};

std::optional<HostPort> Split(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == address.size()) return std::nullopt;
  HostPort parts = {address.substr(0, colon), address.substr(colon + 1)};
  if (parts.port.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  if (parts.port.size() > 5 || std::stoi(parts.port) > 65535) return std::nullopt;
  if (parts.host.front() == '[' && parts.host.back() == ']') {
    parts.host = parts.host.substr(1, parts.host.size() - 2);
  } else if (parts.host.find(':') != std::string::npos) {
    return std::nullopt;
  }
  return parts;
}

absl::Status CannotListen(const std::string& address, const std::string& why) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", why));
}

sockaddr_storage BoundTo(int socket) {
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&bound), &size) != 0) return {};
  return bound;
}

int PortOf(const sockaddr_storage& bound) {
  if (bound.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&bound)->sin6_port);
  }
  return ntohs(reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);
}

bool IsLoopback(const sockaddr_storage& bound) {
  constexpr uint8_t kIpv4Net = 127;
  if (bound.ss_family == AF_INET) {
    const auto& ipv4 = reinterpret_cast<const sockaddr_in&>(bound);
    return ntohl(ipv4.sin_addr.s_addr) >> 24 == kIpv4Net;
  }
  if (bound.ss_family != AF_INET6) return false;
  const in6_addr& ipv6 = reinterpret_cast<const sockaddr_in6&>(bound).sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&ipv6)) return ipv6.s6_addr[12] == kIpv4Net;
  return IN6_IS_ADDR_LOOPBACK(&ipv6);
}

void SetPort(sockaddr& address, int port) {
  const in_port_t network = htons(static_cast<uint16_t>(port));
  if (address.sa_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6&>(address).sin6_port = network;
  } else {
    reinterpret_cast<sockaddr_in&>(address).sin_port = network;
  }
}

std::string AddressBytes(const addrinfo& info) {
  return {reinterpret_cast<const char*>(info.ai_addr), info.ai_addrlen};
}

/// Invalid, with errno, when it cannot. `dual`: IPv6 takes IPv4, too.
Descriptor ListenOn(const addrinfo& info, bool dual) {
  Descriptor made(socket(info.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made.valid()) return made;
  const int on = 1, ipv6_only = dual ? 0 : 1;
  setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (info.ai_family == AF_INET6) {
    setsockopt(made.get(), IPPROTO_IPV6, IPV6_V6ONLY, &ipv6_only, sizeof(ipv6_only));
  }
  if (bind(made.get(), info.ai_addr, info.ai_addrlen) != 0 || listen(made.get(), SOMAXCONN) != 0) {
    return Descriptor();
  }
  return made;
}

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

/// Null and the reason, or the addresses.
AddressList Look(const HostPort& parts, std::string& why) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(parts.host.c_str(), parts.port.c_str(), &hints, &found);
  if (error != 0) why = gai_strerror(error);
  return {error == 0 ? found : nullptr, &freeaddrinfo};
}

}  // namespace

absl::StatusOr<ListenSocket> ListenSocket::Bind(const std::string& address) {
  const std::optional<HostPort> parts = Split(address);
  if (!parts) return CannotListen(address, "it is not HOST:PORT or [IPV6]:PORT");
  const bool any = parts->host == "0.0.0.0" || parts->host == "::";
  ListenSocket listening;
  std::set<std::string> bound;
  std::string why;
  int port = 0;
  // All addresses of the machine are one IPv6 socket, or one IPv4 socket where there is no IPv6.
  for (const std::string& host :
       any ? std::vector<std::string>{"::", "0.0.0.0"} : std::vector<std::string>{parts->host}) {
    const AddressList addresses = Look({host, parts->port}, why);
    for (addrinfo* info = addresses.get(); info != nullptr; info = info->ai_next) {
      if (port != 0) SetPort(*info->ai_addr, port);
      if (bound.contains(AddressBytes(*info))) continue;  // not every resolver removes duplicates
      Descriptor made = ListenOn(*info, any);
      if (!made.valid()) {
        const int error = errno;
        why = std::generic_category().message(error);
        if (error == EADDRINUSE) return CannotListen(address, why);
        continue;
      }
      const sockaddr_storage at = BoundTo(made.get());
      port = PortOf(at);
      listening.loopback_ = listening.loopback_ && IsLoopback(at);
      SetPort(*info->ai_addr, port);
      bound.insert(AddressBytes(*info));
      listening.sockets_.push_back(std::move(made));
    }
    if (any && !listening.sockets_.empty()) break;
  }
  if (listening.sockets_.empty()) return CannotListen(address, why);
  listening.address_ = absl::StrCat(address.substr(0, address.rfind(':') + 1), port);
  return listening;
}

Accepted Accept(const Descriptor& socket, int reserve) {
  Accepted accepted;
  accepted.connection =
      Descriptor(accept4(socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!accepted.connection.valid()) {
    const bool exhausted =
        errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    accepted.outcome = exhausted ? Accepted::Outcome::kExhausted : Accepted::Outcome::kNone;
    return accepted;
  }
  accepted.outcome = Accepted::Outcome::kConnection;
  // Not all kernels let a connection inherit it.
  const int on = 1;
  setsockopt(accepted.connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(accepted.connection.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &kSilenceMs,
             sizeof(kSilenceMs));
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return accepted;
  if (accepted.connection.get() + reserve >= static_cast<int64_t>(limit.rlim_cur)) {
    accepted.outcome = Accepted::Outcome::kRefused;
    accepted.connection = Descriptor();
  }
  return accepted;
}

void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);  // as before, then
}

}  // namespace asymserve
