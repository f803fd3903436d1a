#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "grpcpp/grpcpp.h"

#include "engine/kv/ids.h"
#include "engine/runtime/request.h"
#include "server/key_meter.h"
#include "server/server_metrics.h"
#include "server/trace_context.h"

namespace asymserve {

std::string_view FinishReasonName(FinishReason reason);

/// The bookkeeping of one call: counted while open, and at its end one log line and one count by
/// method and code. Not thread-safe; its owner's lock guards it. Never sees text.
class CallRecord {
 public:
  /// `metrics` outlives the record.
  CallRecord(Method method, const grpc::ServerContextBase& context, ServerMetrics& metrics);
  CallRecord(const CallRecord&) = delete;
  CallRecord& operator=(const CallRecord&) = delete;
  ~CallRecord();

  void SetRequest(RequestId id) { request_ = static_cast<uint64_t>(id); }
  void SetPrecision(KvPrecision precision) { precision_ = precision; }
  /// Whose key the call came with.
  void SetKey(std::string holder) { key_ = std::move(holder); }
  /// What the call takes is counted against the key's limits when it ends.
  void SetUse(KeyUse use) { use_ = std::move(use); }
  /// The call is refused before the engine takes it: counted now, its time in End.
  void Reject(Rejection reason);
  /// Adds one sequence's end to what the line will say.
  void AddFinal(const Delta& delta);
  /// Counts and logs; of refused calls some lines are left out (log_rate.h) but at level debug.
  /// Called once, before the status goes to the client.
  void End(const grpc::Status& status);

 private:
  double elapsed_seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  void Observe(const grpc::Status& status) const;
  void Write(const grpc::Status& status) const;
  void WriteRefused(std::string_view code, Rejection reason) const;

  const Method method_;
  ServerMetrics& metrics_;
  const std::string peer_;
  const TraceContext trace_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::string key_ = "-";  // its holder
  KeyUse use_;
  uint64_t request_ = 0;
  KvPrecision precision_ = KvPrecision::kScheme;
  FinishReason finish_ = FinishReason::kNone;  // of the first sequence that ended
  bool ran_ = false;  // or nothing was computed, and nothing is charged to the key
  int32_t prompt_tokens_ = 0, cached_tokens_ = 0, generated_tokens_ = 0;
  int32_t degraded_ = 0;                 // sequences
  Timings timings_;                      // of the sequence that ended last
  std::optional<double> first_token_s_;  // the first of all sequences
  double later_tokens_s_ = 0;            // from each one's first token to its end
  int32_t later_tokens_ = 0;             // in that time
  std::optional<Rejection> rejection_;
  bool ended_ = false;
};

}  // namespace asymserve
