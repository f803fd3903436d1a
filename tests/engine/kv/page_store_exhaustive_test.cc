#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <deque>
#include <ostream>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/kv/page_store.h"

// Model checking of the page life cycle on small sizes: two or three sequences on an arena of a few
// slabs, every order of growing by a page (prefill or decode), leaving, and ending the plan,
// breadth first. States count as one when they differ in the names of slabs and records only, of
// which nothing depends, or in the order in which partly used slabs of base and refinement records
// will be used, which cannot be seen from outside.

namespace asymserve {
namespace {

constexpr int32_t kP = 4;           // tokens of a page
constexpr int32_t kChunkPages = 2;  // pages of a chunk
constexpr std::array<KvRecord, 3> kKinds = {KvRecord::kNear, KvRecord::kBase,
                                            KvRecord::kRefinement};

using Record = std::pair<size_t, PageId>;  // kind, id

struct Model {
  std::string name;
  KvScheme scheme;
  ArenaCut cut;
  std::vector<KvPrecision> precision;  // a sequence each
  int32_t max_pages = 0;               // of a sequence
  size_t least_states = 0;             // the search is void if it visits fewer
};

struct Sequence {
  std::vector<KvPage> pages;
  int32_t complete = 0;
  bool decodes = false;  // past its prompt
  bool planned = false;  // has its item of this plan: may neither grow nor leave before its end
};

/// A store cannot be copied: a state is built again from its path.
struct State {
  explicit State(const Model& model)
      : store(model.scheme, model.cut), sequences(model.precision.size()) {}

  PageStore store;
  std::vector<Sequence> sequences;
  bool checks = true;        // and `retired` kept up to date
  std::set<Record> retired;  // given up in this plan, not handed out again yet
};

Model MakeModel(std::string name, size_t sequences, int32_t slabs, int32_t max_pages,
                size_t least_states) {
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
  model.precision.assign(sequences, KvPrecision::kScheme);
  model.max_pages = max_pages;
  model.least_states = least_states;
  return model;
}

std::vector<Record> RecordsOf(const KvPage& page) {
  std::vector<Record> records;
  if (page.near != kNoPage) records.emplace_back(0, page.near);
  if (page.exact_values != kNoPage) records.emplace_back(0, page.exact_values);
  if (page.base != kNoPage) records.emplace_back(1, page.base);
  if (page.refinement != kNoPage) records.emplace_back(2, page.refinement);
  return records;
}

/// What sequences hold; fails when something is held twice.
std::set<Record> Held(const State& state) {
  std::set<Record> held;
  for (const Sequence& sequence : state.sequences) {
    for (const KvPage& page : sequence.pages) {
      for (const Record& record : RecordsOf(page)) {
        EXPECT_TRUE(held.insert(record).second) << "held twice: record " << Index(record.second);
      }
    }
  }
  return held;
}

void CheckPage(const Model& model, const Sequence& sequence, int32_t index, bool exact) {
  const KvPage& page = sequence.pages[static_cast<size_t>(index)];
  KvTier key = KvTier::kNear, value = KvTier::kNear;
  if (!exact) {
    key = TierOf(model.scheme, KvTensor::kKey, index, sequence.complete);
    value = TierOf(model.scheme, KvTensor::kValue, index, sequence.complete);
  }
  EXPECT_EQ(page.exact, exact);
  EXPECT_EQ(page.key_tier, key);
  EXPECT_EQ(page.value_tier, value);
  EXPECT_EQ(page.near != kNoPage, key == KvTier::kNear || value == KvTier::kNear);
  EXPECT_EQ(page.base != kNoPage, key != KvTier::kNear || value != KvTier::kNear);
  EXPECT_EQ(page.refinement != kNoPage, key == KvTier::kFresh || value == KvTier::kFresh);
  EXPECT_EQ(page.exact_values != kNoPage, exact);
}

/// Every invariant of a state by itself.
void CheckState(const Model& model, const State& state) {
  const std::set<Record> held = Held(state);
  std::array<int32_t, 3> used = {};
  std::vector<int32_t> kind_of(static_cast<size_t>(model.cut.slabs), -1);
  const auto bind = [&](const Record& record) {
    const auto& [kind, id] = record;
    const int32_t slab = Index(id) / model.cut.per_slab[kind];
    ASSERT_TRUE(Index(id) >= 0 && slab < model.cut.slabs);
    int32_t& bound = kind_of[static_cast<size_t>(slab)];
    EXPECT_TRUE(bound == -1 || bound == static_cast<int32_t>(kind)) << "two kinds in one slab";
    bound = static_cast<int32_t>(kind);
  };
  for (const Record& record : held) {
    ++used[record.first];
    bind(record);
  }
  for (const Record& record : state.retired) {
    EXPECT_FALSE(held.contains(record));
    bind(record);
  }
  for (size_t kind = 0; kind < kKinds.size(); ++kind) {
    EXPECT_EQ(state.store.used(kKinds[kind]), used[kind]);
  }
  EXPECT_EQ(state.store.empty_slabs(), std::count(kind_of.begin(), kind_of.end(), -1));
  size_t pages = 0;
  for (size_t i = 0; i < state.sequences.size(); ++i) {
    const Sequence& sequence = state.sequences[i];
    pages += sequence.pages.size();
    for (size_t page = 0; page < sequence.pages.size(); ++page) {
      CheckPage(model, sequence, static_cast<int32_t>(page),
                model.precision[i] == KvPrecision::kExact);
    }
  }
  EXPECT_EQ(state.store.pages_used(), static_cast<int32_t>(pages));
}

/// With everybody gone nothing is left, and a sequence may grow as long as MaxTokens says. Uses the
/// state up.
void CheckNothingLeaks(const Model& model, State& state) {
  for (Sequence& sequence : state.sequences) state.store.Release(sequence.pages);
  state.store.EndPlan();
  EXPECT_TRUE(state.store.empty());
  EXPECT_EQ(state.store.empty_slabs(), model.cut.slabs);
  EXPECT_EQ(state.store.pages_used(), 0);
  for (const KvRecord kind : kKinds) EXPECT_EQ(state.store.used(kind), 0);
  std::vector<KvPage> pages;
  std::vector<KvSealOp> seals;
  const auto most = static_cast<int32_t>(state.store.MaxTokens() / kP);
  for (int32_t page = 0; page < most; ++page) {
    ASSERT_TRUE(state.store.Prepare(pages, (page + 1) * kP, page, seals)) << "page " << page;
    state.store.EndPlan();
  }
}

/// Seals read the near record that the page had and write records that nobody holds.
void CheckSeals(const std::vector<KvSealOp>& seals, const std::vector<KvPage>& before,
                const std::vector<KvPage>& after, const std::set<Record>& held_before) {
  std::set<int32_t> sealed;
  for (const KvSealOp& op : seals) {
    EXPECT_TRUE(sealed.insert(op.page).second);
    const auto index = static_cast<size_t>(op.page);
    ASSERT_LT(index, before.size());
    EXPECT_EQ(op.near, before[index].near);
    EXPECT_EQ(op.base, after[index].base);
    EXPECT_EQ(op.refinement, after[index].refinement);
    EXPECT_EQ(held_before.contains({1, op.base}), before[index].base != kNoPage);
  }
  for (size_t i = 0; i < before.size(); ++i) {
    const bool keys = before[i].key_tier == KvTier::kNear && after[i].key_tier != KvTier::kNear;
    const bool values =
        before[i].value_tier == KvTier::kNear && after[i].value_tier != KvTier::kNear;
    EXPECT_EQ(sealed.contains(static_cast<int32_t>(i)), keys || values) << "page " << i;
    if (before[i].base != kNoPage) {
      EXPECT_EQ(after[i].base, before[i].base) << "base bytes never move";
    }
  }
}

/// A refusal is right: what the sequence would hold more of does not fit in what was given up in
/// this plan, the free places of slabs of its kind, and empty slabs.
void CheckRefusal(const Model& model, const State& state, size_t index, int32_t complete) {
  const Sequence& sequence = state.sequences[index];
  const bool exact = model.precision[index] == KvPrecision::kExact;
  std::array<int32_t, 3> more = {};
  for (const KvPage& page : sequence.pages) {
    for (const Record& record : RecordsOf(page)) --more[record.first];
  }
  for (int32_t page = 0; page <= static_cast<int32_t>(sequence.pages.size()); ++page) {
    const KvTier key = TierOf(model.scheme, KvTensor::kKey, page, complete);
    const KvTier value = TierOf(model.scheme, KvTensor::kValue, page, complete);
    const bool near = exact || key == KvTier::kNear || value == KvTier::kNear;
    const bool sealed = !exact && (key != KvTier::kNear || value != KvTier::kNear);
    const bool fresh = !exact && (key == KvTier::kFresh || value == KvTier::kFresh);
    more[0] += (near ? 1 : 0) + (exact ? 1 : 0);
    more[1] += sealed ? 1 : 0;
    more[2] += fresh ? 1 : 0;
  }
  const std::set<Record> held = Held(state);
  std::array<std::set<int32_t>, 3> slabs;
  for (const auto* records : {&held, &state.retired}) {
    for (const auto& [kind, id] : *records) {
      slabs[kind].insert(Index(id) / model.cut.per_slab[kind]);
      ++more[kind];  // its place is taken ...
    }
  }
  for (const auto& [kind, id] : state.retired) --more[kind];  // ... but free for its own kind
  int32_t empty_slabs_needed = 0;
  for (size_t kind = 0; kind < kKinds.size(); ++kind) {
    const int32_t per_slab = model.cut.per_slab[kind];
    const int32_t places = static_cast<int32_t>(slabs[kind].size()) * per_slab;
    const int32_t missing = more[kind] - places;
    if (missing > 0) empty_slabs_needed += (missing + per_slab - 1) / per_slab;
  }
  EXPECT_GT(empty_slabs_needed, state.store.empty_slabs());
}

enum class Operation : uint8_t { kPrefill, kDecode, kLeave, kEndPlan };

enum class Result : uint8_t { kDone, kImpossible, kRefused };

/// A growth that finds no records is refused and leaves all as it was.
Result Apply(const Model& model, State& state, size_t index, Operation operation) {
  if (operation == Operation::kEndPlan) {
    state.store.EndPlan();
    state.retired.clear();
    for (Sequence& sequence : state.sequences) sequence.planned = false;
    return Result::kDone;
  }
  Sequence& sequence = state.sequences[index];
  if (sequence.planned) return Result::kImpossible;
  if (operation == Operation::kLeave) {
    if (sequence.pages.empty()) return Result::kImpossible;
    state.store.Release(sequence.pages);
    sequence = {};
    return Result::kDone;
  }
  const auto held = static_cast<int32_t>(sequence.pages.size());
  const bool decode = operation == Operation::kDecode;
  if (held == model.max_pages || (decode ? held == 0 : sequence.decodes)) {
    return Result::kImpossible;
  }
  const int32_t complete = decode ? held : held / kChunkPages * kChunkPages;
  const int32_t tokens = held * kP + (decode ? 1 : kP);
  const std::vector<KvPage> before = sequence.pages;
  const std::set<Record> held_before = state.checks ? Held(state) : std::set<Record>();
  const int32_t empty_before = state.store.empty_slabs();
  std::vector<KvSealOp> seals;
  if (!state.store.Prepare(sequence.pages, tokens, complete, seals, model.precision[index])) {
    EXPECT_EQ(sequence.pages, before);
    EXPECT_TRUE(seals.empty());
    EXPECT_EQ(state.store.empty_slabs(), empty_before);
    CheckState(model, state);
    CheckRefusal(model, state, index, complete);
    return Result::kRefused;
  }
  sequence.complete = complete;
  sequence.decodes = decode;
  sequence.planned = true;
  if (!state.checks) return Result::kDone;
  EXPECT_EQ(static_cast<int32_t>(sequence.pages.size()), held + 1);
  CheckSeals(seals, before, sequence.pages, held_before);
  const std::set<Record> held_after = Held(state);
  for (const Record& record : held_before) {
    if (!held_after.contains(record)) state.retired.insert(record);
  }
  for (const Record& record : held_after) state.retired.erase(record);
  return Result::kDone;
}

/// Numbers in order of first appearance.
class Names {
 public:
  int32_t Of(int32_t thing) {
    const auto name = std::find(known_.begin(), known_.end(), thing) - known_.begin();
    if (static_cast<size_t>(name) == known_.size()) known_.push_back(thing);
    return static_cast<int32_t>(name);
  }

 private:
  std::vector<int32_t> known_;
};

/// Holds all near records that are left afterwards.
std::string KeyOf(const Model& model, State& state, std::vector<KvPage>& probe) {
  std::string key;
  const auto add = [&](int32_t value) { key += static_cast<char>(value + 1); };
  Names slabs;
  std::array<Names, 3> records;
  const auto add_record = [&](const Record& record) {
    const auto& [kind, id] = record;
    add(static_cast<int32_t>(kind));
    add(slabs.Of(Index(id) / model.cut.per_slab[kind]));
    add(records[kind].Of(Index(id)));
  };
  for (const Sequence& sequence : state.sequences) {
    add(static_cast<int32_t>(sequence.pages.size()));
    add(sequence.complete);
    add((sequence.decodes ? 1 : 0) + (sequence.planned ? 2 : 0));
    for (const KvPage& page : sequence.pages) {
      for (const Record& record : RecordsOf(page)) add_record(record);
      add(static_cast<int32_t>(page.key_tier) * 3 + static_cast<int32_t>(page.value_tier));
    }
  }
  for (const Record& record : state.retired) add_record(record);
  // The order in which slabs of near records, and with them empty slabs, will be used.
  state.store.EndPlan();
  std::vector<KvSealOp> seals;
  while (state.store.Prepare(probe, static_cast<int64_t>(probe.size() + 1) * kP, 0, seals)) {
    add(slabs.Of(Index(probe.back().near) / model.cut.per_slab[0]));
  }
  return key;
}

struct Search {
  size_t states = 0, steps = 0, refusals = 0;
};

struct Step {
  size_t sequence = 0;
  Operation operation = Operation::kEndPlan;
};
using Path = std::vector<Step>;

/// Steps that were checked before. What was given up matters within the last plan only.
void Replay(const Model& model, const Path& path, State& state) {
  size_t last_plan = path.size();
  while (last_plan > 0 && path[last_plan - 1].operation != Operation::kEndPlan) --last_plan;
  for (size_t i = 0; i < path.size(); ++i) {
    state.checks = i >= last_plan;
    Apply(model, state, path[i].sequence, path[i].operation);
  }
  state.checks = true;
}

std::vector<Step> StepsOf(const Model& model) {
  std::vector<Step> steps = {{}};
  for (size_t i = 0; i < model.precision.size(); ++i) {
    for (const Operation operation : {Operation::kPrefill, Operation::kDecode, Operation::kLeave}) {
      steps.push_back({i, operation});
    }
  }
  return steps;
}

Search Explore(const Model& model) {
  const std::vector<Step> steps = StepsOf(model);
  Search search;
  std::unordered_set<std::string> seen;
  std::deque<Path> frontier = {{}};
  while (!frontier.empty() && !::testing::Test::HasFailure()) {
    Path path = std::move(frontier.front());
    frontier.pop_front();
    for (const Step& step : steps) {
      State state(model);
      Replay(model, path, state);
      const Result result = Apply(model, state, step.sequence, step.operation);
      search.refusals += result == Result::kRefused ? 1 : 0;
      if (result != Result::kDone) continue;
      ++search.steps;
      CheckState(model, state);
      std::vector<KvPage> probe;
      if (!seen.insert(KeyOf(model, state, probe)).second) continue;
      state.store.Release(probe);
      CheckNothingLeaks(model, state);
      path.push_back(step);
      frontier.push_back(path);
      path.pop_back();
    }
  }
  search.states = seen.size();
  return search;
}

std::vector<Model> Models() {
  std::vector<Model> models;
  models.push_back(MakeModel("two_sequences", 2, 5, 8, 5'000));
  models.push_back(MakeModel("three_sequences", 3, 3, 5, 10'000));
  models.push_back(MakeModel("two_fresh_pages", 2, 6, 8, 5'000));
  models.back().scheme.fresh_pages = 2;
  models.push_back(MakeModel("beside_an_exact_one", 2, 5, 8, 20'000));
  models.back().precision[1] = KvPrecision::kExact;
  // As kivi: keys in blocks of two pages, values later, no refinement.
  models.push_back(MakeModel("keys_before_values", 2, 5, 8, 15'000));
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

class PageStoreExhaustiveTest : public ::testing::TestWithParam<Model> {};

TEST_P(PageStoreExhaustiveTest, NoOrderOfGrowingAndLeavingBreaksAnInvariant) {
  const Model& model = GetParam();
  const Search search = Explore(model);
  RecordProperty("states", static_cast<int>(search.states));
  std::printf("%zu states, %zu steps, %zu refusals\n", search.states, search.steps,
              search.refusals);
  EXPECT_GE(search.states, model.least_states);
  EXPECT_GE(search.refusals, 100u);
}

INSTANTIATE_TEST_SUITE_P(Models, PageStoreExhaustiveTest, ::testing::ValuesIn(Models()),
                         [](const auto& model) { return model.param.name; });

}  // namespace
}  // namespace asymserve
