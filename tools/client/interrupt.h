#pragma once

#include <atomic>
#include <mutex>
#include <thread>

#include "grpcpp/grpcpp.h"

namespace asymserve::client {

/// Ctrl-C cancels the call that is running; without one, or when it is pressed again, it ends the
/// process. Create it before other threads exist: SIGINT is blocked in all of them.
class Interrupt {
 public:
  Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  ~Interrupt();

  /// The running call, or null. The context lives until the next call of this function.
  void Watch(grpc::ClientContext* context);
  /// Whether Ctrl-C cancelled the call last watched.
  bool cancelled() const { return cancelled_.load(); }

 private:
  void Run();

  std::mutex mutex_;
  grpc::ClientContext* context_ = nullptr;  // guarded by mutex_
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace asymserve::client
