#pragma once

#include <chrono>
#include <string>

#include "asymserve/v1/inference.pb.h"
#include "grpcpp/grpcpp.h"

#include "tools/client/call_options.h"
#include "tools/client/interrupt.h"

namespace asymserve::client {

/// Writes a stream of GenerateResponse to stdout as it comes: plain text, with several sequences
/// each piece on a line of its own behind "[index] ", or JSON lines.
class StreamPrinter {
 public:
  explicit StreamPrinter(const GenerationOptions& options) : options_(options) {}

  void Print(const v1::GenerateResponse& message);
  /// Ends the line, and writes the statistics if they are wanted.
  void Finish();
  /// The text of sequence 0.
  const std::string& text() const { return text_; }

 private:
  using Clock = std::chrono::steady_clock;
  void PrintStats() const;

  const GenerationOptions& options_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point first_, last_;
  bool any_ = false;
  std::string text_;
  v1::Usage usage_;  // summed over the sequences
  v1::Final final_;  // of the sequence that ended last
};

/// Reads a stream to its end and prints it; the process's exit status. Ctrl-C cancels the call.
template <typename Reader>
int PrintStream(Reader& reader, grpc::ClientContext& context, Interrupt& interrupt,
                StreamPrinter& printer);

int ExitStatusOf(const grpc::Status& status, const Interrupt& interrupt);

template <typename Reader>
int PrintStream(Reader& reader, grpc::ClientContext& context, Interrupt& interrupt,
                StreamPrinter& printer) {
  interrupt.Watch(&context);
  v1::GenerateResponse message;
  while (reader.Read(&message)) printer.Print(message);
  const grpc::Status status = reader.Finish();
  interrupt.Watch(nullptr);
  printer.Finish();
  return ExitStatusOf(status, interrupt);
}

}  // namespace asymserve::client
