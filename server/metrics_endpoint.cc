#include "server/metrics_endpoint.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "prometheus/text_serializer.h"

#include "engine/base/status.h"

namespace asymserve {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kBurst = 64;    // connections taken in a row
constexpr int kReserve = 16;  // descriptors that connections leave to others
constexpr std::chrono::milliseconds kPause(50);

std::string Response(std::string_view status, std::string_view body, std::string_view type) {
  return absl::StrCat("HTTP/1.1 ", std::string(status), "\r\nContent-Type: ", std::string(type),
                      "\r\nContent-Length: ", body.size(), "\r\nConnection: close\r\n\r\n",
                      std::string(body));
}

std::string Refusal(std::string_view status) {
  return Response(status, absl::StrCat(std::string(status), "\n"), "text/plain");
}

/// Milliseconds for poll.
int Until(Clock::time_point end, Clock::time_point now) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - now).count();
  return static_cast<int>(std::max<int64_t>(left, 0));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(
    const std::string& address, const std::shared_ptr<MetricsExporter>& exporter) {
  absl::StatusOr<ListenSocket> socket = ListenSocket::Bind(address);
  if (!socket.ok()) return Annotate(socket.status(), "metrics.address");
  Descriptor wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return absl::ErrnoToStatus(errno, "eventfd");
  return std::unique_ptr<MetricsEndpoint>(
      new MetricsEndpoint(*std::move(socket), exporter, std::move(wake)));
}

MetricsEndpoint::~MetricsEndpoint() {
  eventfd_write(wake_.get(), 1);
  thread_.join();
}

void MetricsEndpoint::Run() {
  std::vector<pollfd> polled;
  bool exhausted = false;
  while (true) {
    polled.assign(1, {wake_.get(), POLLIN, 0});
    for (const Client& client : clients_) {
      const int16_t events = client.answer.empty() ? POLLIN : POLLOUT;
      polled.push_back({client.socket.get(), events, 0});
    }
    if (!exhausted) {
      for (const Descriptor& socket : socket_.sockets())
        polled.push_back({socket.get(), POLLIN, 0});
    }
    int timeout = exhausted ? static_cast<int>(kPause.count()) : -1;
    if (!exhausted && !clients_.empty()) timeout = Until(clients_.front().end, Clock::now());
    if (poll(polled.data(), polled.size(), timeout) < 0 && errno != EINTR) return;
    if (polled[0].revents != 0) return;
    size_t at = 1;
    for (auto client = clients_.begin(); client != clients_.end(); ++at) {
      const bool ready = polled[at].revents != 0;
      const bool stays = (!ready || Serve(*client)) && Clock::now() < client->end;
      client = stays ? std::next(client) : clients_.erase(client);
    }
    exhausted = !AcceptAll();
  }
}

bool MetricsEndpoint::AcceptAll() {
  for (const Descriptor& socket : socket_.sockets()) {
    for (int i = 0; i < kBurst; ++i) {  // then a look at the wish to stop
      Accepted accepted = Accept(socket, kReserve);
      if (accepted.outcome == Accepted::Outcome::kExhausted) return false;
      if (accepted.outcome == Accepted::Outcome::kNone) break;
      if (accepted.outcome == Accepted::Outcome::kRefused) continue;
      if (clients_.size() == kMaxClients) clients_.pop_front();
      clients_.push_back({std::move(accepted.connection), Clock::now() + kClientTime, "", ""});
    }
  }
  return true;
}

bool MetricsEndpoint::Serve(Client& client) const {
  if (client.answer.empty()) {
    char buffer[2048];
    const ssize_t count = recv(client.socket.get(), buffer, sizeof(buffer), 0);
    if (count <= 0) return count < 0 && (errno == EAGAIN || errno == EINTR);
    client.request.append(buffer, static_cast<size_t>(count));
    if (client.request.find("\r\n\r\n") != std::string::npos) {
      client.answer = Answer(client.request);
    } else if (client.request.size() > kMaxRequestBytes) {
      client.answer = Refusal("431 Request Header Fields Too Large");
    } else {
      return true;
    }
  }
  const ssize_t sent =
      send(client.socket.get(), client.answer.data(), client.answer.size(), MSG_NOSIGNAL);
  if (sent < 0) return errno == EAGAIN || errno == EINTR;
  client.answer.erase(0, static_cast<size_t>(sent));
  return !client.answer.empty();
}

std::string MetricsEndpoint::Answer(const std::string& request) const {
  const std::string_view line = std::string_view(request).substr(0, request.find("\r\n"));
  const size_t method_end = line.find(' ');
  if (method_end == std::string_view::npos) return Refusal("400 Bad Request");
  const std::string_view method = line.substr(0, method_end);
  const std::string_view target = line.substr(method_end + 1);
  if (method != "GET") return Refusal("405 Method Not Allowed");
  if (target.substr(0, target.find_first_of(" ?")) != "/metrics") return Refusal("404 Not Found");
  return Response("200 OK", prometheus::TextSerializer().Serialize(exporter_->Collect()),
                  "text/plain; version=0.0.4; charset=utf-8");
}

}  // namespace asymserve
