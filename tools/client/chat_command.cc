#include <iostream>

#include "tools/client/commands.h"
#include "tools/client/exit_status.h"
#include "tools/client/stream_printer.h"

namespace asymserve::client {
namespace {

void AddMessage(v1::ChatRequest& request, const std::string& role, const std::string& content) {
  v1::ChatMessage& message = *request.add_messages();
  message.set_role(role);
  message.set_content(content);
}

/// Sends the conversation, prints the answer and appends it.
int TakeTurn(v1::Inference::Stub& stub, const Connection& connection, v1::ChatRequest& request,
             const GenerationOptions& options, Interrupt& interrupt) {
  grpc::ClientContext context;
  connection.Prepare(context);
  StreamPrinter printer(options);
  const auto reader = stub.Chat(&context, request);
  const int status = PrintStream(*reader, context, interrupt, printer);
  AddMessage(request, "assistant", printer.text());
  return status;
}

}  // namespace

int Chat(const Connection& connection, const ChatOptions& options, Interrupt& interrupt) {
  const auto stub = v1::Inference::NewStub(connection.Connect());
  v1::ChatRequest request;
  FillRequest(options.generation, request);
  if (!options.system.empty()) AddMessage(request, "system", options.system);
  if (!options.message.empty()) {
    AddMessage(request, "user", options.message);
    return TakeTurn(*stub, connection, request, options.generation, interrupt);
  }
  std::string line;
  while (std::cerr << "> " << std::flush, std::getline(std::cin, line)) {
    if (line.empty()) continue;
    AddMessage(request, "user", line);
    const int status = TakeTurn(*stub, connection, request, options.generation, interrupt);
    if (status == kExitFailed) return status;  // an interrupted answer ends only that turn
  }
  std::cerr << '\n';
  return kExitOk;
}

}  // namespace asymserve::client
