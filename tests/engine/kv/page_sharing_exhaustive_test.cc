#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <deque>
#include <map>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/kv/page_store.h"

// Model checking of shared pages on small sizes: sequences of one prompt on an arena of a few
// slabs, every order of beginning after what is kept, growing by a page (which publishes whole
// chunks and the prompt's tail), leaving, dropping all that is kept, and ending the plan, breadth
// first. Models with more states than kMostStates are searched that far only: every order of as
// many operations as the test prints, none of more. Of the others every state that can be reached
// is visited. Beside the store the arena's content is modelled, as bytes would be: whatever a
// sequence reads must be its own text, whoever wrote it.

namespace asymserve {
namespace {

constexpr int32_t kP = 4;           // tokens of a page
constexpr int32_t kChunkPages = 2;  // pages of a chunk
constexpr int32_t kTailPages = 3;   // where the last whole page of the prompt ends
constexpr size_t kMostStates = 30'000;
constexpr std::array<KvRecord, 3> kKinds = {KvRecord::kNear, KvRecord::kBase,
                                            KvRecord::kRefinement};

using Record = std::pair<KvRecord, PageId>;

struct Model {
  std::string name;
  KvScheme scheme;
  ArenaCut cut;
  KvPrecision precision = KvPrecision::kScheme;
  int32_t sequences = 2;
  int32_t max_pages = 5;    // of a sequence
  size_t least_states = 0;  // the search is void if it visits fewer
  bool small = false;       // it has fewer than kMostStates
};

/// Pages of the prompt are text 0, others one text for each life of each sequence.
struct Content {
  int32_t text = 0;
  int32_t page = -1;
};

struct Sequence {
  std::vector<KvPage> pages;
  std::vector<Content> contents;  // of the pages
  int32_t complete = 0;
  bool decodes = false;  // past its prompt
  bool planned = false;  // has its item of this plan: may neither grow nor leave before its end
};

struct State {
  explicit State(const Model& model)
      : store(model.scheme, model.cut), sequences(static_cast<size_t>(model.sequences)) {}

  PageStore store;
  std::vector<Sequence> sequences;
  struct Slab {
    std::optional<KvRecord> kind;
    std::map<int32_t, Content> records;
  };
  std::map<int32_t, Slab> arena;
  int32_t lives = 0;
};

PrefixChain Chain() {
  PrefixChain chain;
  for (uint8_t chunk = 1; chunk <= 2; ++chunk) chain.chunks.push_back({chunk});
  chain.tail = {9};
  chain.tail_tokens = kTailPages * kP;
  return chain;
}

int32_t SlabOf(const Model& model, const Record& record) {
  return Index(record.second) / model.cut.per_slab[static_cast<size_t>(record.first)];
}

/// A slab loses its content when a record of another kind is written into it.
void Write(const Model& model, State& state, const Record& record, const Content& content) {
  State::Slab& slab = state.arena[SlabOf(model, record)];
  if (slab.kind != record.first) slab.records.clear();
  slab.kind = record.first;
  slab.records[Index(record.second)] = content;
}

void ExpectContent(const Model& model, State& state, KvRecord kind, PageId id,
                   const Content& content) {
  if (id == kNoPage) return;
  const State::Slab& slab = state.arena[SlabOf(model, {kind, id})];
  ASSERT_TRUE(slab.kind == kind && slab.records.contains(Index(id))) << "reads what is lost";
  const Content& found = slab.records.at(Index(id));
  EXPECT_EQ(found.text, content.text) << "reads another's text";
  EXPECT_EQ(found.page, content.page);
}

std::vector<Record> RecordsOf(const KvPage& page) {
  std::vector<Record> records;
  if (page.near != kNoPage) records.emplace_back(KvRecord::kNear, page.near);
  if (page.exact_values != kNoPage) records.emplace_back(KvRecord::kNear, page.exact_values);
  if (page.base != kNoPage) records.emplace_back(KvRecord::kBase, page.base);
  if (page.refinement != kNoPage) records.emplace_back(KvRecord::kRefinement, page.refinement);
  return records;
}

void CheckState(const Model& model, State& state) {
  std::map<Record, int32_t> holders;
  size_t pages = 0;
  for (Sequence& sequence : state.sequences) {
    pages += sequence.pages.size();
    for (size_t i = 0; i < sequence.pages.size(); ++i) {
      const KvPage& page = sequence.pages[i];
      const bool exact = model.precision == KvPrecision::kExact;
      const auto tier = [&](KvTensor tensor) {
        return exact ? KvTier::kNear
                     : TierOf(model.scheme, tensor, static_cast<int32_t>(i), sequence.complete);
      };
      EXPECT_EQ(page.exact, exact);
      EXPECT_EQ(page.key_tier, tier(KvTensor::kKey));
      EXPECT_EQ(page.value_tier, tier(KvTensor::kValue));
      const bool near = page.key_tier == KvTier::kNear || page.value_tier == KvTier::kNear;
      const bool sealed = page.key_tier != KvTier::kNear || page.value_tier != KvTier::kNear;
      const bool fresh = page.key_tier == KvTier::kFresh || page.value_tier == KvTier::kFresh;
      EXPECT_EQ(page.near != kNoPage, near);
      EXPECT_EQ(page.base != kNoPage, sealed);
      EXPECT_EQ(page.refinement != kNoPage, fresh);
      for (const Record& record : RecordsOf(page)) {
        ++holders[record];
        ExpectContent(model, state, record.first, record.second, sequence.contents[i]);
      }
    }
  }
  EXPECT_EQ(state.store.pages_used(), static_cast<int32_t>(pages));
  std::array<int32_t, 3> used = {};
  // What was given up in this plan and is kept counts as held until its end.
  const bool ended = std::none_of(state.sequences.begin(), state.sequences.end(),
                                  [](const Sequence& sequence) { return sequence.planned; });
  for (const auto& [record, count] : holders) {
    ++used[static_cast<size_t>(record.first)];
    EXPECT_GE(state.store.holders(record.first, record.second), count);
    if (ended) {
      EXPECT_EQ(state.store.holders(record.first, record.second), count);
    }
  }
  for (const KvRecord kind : kKinds) {
    EXPECT_GE(state.store.used(kind), used[static_cast<size_t>(kind)]);
    if (ended) {
      EXPECT_EQ(state.store.used(kind), used[static_cast<size_t>(kind)]);
    }
  }
  // What is kept of the prompt holds its text.
  for (const PrefixIndex::Kept& kept : state.store.prefix_index().ListKept()) {
    for (const auto& [kind, id] : kept.records) {
      const State::Slab& slab = state.arena[SlabOf(model, {kind, id})];
      ASSERT_TRUE(slab.kind == kind && slab.records.contains(Index(id)));
      EXPECT_EQ(slab.records.at(Index(id)).text, 0) << "keeps what is no prompt's";
    }
  }
  state.store.CheckKept();
}

enum class Operation : uint8_t { kPrefill, kDecode, kResume, kLeave, kEndPlan, kDropKept };
enum class Result : uint8_t { kDone, kImpossible, kRefused };

struct Search {
  size_t states = 0, steps = 0, refusals = 0, resumed = 0, tails = 0, shared = 0, evictions = 0;
  size_t operations = 0;  // of which every order was tried
  bool to_the_end = false;
};

/// What others read is never written.
void ExpectOwn(const State& state, const Record& record) {
  EXPECT_EQ(state.store.holders(record.first, record.second), 1);
  for (const PrefixIndex::Kept& kept : state.store.prefix_index().ListKept()) {
    EXPECT_EQ(std::count(kept.records.begin(), kept.records.end(), record), 0);
  }
}

void RunSeals(const Model& model, State& state, const std::vector<KvSealOp>& seals) {
  for (const KvSealOp& op : seals) {
    const State::Slab& slab = state.arena[SlabOf(model, {KvRecord::kNear, op.near})];
    ASSERT_TRUE(slab.kind == KvRecord::kNear && slab.records.contains(Index(op.near)));
    const Content content = slab.records.at(Index(op.near));
    EXPECT_EQ(content.page, op.page);
    ExpectOwn(state, {KvRecord::kBase, op.base});
    Write(model, state, {KvRecord::kBase, op.base}, content);
    if (op.refinement != kNoPage) {
      Write(model, state, {KvRecord::kRefinement, op.refinement}, content);
    }
  }
}

Result Grow(const Model& model, State& state, size_t index, bool decode) {
  Sequence& sequence = state.sequences[index];
  const auto held = static_cast<int32_t>(sequence.pages.size());
  if (held == model.max_pages || (decode ? held == 0 : sequence.decodes)) {
    return Result::kImpossible;
  }
  const int32_t complete = decode ? held : held / kChunkPages * kChunkPages;
  const std::vector<KvPage> before = sequence.pages;
  std::vector<KvSealOp> seals;
  if (!state.store.Prepare(sequence.pages, held * kP + (decode ? 1 : kP), complete, seals,
                           model.precision)) {
    EXPECT_EQ(sequence.pages, before);
    EXPECT_TRUE(seals.empty());
    return Result::kRefused;
  }
  RunSeals(model, state, seals);
  sequence.contents.push_back({decode ? ++state.lives : 0, held});
  const KvPage& page = sequence.pages.back();
  Write(model, state, {KvRecord::kNear, page.near}, sequence.contents.back());
  if (page.exact_values != kNoPage) {
    Write(model, state, {KvRecord::kNear, page.exact_values}, sequence.contents.back());
  }
  const bool of_prompt = !sequence.decodes;
  sequence.complete = complete;
  sequence.decodes = decode;
  sequence.planned = true;
  const PrefixChain chain = Chain();
  KvDemand none;
  if (of_prompt && held > 0 && held == complete && held % kChunkPages == 0 &&
      held / kChunkPages <= std::ssize(chain.chunks)) {
    state.store.Publish(chain, held * kP, model.precision, sequence.pages, none);
  }
  if (!decode && held == kTailPages) {
    state.store.Publish(chain, chain.tail_tokens, model.precision, sequence.pages, none);
  }
  return Result::kDone;
}

Result Resume(const Model& model, State& state, Sequence& sequence, Search& search) {
  if (!sequence.pages.empty()) return Result::kImpossible;
  const PrefixChain chain = Chain();
  const int32_t tokens = state.store.CachedTokens(chain, (model.max_pages - 1) * kP);
  if (tokens == 0) return Result::kImpossible;
  state.store.Resume(chain, tokens, model.precision, sequence.pages);
  sequence.complete = tokens / kP / kChunkPages * kChunkPages;
  for (int32_t page = 0; page < tokens / kP; ++page) sequence.contents.push_back({0, page});
  ++search.resumed;
  search.tails += tokens == chain.tail_tokens ? 1 : 0;
  return Result::kDone;
}

Result Apply(const Model& model, State& state, size_t index, Operation operation, Search& search) {
  Sequence& sequence = state.sequences[index];
  switch (operation) {
    case Operation::kEndPlan:
      state.store.EndPlan();
      for (Sequence& each : state.sequences) each.planned = false;
      return Result::kDone;
    case Operation::kDropKept:
      state.store.DropKept();
      return Result::kDone;
    case Operation::kResume:
      return Resume(model, state, sequence, search);
    case Operation::kLeave:
      if (sequence.planned || sequence.pages.empty()) return Result::kImpossible;
      state.store.Release(sequence.pages);
      sequence = {};
      return Result::kDone;
    case Operation::kPrefill:
    case Operation::kDecode:
      if (sequence.planned) return Result::kImpossible;
      return Grow(model, state, index, operation == Operation::kDecode);
  }
  return Result::kImpossible;
}

/// Numbers in order of first appearance.
class Names {
 public:
  int32_t Of(int32_t thing) { return names_.try_emplace(thing, std::ssize(names_)).first->second; }

 private:
  std::map<int32_t, int32_t> names_;
};

/// States count as one that differ in the names of slabs and records only. Holds all near records
/// that are left afterwards.
std::string KeyOf(const Model& model, State& state, std::vector<KvPage>& probe) {
  std::string key;
  const auto add = [&](int32_t value) { key += static_cast<char>(value + 1); };
  Names slabs;
  std::array<Names, 3> records;
  const auto add_record = [&](const Record& record) {
    add(static_cast<int32_t>(record.first));
    add(slabs.Of(SlabOf(model, record)));
    add(records[static_cast<size_t>(record.first)].Of(Index(record.second)));
  };
  for (const Sequence& sequence : state.sequences) {
    add(static_cast<int32_t>(sequence.pages.size()));
    add(sequence.complete);
    add((sequence.decodes ? 1 : 0) + (sequence.planned ? 2 : 0));
    for (const KvPage& page : sequence.pages) {
      for (const Record& record : RecordsOf(page)) add_record(record);
    }
  }
  for (const PrefixIndex::Kept& kept : state.store.prefix_index().ListKept()) {
    add(kept.hash[0] * 2 + (kept.resuming ? 1 : 0));
    for (const Record& record : kept.records) add_record(record);
  }
  // The order in which slabs of near records, and with them empty slabs, will be used.
  state.store.EndPlan();
  std::vector<KvSealOp> seals;
  while (state.store.Prepare(probe, static_cast<int64_t>(probe.size() + 1) * kP, 0, seals)) {
    add(slabs.Of(SlabOf(model, {KvRecord::kNear, probe.back().near})));
  }
  return key;
}

/// With everybody gone nothing is left that a lone sequence could not have; it may have to start
/// again, once, with all that is kept dropped, if its records lie scattered among those. Uses the
/// state up.
void CheckNothingLeaks(State& state) {
  for (Sequence& sequence : state.sequences) state.store.Release(sequence.pages);
  state.store.EndPlan();
  EXPECT_TRUE(state.store.empty());
  EXPECT_EQ(state.store.idle_slabs(), state.store.slabs());
  std::vector<KvPage> pages;
  std::vector<KvSealOp> seals;
  const auto grows = [&] {
    bool fits = true;
    const auto most = static_cast<int32_t>(state.store.MaxTokens() / kP);
    for (int32_t page = 0; fits && page < most; ++page) {
      fits = state.store.Prepare(pages, (page + 1) * kP, page, seals);
      state.store.EndPlan();
    }
    return fits;
  };
  if (!grows()) {
    state.store.Release(pages);
    state.store.DropKept();
    EXPECT_TRUE(grows());
  }
  state.store.Release(pages);
  state.store.DropKept();
  EXPECT_EQ(state.store.empty_slabs(), state.store.slabs());
  EXPECT_EQ(state.store.prefix_index().nodes(), 0u);
}

/// Whether the first page of the first sequence is another's, too.
bool Shares(const State& state) {
  if (state.sequences[0].pages.empty()) return false;
  const auto [kind, id] = RecordsOf(state.sequences[0].pages[0])[0];
  return state.store.holders(kind, id) > 1;
}

using Step = std::pair<size_t, Operation>;

std::vector<Step> StepsOf(const Model& model) {
  std::vector<Step> steps = {{0, Operation::kEndPlan}, {0, Operation::kDropKept}};
  for (size_t i = 0; i < static_cast<size_t>(model.sequences); ++i) {
    for (const Operation operation :
         {Operation::kPrefill, Operation::kDecode, Operation::kResume, Operation::kLeave}) {
      steps.emplace_back(i, operation);
    }
  }
  return steps;
}

Search Explore(const Model& model) {
  const std::vector<Step> steps = StepsOf(model);
  Search search;
  std::unordered_set<std::string> seen;
  std::deque<std::vector<Step>> frontier = {{}};
  while (!frontier.empty() && seen.size() < kMostStates && !::testing::Test::HasFailure()) {
    std::vector<Step> path = std::move(frontier.front());
    frontier.pop_front();
    search.operations = path.size();
    for (const Step& step : steps) {
      State state(model);
      Search replayed;
      for (const auto& [index, operation] : path) {
        Apply(model, state, index, operation, replayed);
      }
      const uint64_t evictions = state.store.prefix_index().evictions();
      const Result result = Apply(model, state, step.first, step.second, search);
      search.refusals += result == Result::kRefused ? 1 : 0;
      if (result == Result::kImpossible) continue;
      ++search.steps;
      CheckState(model, state);
      const bool evicted = state.store.prefix_index().evictions() > evictions;
      search.evictions += evicted && step.second != Operation::kDropKept ? 1 : 0;
      search.shared += Shares(state) ? 1 : 0;
      std::vector<KvPage> probe;
      if (!seen.insert(KeyOf(model, state, probe)).second) continue;
      state.store.Release(probe);
      CheckNothingLeaks(state);
      path.push_back(step);
      frontier.push_back(path);
      path.pop_back();
    }
  }
  search.states = seen.size();
  search.to_the_end = frontier.empty();
  return search;
}

Model MakeModel(std::string name, int32_t slabs, int32_t max_pages, size_t least_states) {
  Model model;
  model.name = std::move(name);
  model.scheme.page_tokens = kP;
  model.scheme.chunk_tokens = kChunkPages * kP;
  model.scheme.near = KvCodec::kInt8;
  model.scheme.sink_pages = 1;
  model.scheme.key_window = model.scheme.value_window = {.recent_pages = 1, .block_pages = 1};
  model.scheme.fresh_pages = 1;
  model.scheme.items.resize(2);
  model.cut.slab_bytes = 1;
  model.cut.slabs = slabs;
  model.cut.per_slab = {2, 3, 4};
  model.max_pages = max_pages;
  model.least_states = least_states;
  return model;
}

std::vector<Model> Models() {
  std::vector<Model> models;
  models.push_back(MakeModel("two_sequences", 5, 5, kMostStates));
  models.push_back(MakeModel("little_room", 3, 5, 1'000));
  models.back().small = true;
  models.push_back(MakeModel("exact", 5, 4, 300));
  models.back().precision = KvPrecision::kExact;
  models.back().small = true;
  // As kivi: keys in blocks of two pages, values later, no refinement.
  models.push_back(MakeModel("keys_before_values", 5, 5, 1'000));
  models.back().cut.per_slab[2] = 0;
  models.back().scheme.fresh_pages = 0;
  models.back().scheme.sink_pages = 0;
  models.back().scheme.key_window = {.recent_pages = 0, .block_pages = 2};
  models.back().scheme.value_window = {.recent_pages = 2, .block_pages = 1};
  return models;
}

void PrintTo(const Model& model, std::ostream* out) {
  *out << model.name;
}

class PageSharingExhaustiveTest : public ::testing::TestWithParam<Model> {};

TEST_P(PageSharingExhaustiveTest, NoOrderOfSharingAndLeavingBreaksAnInvariant) {
  const Model& model = GetParam();
  const Search search = Explore(model);
  std::printf(
      "%s %zu operations: %zu states, %zu steps, %zu refusals, %zu resumed, %zu tails, %zu shared, "
      "%zu evictions\n",
      search.to_the_end ? "to the end, after" : "every order of", search.operations, search.states,
      search.steps, search.refusals, search.resumed, search.tails, search.shared, search.evictions);
  EXPECT_TRUE(search.to_the_end || !model.small);
  EXPECT_GE(search.states, model.least_states);
  EXPECT_GE(search.refusals, 10u);
  EXPECT_GE(search.resumed, 10u);
  EXPECT_GE(search.tails, 10u);
  EXPECT_GE(search.shared, 10u);
  EXPECT_GE(search.evictions, 10u);
}

INSTANTIATE_TEST_SUITE_P(Models, PageSharingExhaustiveTest, ::testing::ValuesIn(Models()),
                         [](const auto& model) { return model.param.name; });

}  // namespace
}  // namespace asymserve
