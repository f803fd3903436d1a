#include "engine/runtime/engine_loop.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

double Seconds(TimeUs from, TimeUs to) {
  return static_cast<double>(to - from) * 1e-6;
}

TimeUs ToTimeUs(std::chrono::steady_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count();
}

TimeUs Now() {
  return ToTimeUs(std::chrono::steady_clock::now());
}

CanaryOptions ToCanaryOptions(const SchedulerOptions& options, double rate) {
  return {.rate = rate,
          .scheme = options.scheme,
          .arena = options.arena,
          .step_tokens = options.step_tokens,
          .max_rows = options.max_running};
}

}  // namespace

EngineLoop::EngineLoop(Model& model, const Tokenizer& tokenizer, const SchedulerOptions& options,
                       double canary_rate, Delivery& delivery, EngineMetrics& metrics,
                       Backlog& backlog)
    : model_(model),
      tokenizer_(tokenizer),
      scheduler_(options),
      delivery_(delivery),
      metrics_(metrics),
      backlog_(backlog),
      canary_(ToCanaryOptions(options, canary_rate), metrics.canary),
      sampling_(model, tokenizer) {
  PublishGauges();
}

void EngineLoop::Add(const std::shared_ptr<const ActiveRequest>& request, TimeUs now) {
  for (int32_t i = 0; i < request->request.n; ++i) {
    const SequenceId id = MakeSequenceId(request->id, i);
    sequences_.emplace(id, std::make_unique<Generation>(id, request, i, tokenizer_));
  }
  const PrefixChain* prefix = request->prefix.get();
  const bool shares = prefix != nullptr && (!prefix->chunks.empty() || prefix->tail_tokens > 0);
  const bool one_first = shares && request->request.n > 1;
  sequences_.at(MakeSequenceId(request->id, 0))->others_wait = one_first;
  const int32_t first = one_first ? 1 : request->request.n;
  others_waiting_ += request->request.n - first;
  for (int32_t i = 0; i < first; ++i) {
    Schedule(*request, i, request->submitted, request->start_by, now);
  }
  PublishGauges();
  delivery_.Push(outgoing_);
}

void EngineLoop::Schedule(const ActiveRequest& request, int32_t index, TimeUs queued_at,
                          TimeUs start_by, TimeUs now) {
  SequenceSpec spec;
  spec.id = MakeSequenceId(request.id, index);
  spec.prompt_tokens = static_cast<int32_t>(request.request.prompt.size());
  spec.max_new_tokens = request.max_new_tokens;
  spec.priority = request.request.priority;
  spec.arrival = request.submitted;
  spec.precision = request.request.kv_precision;
  spec.prefix = request.prefix;
  if (request.request.deadline) spec.deadline = ToTimeUs(*request.request.deadline);
  spec.tenant = request.share.tenant;
  spec.weight = request.share.weight;
  if (request.request.max_queue_ms) {
    spec.queue_deadline = queued_at + TimeUs{1000} * *request.request.max_queue_ms;
  }
  spec.queue_deadline = std::min(spec.queue_deadline, start_by);
  sequences_.at(spec.id)->start_by = start_by;
  const absl::Status added = scheduler_.Add(spec);
  if (!added.ok()) End(spec.id, FinishReason::kError, added, now);
}

std::pair<FinishReason, absl::Status> EngineLoop::WhyExpired(const Generation& generation,
                                                             TimeUs now) {
  const auto& deadline = generation.request->request.deadline;
  const TimeUs left = deadline.has_value() ? ToTimeUs(*deadline) - now : INT64_MAX;
  if (left <= 0) return {FinishReason::kDeadline, absl::OkStatus()};
  if (now < generation.start_by) return {FinishReason::kQueueTimeout, absl::OkStatus()};
  return {FinishReason::kDeadline,
          absl::DeadlineExceededError(absl::StrCat(
              "deadline: it waited until ", left / 1000, " ms are left; it was estimated to take ",
              static_cast<int64_t>(Backlog::kCertainty *
                                   static_cast<double>(ToTimeUs(*deadline) - generation.start_by)) /
                  1000,
              " ms from then on"))};
}

void EngineLoop::ScheduleOthers(Generation& first, TimeUs now) {
  first.others_wait = false;
  const std::shared_ptr<const ActiveRequest> request = first.request;
  others_waiting_ -= request->request.n - 1;
  const TimeUs queued_at = now - (first.first_step - request->submitted);
  for (int32_t i = 1; i < request->request.n; ++i) {
    Schedule(*request, i, queued_at, kNoDeadline, now);
  }
}

void EngineLoop::Cancel(RequestId id, TimeUs called_at, TimeUs now) {
  bool found = false;
  for (int32_t i = 0; i < (1 << kSequenceBits); ++i) {
    const SequenceId sequence = MakeSequenceId(id, i);
    if (!sequences_.contains(sequence)) continue;
    scheduler_.Cancel(sequence);
    End(sequence, FinishReason::kCancelled, absl::OkStatus(), now);
    found = true;
  }
  if (!found) return;
  metrics_.cancel_to_free_seconds.Observe(Seconds(called_at, now));
  PublishGauges();
  delivery_.Push(outgoing_);
}

absl::StatusOr<bool> EngineLoop::Step(TimeUs now) {
  const int32_t catch_up_tokens = backlog_.CatchUpTokens(decoding_);
  const StepPlan plan = scheduler_.Plan(now, catch_up_tokens);
  for (const SequenceId id : plan.expired) {
    const auto [reason, error] = WhyExpired(*sequences_.at(id), now);
    End(id, reason, error, now);
  }
  BuildBatch(plan, now);
  const bool with_canary =
      canary_.Join(plan, scheduler_.stats().waiting, catch_up_tokens, scheduler_.arena(), batch_);
  if (plan.empty()) {
    scheduler_.Commit(plan, {});
    ReportStep(plan, /*with_canary=*/false, 0, now);
    PublishGauges();
    delivery_.Push(outgoing_);
    // Who was preempted alone is admitted by the next plan.
    if (!with_canary) return !plan.preempted.empty();
  }
  Batch batch = batch_.batch();
  batch.draws = sampling_.draws();
  batch.drawn = sampling_.drawn();
  const absl::StatusOr<TensorView> logits = model_.Forward(batch);
  if (!logits.ok()) return Annotate(logits.status(), "the model's step failed");
  const int64_t rows = plan.empty() ? 0 : TakeTokens(plan, *logits, with_canary, now);
  if (with_canary) canary_.Compare(*logits, rows);
  return true;
}

int64_t EngineLoop::TakeTokens(const StepPlan& plan, const TensorView& logits, bool with_canary,
                               TimeUs began) {
  sampling_.Sample(logits);
  const TimeUs end = Now();
  std::vector<Outcome> outcomes;
  outcomes.reserve(plan.items.size());
  for (const StepItem& item : plan.items) {
    if (!item.sample) continue;
    Generation& generation = *sequences_.at(item.sequence);
    Advance(generation, sampling_.token(outcomes.size()), end);
    outcomes.push_back({item.sequence, generation.finish != FinishReason::kNone});
    if (generation.others_wait) ScheduleOthers(generation, end);
  }
  decoding_ = static_cast<int32_t>(std::count_if(outcomes.begin(), outcomes.end(),
                                                 [](const Outcome& o) { return !o.finished; }));
  for (const SequenceId id : scheduler_.Commit(plan, outcomes)) {
    const auto sequence = sequences_.find(id);
    ASYMSERVE_CHECK(sequence != sequences_.end() &&
                    sequence->second->finish != FinishReason::kNone);
    canary_.OnEnd(*sequence->second, scheduler_.arena());
    sequences_.erase(sequence);
  }
  const TimeUs committed = Now();
  ReportStep(plan, with_canary, committed - began, committed);
  metrics_.steps.Add();
  metrics_.last_step_us.Set(end);
  PublishGauges();  // whoever has seen an answer finds it counted
  delivery_.Push(outgoing_);
  return std::ssize(outcomes);
}

void EngineLoop::ReportStep(const StepPlan& plan, bool with_canary, TimeUs duration, TimeUs now) {
  StepSample sample{
      .prefill_tokens = 0, .decode_rows = 0, .shadow = with_canary, .duration = duration};
  for (const StepItem& item : plan.items) {
    (item.role == StepItem::Role::kPrefill ? sample.prefill_tokens : sample.decode_rows) +=
        item.count;
  }
  const SchedulerStats stats = scheduler_.stats();
  backlog_.OnStep(sample, stats.running, stats.waiting, now);
  if (plan.empty()) return;
  (sample.prefill_tokens > 0 ? metrics_.step_prefill_seconds : metrics_.step_decode_seconds)
      .Observe(static_cast<double>(duration) * 1e-6);
}

void EngineLoop::BuildBatch(const StepPlan& plan, TimeUs now) {
  batch_.Clear();
  sampling_.Clear();
  for (const StepItem& item : plan.items) {
    Generation& generation = *sequences_.at(item.sequence);
    if (generation.first_step == 0) {
      generation.Begin();
      generation.cached_tokens = generation.computed = item.begin;
      LeaveQueue(generation, now);
    }
    if (item.unrefined && generation.degraded_from < 0) {
      generation.degraded_from = item.begin;
      metrics_.degraded.Add();
    }
    CountComputed(generation, item);
    const std::span<const int32_t> tokens =
        std::span(generation.tokens)
            .subspan(static_cast<size_t>(item.begin), static_cast<size_t>(item.count));
    batch_.Add(tokens, item.begin, item.pages, item.sample ? 1 : 0);
    if (item.sample) sampling_.Add(generation);
  }
  batch_.AddSeals(plan.seals);
}

void EngineLoop::LeaveQueue(Generation& generation, TimeUs now) {
  generation.first_step = now;
  LeaveBacklog(generation, /*runs=*/true, now);
  if (generation.index == 0) {
    backlog_.OnPrompt(static_cast<int32_t>(generation.request->request.prompt.size()),
                      generation.cached_tokens);
  }
  generation.request->tenant->prompt_tokens.Add(generation.request->request.prompt.size());
}

// Prompt tokens count once, when they are computed for the first time.
void EngineLoop::CountComputed(Generation& generation, const StepItem& item) {
  const auto prompt = static_cast<int32_t>(generation.request->request.prompt.size());
  const int32_t begin = std::max(item.begin, generation.computed);
  const int32_t end = std::min(item.begin + item.count, prompt);
  if (end <= begin) return;
  metrics_.prompt_tokens.Add(static_cast<uint64_t>(end - begin));
  generation.computed = end;
}

void EngineLoop::LeaveBacklog(const Generation& generation, bool runs, TimeUs now) {
  metrics_.queue_seconds.Observe(Seconds(generation.request->submitted, now));
  backlog_.Leave(generation.request->share, generation.index == 0, runs);
  generation.request->tenant->waiting.Add(-1);
}

void EngineLoop::Advance(Generation& generation, const absl::StatusOr<SampledToken>& token,
                         TimeUs now) {
  Delta delta;
  delta.request = generation.request->id;
  delta.index = generation.index;
  if (token.ok()) {
    Accept(generation, *token, delta);
    if (generation.first_token == 0) {
      generation.first_token = now;
      metrics_.time_to_first_token.Observe(Seconds(generation.request->submitted, now));
    } else {
      metrics_.inter_token.Observe(Seconds(generation.last_token, now));
    }
    generation.last_token = now;
    metrics_.generated_tokens.Add();
    generation.request->tenant->generated_tokens.Add();
  } else {
    generation.finish = FinishReason::kError;
    generation.error = token.status();
  }
  if (generation.finish != FinishReason::kNone) {
    if (generation.finish != FinishReason::kStopString) generation.text.Finish(delta.text);
    FillFinal(generation, delta, now);
    CountFinish(generation, now);
  }
  outgoing_.push_back({generation.request, std::move(delta)});
}

void EngineLoop::Accept(Generation& generation, const SampledToken& token, Delta& delta) {
  const GenerateRequest& request = generation.request->request;
  const StopParams& stop = request.stop;
  generation.tokens.push_back(token.id);
  if (UsesHistory(generation.sampling)) {
    // `seen` lists each id once: the prompt's are in it, the output's come on their first
    // occurrence.
    std::vector<int32_t>& seen = generation.history.seen;
    if (++generation.history.output_counts[token.id] == 1 &&
        std::find(seen.begin(), seen.end(), token.id) == seen.end()) {
      seen.push_back(token.id);
    }
  }
  delta.tokens.push_back({token.id, token.logprob, token.top});

  const bool is_end = tokenizer_.IsEnd(token.id) && !stop.ignore_eos;
  const bool is_stop_token =
      std::find(stop.token_ids.begin(), stop.token_ids.end(), token.id) != stop.token_ids.end();
  if (is_end || is_stop_token) {
    generation.finish = is_stop_token ? FinishReason::kStopToken : FinishReason::kEos;
    generation.stop_token = token.id;
    return;  // its text is not output
  }
  if (const std::optional<int> match = generation.text.Append(token.id, delta.text)) {
    generation.finish = FinishReason::kStopString;
    generation.stop_index = *match;
  } else if (generation.generated() >= generation.request->max_new_tokens) {
    generation.finish = FinishReason::kLength;
  }
}

void EngineLoop::FillFinal(const Generation& generation, Delta& delta, TimeUs now) const {
  const TimeUs submitted = generation.request->submitted;
  delta.finish = generation.finish;
  delta.stop_index = generation.stop_index;
  delta.stop_token = generation.stop_token;
  delta.prompt_tokens = static_cast<int32_t>(generation.request->request.prompt.size());
  delta.cached_tokens = generation.cached_tokens;
  delta.ran = generation.first_step != 0;
  delta.generated_tokens = generation.generated();
  delta.degraded_from = generation.degraded_from;
  delta.error = generation.error;
  delta.timings.total = Seconds(submitted, now);
  const TimeUs first_step = generation.first_step != 0 ? generation.first_step : now;
  delta.timings.queue = Seconds(submitted, first_step);
  if (generation.first_token != 0) {
    delta.timings.first_token = Seconds(submitted, generation.first_token);
    delta.timings.prefill = Seconds(first_step, generation.first_token);
  }
}

void EngineLoop::End(SequenceId id, FinishReason reason, const absl::Status& error, TimeUs now) {
  const auto found = sequences_.find(id);
  ASYMSERVE_CHECK(found != sequences_.end());
  Generation& generation = *found->second;
  const std::shared_ptr<const ActiveRequest> request = generation.request;
  const int32_t others = generation.others_wait ? request->request.n : 0;
  others_waiting_ -= std::max(others - 1, 0);
  if (generation.first_step == 0) LeaveBacklog(generation, /*runs=*/false, now);
  generation.finish = reason;
  generation.error = error;
  Delta delta;
  delta.request = generation.request->id;
  delta.index = generation.index;
  generation.text.Finish(delta.text);
  FillFinal(generation, delta, now);
  CountFinish(generation, now);
  canary_.OnEnd(generation, scheduler_.arena());
  outgoing_.push_back({generation.request, std::move(delta)});
  sequences_.erase(found);
  for (int32_t i = 1; i < others; ++i) {
    const SequenceId other = MakeSequenceId(request->id, i);
    if (sequences_.contains(other)) End(other, reason, error, now);  // EndAll has its own order
  }
}

void EngineLoop::EndAll(FinishReason reason, const absl::Status& error, TimeUs now) {
  canary_.Stop();
  while (!sequences_.empty()) {
    const SequenceId id = sequences_.begin()->first;
    scheduler_.Cancel(id);
    End(id, reason, error, now);
  }
  PublishGauges();
  delivery_.Push(outgoing_);
}

void EngineLoop::CountFinish(const Generation& generation, TimeUs now) {
  switch (generation.finish) {
    case FinishReason::kEos:
      metrics_.finished_eos.Add();
      break;
    case FinishReason::kStopString:
    case FinishReason::kStopToken:
      metrics_.finished_stop.Add();
      break;
    case FinishReason::kLength:
      metrics_.finished_length.Add();
      break;
    case FinishReason::kCancelled:
      metrics_.finished_cancelled.Add();
      break;
    case FinishReason::kDeadline:
      metrics_.finished_deadline.Add();
      break;
    case FinishReason::kQueueTimeout:
      metrics_.finished_queue_timeout.Add();
      break;
    case FinishReason::kError:
      metrics_.finished_error.Add();
      break;
    case FinishReason::kNone:
      ASYMSERVE_CHECK(false);
  }
  metrics_.end_to_end.Observe(Seconds(generation.request->submitted, now));
}

void EngineLoop::PublishGauges() {
  const SchedulerStats stats = scheduler_.stats();
  metrics_.waiting.Set(stats.waiting + others_waiting_);
  metrics_.running.Set(stats.running);
  metrics_.pages_total.Set(stats.pages_total);
  metrics_.pages_used.Set(stats.pages_used);
  metrics_.slabs_total.Set(stats.slabs_total);
  metrics_.slabs_used.Set(stats.slabs_used);
  metrics_.slabs_cached.Set(stats.slabs_cached);
  for (size_t kind = 0; kind < stats.records_used.size(); ++kind) {
    metrics_.records_used[kind].Set(stats.records_used[kind]);
  }
  metrics_.cached_tokens.Add(stats.cached_tokens - metrics_.cached_tokens.value());
  metrics_.cache_evictions.Add(stats.cache_evictions - metrics_.cache_evictions.value());
  metrics_.blocked_steps.Add(stats.blocked_plans - metrics_.blocked_steps.value());
  metrics_.preemptions.Add(stats.preemptions - metrics_.preemptions.value());
  metrics_.recomputed_tokens.Add(stats.recomputed_tokens - metrics_.recomputed_tokens.value());
}

}  // namespace asymserve
