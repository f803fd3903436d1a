#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

#include "server/listen_socket.h"
#include "server/metrics_exporter.h"

namespace asymserve {

/// The HTTP endpoint /metrics in Prometheus's text format. One thread, and no client that it would
/// wait for: whoever has not asked or not taken the answer in time is dropped, and with
/// kMaxClients connections a new one replaces the oldest.
class MetricsEndpoint {
 public:
  static constexpr size_t kMaxClients = 16;
  static constexpr std::chrono::seconds kClientTime{10};
  static constexpr size_t kMaxRequestBytes = 8192;

  /// `address` is HOST:PORT (ListenSocket); port 0 takes a free one. Unavailable names an address
  /// that cannot be bound.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(
      const std::string& address, const std::shared_ptr<MetricsExporter>& exporter);
  MetricsEndpoint(const MetricsEndpoint&) = delete;
  MetricsEndpoint& operator=(const MetricsEndpoint&) = delete;
  ~MetricsEndpoint();

  const std::string& address() const { return socket_.address(); }

 private:
  struct Client {
    Descriptor socket;
    std::chrono::steady_clock::time_point end;  // dropped then
    std::string request;
    std::string answer;  // what is not yet sent; empty as long as the request is not complete
  };

  MetricsEndpoint(ListenSocket socket, std::shared_ptr<MetricsExporter> exporter, Descriptor wake)
      : socket_(std::move(socket)),
        exporter_(std::move(exporter)),
        wake_(std::move(wake)),
        thread_([this] { Run(); }) {}
  void Run();
  /// False when the system has no room for another connection now.
  bool AcceptAll();
  /// Reads or writes what it can; false when the client is done.
  bool Serve(Client& client) const;
  std::string Answer(const std::string& request) const;

  const ListenSocket socket_;
  const std::shared_ptr<MetricsExporter> exporter_;
  const Descriptor wake_;      // an eventfd that ends the thread
  std::list<Client> clients_;  // oldest first
  std::thread thread_;
};

}  // namespace asymserve
