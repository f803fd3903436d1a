// Start-up, memory, errors and calls that do not fit.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tests/engine/backend/cuda/device/toy_server.h"

namespace asymserve {
namespace {

using ::asymserve::testing::DeviceCall;
using ::asymserve::testing::DeviceLog;
using ::asymserve::testing::FailsWith;
using ::asymserve::testing::IsOk;
using ::asymserve::testing::MakeCpu;
using ::asymserve::testing::MakeCuda;
using ::asymserve::testing::OddToy;
using ::asymserve::testing::ToyPrompt;
using ::asymserve::testing::ToyServer;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CudaBackendTest : public ::testing::Test {
 protected:
  CudaBackendTest() { testing::WriteToyGguf(OddToy(), path_); }

  /// Starts a server whose `call`, the `at`-th of its kind, fails.
  absl::Status StartWithFailure(DeviceCall call, int64_t at, cudaError_t error) {
    log_ = std::make_shared<DeviceLog>();
    log_->failing = call;
    log_->fails_at = at;
    log_->error = error;
    auto backend =
        cuda::MakeCudaBackend(std::make_unique<testing::FakeDevice>(log_), {.staging_bytes = 4096});
    if (!backend.ok()) return backend.status();
    return ToyServer(**backend, path_, "learned").status();
  }
  /// Nothing was left behind and nothing misused.
  void ExpectClean() {
    EXPECT_TRUE(log_->empty()) << log_->used << " bytes, " << log_->pinned << " pinned, "
                               << log_->events << " events";
    EXPECT_THAT(log_->misuse, IsEmpty());
  }

  const testing::TempDir directory_;
  const std::string path_ = directory_.Path("toy.gguf");
  std::shared_ptr<DeviceLog> log_ = std::make_shared<DeviceLog>();
};

// ---- Start-up -----------------------------------------------------------------------------------

TEST_F(CudaBackendTest, EveryAllocationThatIsRefusedEndsTheStartWithItsBytes) {
  int64_t at = 0;
  for (;; ++at) {
    const absl::Status status =
        StartWithFailure(DeviceCall::kAllocate, at, cudaErrorMemoryAllocation);
    ExpectClean();
    if (status.ok()) break;
    ASSERT_THAT(status, FailsWith(absl::StatusCode::kResourceExhausted,
                                  "cuda: no room for " + std::to_string(log_->allocated.back()) +
                                      " bytes of "))
        << "allocation " << at;
  }
  // Two layers of four matrices and two norms, two tables, nine activations, eight for steps, and
  // the cache's two.
  EXPECT_GT(at, 30);
}

TEST_F(CudaBackendTest, EveryOtherCallThatFailsEndsTheStartAndLeavesNothingBehind) {
  for (const DeviceCall call :
       {DeviceCall::kAllocate, DeviceCall::kAllocatePinned, DeviceCall::kCopyToDevice,
        DeviceCall::kFill, DeviceCall::kCreateEvent, DeviceCall::kRecordEvent,
        DeviceCall::kWaitEvent}) {
    int64_t at = 0;
    while (true) {
      const absl::Status status = StartWithFailure(call, at, cudaErrorUnknown);
      ExpectClean();
      if (status.ok()) break;
      ASSERT_THAT(status, FailsWith(absl::StatusCode::kInternal, "unknown error (error 999)"));
      EXPECT_THAT(std::string(status.message()), HasSubstr("cuda: "));
      ++at;
    }
    EXPECT_GT(at, 0) << "call " << static_cast<int>(call) << " is never made";
  }
}

TEST_F(CudaBackendTest, PinnedMemoryThatIsRefusedIsNamed) {
  EXPECT_THAT(StartWithFailure(DeviceCall::kAllocatePinned, 1, cudaErrorMemoryAllocation),
              FailsWith(absl::StatusCode::kResourceExhausted,
                        "cuda: no room for 4096 bytes of pinned host memory, staging"));
}

TEST_F(CudaBackendTest, ADeviceThatIsTooSmallSaysWhatItHas) {
  log_->capacity = 100'000;
  const std::unique_ptr<Backend> backend = MakeCuda(log_);
  EXPECT_THAT(ToyServer(*backend, path_, "exact").status(),
              FailsWith(absl::StatusCode::kResourceExhausted, "of the device's 100000 bytes"));
}

TEST_F(CudaBackendTest, QuantizedWeightsBeyondHalfPrecisionAreRefused) {
  const std::unique_ptr<Backend> backend = MakeCuda(log_);
  std::vector<std::byte> block(static_cast<size_t>(RowBytes(DType::kQ8_0, 32)), std::byte{1});
  block[1] = std::byte{0x7B};  // a scale of 61,472
  block[5] = std::byte{2};
  const WeightSource source = {block.data(), DType::kQ8_0, 1, 32};
  EXPECT_THAT(backend->PackWeight(std::span(&source, 1)),
              FailsWith(absl::StatusCode::kInvalidArgument, "keeps such weights as F16"));
}

// ---- Memory -------------------------------------------------------------------------------------

TEST_F(CudaBackendTest, TheCounterCountsWhatTheBackendTakes) {
  const auto file = OpenWeightFile(path_);
  ASSERT_THAT(file, IsOk());
  const KvShape shape = {2, 2, 8};
  const testing::ToyScheme learned("learned", shape);
  KvSetup setup;
  setup.shape = shape;
  setup.scheme = learned.scheme;
  setup.arena_bytes = 300'000;
  const LlamaOptions options = {.max_step_tokens = 33, .max_logit_rows = 5, .max_positions = 99};

  const std::unique_ptr<Backend> backend = MakeCuda(log_);
  const std::unique_ptr<Backend> counter = backend->MakeCounter();
  LlamaOptions counted = options;
  counted.counts_only = true;
  const auto counted_model = LlamaModel::Load(**file, *counter, counted);
  ASSERT_THAT(counted_model, IsOk());
  ASSERT_THAT(counter->KvInit(setup), IsOk());
  EXPECT_EQ(log_->used, 0);

  const auto model = LlamaModel::Load(**file, *backend, options);
  ASSERT_THAT(model, IsOk());
  setup.codes = &learned.codes;
  setup.rope = (*model)->rope();
  ASSERT_THAT(backend->KvInit(setup), IsOk());
  const MemoryBytes bytes = backend->CountedMemory();
  EXPECT_EQ(bytes, counter->CountedMemory());
  for (const int64_t part : bytes.bytes) EXPECT_GT(part, 0);
  EXPECT_EQ(bytes.total(), log_->used);
  const auto measured = backend->MeasureMemory();
  ASSERT_THAT(measured, IsOk());
  EXPECT_EQ(measured->mapped, bytes);
  EXPECT_EQ(measured->resident.total(), 0);

  EXPECT_THAT(counter->RmsNorm(TensorView(), TensorView(), TensorView(), 0),
              FailsWith(absl::StatusCode::kInternal, "counts memory"));
  EXPECT_THAT(counter->Download(TensorView()),
              FailsWith(absl::StatusCode::kInternal, "counts memory"));
}

TEST_F(CudaBackendTest, ACacheThatIsSetUpAgainForgetsWhatItHeldAndGivesItsMemoryBack) {
  {
    const std::unique_ptr<Backend> backend = MakeCuda(log_);
    ToyServer first(*backend, path_, "learned");
    ASSERT_THAT(first.status(), IsOk());
    const std::vector<int32_t> prompt = ToyPrompt(70, 9, 291);
    const auto before = first.Next(prompt);
    ToyServer other(*backend, path_, "kivi-2");  // another model, and the cache once more
    ASSERT_THAT(other.status(), IsOk());
    ASSERT_THAT(other.Next(prompt), IsOk());
    ToyServer again(*backend, path_, "learned");
    const int64_t used = log_->used;
    EXPECT_EQ(*again.Next(prompt), *before);
    EXPECT_EQ(log_->used, used) << "a step allocates";
  }
  ExpectClean();
}

// ---- Steps --------------------------------------------------------------------------------------

TEST_F(CudaBackendTest, EveryCallOfAStepThatFailsIsAnErrorOfTheStep) {
  for (const DeviceCall call :
       {DeviceCall::kCopyToDevice, DeviceCall::kCopyToHost, DeviceCall::kSynchronize,
        DeviceCall::kRecordEvent, DeviceCall::kWaitEvent}) {
    int64_t failures = 0;
    while (true) {
      log_ = std::make_shared<DeviceLog>();
      const std::unique_ptr<Backend> backend = MakeCuda(log_, {.staging_bytes = 64});
      ToyServer server(*backend, path_, "exact");
      ASSERT_THAT(server.status(), IsOk());
      log_->failing = call;
      log_->fails_at = log_->count(call) + failures;
      log_->error = cudaErrorLaunchFailure;
      const auto logits = server.Next(ToyPrompt(5, 1, 291));
      log_->fails_at = -1;
      if (logits.ok()) break;
      EXPECT_THAT(logits, FailsWith(absl::StatusCode::kInternal, "unspecified launch failure"));
      ++failures;
    }
    EXPECT_GT(failures, 0) << "call " << static_cast<int>(call) << " is not part of a step";
    ExpectClean();
  }
}

TEST_F(CudaBackendTest, AStepOfOnePartIsCopiedOnceForAllLayers) {
  const std::unique_ptr<Backend> backend = MakeCuda(log_);
  ToyServer server(*backend, path_, "exact");
  ASSERT_THAT(server.status(), IsOk());
  const int64_t before = log_->count(DeviceCall::kCopyToDevice);
  ASSERT_THAT(server.Next(ToyPrompt(5, 1, 291)), IsOk());
  // Token ids, positions, rows, splits, tiles, pages, logit rows.
  EXPECT_EQ(log_->count(DeviceCall::kCopyToDevice) - before, 7);
  EXPECT_EQ(log_->count(DeviceCall::kCopyToHost), 1);
  EXPECT_EQ(log_->count(DeviceCall::kSynchronize), 1);
}

// ---- Draws --------------------------------------------------------------------------------------

/// Logits of five rows on the device, and draws of two of them.
struct DrawnRows {
  explicit DrawnRows(Backend& backend) {
    EXPECT_THAT(backend.Reserve(8, 16), IsOk());
    logits = *backend.AllocateResult(5, 9);
    const auto limits = backend.ReserveDraws(5, 9);
    EXPECT_TRUE(limits.ok() && limits->has_value());
    for (int64_t i = 0; i < logits.elements(); ++i) {
      logits.As<float>()[i] = static_cast<float>(i % 7);  // a fake device's memory is the host's
    }
  }
  DrawBatch batch() const { return {draws, edits}; }

  TensorView logits;
  // Row 1 holds 2 to 6, then 0 to 3; row 3 6, then 0 to 6, then 0.
  std::vector<TokenDraw> draws = {{.row = 1, .edit_count = 1},
                                  {.row = 3, .first_edit = 1, .edit_count = 1, .logprob = true}};
  std::vector<LogitEdit> edits = {{4, EditKind::kBan, 0}, {0, EditKind::kBias, -1}};
  std::vector<DrawnToken> tokens = std::vector<DrawnToken>(2);
};

TEST_F(CudaBackendTest, DrawsGiveTokensOfTheirRowsAndLogitsOfTheOthers) {
  {
    const std::unique_ptr<Backend> backend = MakeCuda(log_);
    DrawnRows rows(*backend);
    const std::vector<float> before(rows.logits.As<float>(), rows.logits.As<float>() + 45);
    const int64_t copies = log_->count(DeviceCall::kCopyToHost);
    const auto host = backend->DrawTokens(rows.logits, rows.batch(), rows.tokens);
    ASSERT_THAT(host, IsOk());
    EXPECT_EQ(rows.tokens[0].token, 3) << "6 is banned";
    EXPECT_EQ(rows.tokens[1].token, 7) << "the other 6 is less by one";
    EXPECT_EQ(rows.tokens[1].largest, 6);
    EXPECT_EQ(rows.tokens[1].logit, 6);
    EXPECT_NEAR(rows.tokens[1].sum,
                2 + std::exp(-1) + std::exp(-2) + std::exp(-3) + std::exp(-4) + std::exp(-5) +
                    2 * std::exp(-6),
                1e-6);
    for (const int64_t row : {0, 2, 4}) {
      for (int64_t i = 0; i < 9; ++i) {
        EXPECT_EQ(host->Row<float>(row)[i], before[static_cast<size_t>(9 * row + i)]);
      }
    }
    EXPECT_EQ(std::vector<float>(rows.logits.As<float>(), rows.logits.As<float>() + 45), before);
    EXPECT_EQ(log_->count(DeviceCall::kCopyToHost) - copies, 4) << "tokens, and three single rows";
    EXPECT_EQ(log_->count(DeviceCall::kSynchronize), 1);
  }
  ExpectClean();
}

TEST_F(CudaBackendTest, EveryCallOfADrawThatFailsIsAnErrorOfTheStep) {
  for (const DeviceCall call :
       {DeviceCall::kCopyToDevice, DeviceCall::kCopyToHost, DeviceCall::kSynchronize}) {
    int64_t failures = 0;
    while (true) {
      log_ = std::make_shared<DeviceLog>();
      const std::unique_ptr<Backend> backend = MakeCuda(log_);
      DrawnRows rows(*backend);
      log_->failing = call;
      log_->fails_at = log_->count(call) + failures;
      log_->error = cudaErrorLaunchFailure;
      const auto host = backend->DrawTokens(rows.logits, rows.batch(), rows.tokens);
      log_->fails_at = -1;
      if (host.ok()) break;
      EXPECT_THAT(host, FailsWith(absl::StatusCode::kInternal, "unspecified launch failure"));
      ++failures;
    }
    EXPECT_EQ(failures, call == DeviceCall::kSynchronize    ? 1
                        : call == DeviceCall::kCopyToDevice ? 2
                                                            : 4);
    ExpectClean();
  }
}

TEST_F(CudaBackendTest, DrawsThatDoNotFitAreInternalErrors) {
  const std::unique_ptr<Backend> backend = MakeCuda(log_);
  DrawnRows rows(*backend);
  const auto expect = [&](const DrawnRows& changed, const char* part) {
    std::vector<DrawnToken> tokens = changed.tokens;
    EXPECT_THAT(backend->DrawTokens(rows.logits, changed.batch(), tokens),
                FailsWith(absl::StatusCode::kInternal, part));
  };
  DrawnRows changed = rows;
  changed.draws[1].row = 1;
  expect(changed, "row 1 after row 1 of 5");
  changed.draws[1].row = 5;
  expect(changed, "row 5 after row 1 of 5");
  changed = rows;
  changed.draws[0].row = -1;
  expect(changed, "row -1 after row -1");
  changed = rows;
  changed.draws[1].first_edit = 0;
  expect(changed, "1 edits from 0 on after 1; at most 1536");
  changed = rows;
  changed.draws[0].edit_count = 1537;
  expect(changed, "1537 edits from 0");
  changed = rows;
  changed.edits.push_back({});
  expect(changed, "3 edits; the draws have 2");
  changed = rows;
  changed.edits[1].token = 9;
  expect(changed, "an edit of token 9 of 9");
  for (const TokenDraw& draw :
       {TokenDraw{.inverse_temperature = 1, .uniform = 1}, TokenDraw{.inverse_temperature = -1},
        TokenDraw{.inverse_temperature = 1, .top_p = 0},
        TokenDraw{.inverse_temperature = 1, .min_p = 1.5f},
        TokenDraw{.top_k = -1, .inverse_temperature = 1}}) {
    changed = rows;
    changed.draws = {draw};
    changed.tokens.pop_back();
    expect(changed, "row 0 with 1 / temperature");
  }
  changed = rows;
  changed.tokens.pop_back();
  expect(changed, "2 draws of 9 logits into 1 tokens");
  ASSERT_THAT(backend->ReserveDraws(1, 9), IsOk());
  expect(rows, "reserved for 1 of up to 524287");
  EXPECT_THAT(backend->DrawTokens(*backend->AllocateActivation(2, 9), {}, {}),
              FailsWith(absl::StatusCode::kInternal, "not a result"));
}

TEST_F(CudaBackendTest, BackendsThatDoNotDrawSaySo) {
  const auto draws = [](Backend& backend, int64_t vocabulary) {
    const auto limits = backend.ReserveDraws(3, vocabulary);
    EXPECT_THAT(limits, IsOk());
    return limits->has_value();
  };
  const std::unique_ptr<Backend> cpu = MakeCpu();
  EXPECT_FALSE(draws(*cpu, 50));
  EXPECT_THAT(cpu->DrawTokens({}, {}, {}),
              FailsWith(absl::StatusCode::kInternal, "reserves no draws"));
  EXPECT_FALSE(draws(*MakeCuda(log_, {.host_sampling = true}), 50));
  const std::unique_ptr<Backend> backend = MakeCuda(log_);
  EXPECT_FALSE(draws(*backend, 1 << 19));
  EXPECT_EQ(log_->allocated.size(), 0u);
  EXPECT_TRUE(draws(*backend, (1 << 19) - 1));
}

// ---- Calls that do not fit ----------------------------------------------------------------------

TEST_F(CudaBackendTest, CallsThatDoNotFitAreInternalErrors) {
  const std::unique_ptr<Backend> backend = MakeCuda(log_);
  const auto internal = [](const char* part) {
    return FailsWith(absl::StatusCode::kInternal, part);
  };
  const std::vector<float> ones(64, 1.0f);
  const std::vector<int32_t> indices = {0, 1, 2};
  const TensorView x = *backend->AllocateActivation(4, 16);
  const TensorView vector = *backend->Upload(std::span(ones).first(16));
  const WeightSource source = {reinterpret_cast<const std::byte*>(ones.data()), DType::kF32, 4, 16};
  const auto weight = *backend->PackWeight(std::span(&source, 1));
  const std::unique_ptr<Backend> cpu = MakeCpu();
  const auto foreign = *cpu->PackWeight(std::span(&source, 1));
  const TensorView out = *backend->AllocateActivation(4, 4);

  EXPECT_THAT(backend->Embed(x.FirstRows(3), *weight, indices), internal("reserved for 0"));
  ASSERT_THAT(backend->Reserve(2, 16), IsOk());
  EXPECT_THAT(backend->Embed(x.FirstRows(3), *weight, indices), internal("reserved for 2"));
  EXPECT_THAT(backend->Embed(x.FirstRows(2), *weight, indices), internal("does not fit 3 tokens"));
  EXPECT_THAT(backend->Embed(x.FirstRows(3), *foreign, indices), internal("another backend's"));
  EXPECT_THAT(backend->MatMul(out, x, *foreign), internal("another backend's"));
  EXPECT_THAT(backend->MatMul(out, out, *weight), internal("[4, 4] times weight [4, 16]"));
  std::vector<float> host(64);
  EXPECT_THAT(backend->MatMul(MakeMatrix(host.data(), 4, 4), x, *weight),
              internal("MatMul: an argument [4, 4] is not on the device"));
  EXPECT_THAT(backend->RmsNorm(out, x, vector, 1e-5f), internal("RmsNorm"));
  EXPECT_THAT(backend->AddRmsNorm(x, x, out, vector, 1e-5f), internal("AddRmsNorm"));
  EXPECT_THAT(backend->SwiGlu(x, x), internal("SwiGlu"));
  EXPECT_THAT(backend->GatherRows(x.FirstRows(3), x, indices), internal("reserved for 2"));
  EXPECT_THAT(backend->PrepareQkv(x, {}, indices), internal("PrepareQkv"));
  EXPECT_THAT(backend->KvSeal({}), internal("never seals"));
  EXPECT_THAT(backend->KvWrite({}, 0, x), internal("KvInit was not called"));
  EXPECT_THAT(backend->Attention({}, 0, {}, x, x), internal("KvInit was not called"));
  EXPECT_THAT(backend->Download(x), internal("not a result"));
  const TensorView result = *backend->AllocateResult(2, 8);
  EXPECT_THAT(backend->Download(MakeMatrix(result.data, 3, 8, DType::kF32, Place::kDevice)),
              internal("not a result"));
  EXPECT_THAT(log_->misuse, IsEmpty());
}

TEST_F(CudaBackendTest, HeadsThatAreTooWideForWhatIsReservedAreAnError) {
  const std::unique_ptr<Backend> backend = MakeCuda(log_);
  ASSERT_THAT(backend->Reserve(2, 16), IsOk());
  KvSetup setup;
  setup.shape = {1, 1, 8};
  setup.arena_bytes = 100'000;
  ASSERT_THAT(backend->KvInit(setup), IsOk());
  const TensorView qkv = *backend->AllocateActivation(1, 48);
  const TensorView out = *backend->AllocateActivation(1, 32);
  const std::vector<int32_t> position = {0};
  const std::vector<int32_t> offset = {0, 1};
  const std::vector<KvPage> pages = {{.near = PageId{0}}};
  const KvStep step = {position, offset, pages, offset};
  EXPECT_THAT(backend->Attention(step, 0, {4, 1, 8}, out, qkv),
              FailsWith(absl::StatusCode::kInternal, "4 heads of 8 need states of 80 floats"));
}

TEST_F(CudaBackendTest, SetupsThatItCannotDoAreRefused) {
  const std::unique_ptr<Backend> backend = MakeCuda(log_);
  const KvShape shape = {2, 2, 8};
  testing::ToyScheme learned("learned", shape);
  KvSetup setup;
  setup.shape = shape;
  setup.scheme = learned.scheme;
  setup.arena_bytes = 300'000;
  const std::vector<float> table(80, 0.5f);
  EXPECT_THAT(backend->KvInit(setup), FailsWith(absl::StatusCode::kInternal, "rotary table"));
  setup.rope = *backend->Upload(table, 10);
  EXPECT_THAT(backend->KvInit(setup),
              FailsWith(absl::StatusCode::kInvalidArgument, "needs the learned codes"));
  setup.codes = &learned.codes;
  setup.scheme.frame_tokens = 256;
  EXPECT_THAT(backend->KvInit(setup),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        "cuda: KV frames of 256 tokens are not a multiple of 512"));
  setup.scheme.frame_tokens = 512;
  setup.arena_bytes = 100;
  EXPECT_THAT(backend->KvInit(setup),
              FailsWith(absl::StatusCode::kInvalidArgument, "KV arena of 100 bytes"));
  setup.arena_bytes = 300'000;
  setup.rope.place = Place::kHost;
  EXPECT_THAT(backend->KvInit(setup), FailsWith(absl::StatusCode::kInternal, "not on the device"));
  setup.rope.place = Place::kDevice;
  EXPECT_THAT(backend->KvInit(setup), IsOk());
}

}  // namespace
}  // namespace asymserve
