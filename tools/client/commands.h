#pragma once

#include <string>

#include "tools/client/call_options.h"
#include "tools/client/interrupt.h"

// The sub-commands. Each returns the process's exit status.

namespace asymserve::client {

struct CompleteOptions {
  std::string prompt;
  bool parse_special = false;
  GenerationOptions generation;
};
int Complete(const Connection& connection, const CompleteOptions& options, Interrupt& interrupt);

struct ChatOptions {
  std::string message;  // empty: a conversation, one line of stdin a turn
  std::string system;   // first message with role "system"; empty: none
  GenerationOptions generation;
};
int Chat(const Connection& connection, const ChatOptions& options, Interrupt& interrupt);

/// Prints the status of `service` ("": the process) and succeeds when it is SERVING.
int Health(const Connection& connection, const std::string& service);

int Info(const Connection& connection);

}  // namespace asymserve::client
