#pragma once

namespace asymserve::client {

enum ExitStatus : int {
  kExitOk = 0,
  kExitFailed = 1,         // the call failed; its code and message are on stderr
  kExitUsage = 2,          // command line
  kExitInterrupted = 130,  // Ctrl-C
};

}  // namespace asymserve::client
