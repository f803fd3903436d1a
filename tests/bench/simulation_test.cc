#include "bench/sched/simulation.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "bench/sched/figures.h"
#include "bench/sched/sim_plot.h"
#include "bench/sched/sim_report.h"
#include "bench/sched/step_cost.h"
#include "bench/sched/sweep.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using testing::FailsWith;
using testing::IsOk;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

/// Every part of a step's time is a different digit.
Machine ToyMachine() {
  Machine machine;
  machine.name = "toy";
  machine.shape = {.layers = 1, .kv_heads = 1, .head_size = 64};
  machine.kv_bytes = int64_t{1} << 20;
  machine.context_tokens = 1024;
  machine.max_running = 4;
  machine.max_waiting = 4;
  machine.step_tokens = 256;
  machine.fixed_us = 1000;
  machine.prefill_token_us = 10;
  machine.decode_row_us = 100;
  machine.kv_bytes_per_us = 1e12;
  machine.speeds = {{.scheme = "exact"}, {.scheme = "kivi-*", .row_context_us = 1}};
  return machine;
}

TEST(StepCostTest, ATokenAloneReadsItsOwnBytesOnly) {
  const Machine machine = ToyMachine();
  const KvScheme exact;
  const StepCost cost(machine, {.scheme = "exact"}, exact);
  EXPECT_DOUBLE_EQ(cost.ReadBytes(1, 0), 2 * 64 * 2);
  EXPECT_DOUBLE_EQ(cost.ReadBytes(1000, 1000 / 64), 1000 * 2 * 64 * 2);
}

TEST(StepCostTest, ALongSequenceReadsAboutTheBitsOfItsScheme) {
  const auto machine = NamedMachine("h100-llama-3-8b");
  ASSERT_THAT(machine, IsOk());
  for (const char* name : {"exact", "kivi-2", "balanced", "dense"}) {
    const auto scheme = MachineScheme(*machine, name, nullptr);
    ASSERT_THAT(scheme, IsOk());
    const StepCost cost(*machine, *machine->Speed(name), *scheme);
    const double elements = 2.0 * 32 * 8 * 128 * 4096;
    const double bits = 8 * cost.ReadBytes(4096, 63) / elements;
    const double expected = KvLayout(machine->shape, *scheme).EffectiveBits(4096);
    // A page of which keys are sealed and values are not holds two records, and reads half of each.
    EXPECT_NEAR(bits, expected, std::string(name) == "kivi-2" ? 0.5 : 0.01) << name;
  }
}

TEST(StepCostTest, AStepsTimeIsTheSumOfItsParts) {
  Machine machine = ToyMachine();
  machine.weights_us = 555;
  machine.prefill_context_us = 0.5;
  const KvScheme exact;
  const StepCost cost(machine, {.scheme = "exact", .row_context_us = 2, .seal_us = 7}, exact);
  StepPlan plan;
  plan.items.resize(1);
  plan.items[0].begin = 9;
  plan.items[0].count = 1;
  plan.items[0].role = StepItem::Role::kDecode;
  EXPECT_EQ(cost.Of(plan), 1000 + 555 + 10 * 2);
  plan.items.resize(2);
  plan.items[1].count = 99;
  EXPECT_EQ(cost.Of(plan), 1000 + (100 + 990) + 10 * 2 + 99 * 50 / 2);
  plan.seals.push_back({.keys = true, .values = false});
  plan.seals.push_back({.keys = false, .values = true});
  EXPECT_EQ(cost.Of(plan), 1000 + (100 + 990) + 10 * 2 + 99 * 50 / 2 + 7);

  const StepCost dearer(
      machine,
      {.scheme = "exact", .fixed_us = 3000, .decode_row_us = 400, .prefill_context_us = 1.5},
      exact);
  EXPECT_EQ(dearer.Of(plan), 4000 + (500 + 990) + 99 * 50 * 2);
}

TEST(SimulationTest, ARequestAloneTakesItsSteps) {
  const auto result = Simulate(ToyMachine(), KvScheme{}, {}, {}, {{5'000, 300, 3, 0}});
  ASSERT_THAT(result, IsOk());
  const SimOutcome& outcome = result->outcomes.at(0);
  EXPECT_EQ(outcome.end, SimOutcome::End::kFinished);
  EXPECT_EQ(outcome.sampled, 3);
  EXPECT_EQ(outcome.first_token, 5'000 + (1000 + 2560) + (1000 + 440));  // two chunks
  EXPECT_EQ(outcome.last_token, outcome.first_token + 2 * 1100);
  EXPECT_EQ(result->computed_tokens, 302);
  EXPECT_EQ(result->plans.size(), 4u);
  EXPECT_EQ(result->peak_running, 1);
}

TEST(SimulationTest, WhoFindsTheQueueFullIsRefusedAndNobodyElse) {
  ServerSetup setup;
  setup.max_running = 1;
  setup.max_waiting = 2;
  const std::vector<SimRequest> requests(5, {0, 64, 4, 0});
  const auto result = Simulate(ToyMachine(), KvScheme{}, setup, {}, requests);
  ASSERT_THAT(result, IsOk());
  int finished = 0, refused = 0;
  for (const SimOutcome& outcome : result->outcomes) {
    finished += outcome.end == SimOutcome::End::kFinished ? 1 : 0;
    refused += outcome.end == SimOutcome::End::kRefused ? 1 : 0;
  }
  EXPECT_EQ(finished, 2);
  EXPECT_EQ(refused, 3);
  EXPECT_EQ(result->outcomes[4].sampled, 0);
}

TEST(SimulationTest, ClientsGiveUpAndDeadlinesPass) {
  ServerSetup setup;
  setup.max_running = 1;
  const std::vector<SimRequest> requests(3, {0, 64, 10, 0});  // 1,640 + 9 * 1,100 us each
  const auto gave_up = Simulate(ToyMachine(), KvScheme{}, setup, {.patience_us = 11'000}, requests);
  ASSERT_THAT(gave_up, IsOk());
  EXPECT_EQ(gave_up->outcomes[0].end, SimOutcome::End::kFinished);
  EXPECT_EQ(gave_up->outcomes[1].end, SimOutcome::End::kGaveUp);
  EXPECT_EQ(gave_up->outcomes[2].end, SimOutcome::End::kGaveUp);
  const auto expired = Simulate(ToyMachine(), KvScheme{}, setup, {.deadline_us = 14'000}, requests);
  ASSERT_THAT(expired, IsOk());
  EXPECT_EQ(expired->outcomes[0].end, SimOutcome::End::kFinished);
  EXPECT_EQ(expired->outcomes[1].end, SimOutcome::End::kExpired);
  EXPECT_GT(expired->outcomes[1].sampled, 0);
  EXPECT_EQ(expired->outcomes[2].end, SimOutcome::End::kExpired);
  EXPECT_EQ(expired->outcomes[2].sampled, 0);
}

/// When request `index` had its first token.
TimeUs FirstToken(const ServerSetup& setup, const std::vector<SimRequest>& requests, size_t index) {
  const auto result = Simulate(ToyMachine(), KvScheme{}, setup, {}, requests);
  EXPECT_THAT(result, IsOk());
  return result.ok() ? result->outcomes.at(index).first_token : -1;
}

TEST(SimulationTest, WithoutTenantsALateOneWaitsForAllThatCameBefore) {
  ServerSetup setup;
  setup.max_running = 1;
  const std::vector<SimRequest> requests = {
      {0, 64, 4, 0}, {0, 64, 4, 0}, {0, 64, 4, 0}, {1, 64, 4, 1}};
  EXPECT_LT(FirstToken(setup, requests, 3), FirstToken(setup, requests, 2));
  setup.one_queue = true;
  EXPECT_GT(FirstToken(setup, requests, 3), FirstToken(setup, requests, 2));
}

TEST(SimulationTest, ASmallRequestOvertakesALargeOneWithoutRoomWhereItMay) {
  ServerSetup setup;
  setup.kv_bytes = 330'000;  // 20 pages: the first takes 12, the second needs 15
  const std::vector<SimRequest> requests = {{0, 640, 100, 0}, {1, 900, 4, 0}, {2, 64, 4, 0}};
  EXPECT_LT(FirstToken(setup, requests, 2), FirstToken(setup, requests, 1));
  setup.bypass_sequences = 0;  // both begin when the first has ended
  EXPECT_GE(FirstToken(setup, requests, 2), FirstToken(setup, requests, 1));
}

TEST(SimulationTest, PagesThatAreKeptFreeKeepARequestOut) {
  ServerSetup setup;
  setup.kv_bytes = 330'000;
  const std::vector<SimRequest> requests = {{0, 640, 100, 0}, {1, 64, 4, 0}};
  const TimeUs alone = FirstToken(setup, {requests[0]}, 0);
  EXPECT_LT(FirstToken(setup, requests, 1), 2 * alone);
  setup.watermark_pages = 15;
  EXPECT_GT(FirstToken(setup, requests, 1), 2 * alone);
}

TEST(SimulationTest, TextsEndByThemselvesBeforeTheTokensThatWereAskedFor) {
  const auto result =
      Simulate(ToyMachine(), KvScheme{}, {}, {.ask_tokens = 900}, {{0, 64, 5, 0}, {0, 500, 7, 0}});
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->outcomes[0].sampled, 5);
  EXPECT_EQ(result->outcomes[1].sampled, 7);
}

TEST(SimulationTest, WhatDoesNotFitIsSaidWithTheNumbers) {
  const Machine machine = ToyMachine();
  EXPECT_THAT(Simulate(machine, KvScheme{}, {.kv_bytes = 200'000}, {}, {}),
              FailsWith(kInvalid, "kv_bytes: 200000 hold"));
  EXPECT_THAT(Simulate(machine, KvScheme{}, {.bypass_sequences = -1}, {}, {}),
              FailsWith(kInvalid, "bypass, watermark-pages"));
  EXPECT_THAT(Simulate(machine, KvScheme{}, {.watermark_pages = -1}, {}, {}),
              FailsWith(kInvalid, "bypass, watermark-pages"));
  EXPECT_THAT(Simulate(machine, KvScheme{}, {.max_running = 300}, {}, {}),
              FailsWith(kInvalid, "step_tokens: 256"));
  EXPECT_THAT(Simulate(machine, KvScheme{}, {.max_waiting = -1}, {}, {}),
              FailsWith(kInvalid, "max_waiting"));
  EXPECT_THAT(Simulate(machine, *NamedKvScheme("int8", machine.shape), {}, {}, {}),
              FailsWith(kInvalid, "toy has figures for exact, kivi-*"));
}

TEST(FiguresTest, QuantilesAreValuesOfTheSample) {
  EXPECT_EQ(Quantile({}, 0.5), 0);
  EXPECT_EQ(Quantile({3, 1, 2}, 0.5), 2);
  EXPECT_EQ(Quantile({4, 1, 2, 3}, 0.5), 2);
  EXPECT_EQ(Quantile({4, 1, 2, 3}, 0.99), 4);
  EXPECT_EQ(Quantile({4, 1, 2, 3}, 0), 1);
}

TEST(FiguresTest, FairIsWhatNobodyCouldImproveWithoutTakingFromThePoorer) {
  EXPECT_DOUBLE_EQ(FairnessIndex({5, 5}, {100, 100}), 1);
  EXPECT_DOUBLE_EQ(FairnessIndex({10, 0}, {100, 100}), 0.5);
  // The small one has all it wants.
  EXPECT_DOUBLE_EQ(FairnessIndex({2, 8}, {2, 100}), 1);
  // Each has a tenth of what it wants: not fair to the small one.
  EXPECT_LT(FairnessIndex({0.2, 9.8}, {2, 98}), 0.75);
  EXPECT_DOUBLE_EQ(FairnessIndex({3, 0}, {3, 0}), 1);
  EXPECT_DOUBLE_EQ(FairnessIndex({0, 0}, {3, 4}), 1);
}

TEST(FiguresTest, PlansCountWhereMostRunAndMostWait) {
  SimResult result;
  result.peak_running = 1000;
  result.peak_waiting = 10'000;
  // Of the last one the processor time was not taken.
  result.plans = {{1000, 10'000, 50, 40},
                  {950, 9'500, 400, 120},
                  {1000, 9'499, 900, 900},
                  {949, 10'000, 900, 900},
                  {1000, 10'000, 60, 0}};
  const SimFigures figures = FiguresOf(result, Workload{}, 1, GoodputLimits{});
  EXPECT_EQ(figures.plan_p50_us, 400);
  EXPECT_EQ(figures.plan_max_us, 900);
  EXPECT_EQ(figures.plan_full_count, 2);
  EXPECT_EQ(figures.plan_full_cpu_p50_us, 40);
  EXPECT_EQ(figures.plan_full_cpu_p999_us, 120);
  EXPECT_EQ(figures.plan_full_cpu_max_us, 120);
  EXPECT_EQ(figures.plan_full_over_100us, 0.5);
}

SweepOptions SmallSweep() {
  SweepOptions options;
  options.machine = "h100-llama-3-8b";
  options.schemes = {"exact", "balanced"};
  options.rates = {0.5, 4};
  options.requests = 400;
  options.prompt = {200, 2000};
  options.output = {1000, 3000};
  options.setup.kv_bytes = 6'000'000'000;
  return options;
}

std::string WithoutTheRealClock(std::string json) {
  for (size_t at = 0; (at = json.find("\"real_clock\":{", at)) != std::string::npos;) {
    json.erase(at, json.find('}', at) + 1 - at);
  }
  return json;
}

TEST(SweepTest, ASeedGivesTheSameResultButForTheRealClock) {
  SweepOptions options = SmallSweep();
  const auto first = RunSweep(options), second = RunSweep(options);
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(second, IsOk());
  const std::string json = SweepJson(*first);
  EXPECT_NE(json.find("plan_p50_us"), std::string::npos);
  EXPECT_EQ(WithoutTheRealClock(json), WithoutTheRealClock(SweepJson(*second)));
  EXPECT_EQ(WithoutTheRealClock(json).find("plan_p50_us"), std::string::npos);
  options.seed = 2;
  EXPECT_NE(WithoutTheRealClock(json), WithoutTheRealClock(SweepJson(*RunSweep(options))));
}

TEST(SweepTest, FewerBitsCarryALoadThatExactPagesDoNot) {
  const auto result = RunSweep(SmallSweep());
  ASSERT_THAT(result, IsOk());
  ASSERT_EQ(result->runs.size(), 4u);
  const SimFigures& light_exact = result->runs[0].figures;
  const SimFigures& heavy_exact = result->runs[2].figures;
  const SimFigures& heavy_balanced = result->runs[3].figures;
  EXPECT_DOUBLE_EQ(heavy_exact.offered_per_second, heavy_balanced.offered_per_second);
  EXPECT_GT(light_exact.goodput_per_second, 0.9 * light_exact.offered_per_second);
  EXPECT_LT(heavy_exact.goodput_per_second, 0.3 * heavy_exact.offered_per_second);
  EXPECT_GT(heavy_balanced.goodput_per_second, 3 * heavy_exact.goodput_per_second);
  EXPECT_GT(heavy_balanced.mean_running, 2 * heavy_exact.mean_running);
  EXPECT_GT(heavy_exact.peak_memory, 0.95);
  for (const SweepRun& run : result->runs) {
    const SimFigures& f = run.figures;
    EXPECT_EQ(f.finished + f.refused + f.expired + f.gave_up, f.requests);
    EXPECT_GT(f.plan_max_us, 0);
    EXPECT_GT(run.memory.size(), 50u);
  }
}

TEST(SweepTest, ThePictureHasALineForEverySchemeInBothPanels) {
  const std::string svg = SweepPlot(*RunSweep(SmallSweep()));
  size_t lines = 0;
  for (size_t at = 0; (at = svg.find("<polyline", at)) != std::string::npos; ++at) ++lines;
  EXPECT_EQ(lines, 4u);
  EXPECT_NE(svg.find("balanced ("), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(SweepTest, BadOptionsAreNamedAndNothingRuns) {
  const auto with = [](auto change) {
    SweepOptions options = SmallSweep();
    change(options);
    return RunSweep(options).status();
  };
  EXPECT_THAT(with([](auto& o) { o.rates.clear(); }), FailsWith(kInvalid, "speedup, rate"));
  EXPECT_THAT(with([](auto& o) { o.rates = {-1}; }), FailsWith(kInvalid, "rate: "));
  EXPECT_THAT(with([](auto& o) { o.rates.clear(), o.speedups = {1}; }),
              FailsWith(kInvalid, "speedup: there is no trace"));
  EXPECT_THAT(with([](auto& o) { o.tenants = {1, 0}; }), FailsWith(kInvalid, "tenants: "));
  EXPECT_THAT(with([](auto& o) { o.prompt = {9, 3}; }), FailsWith(kInvalid, "prompt: "));
  EXPECT_THAT(with([](auto& o) { o.requests = 1; }), FailsWith(kInvalid, "requests: "));
  EXPECT_THAT(with([](auto& o) { o.machine = "abacus"; }),
              FailsWith(absl::StatusCode::kNotFound, "cpu-smollm2"));
  EXPECT_THAT(with([](auto& o) {
                o.schemes = {"exact", "magic"};
              }),
              FailsWith(absl::StatusCode::kNotFound, "magic"));
  EXPECT_THAT(with([](auto& o) { o.setup.kv_bytes = 1'000'000'000; }),
              FailsWith(kInvalid, "kv_bytes: 1000000000 hold"));
  EXPECT_THAT(with([](auto& o) { o.setup.context_tokens = 100; }),
              FailsWith(kInvalid, "context: holds fewer"));
}

TEST(MachineTest, TheTiersOfTheDefaultModelComeFromItsProfile) {
  SweepOptions options;
  options.rates = {1};
  options.requests = 20;
  EXPECT_THAT(RunSweep(options), FailsWith(absl::StatusCode::kNotFound, "balanced"));
  options.profile = ASYMSERVE_SOURCE_DIR "/config/profiles/SmolLM2-135M-Instruct.Q4_1.asymkv";
  const auto result = RunSweep(options);
  ASSERT_THAT(result, IsOk());
  EXPECT_NEAR(result->schemes.at(2).bits_per_element, 1.49, 0.01);
  EXPECT_GT(result->schemes[2].sequences, 9 * result->schemes[0].sequences);
}

}  // namespace
}  // namespace asymserve
