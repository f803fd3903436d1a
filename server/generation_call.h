#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "grpcpp/grpcpp.h"

#include "engine/runtime/engine.h"
#include "server/call_record.h"
#include "server/call_timer.h"
#include "server/convert.h"

namespace asymserve {

/// One Generate, GenerateUnary or Chat call: the sink of a request's deltas, and what becomes of
/// the call. It ends when every sequence had its final delta, whatever happened to the client, so
/// that its record is complete. The derived class is also a gRPC reactor; gRPC and the engine share
/// its ownership. Reactions and Deliver never block.
class GenerationCall : public OutputSink, public std::enable_shared_from_this<GenerationCall> {
 public:
  /// Hands the request to the engine, or ends the call with the reason it was refused. Once.
  void Start(GenerateRequest request);

  bool Deliver(Delta delta) final;

  /// Ends the call with UNAVAILABLE, if it has not ended: the server's drain is over.
  void EndByServer();

 protected:
  /// `engine` outlives the call.
  GenerationCall(std::unique_ptr<CallRecord> record, grpc::CallbackServerContext& context,
                 Engine& engine, std::chrono::milliseconds read_time);

  /// For OnCancel: the client cancelled, went away, or its deadline passed.
  void HandleCancel();
  /// Ends the call early, with `status`, and has the engine cancel it.
  void Abandon(const grpc::Status& status);
  /// Ends the call early, if nothing did so before. Lock held. The caller makes the engine cancel.
  void Fail(const grpc::Status& status);
  /// For OnDone. Lock held.
  void Done() { unread_timer_.Done(); }

  // The derived class's part. Lock held.
  /// Takes a delta on its way to the client. False: the client is too slow, Fail was called.
  virtual bool Take(const Delta& delta) = 0;
  /// Moves what can be moved, and finishes the call once it is complete.
  virtual void Pump() = 0;
  /// Counts and logs the call; its status. Once, right before Finish.
  grpc::Status End();

  bool complete() const { return sequences_left_ == 0; }
  bool failed() const { return failed_; }
  grpc::CallbackServerContext& context() { return context_; }  // until OnDone

  std::mutex mutex_;

 private:
  /// Pump, and sees to it that a call that has ended does not stay for ever. Lock held.
  void Move();
  void AddFinal(const Delta& delta);
  void CountRejection(const absl::Status& status);

  bool has_deadline() const { return deadline_ < std::chrono::system_clock::time_point::max(); }
  /// Whether a cancellation now is the client's deadline.
  bool DeadlinePassed() const;

  const std::chrono::system_clock::time_point start_ = std::chrono::system_clock::now();
  const std::chrono::system_clock::time_point deadline_;  // the clock's last value: none
  grpc::CallbackServerContext& context_;
  Engine& engine_;
  const std::chrono::milliseconds read_time_;  // CallOptions
  // Guarded by mutex_.
  const std::unique_ptr<CallRecord> record_;
  grpc::Status status_;
  bool failed_ = false;     // nothing more goes to the client but the status
  bool cancelled_ = false;  // Abandon ran
  bool ended_ = false;      // Move saw it complete
  CallTimer unread_timer_;
  int32_t sequences_left_ = 1;
  std::optional<RequestId> request_;  // once Submit returned
};

}  // namespace asymserve
