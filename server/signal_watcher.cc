#include "server/signal_watcher.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "engine/base/log.h"

namespace asymserve {
namespace {

[[noreturn]] void ExitUnserved() {
  Log(LogLevel::kInfo, "stopped", {{"served", false}});
  _exit(0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SignalWatcher>> SignalWatcher::Create() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  if (const int error = pthread_sigmask(SIG_BLOCK, &signals, nullptr); error != 0) {
    return absl::ErrnoToStatus(error, "cannot block SIGTERM, SIGINT and SIGHUP");
  }
  // Who reads the log or the other end of a socket may go away: writing fails, and that is all.
  if (std::signal(SIGPIPE, SIG_IGN) == SIG_ERR) return absl::ErrnoToStatus(errno, "SIGPIPE");
  const int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signal_fd < 0) return absl::ErrnoToStatus(errno, "signalfd");
  const int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd < 0) {
    const int error = errno;
    close(signal_fd);
    return absl::ErrnoToStatus(error, "eventfd");
  }
  return std::unique_ptr<SignalWatcher>(new SignalWatcher(signal_fd, wake_fd));
}

SignalWatcher::SignalWatcher(int signal_fd, int wake_fd)
    : signal_fd_(signal_fd), wake_fd_(wake_fd), thread_([this] { Watch(); }) {}

SignalWatcher::~SignalWatcher() {
  eventfd_write(wake_fd_, 1);
  thread_.join();
  close(signal_fd_);
  close(wake_fd_);
}

bool SignalWatcher::WaitFor(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [this] { return requested_; });
}

void SignalWatcher::ExitOnSignal(bool exits) {
  const std::lock_guard lock(mutex_);
  exits_ = exits;
  if (exits_ && signalled_) ExitUnserved();
}

void SignalWatcher::RequestStop() {
  const std::lock_guard lock(mutex_);
  requested_ = true;
  changed_.notify_all();
}

void SignalWatcher::Watch() {
  pollfd fds[] = {{signal_fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}};
  while (true) {
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
    if (fds[1].revents != 0) return;
    signalfd_siginfo info{};
    if (read(signal_fd_, &info, sizeof(info)) != sizeof(info)) continue;
    const auto signal = static_cast<int>(info.ssi_signo);
    if (signal == SIGHUP) {
      Log(LogLevel::kInfo, "reload_requested", {{"signal", signal}});
      hangup_ = true;
      continue;
    }
    std::lock_guard lock(mutex_);
    if (signalled_) {
      Log(LogLevel::kWarn, "exit_now", {{"signal", signal}});
      _exit(128 + signal);
    }
    Log(LogLevel::kInfo, "stop_requested", {{"signal", signal}});
    if (exits_) ExitUnserved();
    requested_ = signalled_ = true;
    changed_.notify_all();
  }
}

}  // namespace asymserve
