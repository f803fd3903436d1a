#include "server/call_timer.h"

#include <mutex>

namespace asymserve {

struct CallTimer::State {
  std::mutex mutex;
  grpc::CallbackServerContext* context = nullptr;  // null: not started, or done
};

CallTimer::CallTimer() : state_(std::make_shared<State>()) {}
CallTimer::~CallTimer() = default;

void CallTimer::Start(grpc::CallbackServerContext& context, std::chrono::milliseconds grace) {
  {
    std::lock_guard lock(state_->mutex);
    state_->context = &context;
  }
  alarm_.Set(std::chrono::system_clock::now() + grace, [state = state_](bool expired) {
    if (!expired) return;
    std::lock_guard lock(state->mutex);
    if (state->context != nullptr) state->context->TryCancel();
  });
}

void CallTimer::Done() {
  {
    std::lock_guard lock(state_->mutex);
    if (state_->context == nullptr) return;
    state_->context = nullptr;
  }
  alarm_.Cancel();
}

}  // namespace asymserve
