#pragma once

#include <chrono>
#include <memory>

#include "grpcpp/alarm.h"
#include "grpcpp/grpcpp.h"

namespace asymserve {

/// Cancels a call that stays open because its client does not read: what is left of it, its status
/// included, waits for flow control and would do so as long as the connection lives. Start and Done
/// do not run at the same time.
class CallTimer {
 public:
  CallTimer();
  CallTimer(const CallTimer&) = delete;
  CallTimer& operator=(const CallTimer&) = delete;
  ~CallTimer();

  /// Cancels the call `grace` from now, if Done does not come first. Once.
  void Start(grpc::CallbackServerContext& context, std::chrono::milliseconds grace);
  /// In OnDone, after which the context is gone.
  void Done();

 private:
  struct State;
  const std::shared_ptr<State> state_;
  grpc::Alarm alarm_;
};

}  // namespace asymserve
