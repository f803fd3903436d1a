#include "engine/runtime/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/log.h"
#include "engine/base/status.h"
#include "engine/runtime/backlog.h"
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
  if (options.bypass_tokens == 0) options.bypass_tokens = options.max_context_tokens;
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
  scheduler.aging_us = options.aging_us;
  scheduler.bypass_sequences = options.bypass_sequences;
  scheduler.bypass_tokens = options.bypass_tokens;
  scheduler.elastic = options.elastic;
  return scheduler;
}

std::vector<int32_t> DistinctTokens(std::vector<int32_t> tokens) {
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  tokens.shrink_to_fit();
  return tokens;
}

TimeLimits ToTimeLimits(const GenerateRequest& request, int32_t max_new_tokens, TimeUs now) {
  const StopParams& stop = request.stop;
  TimeLimits limits;
  const bool stops = !stop.ignore_eos || !stop.strings.empty() || !stop.token_ids.empty();
  limits.certain_tokens = std::max(1, stops ? stop.min_tokens : max_new_tokens);
  if (request.deadline) {
    limits.deadline =
        std::chrono::duration_cast<std::chrono::microseconds>(request.deadline->time_since_epoch())
            .count() -
        now;
  }
  if (request.max_queue_ms) limits.max_queue = TimeUs{1000} * *request.max_queue_ms;
  return limits;
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
        backlog_({.max_waiting = options_.max_waiting,
                  .step_tokens = options_.step_tokens,
                  .chunk_tokens = options_.scheme.chunk_tokens,
                  .step_us = options_.step_us}),
        tenants_(options_.tenants),
        delivery_([this](RequestId id) { Cancel(id); }),
        loop_(model, tokenizer, ToSchedulerOptions(options_), options_.canary_rate, delivery_,
              metrics_, backlog_),
        next_seed_(std::random_device{}()),
        thread_([this] { Run(); }) {
    // The threads see the first of them with the first request.
    for (const std::string& label : tenants_.labels()) metrics_.tenants.emplace_back(label);
  }

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

  bool HasRoom(int32_t sequences) const { return backlog_.HasRoom(sequences); }
  absl::Status CheckRoom(const std::string& name) {
    const TenantTable::Tenant tenant = ResolveTenant(name);
    return backlog_.CheckRoom({.tenant = tenant.id, .weight = tenant.weight});
  }
  std::chrono::milliseconds RetryAfter() { return backlog_.NextRetry(); }

  absl::StatusOr<RequestId> Submit(GenerateRequest request, std::shared_ptr<OutputSink> sink);

  void Cancel(RequestId id) {
    {
      std::lock_guard lock(mutex_);
      cancels_.emplace_back(id, Now());
    }
    wake_.notify_one();
  }

  absl::Status SetMaxWaiting(int32_t sequences) {
    if (sequences > options_.max_waiting) {
      return absl::FailedPreconditionError(absl::StrCat(
          "memory was planned for ", options_.max_waiting, " waiting sequences, not ", sequences));
    }
    backlog_.SetMaxWaiting(sequences);
    return absl::OkStatus();
  }
  void SetStepTime(int64_t step_us) { backlog_.SetStepTime(step_us); }
  void SetCanaryRate(double rate) { loop_.SetCanaryRate(rate); }
  void SetTenantWeights(const std::vector<TenantShare>& tenants) {
    std::lock_guard lock(mutex_);
    tenants_.SetWeights(tenants);
  }

  void DropPrefixCache() {
    {
      std::lock_guard lock(mutex_);
      drop_cache_ = true;
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
  double canary_rate() const { return loop_.canary_rate(); }

 private:
  struct Mail {
    std::vector<std::shared_ptr<const ActiveRequest>> requests;
    std::vector<std::pair<RequestId, TimeUs>> cancels;
    bool drop_cache = false;
  };

  /// Tokens a sequence may generate, or why it can never run here.
  absl::StatusOr<int32_t> ResolveMaxNewTokens(const GenerateRequest& request) const;
  TenantTable::Tenant ResolveTenant(const std::string& name) {
    std::lock_guard lock(mutex_);
    return tenants_.Resolve(name);
  }
  void Run();
  /// Waits for mail when there is nothing to run; false when the engine stops.
  bool TakeMail(bool wait, Mail& mail);
  void Fail(const absl::Status& error);

  const EngineOptions options_;
  const int64_t max_stored_tokens_;  // of one sequence, for the KV cache
  const int64_t max_exact_tokens_;   // of one kExact sequence
  const RequestLimits limits_;
  EngineMetrics metrics_;
  Backlog backlog_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;          // the engine thread waits on it
  std::condition_variable idle_changed_;  // WaitIdle waits on it
  // Guarded by mutex_.
  TenantTable tenants_;
  std::vector<std::shared_ptr<const ActiveRequest>> inbox_;
  std::vector<std::pair<RequestId, TimeUs>> cancels_;
  bool drop_cache_ = false;
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
  if (const int32_t holds = backlog_.max_waiting(); request.n > holds) {
    return absl::InvalidArgumentError(absl::StrCat("n: ", request.n,
                                                   " sequences never fit the queue, which holds ",
                                                   holds, " (engine.max_waiting)"));
  }
  if (!request.has_seed) request.sampling.seed = next_seed_.fetch_add(0x9E3779B97F4A7C15u);
  const int32_t sequences = request.n;
  const TimeUs now = Now();
  const TenantTable::Tenant tenant = ResolveTenant(request.tenant);
  const auto prompt_tokens = static_cast<int32_t>(request.prompt.size());
  const QueueShare share = {.tenant = tenant.id,
                            .weight = tenant.weight,
                            .priority = request.priority,
                            .prefill_tokens = prompt_tokens,
                            .cost = int64_t{prompt_tokens} + max_new_tokens};
  const TimeLimits limits = ToTimeLimits(request, max_new_tokens, now);
  ASYMSERVE_ASSIGN_OR_RETURN(const TimeUs start_by, backlog_.Join(share, sequences, limits));
  const auto id = static_cast<RequestId>(next_id_.fetch_add(1));
  auto active = std::make_shared<ActiveRequest>();
  active->id = id;
  active->request = std::move(request);
  // It may have been cut from a longer one, whose memory nobody planned.
  active->request.prompt.shrink_to_fit();
  if (UsesHistory(active->request.sampling)) {
    active->seen = DistinctTokens(active->request.prompt);
  }
  active->sink = std::move(sink);
  active->submitted = now;
  if (start_by != kNoDeadline) active->start_by = now + start_by;
  active->max_new_tokens = max_new_tokens;
  active->share = share;
  active->tenant = &metrics_.tenants[static_cast<size_t>(tenant.label)];
  if (options_.prefix_cache) {
    const PrefixScope scope = {.cache = options_.cache_identity,
                               .tenant = TenantTable::NameOf(active->request.tenant),
                               .precision = active->request.kv_precision,
                               .chunk_tokens = options_.scheme.chunk_tokens,
                               .tail_page_tokens = sequences > 1 ? options_.scheme.page_tokens : 0};
    active->prefix = std::make_shared<const PrefixChain>(HashPrefix(scope, active->request.prompt));
  }
  {
    std::lock_guard lock(mutex_);
    if (draining_ || !health_.ok()) {
      for (int32_t i = 0; i < sequences; ++i) backlog_.Leave(share, i == 0, /*runs=*/false);
      return absl::UnavailableError(health_.ok() ? "the server is shutting down"
                                                 : "the engine has failed");
    }
    active->tenant->sequences.Add(static_cast<uint64_t>(sequences));
    active->tenant->waiting.Add(sequences);
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
  const auto ready = [this] {
    return stop_ || !inbox_.empty() || !cancels_.empty() || drop_cache_;
  };
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
  mail.drop_cache = std::exchange(drop_cache_, false);
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
    if (mail.drop_cache) loop_.DropPrefixCache();
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
    cancels_.clear();
    open_requests_ = 0;
    idle_ = false;
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
absl::Status Engine::CheckRoom(const std::string& tenant) {
  return impl_->CheckRoom(tenant);
}
std::chrono::milliseconds Engine::RetryAfter() {
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
absl::Status Engine::SetMaxWaiting(int32_t sequences) {
  return impl_->SetMaxWaiting(sequences);
}
void Engine::SetStepTime(int64_t step_us) {
  impl_->SetStepTime(step_us);
}
void Engine::SetCanaryRate(double rate) {
  impl_->SetCanaryRate(rate);
}
void Engine::SetTenantWeights(const std::vector<TenantShare>& tenants) {
  impl_->SetTenantWeights(tenants);
}
void Engine::DropPrefixCache() {
  impl_->DropPrefixCache();
}
double Engine::canary_rate() const {
  return impl_->canary_rate();
}

}  // namespace asymserve
