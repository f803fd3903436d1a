#include "server/drain.h"

#include <algorithm>
#include <thread>

#include "engine/base/log.h"

namespace asymserve {
namespace {

constexpr std::chrono::milliseconds kPoll(2);
constexpr std::chrono::milliseconds kGrace(100);
constexpr std::chrono::milliseconds kCutOffGrace(500);  // for the last word to those cut off

}  // namespace

bool Drain(GrpcServer& server, InferenceService& service, Engine& engine,
           std::chrono::milliseconds budget) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const auto left = [&] {
    const auto spent = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
    return std::max(budget - spent, std::chrono::milliseconds(0));
  };
  Log(LogLevel::kInfo, "draining", {{"budget_s", std::chrono::duration<double>(budget).count()}});
  server.SetReady(false);
  service.StartDrain();
  bool finished = engine.WaitIdle(left());
  // What the engine has finished may still be on its way to slow clients. Health watches and
  // reflection streams stay open as long as their clients like; they get the grace only.
  const auto wait = [&](Clock::time_point end) {
    while (service.open_calls() > 0 && Clock::now() < end) std::this_thread::sleep_for(kPoll);
  };
  wait(start + budget);
  if (service.open_calls() > 0) {
    finished = false;
    service.CutOff();
    wait(Clock::now() + kCutOffGrace);
  }
  server.HangUp(kGrace);
  server.Stop(std::chrono::milliseconds(0));
  Log(finished ? LogLevel::kInfo : LogLevel::kWarn, "drained",
      {{"finished_all", finished},
       {"seconds", std::chrono::duration<double>(Clock::now() - start).count()}});
  return finished;
}

}  // namespace asymserve
