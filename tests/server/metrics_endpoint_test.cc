#include "server/metrics_endpoint.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <string>
#include <vector>

namespace asymserve::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class MetricsEndpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto endpoint = MetricsEndpoint::Start("127.0.0.1:0", exporter_);
    ASSERT_TRUE(endpoint.ok()) << endpoint.status();
    endpoint_ = *std::move(endpoint);
  }

  Descriptor Connect() const {
    const std::string& address = endpoint_->address();
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    Descriptor made(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(made.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
    return made;
  }
  static void Send(const Descriptor& socket, const std::string& text) {
    EXPECT_EQ(send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  /// Until the server closes.
  static std::string ReadAll(const Descriptor& socket) {
    std::string text;
    char buffer[4096];
    ssize_t count = 0;
    while ((count = recv(socket.get(), buffer, sizeof(buffer), 0)) > 0) {
      text.append(buffer, static_cast<size_t>(count));
    }
    return text;
  }
  std::string Ask(const std::string& request) const {
    const Descriptor socket = Connect();
    Send(socket, request);
    return ReadAll(socket);
  }

  ServerMetrics metrics_;
  std::shared_ptr<MetricsExporter> exporter_ = std::make_shared<MetricsExporter>(metrics_);
  std::unique_ptr<MetricsEndpoint> endpoint_;
};

TEST_F(MetricsEndpointTest, AnswersWithTheTextFormatAndItsLength) {
  const std::string answer = Ask("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain; version=0.0.4"));
  EXPECT_THAT(answer, HasSubstr("\nasymserve_open_calls 0\n"));
  const size_t body = answer.find("\r\n\r\n") + 4;
  EXPECT_THAT(answer, HasSubstr("Content-Length: " + std::to_string(answer.size() - body) + "\r"));
}

TEST_F(MetricsEndpointTest, RefusesWhatIsNotAGetOfMetrics) {
  EXPECT_THAT(Ask("GET / HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Ask("GET /metricsx HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Ask("POST /metrics HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(Ask("nonsense\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask(std::string(MetricsEndpoint::kMaxRequestBytes + 1, 'x')),
              StartsWith("HTTP/1.1 431 "));
}

TEST_F(MetricsEndpointTest, ARequestMayComeInPieces) {
  const Descriptor socket = Connect();
  for (const char* piece : {"GET /met", "rics HTTP/1.1\r\n", "\r", "\n"}) Send(socket, piece);
  EXPECT_THAT(ReadAll(socket), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(MetricsEndpointTest, ANewConnectionReplacesTheOldestOfThoseThatHang) {
  std::vector<Descriptor> hanging;
  for (size_t i = 0; i < MetricsEndpoint::kMaxClients + 3; ++i) hanging.push_back(Connect());
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_EQ(ReadAll(hanging.front()), "");  // closed
  Send(hanging.back(), "GET /metrics HTTP/1.1\r\n\r\n");
  EXPECT_THAT(ReadAll(hanging.back()), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(MetricsEndpointTest, EndsWithoutWaitingForItsClients) {
  const Descriptor hanging = Connect();
  const auto start = std::chrono::steady_clock::now();
  endpoint_ = nullptr;
  EXPECT_LT(std::chrono::steady_clock::now() - start, MetricsEndpoint::kClientTime / 2);
  EXPECT_EQ(ReadAll(hanging), "");
}

}  // namespace
}  // namespace asymserve::testing
