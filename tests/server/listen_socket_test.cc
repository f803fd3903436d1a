#include "server/listen_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netdb.h>

#include "tests/support/status_matchers.h"

namespace asymserve::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// A container without a hosts file may not know "localhost".
bool IsKnown(const std::string& host) {
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, nullptr, &found) != 0) return false;
  freeaddrinfo(found);
  return true;
}

TEST(ListenSocketTest, PortZeroTakesAFreeOneAndSaysIt) {
  for (const std::string host : {"127.0.0.1", "localhost", "0.0.0.0"}) {
    if (!IsKnown(host)) continue;
    const auto bound = ListenSocket::Bind(host + ":0");
    ASSERT_TRUE(bound.ok()) << bound.status();
    EXPECT_THAT(bound->address(), ::testing::StartsWith(host + ":"));
    EXPECT_THAT(bound->address(), Not(::testing::EndsWith(":0")));
    EXPECT_FALSE(bound->sockets().empty());
  }
}

TEST(ListenSocketTest, KnowsWhetherOtherMachinesReachIt) {
  for (const std::string host : {"127.0.0.1", "127.8.0.1", "localhost"}) {
    if (!IsKnown(host)) continue;
    const auto bound = ListenSocket::Bind(host + ":0");
    ASSERT_TRUE(bound.ok()) << bound.status();
    EXPECT_TRUE(bound->loopback()) << host;
  }
  for (const char* host : {"0.0.0.0", "[::]"}) {
    const auto bound = ListenSocket::Bind(std::string(host) + ":0");
    ASSERT_TRUE(bound.ok()) << bound.status();
    EXPECT_FALSE(bound->loopback()) << host;
  }
}

TEST(ListenSocketTest, ATakenPortIsRefusedByItsAddress) {
  const auto first = ListenSocket::Bind("127.0.0.1:0");
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = ListenSocket::Bind(first->address()).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.message()), HasSubstr("cannot listen on " + first->address()));
  EXPECT_THAT(std::string(second.message()), HasSubstr("in use"));
}

TEST(ListenSocketTest, WhatIsNoAddressIsRefusedWithAReason) {
  for (const char* address : {"", "localhost", ":50051", "127.0.0.1:", "127.0.0.1:http", "::1:80",
                              "127.0.0.1:70000", "unix:/tmp/x"}) {
    const absl::Status status = ListenSocket::Bind(address).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << address;
    EXPECT_THAT(std::string(status.message()), HasSubstr(address));
  }
}

TEST(ListenSocketTest, NobodyWaitsAtASocketToWhichNobodyConnected) {
  const auto bound = ListenSocket::Bind("127.0.0.1:0");
  ASSERT_TRUE(bound.ok()) << bound.status();
  EXPECT_EQ(Accept(bound->sockets().front(), 0).outcome, Accepted::Outcome::kNone);
}

}  // namespace
}  // namespace asymserve::testing
