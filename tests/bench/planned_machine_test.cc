// The KV memory that a simulated GPU has is what the memory planner leaves it there, or a little
// less.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <string>

#include "bench/sched/machine.h"
#include "engine/backend/cpu/cpu_backend.h"
#include "engine/runtime/capacity_plan.h"
#include "engine/runtime/model_shape_file.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using testing::IsOk;

/// As config/shapes/llama-3-8b.yaml has it.
const ShapeDescription kLlama3 = {.layers = 32,
                                  .width = 4096,
                                  .feed_forward_width = 14336,
                                  .heads = 32,
                                  .kv_heads = 8,
                                  .head_size = 128,
                                  .vocabulary = 128256,
                                  .context_tokens = 8192,
                                  .weight_type = "BF16"};

struct PlannedMachine {
  const char* name;
  int64_t weight_bytes;  // 0: as the shapes say
};

void PrintTo(const PlannedMachine& machine, std::ostream* stream) {
  *stream << machine.name;
}

class PlannedMachineTest : public ::testing::TestWithParam<PlannedMachine> {};

TEST_P(PlannedMachineTest, HasTheKvMemoryThatThePlannerLeaves) {
  const auto machine = NamedMachine(GetParam().name);
  ASSERT_THAT(machine, IsOk());
  const auto model = MakeModelShapeFile(kLlama3);
  ASSERT_THAT(model, IsOk());
  const auto backend = MakeCpuBackend({.threads = 1});
  ASSERT_THAT(backend, IsOk());
  CapacityOptions options;
  options.schemes = {"exact", "balanced", "dense"};
  options.memory_bytes = 80'000'000'000;
  options.context_tokens = machine->context_tokens;
  options.load = {.prompt_tokens = 2048, .output_tokens = 512, .step_tokens = machine->step_tokens};
  options.weight_bytes = GetParam().weight_bytes;
  const auto rows = PlanCapacity(**model, **backend, nullptr, options);
  ASSERT_THAT(rows, IsOk());
  for (const CapacityRow& row : *rows) {
    ASSERT_THAT(row.status, IsOk());
    EXPECT_LE(machine->kv_bytes, row.plan.kv_bytes()) << row.scheme;
    EXPECT_GE(machine->kv_bytes, row.plan.kv_bytes() * 9 / 10) << row.scheme;
  }
}

// The second has Q4_0: 18 bytes for 32 of 8.03e9 weights.
INSTANTIATE_TEST_SUITE_P(Gpus, PlannedMachineTest,
                         ::testing::Values(PlannedMachine{"h100-llama-3-8b", 0},
                                           PlannedMachine{"h100-llama-3-8b-q4", 4'516'875'000}),
                         [](const auto& machine) {
                           std::string name = machine.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace asymserve
