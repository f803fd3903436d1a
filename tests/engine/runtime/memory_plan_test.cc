// What a plan says before a model is loaded, held against the kernel's books afterwards.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <numeric>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/runtime/memory_watch.h"
#include "engine/runtime/model_loader.h"
#include "tests/support/address_sanitizer.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/toy_model.h"

namespace asymserve::testing {
namespace {

std::unique_ptr<Backend> MakeBackend(int threads) {
  auto backend = MakeCpuBackend({.threads = threads});
  EXPECT_TRUE(backend.ok()) << backend.status();
  return *std::move(backend);
}

/// Writes every near record of the arena, which is every byte of it that any record can use.
void FillArena(Backend& backend, const LoadedModel& loaded) {
  const AttentionShape& shape = loaded.config.attention;
  const int32_t pages = loaded.engine_options.arena.records(KvRecord::kNear);
  const int64_t width = int64_t{2} * shape.kv_heads * shape.head_size;
  std::vector<float> values(static_cast<size_t>(64 * width), 0.5f);
  std::vector<int32_t> positions(64);
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<int32_t> token_offset = {0, 64};
  const std::vector<int32_t> page_offset = {0, 1};
  for (int32_t page = 0; page < pages; ++page) {
    const std::vector<KvPage> table = {{.near = PageId{page}}};
    const KvStep step = {positions, token_offset, table, page_offset};
    for (int32_t layer = 0; layer < loaded.config.layers; ++layer) {
      ASSERT_THAT(backend.KvWrite(step, layer, MakeMatrix(values.data(), 64, width)), IsOk());
    }
  }
}

// Under the address sanitizer buffers lie a line apart, and what is between them is never written:
// of a class that ends in such a line a page may never become resident.
constexpr double kUnwrittenBytes = kAddressSanitizer ? 4096 : 0;

/// Loads the model and expects each class of memory within 1 % of its plan, mapped and resident.
void ExpectAsPlanned(const LoadOptions& options, int threads) {
  const std::unique_ptr<Backend> backend = MakeBackend(threads);
  const auto loaded = LoadModel(*backend, options);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_NO_FATAL_FAILURE(FillArena(*backend, *loaded));
  const MemoryLedger& ledger = loaded->memory_plan.ledger;
  EXPECT_EQ(ledger.total(), ledger.budget_bytes);
  for (const int64_t bytes : ledger.bytes) EXPECT_GE(bytes, 0);

  const auto report = MemoryWatch(*backend, loaded->memory_plan).Report();
  ASSERT_TRUE(report.ok()) << report.status();
  std::printf("%s in %s:", options.kv_scheme.c_str(),
              std::filesystem::path(options.path).filename().c_str());
  for (size_t i = 0; i < kMemoryClasses; ++i) {
    const char* name = MemoryClassName(static_cast<MemoryClass>(i));
    const auto planned = static_cast<double>(report->planned.bytes[i]);
    const auto mapped = static_cast<double>(report->measured.mapped.bytes[i]);
    const auto resident = static_cast<double>(report->measured.resident.bytes[i]);
    EXPECT_GT(planned, 0) << name;
    EXPECT_NEAR(mapped, planned, 0.01 * planned) << name;
    EXPECT_NEAR(resident, planned, 0.01 * planned + kUnwrittenBytes) << name;
    std::printf(" %s %.0f planned, %+.3f %% mapped, %+.3f %% resident;", name, planned,
                100 * (mapped / planned - 1), 100 * (resident / planned - 1));
  }
  std::printf("\n");
  EXPECT_EQ(report->planned, backend->CountedMemory());
}

/// Of a toy model whose file is written to the directory.
LoadOptions ToyOptions(const ToyModel& model, const TempDir& directory) {
  LoadOptions options;
  options.path = directory.Path(model.architecture + ".gguf");
  WriteToyGguf(model, options.path);
  return options;
}

TEST(MemoryPlanTest, HoldsForTheDefaultModelInEveryKindOfScheme) {
  LoadOptions options;
  options.path = ASYMSERVE_MODEL_FILE;
  if (!std::filesystem::exists(options.path)) GTEST_SKIP() << "no " << options.path;
  options.kv_profile = ASYMSERVE_SOURCE_DIR "/config/profiles/SmolLM2-135M-Instruct.Q4_1.asymkv";
  options.kv_memory_bytes = int64_t{200} << 20;
  options.max_running = 16;
  for (const char* scheme : {"exact", "kivi-2", "balanced", "dense"}) {
    SCOPED_TRACE(scheme);
    options.kv_scheme = scheme;
    ExpectAsPlanned(options, 2);
  }
}

TEST(MemoryPlanTest, HoldsForToyModelsOfAwkwardShapes) {
  const ToyModel kModels[] = {
      {.layers = 3,
       .width = 72,
       .feed_forward_width = 104,
       .heads = 3,
       .kv_heads = 1,
       .head_size = 24,
       .vocabulary = 301,
       .context_length = 333},
      {.architecture = "qwen2",
       .layers = 1,
       .width = 96,
       .feed_forward_width = 160,
       .heads = 6,
       .kv_heads = 3,
       .head_size = 8,
       .vocabulary = 289,
       .context_length = 65,
       .tied_output = false,
       .dtype = DType::kQ4_1,
       .embedding_dtype = DType::kQ8_0},
      {.architecture = "qwen3",
       .layers = 5,
       .width = 64,
       .feed_forward_width = 96,
       .heads = 10,
       .kv_heads = 2,
       .head_size = 40,
       .vocabulary = 555,
       .context_length = 1000,
       .dtype = DType::kF16,
       .embedding_dtype = DType::kF16},
  };
  const TempDir directory;
  for (const ToyModel& model : kModels) {
    LoadOptions options = ToyOptions(model, directory);
    options.kv_memory_bytes = int64_t{7} << 20;
    options.max_running = 5;
    options.step_tokens = 77;
    for (const char* scheme : {"exact", "int8", "kivi-2", "fit-2/1"}) {
      SCOPED_TRACE(model.architecture + " " + scheme);
      options.kv_scheme = scheme;
      ExpectAsPlanned(options, 3);
    }
  }
}

TEST(MemoryPlanTest, ABudgetThatCannotHoldOneSequenceRefusesToLoadAndSaysWhatToChange) {
  const TempDir directory;
  LoadOptions options = ToyOptions({.context_length = 4096}, directory);
  options.max_context_tokens = 4096;
  const auto message = [&] {
    const std::unique_ptr<Backend> backend = MakeBackend(1);
    const auto loaded = LoadModel(*backend, options);
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument) << loaded.status();
    // Nothing was loaded either.
    EXPECT_EQ(backend->CountedMemory(), MemoryBytes());
    return std::string(loaded.status().message());
  };
  options.kv_memory_bytes = 100'000;
  std::string refused = message();
  EXPECT_NE(refused.find("engine.kv_memory_bytes: 100000 bytes (97.7 KiB) for the KV cache; one "
                         "sequence of engine.context_tokens = 4096 in the KV scheme 'exact' "
                         "needs "),
            refused.npos)
      << refused;
  EXPECT_NE(refused.find("raise the memory by "), refused.npos) << refused;
  EXPECT_NE(refused.find("or lower the context to "), refused.npos) << refused;

  options.kv_memory_bytes = 0;
  options.memory_bytes = 5'000'000;
  refused = message();
  EXPECT_NE(refused.find("engine.memory_bytes: 5000000 bytes (4.77 MiB) are less than the "),
            refused.npos)
      << refused;
  EXPECT_NE(refused.find("of margin: raise it to "), refused.npos) << refused;

  options.memory_bytes = int64_t{1} << 60;
  refused = message();
  EXPECT_NE(refused.find("engine.memory_bytes: 1152921504606846976 bytes"), refused.npos)
      << refused;
  EXPECT_NE(refused.find("lower it, or raise the limit"), refused.npos) << refused;
}

TEST(MemoryPlanTest, TheArenaIsWhatTheBudgetLeavesButNoMoreThanSequencesCanUse) {
  const TempDir directory;
  LoadOptions options = ToyOptions({.context_length = 512}, directory);
  options.kv_scheme = "int8";
  options.max_running = 3;
  const auto plan = [&] {
    const std::unique_ptr<Backend> backend = MakeBackend(1);
    const auto loaded = LoadModel(*backend, options);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded->memory_plan;
  };
  options.memory_bytes = int64_t{1} << 30;
  // With a prefix cache twice as much is of use.
  EXPECT_EQ(plan().arena.slabs, 48);
  options.kv_prefix_cache = false;
  const MemoryPlan rich = plan();
  EXPECT_EQ(rich.running, 3);
  EXPECT_GT(rich.ledger[LedgerRow::kUnused], int64_t{512} << 20);
  // 3 sequences of 8 pages.
  EXPECT_EQ(rich.arena.slabs, 24);

  // One byte less than what it used.
  options.memory_bytes = rich.ledger.total() - rich.ledger[LedgerRow::kUnused] - 1;
  const MemoryPlan poor = plan();
  EXPECT_EQ(poor.arena.slabs, 23);
  EXPECT_EQ(poor.running, 2);
  // The arena's mapping is of whole pages.
  EXPECT_LT(poor.ledger[LedgerRow::kUnused], rich.arena.slab_bytes + 4096);
  EXPECT_EQ(poor.ledger.total(), options.memory_bytes);
}

}  // namespace
}  // namespace asymserve::testing
