#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/status/statusor.h"

namespace asymserve {

/// Turns SIGTERM and SIGINT into a request to stop, and SIGHUP into one to read files again. The
/// second request to stop ends the process at once with exit status 128 + the signal's number.
/// Nothing runs inside a signal handler: the signals are blocked and read from a descriptor by a
/// thread of this object.
class SignalWatcher {
 public:
  /// Blocks these signals in the calling thread, and in those it starts later: call it first. Also
  /// ignores SIGPIPE.
  static absl::StatusOr<std::unique_ptr<SignalWatcher>> Create();
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;
  ~SignalWatcher();

  /// While there is nothing to finish, as when a model loads, a signal to stop ends the process at
  /// once, with exit status 0. False at first. One that came before is as if it came now.
  void ExitOnSignal(bool exits);
  /// As one signal to stop does, but not counted: the next signal is the first.
  void RequestStop();
  /// True once a stop was requested; waits for it up to `timeout`. Any thread.
  bool WaitFor(std::chrono::milliseconds timeout);
  /// Whether SIGHUP came since the last call. Any thread.
  bool TakeHangup() { return hangup_.exchange(false); }

 private:
  SignalWatcher(int signal_fd, int wake_fd);
  void Watch();

  const int signal_fd_;
  const int wake_fd_;  // an eventfd that ends the thread
  std::mutex mutex_;
  std::condition_variable changed_;
  bool requested_ = false;  // guarded by mutex_
  bool exits_ = false;      // guarded by mutex_
  bool signalled_ = false;  // guarded by mutex_: a signal to stop came
  std::atomic<bool> hangup_{false};
  std::thread thread_;
};

}  // namespace asymserve
