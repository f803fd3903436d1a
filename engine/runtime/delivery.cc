#include "engine/runtime/delivery.h"

#include <iterator>
#include <utility>

namespace asymserve {

Delivery::Delivery(std::function<void(RequestId)> on_gone)
    : on_gone_(std::move(on_gone)), thread_([this] { Loop(); }) {}

Delivery::~Delivery() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  ready_.notify_one();
  thread_.join();
}

void Delivery::Push(std::vector<Outgoing>& step) {
  if (step.empty()) return;
  {
    std::lock_guard lock(mutex_);
    std::move(step.begin(), step.end(), std::back_inserter(queue_));
  }
  step.clear();
  ready_.notify_one();
}

bool Delivery::busy() const {
  std::lock_guard lock(mutex_);
  return delivering_ || !queue_.empty();
}

void Delivery::Loop() {
  std::vector<Outgoing> step;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      delivering_ = false;
      ready_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;  // stopped and drained
      step.swap(queue_);
      delivering_ = true;
    }
    for (Outgoing& outgoing : step) {
      const bool is_final = outgoing.delta.finish != FinishReason::kNone;
      const bool wanted = outgoing.request->sink->Deliver(std::move(outgoing.delta));
      if (!wanted && !is_final) on_gone_(outgoing.request->id);
    }
    step.clear();
  }
}

}  // namespace asymserve
