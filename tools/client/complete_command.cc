#include "tools/client/commands.h"
#include "tools/client/stream_printer.h"

namespace asymserve::client {

int Complete(const Connection& connection, const CompleteOptions& options, Interrupt& interrupt) {
  const auto stub = v1::Inference::NewStub(connection.Connect());
  v1::GenerateRequest request;
  request.set_prompt(options.prompt);
  request.set_parse_special_tokens(options.parse_special);
  FillRequest(options.generation, request);
  grpc::ClientContext context;
  connection.Prepare(context);
  StreamPrinter printer(options.generation);
  const auto reader = stub->Generate(&context, request);
  return PrintStream(*reader, context, interrupt, printer);
}

}  // namespace asymserve::client
