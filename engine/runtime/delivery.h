#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/runtime/generation.h"

namespace asymserve {

/// One piece of output on its way to its reader.
struct Outgoing {
  std::shared_ptr<const ActiveRequest> request;
  Delta delta;
};

/// The delivery thread: hands each step's deltas to their sinks, so that the cost of waking clients
/// never delays the next step.
class Delivery {
 public:
  /// `on_gone` is called on the delivery thread for a request whose reader does not want more.
  explicit Delivery(std::function<void(RequestId)> on_gone);
  Delivery(const Delivery&) = delete;
  Delivery& operator=(const Delivery&) = delete;
  /// Delivers what is queued, then joins.
  ~Delivery();

  /// One push per step; `step` is left empty. Engine thread.
  void Push(std::vector<Outgoing>& step);
  /// True while something is queued or being delivered. Any thread.
  bool busy() const;

 private:
  void Loop();

  const std::function<void(RequestId)> on_gone_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::vector<Outgoing> queue_;  // guarded by mutex_
  bool delivering_ = false;      // guarded by mutex_
  bool stop_ = false;            // guarded by mutex_
  std::thread thread_;
};

}  // namespace asymserve
