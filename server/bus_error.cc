#include "server/bus_error.h"

#include <signal.h>
#include <unistd.h>

#include <string_view>

namespace asymserve {
namespace {

volatile sig_atomic_t g_status = 1;

/// Only what is safe in a signal handler.
void Explain(int /*signal*/) {
  constexpr std::string_view kText =
      "asymserve: a file that is being read (the model or its profile) was cut short, or its disk "
      "failed\n";
  (void)!write(STDERR_FILENO, kText.data(), kText.size());
  _exit(g_status);
}

}  // namespace

void ExplainBusErrors(int status) {
  g_status = status;
  struct sigaction action {};
  action.sa_handler = Explain;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace asymserve
