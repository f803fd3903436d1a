#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "asymserve/v1/inference.grpc.pb.h"
#include "grpcpp/grpcpp.h"

namespace asymserve::testing {

/// What a child process wrote and how it ended.
struct Finished {
  int status = -1;  // exit status, or 128 + signal
  std::string out, err;
};

/// Runs a program to its end, with `in` as its standard input. Sends it SIGINT once
/// `interrupt_when` is true, and kills it after a minute.
Finished RunProgram(const std::vector<std::string>& arguments, const std::string& in = "",
                    const std::function<bool()>& interrupt_when = nullptr);

/// A TCP connection to HOST:PORT, HOST an IPv4 address; -1: there is none.
int ConnectTo(const std::string& address);

/// A real `asymserve serve` on loopback ports that the system chose, and on the CPU, if its
/// arguments say nothing else. Killed if it still runs at the end.
class ServerProcess {
 public:
  /// `arguments` follow "asymserve serve". Does not wait.
  explicit ServerProcess(const std::vector<std::string>& arguments,
                         const std::string& binary = ASYMSERVE_BINARY);
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;
  ~ServerProcess();

  /// Waits until a log line contains `text`; false when the process ends first, or after a minute.
  bool WaitForLog(const std::string& text);
  bool WaitUntilServing() { return WaitForLog(" serving address="); }
  std::string log();

  /// The value of the first `key=` behind ` event `; empty if there is none.
  std::string LogValue(const std::string& event, const std::string& key);
  /// A connection of its own, whose window for a stream that is not read stays at 64 KiB.
  std::shared_ptr<grpc::Channel> Channel(const std::shared_ptr<grpc::ChannelCredentials>&
                                             credentials = grpc::InsecureChannelCredentials());
  std::unique_ptr<v1::Inference::Stub> Stub() { return v1::Inference::NewStub(Channel()); }
  std::string address() { return LogValue("serving", "address"); }

  /// What /metrics answers, head and body.
  std::string Scrape();
  /// Of that: sample with its labels -> value.
  std::map<std::string, double> Metrics();

  pid_t pid() const { return pid_; }
  int threads() const;
  int descriptors() const;

  void Signal(int signal) const;
  /// Exit status, or 128 + the signal that ended it, once its whole log is there; empty when it
  /// runs on for `timeout`.
  std::optional<int> WaitForExit(std::chrono::seconds timeout = std::chrono::seconds(60));

 private:
  void ReadLog(int descriptor);

  pid_t pid_ = -1;
  std::optional<int> status_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string log_;         // guarded by mutex_
  bool log_ended_ = false;  // guarded by mutex_
  std::thread reader_;
};

}  // namespace asymserve::testing
