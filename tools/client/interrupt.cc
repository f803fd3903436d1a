#include "tools/client/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "tools/client/exit_status.h"

namespace asymserve::client {
namespace {

sigset_t InterruptSignal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  return signals;
}

}  // namespace

Interrupt::Interrupt() {
  const sigset_t signals = InterruptSignal();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  thread_ = std::thread([this] { Run(); });
}

Interrupt::~Interrupt() {
  stop_ = true;
  pthread_kill(thread_.native_handle(), SIGINT);
  thread_.join();
}

void Interrupt::Watch(grpc::ClientContext* context) {
  std::lock_guard lock(mutex_);
  context_ = context;
  if (context != nullptr) cancelled_ = false;
}

void Interrupt::Run() {
  const sigset_t signals = InterruptSignal();
  while (true) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0 || stop_) return;
    std::lock_guard lock(mutex_);
    if (context_ == nullptr || cancelled_) _exit(kExitInterrupted);
    cancelled_ = true;
    context_->TryCancel();
  }
}

}  // namespace asymserve::client
