#include "server/open_calls.h"

#include <algorithm>

namespace asymserve {

void OpenCalls::Add(const std::shared_ptr<GenerationCall>& call) {
  std::lock_guard lock(mutex_);
  if (calls_.size() >= sweep_at_) {
    std::erase_if(calls_, [](const auto& weak) { return weak.expired(); });
    sweep_at_ = std::max<size_t>(64, 2 * calls_.size());
  }
  calls_.push_back(call);
}

void OpenCalls::CutOff() {
  std::vector<std::weak_ptr<GenerationCall>> calls;
  {
    std::lock_guard lock(mutex_);
    calls.swap(calls_);
  }
  for (const auto& weak : calls) {
    if (const std::shared_ptr<GenerationCall> call = weak.lock()) call->EndByServer();
  }
}

}  // namespace asymserve
