#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "engine/sched/scheduler.h"
#include "engine/sched/shadow.h"
#include "tests/engine/sched/arena_model.h"

// Schedules with sealed pages, run against a model of the arena: every record that a step or a seal
// reads must hold what its sequence put there, whatever memory was used again in between.

namespace asymserve {
namespace {

constexpr int32_t kP = 4;

SchedulerOptions RandomOptions(std::mt19937& random) {
  const auto below = [&](uint32_t n) { return static_cast<int32_t>(random() % n); };
  SchedulerOptions options;
  KvScheme& scheme = options.scheme;
  scheme.page_tokens = kP;
  scheme.chunk_tokens = kP * (1 + below(4));
  scheme.sink_pages = below(2);
  scheme.key_window = {.recent_pages = below(2), .block_pages = 1 + below(2)};
  scheme.value_window =
      below(2) == 0 ? scheme.key_window : KvWindow{.recent_pages = below(3), .block_pages = 1};
  scheme.fresh_pages = scheme.key_window == scheme.value_window ? below(4) : 0;
  if (below(5) > 0) scheme.items = {KvItem{}};  // seals; the items themselves do not matter here
  scheme.near = below(3) == 0 ? KvCodec::kHalf : KvCodec::kInt8;
  if (!scheme.seals()) scheme.fresh_pages = 0;
  options.arena.slab_bytes = 64;
  options.arena.slabs = 10 + below(12);
  options.arena.per_slab = {2, 1 + below(6), scheme.fresh_pages > 0 ? 1 + below(4) : 0};
  if (!scheme.seals()) options.arena.per_slab[1] = 0;
  options.max_running = 1 + below(8);
  options.max_waiting = 20;
  options.step_tokens = options.max_running + below(40);
  options.watermark_pages = below(3);
  options.elastic = below(2) == 0;
  options.aging_us = below(8);
  options.bypass_sequences = below(4);
  options.bypass_tokens = below(4) * 60;
  options.max_context_tokens = static_cast<int32_t>(PageStore(scheme, options.arena).MaxTokens());
  return options;
}

class SealedPagesTest : public ::testing::TestWithParam<int> {
 protected:
  /// Calls of a schedule while sequences arrive; as many as it takes come on top, until all ended.
  static constexpr int kCalls = 400;

  void Run(uint32_t seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    random_.seed(seed);
    now_ = 0;
    live_.clear();
    added_ = 0;
    lives_.clear();
    began_.clear();
    progress_.clear();
    admitted_ = 0;
    chains_.clear();
    tails_.clear();
    branches_.clear();
    exact_.clear();
    unrefined_from_.clear();
    last_ = {};
    outstanding_.clear();
    shadow_.reset();
    options_ = RandomOptions(random_);
    shares_ = seed % 4 != 0;
    has_deadlines_ = random_() % 2 == 0;
    tenants_ = 1 + random_() % weights_.size();
    for (int32_t& weight : weights_) weight = static_cast<int32_t>(1 + random_() % 5);
    if (options_.max_context_tokens < 2) return;
    scheduler_.emplace(options_);
    arena_.emplace(options_.arena);
    for (int call = 0; call < kCalls && !HasFailure(); ++call) Step();
    for (int call = 0; call < 60000 && !scheduler_->idle() && !HasFailure(); ++call) {
      Advance();
      scheduler_->CheckInvariants();
    }
    EXPECT_TRUE(scheduler_->idle());
    EXPECT_TRUE(live_.empty());
    EXPECT_EQ(scheduler_->next_deadline(), kNoDeadline);
    EXPECT_EQ(scheduler_->stats().slabs_used, 0);
    cached_tokens_ += scheduler_->stats().cached_tokens;
    evictions_ += scheduler_->stats().cache_evictions;
    unrefined_ += scheduler_->stats().unrefined;
    EXPECT_TRUE(options_.elastic || scheduler_->stats().unrefined == 0);
  }

  uint64_t preemptions() const { return preemptions_; }
  uint64_t exact_preemptions() const { return exact_preemptions_; }
  uint64_t seals() const { return seals_; }
  uint64_t steps_of_both() const { return steps_of_both_; }
  uint64_t cached_tokens() const { return cached_tokens_; }
  uint64_t resumed_with_cache() const { return resumed_with_cache_; }
  uint64_t evictions() const { return evictions_; }
  uint64_t tail_hits() const { return tail_hits_; }
  uint64_t drops() const { return drops_; }
  uint64_t unrefined() const { return unrefined_; }
  uint64_t unrefined_again() const { return unrefined_again_; }
  uint64_t shadows_done() const { return shadows_done_; }
  uint64_t shadows_displaced() const { return shadows_displaced_; }
  uint64_t expired() const { return expired_; }
  uint64_t expired_after_admission() const { return expired_after_admission_; }

 private:
  void Step() {
    const uint32_t choice = random_() % 10;
    if (choice < 3) {
      Add();
    } else if (choice == 3 && added_ > 0) {
      const SequenceId id{1 + random_() % added_};
      scheduler_->Cancel(id);
      live_.erase(id);
    } else if (choice == 4 && outstanding_.empty() && random_() % 8 == 0) {
      scheduler_->DropKept();
      ASSERT_EQ(scheduler_->stats().slabs_cached, 0);
      ++drops_;
    } else {
      Advance();
    }
    scheduler_->CheckInvariants();
  }

  void Add() {
    SequenceSpec spec;
    spec.id = SequenceId{++added_};
    const bool again = shares_ && last_.prefix != nullptr && random_() % 3 == 0;
    spec.precision = random_() % 3 == 0 ? KvPrecision::kExact : KvPrecision::kScheme;
    if (again) spec.precision = last_.precision;
    const int64_t fits = PageStore(options_.scheme, options_.arena).MaxTokens(spec.precision);
    const auto context =
        static_cast<uint32_t>(std::min<int64_t>(options_.max_context_tokens, fits + random_() % 3));
    spec.prompt_tokens = static_cast<int32_t>(1 + random_() % (context - 1));
    const bool same = again && last_.prompt_tokens < static_cast<int32_t>(context);
    if (same) spec.prompt_tokens = last_.prompt_tokens;
    const uint32_t left = context - static_cast<uint32_t>(spec.prompt_tokens);
    spec.max_new_tokens = static_cast<int32_t>(1 + random_() % left);
    if (same) {
      spec.prefix = last_.prefix;
      chains_[spec.id] = chains_[last_.id];
      if (tails_.contains(last_.id)) tails_[spec.id] = tails_[last_.id];
    } else if (shares_) {
      AddPrefix(spec);
    }
    AddLimits(spec);
    last_ = spec;
    progress_[spec.id].spec = spec;
    const int64_t stored = spec.prompt_tokens + spec.max_new_tokens - 1;
    const absl::Status status = scheduler_->Add(spec);
    if (stored > fits) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    } else if (!status.ok()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    } else {
      live_.insert(spec.id);
    }
    if (spec.precision == KvPrecision::kExact) exact_.insert(spec.id);
  }

  /// Whose it is, how urgent, and how long it may take.
  void AddLimits(SequenceSpec& spec) {
    const auto below = [&](uint32_t n) { return static_cast<int32_t>(random_() % n); };
    spec.tenant = below(static_cast<uint32_t>(tenants_));
    spec.weight = weights_[static_cast<size_t>(spec.tenant)];
    spec.priority = below(4) == 0 ? below(5) - 2 : 0;
    spec.arrival = now_ - below(3);
    if (has_deadlines_ && below(4) == 0) spec.deadline = now_ + below(120);
    if (has_deadlines_ && below(4) == 0) spec.queue_deadline = now_ + below(60);
  }

  /// Prompts are paths in a tree of chunks with few branches near the root; those that have a tail
  /// of the same length behind the same chunks have the same.
  void AddPrefix(SequenceSpec& spec) {
    auto chain = std::make_shared<PrefixChain>();
    const int32_t chunk = options_.scheme.chunk_tokens;
    const int32_t chunks = spec.prompt_tokens / chunk;
    const int32_t last_chunk = (spec.prompt_tokens - 1) / chunk;
    std::vector<uint64_t>& texts = chains_[spec.id];
    uint64_t text = spec.precision == KvPrecision::kExact ? 1 : 0;
    for (int32_t i = 0; i < chunks; ++i) {
      const uint64_t branch = random_() % 10 == 0 ? random_() : random_() % 2;
      text = Branch(text, branch);
      chain->chunks.push_back(HashOf(text));
      texts.push_back(text | kSharedText);
    }
    const int32_t tail_tokens = (spec.prompt_tokens - 1) / kP * kP;
    if (random_() % 2 == 0 && tail_tokens > last_chunk * chunk) {
      const bool whole =
          chunks > last_chunk;  // the tail is a part of a chunk with a text of its own
      const uint64_t tail = Branch(text, 1000 + static_cast<uint64_t>(tail_tokens));
      chain->tail = HashOf(tail);
      chain->tail_tokens = tail_tokens;
      if (!whole) tails_[spec.id] = {tail_tokens / kP, tail | kSharedText};
    }
    spec.prefix = std::move(chain);
  }
  uint64_t Branch(uint64_t text, uint64_t branch) {
    return branches_.try_emplace({text, branch}, branches_.size() + 2).first->second;
  }
  static PrefixHash HashOf(uint64_t text) {
    PrefixHash hash = {};
    for (size_t byte = 0; byte < sizeof(text); ++byte) {
      hash[hash.size() - 1 - byte] = static_cast<uint8_t>(text >> (8 * byte));
    }
    return hash;
  }

  /// The text that a page of a sequence belongs to.
  uint64_t TextOf(SequenceId id, int32_t page) {
    const auto chunk = static_cast<size_t>(page * kP / options_.scheme.chunk_tokens);
    const std::vector<uint64_t>& chain = chains_[id];
    if (chunk < chain.size()) return chain[chunk];
    const auto tail = tails_.find(id);
    if (tail != tails_.end() && page < tail->second.first) return tail->second.second;
    return (static_cast<uint64_t>(id) << 16) + lives_[id];
  }

  /// The text that a page whose newest token is `token` belongs to.
  uint64_t TextAt(SequenceId id, int32_t token) {
    const auto from = unrefined_from_.find(id);
    if (from == unrefined_from_.end() || token < from->second) return TextOf(id, token / kP);
    return kUnrefinedText | ((static_cast<uint64_t>(id) << 16) + lives_[id]);
  }

  /// A sequence reads without refinements from one token on, the same in each life.
  void CheckUnrefined(const StepItem& item) {
    if (item.unrefined) {
      ASSERT_TRUE(options_.elastic && !exact_.contains(item.sequence));
      const bool first = unrefined_from_.try_emplace(item.sequence, item.begin).second;
      unrefined_again_ += !first && item.begin == unrefined_from_[item.sequence] ? 1 : 0;
    }
    const auto from = unrefined_from_.find(item.sequence);
    if (from == unrefined_from_.end()) return;
    ASSERT_EQ(item.unrefined, item.begin >= from->second);
    ASSERT_TRUE(item.unrefined || item.begin + item.count <= from->second);
  }

  /// Plans a step and runs it at once; commits it now or one plan later.
  void Advance() {
    if (outstanding_.size() == 2 || (!outstanding_.empty() && random_() % 2 == 0)) {
      CommitOldest();
      return;
    }
    const int32_t catch_up_tokens =
        random_() % 3 == 0 ? INT32_MAX : 1 + static_cast<int32_t>(random_() % 40);
    now_ += static_cast<TimeUs>(random_() % 4);
    StepPlan plan = scheduler_->Plan(now_, catch_up_tokens);
    CheckExpired(plan);
    preemptions_ += plan.preempted.size();
    for (const SequenceId id : plan.preempted) {
      ++lives_[id];
      began_.erase(id);
      Progress& progress = progress_[id];
      ASSERT_GE(progress.computed, progress.protected_until)
          << "preempted again before it progressed by a page";
      progress.protected_until =
          std::min(progress.spec.prompt_tokens + progress.sampled + kP,
                   progress.spec.prompt_tokens + progress.spec.max_new_tokens - 1);
      progress.computed = 0;
      exact_preemptions_ += exact_.count(id);
    }
    const ShadowStep shadow = PlanShadow();
    if (plan.empty()) {
      RunSeals(shadow.seals);
      RunShadow(shadow);
      scheduler_->Commit(plan, {});
      if (outstanding_.empty() && plan.preempted.empty()) {
        ASSERT_TRUE(scheduler_->idle()) << "an engine would sleep for ever";
      }
      if (!outstanding_.empty()) CommitOldest();
      return;
    }
    std::vector<KvSealOp> seals = plan.seals;
    seals.insert(seals.end(), shadow.seals.begin(), shadow.seals.end());
    RunSeals(seals);
    CheckOrder(plan);
    for (const StepItem& item : plan.items) {
      RunItem(item);
      progress_[item.sequence].computed = item.begin + item.count;
      progress_[item.sequence].sampled += item.sample ? 1 : 0;
    }
    RunShadow(shadow);
    const auto exact = std::count_if(plan.items.begin(), plan.items.end(), [&](const auto& item) {
      return exact_.contains(item.sequence);
    });
    steps_of_both_ += exact > 0 && exact < std::ssize(plan.items) ? 1 : 0;
    outstanding_.push_back(std::move(plan));
  }

  /// A shadow of random length, whenever there is none and room for one.
  ShadowStep PlanShadow() {
    if (shadow_ != nullptr && !shadow_->HasRecords(scheduler_->arena())) {
      ++shadows_displaced_;
      shadow_.reset();
    }
    if (shadow_ == nullptr) return {};
    const auto step = shadow_->Plan(2 + static_cast<int32_t>(shadow_random_() % 40),
                                    static_cast<int32_t>(shadow_random_() % 20));
    EXPECT_TRUE(step.has_value()) << "a record of those it was given is missing";
    return step.value_or(ShadowStep{});
  }

  void BeginShadow() {
    if (shadow_ != nullptr) return;
    const auto tokens = static_cast<int32_t>(2 + shadow_random_() % static_cast<uint32_t>(12 * kP));
    shadow_prompt_ = static_cast<int32_t>(1 + shadow_random_() % static_cast<uint32_t>(tokens - 1));
    shadow_ = Shadow::Begin({.prompt_tokens = shadow_prompt_, .tokens = tokens}, options_.scheme,
                            options_.arena, scheduler_->arena());
    ++shadows_;
  }

  void RunShadow(const ShadowStep& step) {
    if (step.empty()) return;
    const StepItem::Role role =
        step.begin < shadow_prompt_ ? StepItem::Role::kPrefill : StepItem::Role::kDecode;
    StepItem item = {.sequence = SequenceId{kShadowScheme},
                     .begin = step.begin,
                     .count = step.count,
                     .role = role,
                     .pages = step.scheme_pages};
    // Texts of its own, in no tree of prompts.
    lives_[item.sequence] = shadows_;
    began_.insert(item.sequence);
    RunItem(item);
    item.sequence = SequenceId{kShadowExact};
    item.pages = step.exact_pages;
    lives_[item.sequence] = shadows_;
    began_.insert(item.sequence);
    RunExactItem(item);
    if (!shadow_->done()) return;
    ++shadows_done_;
    shadow_.reset();
  }

  /// Those without time left are gone, but for whom an outstanding plan holds, and no others are.
  void CheckExpired(const StepPlan& plan) {
    std::set<SequenceId> held;
    for (const StepPlan& outstanding : outstanding_) {
      for (const StepItem& item : outstanding.items) held.insert(item.sequence);
    }
    for (const SequenceId id : plan.expired) {
      const Progress& progress = progress_[id];
      ASSERT_EQ(live_.erase(id), 1u);
      ASSERT_FALSE(held.contains(id)) << "expired under an outstanding plan";
      ASSERT_TRUE(progress.spec.deadline <= now_ ||
                  (progress.age == 0 && progress.spec.queue_deadline <= now_));
      ++expired_;
      expired_after_admission_ += progress.age > 0 ? 1 : 0;
    }
    for (const SequenceId id : live_) {
      const Progress& progress = progress_[id];
      ASSERT_TRUE(progress.spec.deadline > now_ || held.contains(id)) << "outlived its deadline";
      ASSERT_TRUE(progress.spec.queue_deadline > now_ || progress.age > 0) << "waited too long";
    }
  }

  /// Decode items first, each role oldest first; whoever is new is the youngest.
  void CheckOrder(const StepPlan& plan) {
    uint64_t last = 0;
    bool prefill = false;
    for (const StepItem& item : plan.items) {
      ASSERT_TRUE(live_.contains(item.sequence)) << "computes a sequence that is gone";
      if (item.role == StepItem::Role::kPrefill && !prefill) {
        prefill = true;
        last = 0;
      }
      ASSERT_EQ(item.role == StepItem::Role::kPrefill, prefill) << "decode items come first";
      uint64_t& age = progress_[item.sequence].age;
      if (age == 0) age = ++admitted_;
      ASSERT_GT(age, last) << "not oldest first";
      last = age;
    }
  }

  void CommitOldest() {
    const StepPlan plan = std::move(outstanding_.front());
    outstanding_.pop_front();
    std::vector<Outcome> outcomes;
    for (const StepItem& item : plan.items) {
      if (item.sample) outcomes.push_back({item.sequence, random_() % 30 == 0});
    }
    for (const SequenceId id : scheduler_->Commit(plan, outcomes)) ASSERT_EQ(live_.erase(id), 1u);
    BeginShadow();
  }

  /// All seals of a plan run at once: none may write what another reads.
  void RunSeals(const std::vector<KvSealOp>& seals) {
    std::vector<Content> sources;
    for (const KvSealOp& op : seals) {
      const auto near = arena_->Read(KvRecord::kNear, op.near);
      ASSERT_TRUE(near.has_value()) << "a seal reads a record that holds nothing";
      ASSERT_EQ(near->page, op.page);
      ASSERT_EQ(near->tokens, kP) << "an incomplete page is sealed";
      ASSERT_EQ(near->part, Content::Part::kBoth) << "an exact page is sealed";
      sources.push_back(*near);
    }
    for (size_t i = 0; i < seals.size(); ++i) {
      const KvSealOp& op = seals[i];
      arena_->Write(KvRecord::kBase, op.base) = sources[i];
      if (op.refinement != kNoPage)
        arena_->Write(KvRecord::kRefinement, op.refinement) = sources[i];
      ++seals_;
    }
    for (const KvSealOp& op : seals) {
      ASSERT_TRUE(arena_->Read(KvRecord::kNear, op.near).has_value())
          << "a seal writes over what another reads";
    }
  }

  void RunItem(const StepItem& item) {
    CheckUnrefined(item);
    if (began_.insert(item.sequence).second && item.begin > 0) {
      ASSERT_EQ(item.begin % kP, 0);
      tail_hits_ += item.begin % options_.scheme.chunk_tokens != 0 ? 1 : 0;
      resumed_with_cache_ += lives_[item.sequence] > 0 ? 1 : 0;
    }
    const int32_t end = item.begin + item.count;
    const bool prefill = item.role == StepItem::Role::kPrefill;
    const int32_t chunk = options_.scheme.chunk_tokens;
    const int32_t complete = (prefill ? item.begin / chunk * chunk : item.begin) / kP;
    ASSERT_EQ(static_cast<int32_t>(item.pages.size()), (end + kP - 1) / kP);
    if (exact_.contains(item.sequence)) return RunExactItem(item);
    for (int32_t token = item.begin; token < end; ++token) {
      const KvPage& page = item.pages[static_cast<size_t>(token / kP)];
      ASSERT_EQ(page.key_tier, KvTier::kNear);
      ASSERT_EQ(page.value_tier, KvTier::kNear);
      arena_->Write(KvRecord::kNear, page.near) = {TextAt(item.sequence, token), token / kP,
                                                   token % kP + 1};
    }
    const auto precision = item.unrefined ? KvPrecision::kUnrefined : KvPrecision::kScheme;
    for (int32_t i = 0; i < static_cast<int32_t>(item.pages.size()); ++i) {
      const KvPage& page = item.pages[static_cast<size_t>(i)];
      ASSERT_EQ(page.key_tier, TierOf(options_.scheme, KvTensor::kKey, i, complete, precision));
      ASSERT_EQ(page.value_tier, TierOf(options_.scheme, KvTensor::kValue, i, complete, precision));
      const uint64_t text = TextAt(item.sequence, std::min(end, (i + 1) * kP) - 1);
      for (const KvTier tier : {page.key_tier, page.value_tier}) {
        ExpectHeld(tier == KvTier::kNear ? KvRecord::kNear : KvRecord::kBase,
                   tier == KvTier::kNear ? page.near : page.base, text, i,
                   std::min(kP, end - i * kP));
        if (tier == KvTier::kFresh && options_.arena.per_slab[2] > 0) {
          ExpectHeld(KvRecord::kRefinement, page.refinement, text, i, kP);
        }
      }
    }
  }

  void RunExactItem(const StepItem& item) {
    const int32_t end = item.begin + item.count;
    const bool two = options_.scheme.near == KvCodec::kInt8;
    const auto keys = two ? Content::Part::kExactKeys : Content::Part::kBoth;
    const auto values = Content::Part::kExactValues;
    for (int32_t token = item.begin; token < end; ++token) {
      const KvPage& page = item.pages[static_cast<size_t>(token / kP)];
      arena_->Write(KvRecord::kNear, page.near) = {TextOf(item.sequence, token / kP), token / kP,
                                                   token % kP + 1, keys};
      if (!two) continue;
      arena_->Write(KvRecord::kNear, page.exact_values) = {TextOf(item.sequence, token / kP),
                                                           token / kP, token % kP + 1, values};
    }
    for (int32_t i = 0; i < static_cast<int32_t>(item.pages.size()); ++i) {
      const KvPage& page = item.pages[static_cast<size_t>(i)];
      ASSERT_TRUE(page.exact);
      ASSERT_EQ(page.key_tier, KvTier::kNear);
      ASSERT_EQ(page.value_tier, KvTier::kNear);
      const int32_t tokens = std::min(kP, end - i * kP);
      ExpectHeld(KvRecord::kNear, page.near, TextOf(item.sequence, i), i, tokens, keys);
      if (two)
        ExpectHeld(KvRecord::kNear, page.exact_values, TextOf(item.sequence, i), i, tokens, values);
    }
  }

  void ExpectHeld(KvRecord kind, PageId id, uint64_t text, int32_t page, int32_t tokens,
                  Content::Part part = Content::Part::kBoth) {
    ASSERT_NE(id, kNoPage);
    const auto content = arena_->Read(kind, id);
    ASSERT_TRUE(content.has_value()) << "page " << page << " is read but holds nothing";
    ASSERT_EQ(content->text, text) << "page " << page << " holds another's tokens";
    ASSERT_EQ(content->page, page);
    ASSERT_GE(content->tokens, tokens);
    ASSERT_EQ(content->part, part);
  }

  static constexpr uint64_t kShadowScheme = uint64_t{1} << 40, kShadowExact = kShadowScheme + 1;

  std::mt19937 random_, shadow_random_;
  std::unique_ptr<Shadow> shadow_;
  int32_t shadow_prompt_ = 0;
  uint64_t shadows_ = 0, shadows_done_ = 0, shadows_displaced_ = 0;
  SchedulerOptions options_;
  std::optional<Scheduler> scheduler_;
  std::optional<ArenaModel> arena_;
  std::deque<StepPlan> outstanding_;
  static constexpr uint64_t kSharedText = uint64_t{1} << 63;
  static constexpr uint64_t kUnrefinedText = uint64_t{1} << 62;
  bool shares_ = true, has_deadlines_ = false;
  TimeUs now_ = 0;
  std::array<int32_t, 3> weights_ = {};  // of tenants
  size_t tenants_ = 1;
  std::set<SequenceId> live_;  // accepted, and neither cancelled, expired nor finished
  std::map<SequenceId, uint64_t> lives_;
  std::set<SequenceId> began_;  // in their present lives
  struct Progress {
    SequenceSpec spec;
    uint64_t age = 0;
    int32_t computed = 0, sampled = 0;
    int32_t protected_until = 0;  // of the present life
  };
  std::map<SequenceId, Progress> progress_;
  std::map<SequenceId, std::vector<uint64_t>> chains_;
  std::map<SequenceId, std::pair<int32_t, uint64_t>> tails_;  // where they end, in pages; text
  std::map<std::pair<uint64_t, uint64_t>, uint64_t> branches_;
  std::set<SequenceId> exact_;
  std::map<SequenceId, int32_t> unrefined_from_;
  SequenceSpec last_;
  uint64_t added_ = 0, admitted_ = 0, preemptions_ = 0, exact_preemptions_ = 0, seals_ = 0,
           steps_of_both_ = 0;
  uint64_t cached_tokens_ = 0, resumed_with_cache_ = 0, evictions_ = 0, tail_hits_ = 0, drops_ = 0;
  uint64_t unrefined_ = 0, unrefined_again_ = 0;
  uint64_t expired_ = 0, expired_after_admission_ = 0;
};

// The parts that run under the address sanitizer, too (.ci/run), are short.
constexpr int kSealedParts = 10, kShortParts = 2, kShortSchedules = 60, kLongSchedules = 300;

TEST_P(SealedPagesTest, EveryRecordThatIsReadHoldsWhatItsSequenceWrote) {
  static_assert((kShortParts * kShortSchedules + (kSealedParts - kShortParts) * kLongSchedules) *
                    kCalls >=
                1'000'000);
  const bool is_short = GetParam() < kShortParts;
  const int schedules = is_short ? kShortSchedules : kLongSchedules;
  for (int i = 0; i < schedules && !HasFailure(); ++i) {
    Run(static_cast<uint32_t>(GetParam() * 1000 + i));
  }
  EXPECT_GT(preemptions(), 20u);
  EXPECT_GT(exact_preemptions(), 20u);
  EXPECT_GT(steps_of_both(), 1000u);
  EXPECT_GT(seals(), 1000u);
  EXPECT_GT(cached_tokens(), 1000u);
  EXPECT_GT(resumed_with_cache(), 10u);
  EXPECT_GT(tail_hits(), 10u);
  EXPECT_GT(evictions(), 100u);
  EXPECT_GT(drops(), 20u);
  EXPECT_GT(unrefined(), 20u);
  if (!is_short) {
    EXPECT_GT(unrefined_again(), 0u);  // rare
  }
  EXPECT_GT(shadows_done(), 100u);
  EXPECT_GT(shadows_displaced(), 100u);
  EXPECT_GT(expired(), 50u);
  EXPECT_GT(expired_after_admission(), 5u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SealedPagesTest, ::testing::Range(0, kSealedParts));

}  // namespace
}  // namespace asymserve
