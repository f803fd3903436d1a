// Invariant 8 on real kernels: a request's tokens do not depend on its batch, the step budget, the
// number of threads, the instruction set, or preemptions.

#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/backend/cpu/isa.h"
#include "engine/model/model.h"
#include "engine/quality/model_digest.h"
#include "engine/runtime/engine.h"
#include "engine/runtime/model_loader.h"
#include "tests/engine/kv/toy_profile.h"
#include "tests/support/temp_dir.h"

namespace asymserve {
namespace {

class TokenSink final : public OutputSink {
 public:
  bool Deliver(Delta delta) override {
    std::lock_guard lock(mutex_);
    for (const TokenInfo& token : delta.tokens) {
      tokens_.push_back(token.id);
      logprobs_.push_back(token.logprob);
    }
    if (delta.finish != FinishReason::kNone) {
      EXPECT_NE(delta.finish, FinishReason::kError) << delta.error;
      cached_tokens_ = delta.cached_tokens;
      degraded_from_ = delta.degraded_from;
      done_ = true;
      changed_.notify_all();
    }
    return true;
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
  }
  /// Of a request that was refused.
  void End() {
    std::lock_guard lock(mutex_);
    done_ = true;
  }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  const std::vector<float>& logprobs() const { return logprobs_; }
  int32_t cached_tokens() const { return cached_tokens_; }
  int32_t degraded_from() const { return degraded_from_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  int32_t cached_tokens_ = 0;
  int32_t degraded_from_ = -1;
  std::vector<int32_t> tokens_;
  std::vector<float> logprobs_;
};

/// Gives each sequence of a request a sink of its own.
struct FanSink final : public OutputSink {
  explicit FanSink(int32_t n) {
    for (int32_t i = 0; i < n; ++i) sinks.push_back(std::make_shared<TokenSink>());
  }
  bool Deliver(Delta delta) override {
    return sinks[static_cast<size_t>(delta.index)]->Deliver(std::move(delta));
  }
  std::vector<std::shared_ptr<TokenSink>> sinks;
};

/// Runs no step while `held` is locked.
class HeldModel final : public Model {
 public:
  HeldModel(Model& model, std::mutex& held) : model_(model), held_(held) {}
  int32_t vocabulary() const override { return model_.vocabulary(); }
  int32_t context_length() const override { return model_.context_length(); }
  std::optional<DrawLimits> draw_limits() const override { return model_.draw_limits(); }
  ThreadPool* threads() override { return model_.threads(); }
  absl::StatusOr<TensorView> Forward(const Batch& batch) override {
    std::lock_guard lock(held_);
    return model_.Forward(batch);
  }

 private:
  Model& model_;
  std::mutex& held_;
};

struct EngineSetup {
  int threads = 1;
  Isa isa = Isa::kAuto;
  int32_t max_running = 16;
  int32_t step_tokens = 512;
  int32_t slabs = 0;  // of one near page; 0: as many as the memory holds
  std::string kv_scheme = "exact";
  std::string kv_profile = {};
  bool prefix_cache = true;
  bool elastic = false;
  double canary_rate = 0;
};

class Server {
 public:
  Server(const std::string& path, const EngineSetup& setup, int32_t context_tokens) {
    CpuOptions cpu;
    cpu.threads = setup.threads;
    cpu.isa = setup.isa;
    auto backend = MakeCpuBackend(cpu);
    EXPECT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    LoadOptions options;
    options.path = path;
    options.kv_memory_bytes = 64 << 20;
    options.max_context_tokens = context_tokens;
    options.max_running = setup.max_running;
    options.step_tokens = setup.step_tokens;
    options.kv_scheme = setup.kv_scheme;
    options.kv_profile = setup.kv_profile;
    options.kv_prefix_cache = setup.prefix_cache;
    auto loaded = LoadModel(*backend_, options);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    loaded_ = *std::move(loaded);
    EngineOptions engine = loaded_.engine_options;
    if (setup.slabs > 0) engine.arena.slabs = setup.slabs;
    engine.watermark_pages = 0;
    engine.elastic = setup.elastic;
    engine.canary_rate = setup.canary_rate;
    model_ = std::make_unique<HeldModel>(*loaded_.model, held_);
    engine_ = std::make_unique<Engine>(*model_, *loaded_.tokenizer, engine);
  }

  /// All of them are there when the first step ends, however slow this thread is.
  std::vector<std::shared_ptr<TokenSink>> Run(const std::vector<GenerateRequest>& requests) {
    std::vector<std::shared_ptr<TokenSink>> sinks;
    std::unique_lock held(held_);
    for (const GenerateRequest& request : requests) {
      sinks.push_back(std::make_shared<TokenSink>());
      const auto id = engine_->Submit(request, sinks.back());
      EXPECT_TRUE(id.ok()) << id.status();
      if (!id.ok()) sinks.back()->End();
    }
    held.unlock();
    for (const auto& sink : sinks) sink->Wait();
    return sinks;
  }
  /// A request with n > 1: what each of its sequences got.
  std::vector<std::shared_ptr<TokenSink>> RunMany(const GenerateRequest& request) {
    const auto fan = std::make_shared<FanSink>(request.n);
    const auto id = engine_->Submit(request, fan);
    EXPECT_TRUE(id.ok()) << id.status();
    for (const auto& sink : fan->sinks) {
      if (!id.ok()) sink->End();
      sink->Wait();
    }
    return fan->sinks;
  }
  const EngineMetrics& metrics() const { return engine_->metrics(); }
  int32_t vocabulary() const { return loaded_.config.vocabulary; }

 private:
  std::unique_ptr<Backend> backend_;
  LoadedModel loaded_;
  std::mutex held_;
  std::unique_ptr<HeldModel> model_;
  std::unique_ptr<Engine> engine_;
};

std::vector<GenerateRequest> MixedRequests(int count, int32_t max_prompt, int32_t max_new,
                                           int32_t vocabulary) {
  std::mt19937 random(11);
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < count; ++i) {
    GenerateRequest request;
    request.prompt.resize(1 + random() % static_cast<uint32_t>(max_prompt));
    for (int32_t& token : request.prompt) {
      token = static_cast<int32_t>(random() % static_cast<uint32_t>(vocabulary));
    }
    request.sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
    request.sampling.top_p = 0.95f;
    request.has_seed = true;
    request.sampling.seed = static_cast<uint64_t>(i);
    request.stop.max_tokens = 1 + static_cast<int32_t>(random() % static_cast<uint32_t>(max_new));
    request.stop.ignore_eos = true;
    request.logprobs = 0;
    requests.push_back(std::move(request));
  }
  return requests;
}

void ExpectSame(const std::vector<std::shared_ptr<TokenSink>>& actual,
                const std::vector<std::shared_ptr<TokenSink>>& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i]->tokens(), expected[i]->tokens()) << what << ", request " << i;
    EXPECT_EQ(actual[i]->logprobs(), expected[i]->logprobs()) << what << ", request " << i;
  }
}

constexpr char kStories[] = ASYMSERVE_SOURCE_DIR "/tests/golden/stories260K.gguf";

class InvarianceTest : public ::testing::Test {
 protected:
  // Each request by itself, one after the other.
  static std::vector<std::shared_ptr<TokenSink>> Alone(const std::string& path,
                                                       const std::vector<GenerateRequest>& requests,
                                                       int32_t context,
                                                       const std::string& kv_scheme = "exact",
                                                       const std::string& kv_profile = "") {
    EngineSetup setup;
    setup.kv_scheme = kv_scheme;
    setup.kv_profile = kv_profile;
    setup.prefix_cache = false;
    Server server(path, setup, context);
    std::vector<std::shared_ptr<TokenSink>> sinks;
    sinks.reserve(requests.size());
    for (const GenerateRequest& request : requests) {
      sinks.push_back(server.Run({request}).front());
    }
    return sinks;
  }
};

TEST_F(InvarianceTest, TokensAndLogProbsDoNotDependOnBatchThreadsOrStepBudget) {
  const auto requests = MixedRequests(24, 200, 150, 512);
  const auto alone = Alone(kStories, requests, 512);
  for (const EngineSetup& setup :
       {EngineSetup{1, Isa::kAuto, 16, 512}, EngineSetup{2, Isa::kAuto, 24, 37},
        EngineSetup{3, Isa::kAuto, 5, 64}, EngineSetup{2, Isa::kAuto, 2, 2}}) {
    Server server(kStories, setup, 512);
    ExpectSame(server.Run(requests), alone,
               "threads " + std::to_string(setup.threads) + ", step tokens " +
                   std::to_string(setup.step_tokens));
  }
}

TEST_F(InvarianceTest, TokensAndLogProbsDoNotDependOnPreemption) {
  const auto requests = MixedRequests(24, 200, 150, 512);
  const auto alone = Alone(kStories, requests, 512);
  EngineSetup setup;
  setup.threads = 2;
  setup.slabs = 12;  // of the about 280 that they fill together
  Server server(kStories, setup, 512);
  ExpectSame(server.Run(requests), alone, "12 pages");
  EXPECT_GT(server.metrics().preemptions.value(), 0u);
  EXPECT_GT(server.metrics().recomputed_tokens.value(), 0u);
}

TEST_F(InvarianceTest, TokensAndLogProbsDoNotDependOnTheInstructionSet) {
  const auto requests = MixedRequests(6, 60, 40, 512);
  const auto alone = Alone(kStories, requests, 512);
  for (const Isa isa : SupportedIsas()) {
    EngineSetup setup;
    setup.isa = isa;
    Server server(kStories, setup, 512);
    ExpectSame(server.Run(requests), alone, std::string(IsaName(isa)));
  }
}

/// Of a scheme's name, for the name of a test.
std::string Letters(std::string name) {
  std::erase_if(name, [](char c) { return c == '-' || c == '/'; });
  return name;
}

class SealedPagesTest : public InvarianceTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(SealedPagesTest, GiveTheSameTokensAloneAndTogether) {
  const char* scheme = GetParam();
  const auto requests = MixedRequests(8, 420, 60, 512);
  const auto exact = Alone(kStories, requests, 512);
  const auto alone = Alone(kStories, requests, 512, scheme);
  int different = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    different += alone[i]->logprobs() != exact[i]->logprobs() ? 1 : 0;
  }
  EXPECT_GE(different, 2) << scheme << " quantizes nothing";
  const EngineSetup setups[] = {{1, Isa::kAuto, 16, 512, 0, scheme},
                                {2, Isa::kAuto, 16, 37, 0, scheme},
                                {2, Isa::kAuto, 5, 64, 12, scheme},
                                {3, Isa::kPortable, 16, 300, 12, scheme}};
  for (const EngineSetup& setup : setups) {
    Server server(kStories, setup, 512);
    ExpectSame(server.Run(requests), alone,
               std::string(scheme) + ", step tokens " + std::to_string(setup.step_tokens));
  }
}

TEST_P(SealedPagesTest, GiveTheSameTokensWhenEveryRequestIsComparedWithExact) {
  const auto requests = MixedRequests(8, 250, 60, 512);
  const auto alone = Alone(kStories, requests, 512, GetParam());
  EngineSetup setup;
  setup.threads = 2;
  setup.kv_scheme = GetParam();
  setup.canary_rate = 1;
  for (const int32_t slabs : {0, 20}) {
    setup.slabs = slabs;
    Server server(kStories, setup, 512);
    for (int round = 0; round < 3; ++round) {  // the later ones beside the canary of the first
      ExpectSame(server.Run(requests), alone, "slabs " + std::to_string(slabs));
    }
    EXPECT_GT(server.metrics().canary.kl.count(), 0u) << slabs;
  }
}

INSTANTIATE_TEST_SUITE_P(OfEveryScheme, SealedPagesTest,
                         ::testing::Values("int8", "kivi-2", "asymkv-3/1", "fit-2/1"),
                         [](const auto& test) { return Letters(test.param); });

/// A profile of the stories model whose tier `toy` has sealed, fresh and aged pages; its codes are
/// made up.
std::string WriteStoriesProfile(const std::string& path) {
  const auto file = OpenWeightFile(kStories);
  EXPECT_TRUE(file.ok()) << file.status();
  const ModelConfig& config = (*file)->config();
  KvProfile profile;
  profile.shape = {config.layers, config.attention.kv_heads, config.attention.head_size};
  profile.model_digest = *ModelDigest(**file);
  const auto items = static_cast<size_t>(2 * config.layers * config.attention.kv_heads);
  profile.codes.assign(items, testing::ToyCode(8, 2.0f));
  const KvItem item = {.codec = KvCodec::kPlanes, .base_planes = 4, .fresh_planes = 8};
  profile.tiers = {{.name = "toy",
                    .sink_pages = 1,
                    .recent_pages = 1,
                    .fresh_pages = 2,
                    .items = std::vector<KvItem>(items, item),
                    .losses = {}}};
  const absl::Status written = WriteProfile(profile, path);
  EXPECT_TRUE(written.ok()) << written;
  return path;
}

/// A scheme, and the slabs of the smallest arena: they hold one exact sequence of the whole context
/// and little else. Near records of 16 bit hold a page, those of int8 half of one.
struct SmallArena {
  const char* scheme;
  int32_t slabs;
};
class ExactSequenceTest : public InvarianceTest,
                          public ::testing::WithParamInterface<SmallArena> {};

TEST_P(ExactSequenceTest, IsThatOfAnExactServerAndChangesNoNeighbour) {
  const auto& [scheme, slabs] = GetParam();
  const testing::TempDir directory;
  const std::string profile = WriteStoriesProfile(directory.Path("stories.asymkv"));
  const auto requests = MixedRequests(8, 150, 330, 512);
  const auto exact = Alone(kStories, requests, 512);
  const auto quantized = Alone(kStories, requests, 512, scheme, profile);
  std::vector<GenerateRequest> mixed = requests;
  std::vector<std::shared_ptr<TokenSink>> expected = quantized;
  int different = 0;
  for (size_t i = 0; i < mixed.size(); ++i) {
    if (i % 4 >= 2) continue;  // of each kind greedy and sampled ones
    mixed[i].kv_precision = KvPrecision::kExact;
    expected[i] = exact[i];
    different += exact[i]->logprobs() != quantized[i]->logprobs() ? 1 : 0;
  }
  EXPECT_EQ(different >= 2, std::string(scheme) != "exact") << scheme << ": " << different;
  const EngineSetup setups[] = {{1, Isa::kAuto, 1, 512, 0, scheme, profile},
                                {2, Isa::kAuto, 16, 37, slabs, scheme, profile},
                                {3, Isa::kPortable, 5, 300, slabs, scheme, profile}};
  uint64_t preemptions = 0;
  for (const EngineSetup& setup : setups) {
    Server server(kStories, setup, 512);
    ExpectSame(server.Run(mixed), expected,
               std::string(scheme) + ", step tokens " + std::to_string(setup.step_tokens) +
                   ", slabs " + std::to_string(setup.slabs));
    preemptions += server.metrics().preemptions.value();
  }
  EXPECT_GT(preemptions, 0u) << scheme;
}

INSTANTIATE_TEST_SUITE_P(InEveryScheme, ExactSequenceTest,
                         ::testing::Values(SmallArena{"exact", 12}, SmallArena{"int8", 20},
                                           SmallArena{"kivi-2", 12}, SmallArena{"fit-2/1", 12},
                                           SmallArena{"toy", 20}),
                         [](const auto& test) { return Letters(test.param.scheme); });

TEST_F(InvarianceTest, AnElasticServerTellsTheTokenUpToWhichATextIsSure) {
  const testing::TempDir directory;
  const std::string profile = WriteStoriesProfile(directory.Path("stories.asymkv"));
  std::vector<GenerateRequest> requests = MixedRequests(8, 150, 330, 512);
  for (GenerateRequest& request : requests) request.stop.max_tokens = 350;
  requests[0].kv_precision = KvPrecision::kExact;
  const auto alone = Alone(kStories, requests, 512, "toy", profile);
  EngineSetup setup = {2, Isa::kAuto, 6, 256, 28, "toy", profile};
  Server plain(kStories, setup, 512);
  ExpectSame(plain.Run(requests), alone, "without kv.elastic");
  setup.elastic = true;
  Server server(kStories, setup, 512);
  const auto elastic = server.Run(requests);
  uint64_t degraded = 0, changed = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::vector<float>& expected = alone[i]->logprobs();
    const std::vector<float>& got = elastic[i]->logprobs();
    const int32_t from = elastic[i]->degraded_from();
    const auto prompt = static_cast<int32_t>(requests[i].prompt.size());
    // The token at `from` is the first whose logits, and so the one after it, may differ.
    const size_t sure =
        from < 0 ? expected.size() : static_cast<size_t>(std::max(0, from - prompt + 1));
    ASSERT_LE(sure, got.size()) << "request " << i << " from " << from;
    EXPECT_TRUE(
        std::equal(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(sure), expected.begin()))
        << "request " << i << " differs before token " << from;
    degraded += from >= 0 ? 1 : 0;
    changed += got != expected ? 1 : 0;
  }
  EXPECT_EQ(elastic[0]->degraded_from(), -1) << "an exact sequence has nothing to give up";
  EXPECT_GT(changed, 0u);
  EXPECT_EQ(server.metrics().degraded.value(), degraded);
  EXPECT_LT(server.metrics().preemptions.value(), plain.metrics().preemptions.value());
}

/// Two families of prompts that begin alike for about `common` tokens, some of them exact.
std::vector<GenerateRequest> RelatedRequests(int count, int32_t common, int32_t own,
                                             int32_t max_new, int32_t vocabulary) {
  std::vector<GenerateRequest> requests = MixedRequests(count, own, max_new, vocabulary);
  for (int i = 0; i < count; ++i) {
    std::mt19937 family(static_cast<uint32_t>(i % 2));
    std::vector<int32_t> prompt(static_cast<size_t>(common));
    for (int32_t& token : prompt) {
      token = static_cast<int32_t>(family() % static_cast<uint32_t>(vocabulary));
    }
    GenerateRequest& request = requests[static_cast<size_t>(i)];
    prompt.insert(prompt.end(), request.prompt.begin(), request.prompt.end());
    request.prompt = std::move(prompt);
    if (i % 8 >= 6) request.kv_precision = KvPrecision::kExact;
  }
  return requests;
}

class PrefixCacheTest : public InvarianceTest, public ::testing::WithParamInterface<SmallArena> {};

TEST_P(PrefixCacheTest, AHitGivesTheTextOfAMiss) {
  const auto& [scheme, slabs] = GetParam();
  const testing::TempDir directory;
  const std::string profile = WriteStoriesProfile(directory.Path("stories.asymkv"));
  const auto requests = RelatedRequests(16, 300, 100, 60, 512);
  const auto alone = Alone(kStories, requests, 512, scheme, profile);
  const EngineSetup roomy = {2, Isa::kAuto, 16, 512, 0, scheme, profile};
  const EngineSetup tight = {2, Isa::kAuto, 5, 100, slabs, scheme, profile};
  Server server(kStories, roomy, 512);
  for (int round = 0; round < 2; ++round) {
    const auto together = server.Run(requests);
    ExpectSame(together, alone, std::string(scheme) + ", round " + std::to_string(round));
    for (const auto& sink : together) EXPECT_TRUE(round == 0 || sink->cached_tokens() == 256);
  }
  Server small(kStories, tight, 512);
  for (int round = 0; round < 2; ++round) {
    ExpectSame(small.Run(requests), alone, std::string(scheme) + ", little room");
  }
  EXPECT_GT(small.metrics().cached_tokens.value(), 0u);
  EXPECT_GT(small.metrics().cache_evictions.value(), 0u);
}

INSTANTIATE_TEST_SUITE_P(InEveryScheme, PrefixCacheTest,
                         ::testing::Values(SmallArena{"exact", 12}, SmallArena{"int8", 20},
                                           SmallArena{"kivi-2", 12}, SmallArena{"fit-2/1", 12},
                                           SmallArena{"toy", 20}),
                         [](const auto& test) { return Letters(test.param.scheme); });

TEST_P(PrefixCacheTest, SequencesOfOneRequestWriteWhatTheyWouldAlone) {
  const auto& [scheme, slabs] = GetParam();
  const testing::TempDir directory;
  const std::string profile = WriteStoriesProfile(directory.Path("stories.asymkv"));
  auto requests = RelatedRequests(4, 300, 150, 40, 512);
  requests[1].prompt.resize(256);
  for (GenerateRequest& request : requests) request.sampling.temperature = 0.9f;
  requests[3].kv_precision = KvPrecision::kExact;
  for (const GenerateRequest& request : requests) {
    std::vector<GenerateRequest> singles(3, request);
    for (size_t i = 0; i < singles.size(); ++i) singles[i].sampling.seed += i;
    const auto alone = Alone(kStories, singles, 512, scheme, profile);
    GenerateRequest many = request;
    many.n = 3;
    for (const int32_t room : {0, slabs}) {
      Server server(kStories, {2, Isa::kAuto, 4, 70, room, scheme, profile}, 512);
      const auto together = server.RunMany(many);
      ExpectSame(together, alone, std::string(scheme) + ", slabs " + std::to_string(room));
      EXPECT_GT(server.metrics().cached_tokens.value(), 0u);
    }
  }
}

TEST_F(InvarianceTest, TheDefaultModelsTextsAreTheSameWithLongCachedPromptsInItsDefaultScheme) {
  if (!std::filesystem::exists(ASYMSERVE_MODEL_FILE)) {
    GTEST_SKIP() << "no model at " ASYMSERVE_MODEL_FILE " (tools/test fetches it)";
  }
  const char* profile = ASYMSERVE_SOURCE_DIR "/config/profiles/SmolLM2-135M-Instruct.Q4_1.asymkv";
  const auto requests = RelatedRequests(4, 800, 100, 6, 49152);
  const auto alone = Alone(ASYMSERVE_MODEL_FILE, requests, 1024, "balanced", profile);
  Server server(ASYMSERVE_MODEL_FILE, {2, Isa::kAuto, 4, 512, 0, "balanced", profile}, 1024);
  std::vector<std::shared_ptr<TokenSink>> cached;
  for (const GenerateRequest& request : requests) cached.push_back(server.Run({request}).front());
  ExpectSame(cached, alone, "cached prompts");
  EXPECT_EQ(server.metrics().cached_tokens.value(), 2u * 768);
}

TEST_F(InvarianceTest, TheDefaultModelsTextsAreTheSameAloneAndInABatchOfSixteenWithPreemptions) {
  if (!std::filesystem::exists(ASYMSERVE_MODEL_FILE)) {
    GTEST_SKIP() << "no model at " ASYMSERVE_MODEL_FILE " (tools/test fetches it)";
  }
  const auto requests = MixedRequests(16, 80, 100, 49152);
  const auto alone = Alone(ASYMSERVE_MODEL_FILE, requests, 512);
  std::mt19937 random(17);
  uint64_t preemptions = 0;
  for (int round = 0; round < 4; ++round) {
    EngineSetup setup;
    setup.threads = 1 + static_cast<int>(random() % 3);
    setup.step_tokens = 16 + static_cast<int32_t>(random() % 300);
    setup.slabs = 7 + static_cast<int32_t>(random() % 6);
    Server server(ASYMSERVE_MODEL_FILE, setup, 512);
    ExpectSame(server.Run(requests), alone,
               "threads " + std::to_string(setup.threads) + ", step tokens " +
                   std::to_string(setup.step_tokens) + ", slabs " + std::to_string(setup.slabs));
    preemptions += server.metrics().preemptions.value();
  }
  EXPECT_GT(preemptions, 0u);
}

}  // namespace
}  // namespace asymserve
