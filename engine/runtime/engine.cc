#include "engine/runtime/engine.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/log.h"
#include "engine/base/status.h"
#include "engine/runtime/delivery.h"
#include "engine/runtime/engine_loop.h"
#include "engine/runtime/prefix_hash.h"

namespace asymserve {
namespace {

using Clock = std::chrono::steady_clock;

TimeUs Now() {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch())
      .count();
}

EngineOptions Resolve(EngineOptions options, const Model& model) {
  if (options.max_context_tokens == 0) options.max_context_tokens = model.context_length();
  options.max_context_tokens = std::min(options.max_context_tokens, model.context_length());
  options.step_tokens = std::max(options.step_tokens, options.max_running);
  if (options.watermark_pages < 0) {
    options.watermark_pages =
        std::min(options.max_running, PageStore(options.scheme, options.arena).pages_total() / 20);
  }
  return options;
}

SchedulerOptions ToSchedulerOptions(const EngineOptions& options) {
  SchedulerOptions scheduler;
  scheduler.scheme = options.scheme;
  scheduler.arena = options.arena;
  scheduler.max_context_tokens = options.max_context_tokens;
  scheduler.max_running = options.max_running;
  // The engine refuses before the scheduler would, so that Submit can answer at once.
  scheduler.max_waiting = INT32_MAX;
  scheduler.step_tokens = options.step_tokens;
  scheduler.watermark_pages = options.watermark_pages;
  return scheduler;
}

}  // namespace

class Engine::Impl {
 public:
  Impl(Model& model, const Tokenizer& tokenizer, const EngineOptions& options)
      : options_(Resolve(options, model)),
        max_stored_tokens_(PageStore(options_.scheme, options_.arena).MaxTokens()),
        max_exact_tokens_(
            PageStore(options_.scheme, options_.arena).MaxTokens(KvPrecision::kExact)),
        limits_{std::min(model.vocabulary(), tokenizer.vocabulary()), options_.max_context_tokens},
        delivery_([this](RequestId id) { Cancel(id); }),
        loop_(model, tokenizer, ToSchedulerOptions(options_), delivery_, metrics_, waiting_),
        next_seed_(std::random_device{}()),
        thread_([this] { Run(); }) {}

  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  ~Impl() {
    {
      std::lock_guard lock(mutex_);
      draining_ = true;
      stop_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  bool HasRoom(int32_t sequences) const {
    return waiting_.load(std::memory_order_relaxed) + sequences <= options_.max_waiting;
  }

  std::chrono::milliseconds RetryAfter() const {
    // The queue's length over the rate at which sequences leave it, by the time they take now.
    const uint64_t ended = metrics_.end_to_end.count();
    const double mean =
        ended == 0 ? 1 : metrics_.end_to_end.sum_seconds() / static_cast<double>(ended);
    const int64_t running = std::max<int64_t>(metrics_.running.value(), 1);
    const double seconds = mean / static_cast<double>(running);
    return std::chrono::milliseconds(static_cast<int64_t>(1e3 * std::clamp(seconds, 0.1, 30.0)));
  }

  absl::StatusOr<RequestId> Submit(GenerateRequest request, std::shared_ptr<OutputSink> sink);

  void Cancel(RequestId id) {
    {
      std::lock_guard lock(mutex_);
      cancels_.emplace_back(id, Now());
    }
    wake_.notify_one();
  }

  void StartDrain() {
    std::lock_guard lock(mutex_);
    draining_ = true;
  }

  bool WaitIdle(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    const auto deadline = Clock::now() + timeout;
    const auto done = [this] { return open_requests_ == 0 && idle_; };
    while (!idle_changed_.wait_until(lock, deadline, done)) {
      if (Clock::now() >= deadline) return false;
    }
    lock.unlock();
    while (delivery_.busy()) {
      if (Clock::now() >= deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  absl::Status health() const {
    std::lock_guard lock(mutex_);
    return health_;
  }

  const EngineMetrics& metrics() const { return metrics_; }

 private:
  struct Mail {
    std::vector<std::shared_ptr<const ActiveRequest>> requests;
    std::vector<std::pair<RequestId, TimeUs>> cancels;
  };

  /// Tokens a sequence may generate, or why it can never run here.
  absl::StatusOr<int32_t> ResolveMaxNewTokens(const GenerateRequest& request) const;
  void Run();
  /// Waits for mail when there is nothing to run; false when the engine stops.
  bool TakeMail(bool wait, Mail& mail);
  void Fail(const absl::Status& error);

  const EngineOptions options_;
  const int64_t max_stored_tokens_;  // of one sequence, for the KV cache
  const int64_t max_exact_tokens_;   // of one kExact sequence
  const RequestLimits limits_;
  EngineMetrics metrics_;
  std::atomic<int32_t> waiting_{0};

  mutable std::mutex mutex_;
  std::condition_variable wake_;          // the engine thread waits on it
  std::condition_variable idle_changed_;  // WaitIdle waits on it
  // Guarded by mutex_.
  std::vector<std::shared_ptr<const ActiveRequest>> inbox_;
  std::vector<std::pair<RequestId, TimeUs>> cancels_;
  size_t open_requests_ = 0;  // in the inbox
  bool idle_ = true;          // the loop holds no sequence
  bool draining_ = false;
  bool stop_ = false;
  absl::Status health_;

  Delivery delivery_;
  EngineLoop loop_;  // engine thread only, once it runs
  std::atomic<uint64_t> next_id_{1};
  std::atomic<uint64_t> next_seed_;
  std::thread thread_;  // last: everything above exists when it starts
};

absl::StatusOr<int32_t> Engine::Impl::ResolveMaxNewTokens(const GenerateRequest& request) const {
  // The last token is never stored: a sequence of p + n tokens stores p + n - 1.
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  const bool exact = request.kv_precision == KvPrecision::kExact;
  const int64_t stored = exact ? max_exact_tokens_ : max_stored_tokens_;
  const int64_t room = std::min<int64_t>(limits_.max_context_tokens, stored + 1) - prompt;
  if (request.stop.max_tokens == 0 && room >= 1) return static_cast<int32_t>(room);
  if (request.stop.max_tokens > room || room < 1) {
    const int64_t tokens = prompt + std::max(request.stop.max_tokens, 1) - 1;
    const int64_t page_tokens = options_.scheme.page_tokens;
    const int64_t pages = (tokens + page_tokens - 1) / page_tokens;
    if (exact && tokens <= max_stored_tokens_) {
      return absl::InvalidArgumentError(absl::StrCat("kv_precision: prompt and output need ", pages,
                                                     " pages of KV cache in 16 bit, the pool has ",
                                                     stored / page_tokens, " of those"));
    }
    return absl::InvalidArgumentError(absl::StrCat("stop.max_tokens: prompt and output need ",
                                                   pages, " pages of KV cache, the pool has ",
                                                   stored / page_tokens));
  }
  return request.stop.max_tokens;
}

absl::StatusOr<RequestId> Engine::Impl::Submit(GenerateRequest request,
                                               std::shared_ptr<OutputSink> sink) {
  ASYMSERVE_RETURN_IF_ERROR(ValidateRequest(request, limits_));
  ASYMSERVE_ASSIGN_OR_RETURN(const int32_t max_new_tokens, ResolveMaxNewTokens(request));
  if (!request.has_seed) request.sampling.seed = next_seed_.fetch_add(0x9E3779B97F4A7C15u);
  const int32_t sequences = request.n;
  const int32_t waiting = waiting_.fetch_add(sequences) + sequences;
  if (waiting > options_.max_waiting) {
    waiting_.fetch_sub(sequences);
    return absl::ResourceExhaustedError(absl::StrCat("the queue is full: ", waiting - sequences,
                                                     " sequences wait, ", options_.max_waiting,
                                                     " may"));
  }
  const auto id = static_cast<RequestId>(next_id_.fetch_add(1));
  auto active = std::make_shared<ActiveRequest>();
  active->id = id;
  active->request = std::move(request);
  active->sink = std::move(sink);
  active->submitted = Now();
  active->max_new_tokens = max_new_tokens;
  if (options_.prefix_cache) {
    const PrefixScope scope = {.cache = options_.cache_identity,
                               .tenant = {},
                               .precision = active->request.kv_precision,
                               .chunk_tokens = options_.scheme.chunk_tokens};
    active->prefix =
        std::make_shared<const std::vector<PrefixHash>>(HashPrefix(scope, active->request.prompt));
  }
  {
    std::lock_guard lock(mutex_);
    if (draining_ || !health_.ok()) {
      waiting_.fetch_sub(sequences);
      return absl::UnavailableError(health_.ok() ? "the server is shutting down"
                                                 : "the engine has failed");
    }
    inbox_.push_back(std::move(active));
    ++open_requests_;
  }
  wake_.notify_one();
  return id;
}

bool Engine::Impl::TakeMail(bool wait, Mail& mail) {
  mail.requests.clear();
  mail.cancels.clear();
  std::unique_lock lock(mutex_);
  idle_ = loop_.idle();
  if (idle_ && open_requests_ == 0) idle_changed_.notify_all();
  const auto ready = [this] { return stop_ || !inbox_.empty() || !cancels_.empty(); };
  if (wait) {
    const TimeUs deadline = loop_.next_deadline();
    if (deadline == kNoDeadline) {
      wake_.wait(lock, ready);
    } else {
      wake_.wait_until(lock, Clock::time_point(std::chrono::microseconds(deadline)), ready);
    }
  }
  mail.requests.swap(inbox_);
  mail.cancels.swap(cancels_);
  open_requests_ = 0;
  if (!mail.requests.empty()) idle_ = false;
  return !stop_;
}

void Engine::Impl::Run() {
  Mail mail;
  bool has_work = false;
  while (TakeMail(!has_work, mail)) {
    for (const auto& request : mail.requests) loop_.Add(request, Now());
    for (const auto& [id, called_at] : mail.cancels) loop_.Cancel(id, called_at, Now());
    const absl::StatusOr<bool> ran = loop_.Step(Now());
    if (!ran.ok()) {
      Fail(ran.status());
      mail.requests.clear();  // the loop has them
      break;
    }
    has_work = *ran;
  }
  // Stopped or failed: whatever is left ends now, later mail too.
  const absl::Status error = health();
  while (true) {
    for (const auto& request : mail.requests) loop_.Add(request, Now());
    mail.requests.clear();
    loop_.EndAll(error.ok() ? FinishReason::kCancelled : FinishReason::kError, error, Now());
    std::unique_lock lock(mutex_);
    idle_ = true;
    idle_changed_.notify_all();
    wake_.wait(lock, [this] { return stop_ || !inbox_.empty(); });
    if (inbox_.empty()) return;
    mail.requests.swap(inbox_);
    open_requests_ = 0;
  }
}

void Engine::Impl::Fail(const absl::Status& error) {
  Log(LogLevel::kError, "engine_failed", {{"error", std::string(error.message())}});
  std::lock_guard lock(mutex_);
  health_ = absl::InternalError(error.message());
}

Engine::Engine(Model& model, const Tokenizer& tokenizer, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(model, tokenizer, options)) {}
Engine::~Engine() = default;

bool Engine::HasRoom(int32_t sequences) const {
  return impl_->HasRoom(sequences);
}
std::chrono::milliseconds Engine::RetryAfter() const {
  return impl_->RetryAfter();
}
absl::StatusOr<RequestId> Engine::Submit(GenerateRequest request,
                                         std::shared_ptr<OutputSink> sink) {
  return impl_->Submit(std::move(request), std::move(sink));
}
void Engine::Cancel(RequestId id) {
  impl_->Cancel(id);
}
void Engine::StartDrain() {
  impl_->StartDrain();
}
bool Engine::WaitIdle(std::chrono::milliseconds timeout) {
  return impl_->WaitIdle(timeout);
}
absl::Status Engine::health() const {
  return impl_->health();
}
const EngineMetrics& Engine::metrics() const {
  return impl_->metrics();
}

}  // namespace asymserve
