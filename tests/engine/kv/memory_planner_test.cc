#include "engine/kv/memory_planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/kv/page_store.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using ::testing::HasSubstr;

constexpr KvShape kShape = {.layers = 3, .kv_heads = 2, .head_size = 64};
constexpr int64_t kMiB = int64_t{1} << 20;

KvScheme Learned() {
  KvScheme scheme;
  scheme.name = "learned";
  scheme.near = KvCodec::kInt8;
  scheme.sink_pages = 1;
  scheme.fresh_pages = 4;
  scheme.key_window = scheme.value_window = {.recent_pages = 1, .block_pages = 1};
  scheme.items.assign(12, {.codec = KvCodec::kPlanes, .base_planes = 16, .fresh_planes = 48});
  return scheme;
}

MemoryRequest Request(const KvScheme& scheme) {
  MemoryRequest request;
  request.shape = kShape;
  request.scheme = scheme;
  request.weight_bytes = 10 * kMiB;
  request.table_bytes = 12345;
  request.workspace = {
      .fixed_bytes = 7 * kMiB + 1, .bytes_per_token = 300, .bytes_per_sequence = 4001};
  request.runtime_bytes = 5 * kMiB;
  request.runtime_bytes_per_sequence = 65536;
  request.margin_bytes = 3 * kMiB;
  request.memory_bytes = 200 * kMiB;
  request.context_tokens = 8192;
  request.load = {.prompt_tokens = 3000, .output_tokens = 500, .step_tokens = 512};
  return request;
}

MemoryPlan Plan(const MemoryRequest& request) {
  auto plan = PlanMemory(request);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

std::string Error(const MemoryRequest& request) {
  const auto plan = PlanMemory(request);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(plan.status().message());
}

std::vector<KvScheme> Schemes() {
  std::vector<KvScheme> schemes = {Learned()};
  for (const char* name : {"exact", "int8", "kivi-2", "asymkv-1/0", "fit-2/1"}) {
    schemes.push_back(*NamedKvScheme(name, kShape));
  }
  return schemes;
}

TEST(MemoryPlannerTest, RowsSumToTheBudgetAndNoneIsNegative) {
  for (const KvScheme& scheme : Schemes()) {
    for (const int64_t running : {0, 1, 7, 300}) {
      for (const int64_t memory : {90 * kMiB + 7, 1000 * kMiB}) {
        SCOPED_TRACE(scheme.name);
        MemoryRequest request = Request(scheme);
        request.max_running = running;
        request.memory_bytes = memory;
        const MemoryPlan plan = Plan(request);
        EXPECT_EQ(plan.ledger.total(), memory);
        EXPECT_EQ(plan.ledger.budget_bytes, memory);
        EXPECT_EQ(plan.ledger.kv_bytes(), plan.kv_bytes());
        for (size_t row = 0; row < kLedgerRows; ++row) {
          EXPECT_GE(plan.ledger.bytes[row], 0) << LedgerRowName(static_cast<LedgerRow>(row));
        }
        if (running > 0) {
          EXPECT_EQ(plan.ledger[LedgerRow::kWorkspace], 7 * kMiB + 1 + 300 * 512 + 4001 * running);
          EXPECT_EQ(plan.ledger[LedgerRow::kRuntime], 5 * kMiB + 65536 * running);
        }
      }
    }
  }
}

TEST(MemoryPlannerTest, TheLedgersPagesAreTheRecordsOfTheSequences) {
  const KvScheme scheme = Learned();
  const KvLayout layout(kShape, scheme);
  const MemoryPlan plan = Plan(Request(scheme));
  ASSERT_GT(plan.running, 20);
  // 3,500 tokens are 55 pages: a sink, 53 sealed ones less the recent one, one open.
  const int64_t near = layout.record_bytes(KvRecord::kNear);
  EXPECT_EQ(plan.ledger[LedgerRow::kSinkPages], plan.running * near);
  // 3 of the sequences are in the middle of a prompt: a chunk of four pages instead of one, and
  // none of theirs is sealed yet.
  EXPECT_EQ(plan.records[KvRecord::kNear], plan.running * 3 + 3 * 3);
  EXPECT_EQ(plan.ledger[LedgerRow::kOpenPages], (plan.running * 2 + 9) * near);
  EXPECT_EQ(plan.records[KvRecord::kBase], plan.running * 52);
  EXPECT_EQ(plan.records[KvRecord::kRefinement], plan.running * 4);
  EXPECT_EQ(plan.ledger[LedgerRow::kSealedPages],
            plan.running * (52 * layout.record_bytes(KvRecord::kBase) +
                            4 * layout.record_bytes(KvRecord::kRefinement)));
}

TEST(MemoryPlannerTest, AnExactPlanIsItsBytesOverThoseOfASequence) {
  MemoryRequest request = Request(KvScheme());
  const int64_t page = KvLayout(kShape, KvScheme()).record_bytes(KvRecord::kNear);
  const MemoryPlan plan = Plan(request);
  EXPECT_EQ(plan.running, plan.arena.slabs / 55);
  EXPECT_EQ(plan.effective_bits, 16 * 55 * 64 / 3500.0);
  EXPECT_EQ(plan.ledger[LedgerRow::kOpenPages], plan.running * page);
  EXPECT_EQ(plan.ledger[LedgerRow::kSealedPages], plan.running * 54 * page);
  EXPECT_EQ(plan.ledger[LedgerRow::kSinkPages], 0);
  EXPECT_EQ(plan.capacity.tokens, int64_t{plan.arena.slabs} * 64);
}

// Pages are taken as a scheduler takes them: prompts chunk by chunk, then token by token, all
// sequences side by side but for those that start later.
TEST(MemoryPlannerTest, AsManySequencesAsPlannedAreHeldAtOnce) {
  for (const KvScheme& scheme : Schemes()) {
    SCOPED_TRACE(scheme.name);
    MemoryRequest request = Request(scheme);
    request.memory_bytes = 60 * kMiB;
    request.context_tokens = 4096;
    const MemoryPlan plan = Plan(request);
    PageStore store(scheme, plan.arena);
    std::vector<KvSealOp> seals;
    std::vector<std::vector<KvPage>> held(static_cast<size_t>(plan.running));
    ASSERT_GE(held.size(), 2u);
    const auto grow = [&](std::vector<KvPage>& pages, int64_t tokens, int32_t complete) {
      const bool grown = store.Prepare(pages, tokens, complete, seals);
      store.EndPlan();
      return grown;
    };
    for (std::vector<KvPage>& pages : held) {
      for (int32_t begin = 0; begin < 3000; begin += 256) {
        ASSERT_TRUE(grow(pages, std::min(3000, begin + 256), begin / 64));
      }
      ASSERT_TRUE(grow(pages, 3001, 3000 / 64));
    }
    for (int32_t tokens = 3001; tokens <= 3500; ++tokens) {
      for (std::vector<KvPage>& pages : held) {
        ASSERT_TRUE(grow(pages, tokens, (tokens - 1) / 64)) << tokens;
      }
    }
    for (std::vector<KvPage>& pages : held) store.Release(pages);
  }
}

TEST(MemoryPlannerTest, WhatSequencesNeedIsWhatHoldsThem) {
  for (const KvScheme& scheme : Schemes()) {
    SCOPED_TRACE(scheme.name);
    MemoryRequest request = Request(scheme);
    for (const int64_t sequences : {1, 2, 40, 1000}) {
      const auto bytes = MemoryForSequences(request, sequences);
      ASSERT_TRUE(bytes.ok()) << bytes.status();
      request.memory_bytes = *bytes;
      EXPECT_GE(Plan(request).running, sequences);
      request.memory_bytes = *bytes - 1;
      const auto less = PlanMemory(request);
      EXPECT_TRUE(!less.ok() || less->running < sequences);
    }
  }
}

TEST(MemoryPlannerTest, MoreMemoryNeverHoldsFewer) {
  MemoryRequest request = Request(Learned());
  int64_t before = 0;
  for (int64_t memory = 60 * kMiB; memory < 400 * kMiB; memory += 777'777) {
    request.memory_bytes = memory;
    const int64_t running = Plan(request).running;
    EXPECT_GE(running, before);
    before = running;
  }
  EXPECT_GT(before, 100);
}

TEST(MemoryPlannerTest, TheArenaIsNoLargerThanSequencesCanUseUnlessPrefixesAreCached) {
  MemoryRequest request = Request(Learned());
  request.max_running = 2;
  request.memory_bytes = 5000 * kMiB;
  const MemoryPlan plan = Plan(request);
  EXPECT_GT(plan.ledger[LedgerRow::kUnused], 4900 * kMiB);
  EXPECT_EQ(plan.running, 2);
  EXPECT_GT(plan.capacity.sequences, 2);
  // One exact sequence of the whole context fits.
  const PageStore store(request.scheme, plan.arena);
  EXPECT_TRUE(store.FitsAlone(store.PeakDemand(8192, KvPrecision::kExact)));
  request.cached_bytes = 100 * kMiB;
  EXPECT_EQ(Plan(request).arena.slabs,
            plan.arena.slabs + request.cached_bytes / plan.arena.slab_bytes);
}

TEST(MemoryPlannerTest, KvBytesThatAreGivenAreKept) {
  MemoryRequest request = Request(Learned());
  request.max_running = 64;
  request.kv_bytes = 20 * kMiB;
  const MemoryPlan plan = Plan(request);
  EXPECT_LE(plan.kv_bytes(), request.kv_bytes);
  EXPECT_GT(plan.kv_bytes() + plan.arena.slab_bytes, request.kv_bytes);
  request.kv_bytes = 190 * kMiB;
  EXPECT_THAT(Error(request), HasSubstr(" of margin and 199229440 of KV cache: raise it to "));
}

TEST(MemoryPlannerTest, ABudgetThatIsTooSmallSaysHowMuchIsNeeded) {
  MemoryRequest request = Request(KvScheme());
  request.memory_bytes = 20 * kMiB;
  EXPECT_THAT(Error(request), HasSubstr("engine.memory_bytes: 20971520 bytes (20.0 MiB) are less "
                                        "than the 10485760 of the weights, 12345 of tables"));
  for (const KvScheme& scheme : Schemes()) {
    request.scheme = scheme;
    request.max_running = 1;
    // One sequence of the whole context is held by what the message asks for, and not by less.
    request.memory_bytes = 26 * kMiB;
    const std::string message = Error(request);
    EXPECT_THAT(message, HasSubstr("one sequence of engine.context_tokens = 8192 in the KV scheme "
                                   "'" +
                                   scheme.name + "' needs "));
    const size_t at = message.find("raise the memory by ");
    ASSERT_NE(at, message.npos) << message;
    request.memory_bytes += std::stoll(message.substr(at + 20));
    const MemoryPlan plan = Plan(request);
    EXPECT_GE(plan.capacity.tokens, 8192);
    --request.memory_bytes;
    Error(request);
  }
}

TEST(MemoryPlannerTest, NumbersOutOfRangeAreNamed) {
  const auto expect = [](auto change, const char* message) {
    MemoryRequest request = Request(KvScheme());
    change(request);
    EXPECT_THAT(Error(request), HasSubstr(message));
  };
  expect([](MemoryRequest& r) { r.memory_bytes = 0; }, "engine.memory_bytes: 0; must be 1 to");
  expect([](MemoryRequest& r) { r.memory_bytes = int64_t{1} << 62; }, "engine.memory_bytes: 46");
  expect([](MemoryRequest& r) { r.memory_bytes = -5; }, "engine.memory_bytes: -5; must be");
  expect([](MemoryRequest& r) { r.weight_bytes = -1; }, "weight bytes: -1; must be 0 to");
  expect([](MemoryRequest& r) { r.kv_bytes = -1; }, "engine.kv_memory_bytes: -1; must be 0 to");
  expect([](MemoryRequest& r) { r.context_tokens = 0; }, "engine.context_tokens: 0; must be 1 to");
  expect([](MemoryRequest& r) { r.context_tokens = 3499; },
         "engine.context_tokens: 3499 tokens; sequences of 3000 prompt and 500 generated tokens");
  expect([](MemoryRequest& r) { r.load.prompt_tokens = 0; }, "prompt tokens: 0; must be 1 to");
  expect([](MemoryRequest& r) { r.load.output_tokens = -1; }, "output tokens: -1; must be 0 to");
  expect([](MemoryRequest& r) { r.load.step_tokens = 0; }, "step tokens: 0; must be 1 to");
  expect([](MemoryRequest& r) { r.max_running = -2; }, "sequences at once: -2; must be 0 to");
  expect([](MemoryRequest& r) { r.scheme.near = KvCodec::kPlanes; }, "near pages are 16 bit");
  expect(
      [](MemoryRequest& r) {
        r.shape = {.layers = 1, .kv_heads = 1, .head_size = 8};
        r.memory_bytes = int64_t{64} << 40;
      },
      "hold more than 2147483647 records of this model; lower it");
  EXPECT_THAT(std::string(MemoryForSequences(Request(KvScheme()), 0).status().message()),
              HasSubstr("sequences: 0; must be 1 to"));
  EXPECT_THAT(std::string(MemoryForSequences(Request(KvScheme()), 1 << 24).status().message()),
              HasSubstr("sequences: 16777216 of 3500 tokens need more than 64.0 TiB"));
}

TEST(MemoryLedgerTest, BytesAreReadableInThreeDigits) {
  EXPECT_EQ(ReadableBytes(0), "0 B");
  EXPECT_EQ(ReadableBytes(999), "999 B");
  EXPECT_EQ(ReadableBytes(1000), "0.98 KiB");
  EXPECT_EQ(ReadableBytes(80'000'000'000), "74.5 GiB");
  EXPECT_EQ(ReadableBytes(int64_t{64} << 40), "64.0 TiB");
  EXPECT_EQ(ReadableBytes(int64_t{512} << 20), "512 MiB");
}

}  // namespace
}  // namespace asymserve
