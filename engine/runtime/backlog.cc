#include "engine/runtime/backlog.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

#include "engine/base/check.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

int64_t Milliseconds(TimeUs us) {
  return (us + 500) / 1000;
}

}  // namespace

absl::StatusOr<TimeUs> Backlog::Join(const QueueShare& share, int32_t sequences,
                                     const TimeLimits& limits) {
  std::lock_guard lock(mutex_);
  // Only Join adds, under the lock: what has room here still has it below.
  ASYMSERVE_RETURN_IF_ERROR(CheckPlaces(share, sequences));
  ASYMSERVE_ASSIGN_OR_RETURN(const TimeUs start_by, CheckTime(share, limits));
  waiting_.fetch_add(sequences, std::memory_order_relaxed);
  Waiting& tenant = tenants_[share.tenant];
  tenant.weight = share.weight;
  tenant.members += sequences;
  if (share.priority < 0) return start_by;
  tenant.sequences += sequences;
  tenant.prefill_tokens += share.prefill_tokens;
  tenant.cost += share.cost * sequences;
  return start_by;
}

absl::Status Backlog::CheckRoom(const QueueShare& share) {
  std::lock_guard lock(mutex_);
  return CheckPlaces(share, 1);
}

absl::Status Backlog::CheckPlaces(const QueueShare& share, int32_t sequences) {
  if (HasRoom(sequences)) return CheckShare(share, sequences);
  RememberLocked(share);
  return absl::ResourceExhaustedError(
      absl::StrCat("the queue is full: ", waiting_.load(std::memory_order_relaxed),
                   " sequences wait, ", max_waiting(), " may"));
}

int64_t Backlog::WaitingOf(int32_t tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? 0 : found->second.members;
}

int64_t Backlog::PlacesOf(const QueueShare& share) const {
  int64_t weights = share.weight;
  for (const auto& [id, tenant] : tenants_) {
    if (id != share.tenant) weights += tenant.weight;
  }
  for (const auto& [id, tenant] : wanting_) {
    if (id != share.tenant && !tenants_.contains(id)) weights += tenant.weight;
  }
  return std::max<int64_t>(1, int64_t{max_waiting()} * share.weight / weights);
}

void Backlog::RememberLocked(const QueueShare& share) {
  if (WaitingOf(share.tenant) >= PlacesOf(share)) return;
  wanting_[share.tenant] = {.weight = share.weight, .since = -1};
}

absl::Status Backlog::CheckShare(const QueueShare& share, int32_t sequences) {
  std::erase_if(wanting_, [this](const auto& one) {
    return one.second.since >= 0 && last_step_ - one.second.since > kShareTime;
  });
  const bool others_want = wanting_.size() > wanting_.count(share.tenant);
  if (!others_want) return absl::OkStatus();
  const int64_t own = WaitingOf(share.tenant), places = PlacesOf(share);
  // A request is never divided: a tenant that has nothing there may send one larger than its share.
  if (own == 0 || own + sequences <= places) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the tenant's share of the queue is full: ", own, " of its sequences wait, ",
                   places, " of ", max_waiting(), " may while other tenants want theirs"));
}

void Backlog::Leave(const QueueShare& share, bool first, bool runs) {
  waiting_.fetch_sub(1, std::memory_order_relaxed);
  std::lock_guard lock(mutex_);
  ++left_;
  started_ += runs ? 1 : 0;
  const auto found = tenants_.find(share.tenant);
  ASYMSERVE_CHECK(found != tenants_.end());
  Waiting& tenant = found->second;
  if (share.priority >= 0) {
    --tenant.sequences;
    tenant.prefill_tokens -= first ? share.prefill_tokens : 0;
    tenant.cost -= share.cost;
  }
  if (--tenant.members == 0) tenants_.erase(found);
}

void Backlog::OnPrompt(int32_t tokens, int32_t cached) {
  std::lock_guard lock(mutex_);
  best_hit_ = std::max(best_hit_ * 0.98, static_cast<double>(cached) / tokens);
}

void Backlog::OnStep(const StepSample& step, int32_t running, int32_t waiting, TimeUs now) {
  std::lock_guard lock(mutex_);
  costs_.Observe(step);
  if (left_waiting_ > 0) drain_.Observe(now - last_step_, started_);
  refused_ = std::max<int64_t>(refused_ - left_, 0);
  const bool has_room = waiting_.load(std::memory_order_relaxed) <= max_waiting() / 2;
  if (has_room && !refused_since_step_) refused_ = 0;
  refused_since_step_ = false;
  for (auto& [id, tenant] : wanting_) {
    if (tenant.since < 0) tenant.since = now;
  }
  left_ = started_ = 0;
  running_ = running;
  left_waiting_ = waiting;
  last_step_ = now;
}

int32_t Backlog::CatchUpTokens(int32_t decode_rows) const {
  std::lock_guard lock(mutex_);
  return CatchUpTokensLocked(decode_rows);
}

int32_t Backlog::CatchUpTokensLocked(int32_t decode_rows) const {
  constexpr double kLeastShare = 0.25;  // of a step is theirs, however slow decoding is
  const std::optional<double> token_us = costs_.PrefillUs(1);
  if (step_us_ == 0 || decode_rows == 0 || !token_us) return INT32_MAX;
  const double decode_us = costs_.DecodeUs(decode_rows);
  const double left = std::max(static_cast<double>(step_us_) - decode_us,
                               decode_us * kLeastShare / (1 - kLeastShare));
  const double tokens = left / std::max(*token_us, 1e-3);
  return static_cast<int32_t>(std::clamp<double>(tokens, 1, INT32_MAX));
}

std::chrono::milliseconds Backlog::NextRetry() {
  std::lock_guard lock(mutex_);
  ++refused_;
  refused_since_step_ = true;
  const std::optional<double> rate = drain_.PerSecond();
  if (!rate) return kUnknownRetry;
  const double ms = 1e3 * static_cast<double>(refused_) / *rate;
  const double limited = std::clamp(ms, static_cast<double>(kMinRetry.count()),
                                    static_cast<double>(kMaxRetry.count()));
  return std::chrono::milliseconds(static_cast<int64_t>(limited));
}

std::optional<Backlog::Estimate> Backlog::EstimateOf(const QueueShare& share) const {
  std::lock_guard lock(mutex_);
  return EstimateLocked(share);
}

std::optional<Backlog::Estimate> Backlog::EstimateLocked(const QueueShare& share) const {
  if (running_ == 0 && tenants_.empty()) return std::nullopt;
  const double missed = 1 - best_hit_;
  const double own_tokens = missed * share.prefill_tokens;
  const std::optional<double> own = costs_.PrefillUs(own_tokens);
  if (!own) return std::nullopt;

  // Before a newcomer: what its tenant has waiting, unless it may overtake that, and of every other
  // tenant what that one is entitled to meanwhile.
  double sequences = 0, tokens = 0, turns = 0;
  const auto mine = tenants_.find(share.tenant);
  if (mine != tenants_.end() && share.priority <= 0) {
    sequences = static_cast<double>(mine->second.sequences);
    tokens = static_cast<double>(mine->second.prefill_tokens);
    turns = static_cast<double>(mine->second.cost) / share.weight;
  }
  for (const auto& [id, other] : tenants_) {
    if (id == share.tenant || other.cost == 0) continue;
    const double part = std::min(1.0, turns * other.weight / static_cast<double>(other.cost));
    sequences += part * static_cast<double>(other.sequences);
    tokens += part * static_cast<double>(other.prefill_tokens);
  }
  double queue = costs_.PrefillUs(missed * tokens).value_or(0);
  const std::optional<double> rate = drain_.PerSecond();
  if (left_waiting_ > 0 && rate) queue = std::max(queue, 1e6 * (sequences + 1) / *rate);

  const int32_t per_step =
      std::min({options_.chunk_tokens, std::max(1, options_.step_tokens - running_),
                CatchUpTokensLocked(running_)});
  const double steps = std::ceil(own_tokens / per_step);
  const double beside = running_ > 0 ? steps * costs_.DecodeUs(running_) : 0;
  return Estimate{static_cast<TimeUs>(queue), static_cast<TimeUs>(*own + beside)};
}

absl::StatusOr<TimeUs> Backlog::CheckTime(const QueueShare& share, const TimeLimits& limits) const {
  if (limits.deadline && *limits.deadline <= 0) {
    return absl::DeadlineExceededError(
        absl::StrCat("deadline: passed ", Milliseconds(-*limits.deadline), " ms ago"));
  }
  if (!limits.deadline && !limits.max_queue) return kNoDeadline;
  const std::optional<Estimate> estimate = EstimateLocked(share);
  if (!estimate) return kNoDeadline;
  const auto first_token = static_cast<double>(estimate->first_token());
  const double others = (limits.certain_tokens - 1) * costs_.DecodeUs(1);
  if (limits.deadline &&
      first_token + others > kCertainty * static_cast<double>(*limits.deadline)) {
    std::string message = absl::StrCat("deadline: ", Milliseconds(*limits.deadline),
                                       " ms are left, the first token is estimated in ",
                                       Milliseconds(estimate->first_token()), " ms (queue ",
                                       Milliseconds(estimate->queue), " ms, prefill ",
                                       Milliseconds(estimate->prefill), " ms)");
    if (limits.certain_tokens > 1) {
      absl::StrAppend(&message, ", the ", limits.certain_tokens - 1, " after it in ",
                      Milliseconds(static_cast<TimeUs>(others)), " ms more");
    }
    return absl::DeadlineExceededError(message);
  }
  if (limits.max_queue && estimate->queue > *limits.max_queue) {
    return absl::DeadlineExceededError(absl::StrCat(
        "max_queue_ms: ", Milliseconds(*limits.max_queue),
        " ms are allowed, the queue is estimated to take ", Milliseconds(estimate->queue), " ms"));
  }
  if (!limits.deadline) return kNoDeadline;
  const double own = static_cast<double>(estimate->prefill) + others;
  return *limits.deadline - static_cast<TimeUs>(own / kCertainty);
}

}  // namespace asymserve
