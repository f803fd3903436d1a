// A machine whose figures were fitted to measured steps takes about what was measured.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"

#include "bench/sched/machine.h"
#include "bench/sched/step_cost.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using testing::IsOk;

constexpr char kMeasured[] =
    ASYMSERVE_SOURCE_DIR "/bench/results/NVIDIA-H100-80GB-HBM3-2026-11-27.json";
constexpr double kFit = 0.08;

/// A step of bench_cuda: "decode 8B Q4_0 32 x 4096 exact", "prefill 8B Q4_0 512 at 3584 exact".
struct MeasuredStep {
  bool decode = false;
  int32_t first = 0;    // sequences, or tokens
  int32_t context = 0;  // of each sequence, or before the tokens
  std::string scheme;
};

MeasuredStep Parse(const std::string& name) {
  const std::vector<std::string> words = absl::StrSplit(name, ' ');
  MeasuredStep step;
  EXPECT_EQ(words.size(), 7u) << name;
  if (words.size() != 7) return step;
  step.decode = words[0] == "decode";
  EXPECT_TRUE(absl::SimpleAtoi(words[3], &step.first) && absl::SimpleAtoi(words[5], &step.context))
      << name;
  step.scheme = words[6];
  return step;
}

StepPlan PlanOf(const MeasuredStep& step, int32_t chunk_tokens) {
  StepPlan plan;
  if (step.decode) {
    plan.items.resize(static_cast<size_t>(step.first));
    for (StepItem& item : plan.items) {
      item.begin = step.context - 1;
      item.count = 1;
      item.role = StepItem::Role::kDecode;
    }
    return plan;
  }
  for (int32_t done = 0; done < step.first; done += chunk_tokens) {
    StepItem& item = plan.items.emplace_back();
    item.begin = step.context + done;
    item.count = std::min(chunk_tokens, step.first - done);
  }
  return plan;
}

TEST(MeasuredMachineTest, StepsTakeWhatAnH100Took) {
  auto machine = NamedMachine("h100-llama-3-8b-q4");
  ASSERT_THAT(machine, IsOk());
  machine->context_tokens = 32768;  // of the longest that was measured
  std::ifstream file(kMeasured);
  const auto measured = nlohmann::json::parse(file, nullptr, false);
  ASSERT_TRUE(measured.is_object()) << kMeasured;
  int compared = 0;
  for (const auto& one : measured["model"]["kernels"]) {
    const std::string name = one["name"];
    const MeasuredStep step = Parse(name);
    const auto scheme = MachineScheme(*machine, step.scheme, nullptr);
    const auto speed = machine->Speed(step.scheme);
    ASSERT_THAT(scheme, IsOk());
    ASSERT_THAT(speed, IsOk());
    const StepCost cost(*machine, *speed, *scheme);
    const double took = one["us"];
    EXPECT_NEAR(static_cast<double>(cost.Of(PlanOf(step, scheme->chunk_tokens))) / took, 1, kFit)
        << name << ": " << took << " us measured";
    ++compared;
  }
  EXPECT_GE(compared, 25);
}

}  // namespace
}  // namespace asymserve
