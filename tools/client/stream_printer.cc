#include "tools/client/stream_printer.h"

#include <cstdio>
#include <iostream>

#include "google/protobuf/util/json_util.h"

#include "tools/client/exit_status.h"

namespace asymserve::client {
namespace {

std::string ToJson(const v1::GenerateResponse& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  return status.ok() ? json : "{}";
}

double Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

void StreamPrinter::Print(const v1::GenerateResponse& message) {
  last_ = Clock::now();
  if (!any_) first_ = last_;
  any_ = true;
  if (message.index() == 0) text_ += message.text();
  if (message.has_final()) {
    final_ = message.final();
    usage_.set_prompt_tokens(final_.usage().prompt_tokens());
    usage_.set_cached_tokens(final_.usage().cached_tokens());
    usage_.set_generated_tokens(usage_.generated_tokens() + final_.usage().generated_tokens());
  }
  if (options_.json) {
    std::cout << ToJson(message) << std::endl;
  } else if (options_.n.value_or(1) > 1) {
    if (!message.text().empty()) {
      std::cout << '[' << message.index() << "] " << message.text() << std::endl;
    }
  } else {
    std::cout << message.text() << std::flush;
  }
}

void StreamPrinter::Finish() {
  if (!any_) return;
  if (!options_.json && !text_.empty() && text_.back() != '\n') std::cout << std::endl;
  if (options_.stats) PrintStats();
}

void StreamPrinter::PrintStats() const {
  const int generated = usage_.generated_tokens();
  const double decode = Seconds(last_ - first_);
  char line[256];
  std::snprintf(line, sizeof(line),
                "%d prompt tokens (%d cached), %d generated, time to first token %.1f ms, "
                "%.1f tokens/s, total %.3f s, finish %s",
                usage_.prompt_tokens(), usage_.cached_tokens(), generated,
                Seconds(first_ - start_) * 1e3, decode > 0 ? (generated - 1) / decode : 0.0,
                Seconds(last_ - start_), v1::FinishReason_Name(final_.reason()).c_str());
  std::cerr << line << '\n';
}

int ExitStatusOf(const grpc::Status& status, const Interrupt& interrupt) {
  if (status.ok()) return kExitOk;
  if (interrupt.cancelled() && status.error_code() == grpc::StatusCode::CANCELLED) {
    return kExitInterrupted;
  }
  PrintError(status);
  return kExitFailed;
}

}  // namespace asymserve::client
