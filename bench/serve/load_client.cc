#include "bench/serve/load_client.h"

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace asymserve::load {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kDeadlineSlackSeconds = 0.05;  // between the deadline and when it is noticed

double Seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

Clock::duration ToDuration(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

/// One streamed call; deletes itself at its end.
class Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  using Done = std::function<void(CallResult)>;

  /// `answer` outlives the call.
  Call(const std::string& answer, CallResult result, Done done)
      : answer_(answer), done_(std::move(done)), result_(std::move(result)) {}

  /// `request` outlives the call. `deadline`: seconds from now; 0: none.
  void Start(const Target& target, const v1::GenerateRequest& request, double deadline) {
    sent_ = Clock::now();
    deadline_ = deadline;
    if (deadline > 0) {
      context_.set_deadline(std::chrono::system_clock::now() +
                            std::chrono::duration_cast<std::chrono::system_clock::duration>(
                                std::chrono::duration<double>(deadline)));
    }
    target.Prepare(context_);
    target.stub().async()->Generate(&context_, &request, this);
    StartRead(&message_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    const double now = Seconds(Clock::now() - sent_);
    any_ = true;
    if (message_.has_final()) {
      result_.prompt_tokens = message_.final().usage().prompt_tokens();
      result_.cached_tokens = message_.final().usage().cached_tokens();
      result_.generated_tokens = message_.final().usage().generated_tokens();
      reason_ = message_.final().reason();
    }
    // What was given up in the queue ends with a message without a token.
    if (!message_.has_final() || result_.generated_tokens > 0) {
      if (result_.first_token == 0) result_.first_token = now;
      result_.last_token = now;
    }
    text_ += message_.text();
    StartRead(&message_);
  }

  void OnDone(const grpc::Status& status) override {
    result_.total = Seconds(Clock::now() - sent_);
    result_.code = status.error_code();
    result_.outcome = OutcomeOf(status.error_code());
    result_.wrong_text =
        result_.outcome == Outcome::kCompleted ? text_ != answer_ : !answer_.starts_with(text_);
    if (result_.outcome == Outcome::kFailed) result_.error = status.error_message();
    const Done done = std::move(done_);
    CallResult result = std::move(result_);
    delete this;  // before anybody hears of the end: then the process may exit
    done(std::move(result));
  }

 private:
  Outcome OutcomeOf(grpc::StatusCode code) const {
    if (code == grpc::StatusCode::OK) return Outcome::kCompleted;
    const bool late = code == grpc::StatusCode::DEADLINE_EXCEEDED;
    if (!late && code != grpc::StatusCode::RESOURCE_EXHAUSTED) return Outcome::kFailed;
    if (reason_ == v1::FINISH_REASON_QUEUE_TIMEOUT) return Outcome::kExpired;
    if (reason_ == v1::FINISH_REASON_DEADLINE) return Outcome::kLate;
    if (any_) return late ? Outcome::kLate : Outcome::kFailed;
    const bool passed = deadline_ > 0 && result_.total > deadline_ - kDeadlineSlackSeconds;
    return late && passed ? Outcome::kLate : Outcome::kRefused;
  }

  const std::string& answer_;
  Done done_;
  grpc::ClientContext context_;
  v1::GenerateResponse message_;
  Clock::time_point sent_;
  double deadline_ = 0;
  bool any_ = false;
  v1::FinishReason reason_ = v1::FINISH_REASON_UNSPECIFIED;
  std::string text_;
  CallResult result_;
};

/// Starts calls and collects their results. Its owner waits for all of them before it goes.
class Sender {
 public:
  Sender(const Target& target, const std::vector<PoolText>& texts, const Limits& limits)
      : target_(target), texts_(texts), limits_(limits) {
    for (const PoolText& text : texts) {
      requests_.push_back(RequestFor(text));
      if (limits.max_queue_ms > 0) requests_.back().set_max_queue_ms(limits.max_queue_ms);
    }
  }

  void Send(size_t text, double planned) {
    CallResult result;
    result.text = text;
    result.planned = planned;
    result.lag = Seconds(Clock::now() - begin_) - planned;
    {
      std::lock_guard lock(mutex_);
      ++open_;
    }
    auto* call = new Call(texts_[text].answer, std::move(result), [this](CallResult ended) {
      std::lock_guard lock(mutex_);
      results_.push_back(std::move(ended));
      --open_;
      changed_.notify_all();
    });
    const double deadline =
        limits_.deadline ? limits_.DeadlineSeconds(texts_[text].length.output_tokens) : 0;
    call->Start(target_, requests_[text], deadline);
  }

  /// Until fewer than `calls` are open.
  void WaitForFewerThan(int32_t calls) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_ < calls; });
  }

  std::vector<CallResult> Take() {
    WaitForFewerThan(1);
    std::lock_guard lock(mutex_);
    return std::move(results_);
  }

  Clock::time_point begin() const { return begin_; }

 private:
  const Target& target_;
  const std::vector<PoolText>& texts_;
  const Limits limits_;
  std::vector<v1::GenerateRequest> requests_;  // by text
  const Clock::time_point begin_ = Clock::now();
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  int32_t open_ = 0;
  std::vector<CallResult> results_;
};

}  // namespace

std::vector<CallResult> RunOpenLoop(const Target& target, const LoadPlan& plan,
                                    const std::vector<PoolText>& texts, const Limits& limits) {
  Sender sender(target, texts, limits);
  for (const Arrival& arrival : plan.arrivals) {
    std::this_thread::sleep_until(sender.begin() + std::chrono::microseconds(arrival.at));
    sender.Send(arrival.text, static_cast<double>(arrival.at) * 1e-6);
  }
  return sender.Take();
}

std::vector<CallResult> RunClosedLoop(const Target& target, const LoadPlan& plan,
                                      const std::vector<PoolText>& texts, int32_t calls,
                                      double seconds) {
  Sender sender(target, texts, {.max_queue_ms = 0, .deadline = false});
  const Clock::time_point end = sender.begin() + ToDuration(seconds);
  for (int64_t i = 0; Clock::now() < end; ++i) {
    sender.Send(TextOfCall(plan.arrivals, i), Seconds(Clock::now() - sender.begin()));
    sender.WaitForFewerThan(calls);
  }
  return sender.Take();
}

}  // namespace asymserve::load
