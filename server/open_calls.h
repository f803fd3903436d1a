#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "server/generation_call.h"

namespace asymserve {

/// The generations that have begun, to be ended together. Any thread.
class OpenCalls {
 public:
  void Add(const std::shared_ptr<GenerationCall>& call);
  /// GenerationCall::EndByServer of each that is still there.
  void CutOff();

 private:
  std::mutex mutex_;
  std::vector<std::weak_ptr<GenerationCall>> calls_;  // those that are gone included, until a sweep
  size_t sweep_at_ = 64;
};

}  // namespace asymserve
