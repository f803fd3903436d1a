// `asymserve plan` as a process.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/length_trace.h"
#include "server/model_shapes.h"
#include "tests/server/server_process.h"
#include "tests/support/file_io.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace asymserve::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kFailure = 1, kUsage = 2;
constexpr const char* kLlama = ASYMSERVE_SOURCE_DIR "/config/shapes/llama-3-8b.yaml";
constexpr const char* kToy = ASYMSERVE_SOURCE_DIR "/tests/golden/stories260K.gguf";

class PlanCommandTest : public ::testing::Test {
 protected:
  static Finished Run(const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {ASYMSERVE_BINARY, "plan", "--set", "engine.threads=2"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return RunProgram(all);
  }

  static nlohmann::json Rows(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--json", "-"});
    const Finished run = Run(arguments);
    EXPECT_EQ(run.status, 0) << run.err;
    return nlohmann::json::parse(run.out)["rows"];
  }

  const TempDir directory_;
};

TEST_F(PlanCommandTest, PlansAModelOfWhichOnlyTheShapesAreKnown) {
  const std::string json = directory_.Path("plan.json");
  const Finished run =
      Run({"--shapes", kLlama, "--memory", "80000000000", "--sequences", "1000", "--json", json});
  ASSERT_EQ(run.status, 0) << run.err;
  for (const char* part : {"Llama-3-8B in 74.5 GiB (80,000,000,000 bytes), context 8,192",
                           "3,584 prompt and 512 generated tokens", "for 1,000", "balanced*",
                           "* assumed: the widths of a learned tier, not calibrated",
                           "engine.max_running is 64", "shapes only"}) {
    EXPECT_THAT(run.out, HasSubstr(part));
  }
  const auto plan = nlohmann::json::parse(ReadFile(json));
  EXPECT_EQ(plan["model"], "Llama-3-8B");
  EXPECT_EQ(plan["memory_bytes"], 80'000'000'000);
  const auto& rows = plan["rows"];
  const char* kSchemes[] = {"exact", "kivi-2", "asymkv-16/0", "balanced", "dense"};
  ASSERT_EQ(rows.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    SCOPED_TRACE(kSchemes[i]);
    EXPECT_EQ(rows[i]["scheme"], kSchemes[i]);
    EXPECT_EQ(rows[i]["assumed"], i >= 3);
    EXPECT_EQ(rows[i]["allowed"].is_null(), i > 0);
    int64_t sum = 0;
    for (const auto& [row, bytes] : rows[i]["ledger"].items()) sum += bytes.get<int64_t>();
    EXPECT_EQ(sum, 80'000'000'000);
    EXPECT_EQ(rows[i]["ledger"].size(), 10u);
    // BF16: 8.03 G parameters, the input and output tables included.
    EXPECT_NEAR(rows[i]["ledger"]["weights"].get<double>(), 2 * 8.030e9, 2e7);
    const auto sequences = rows[i]["sequences"].get<double>();
    EXPECT_NEAR(rows[i]["ratio_to_exact"].get<double>(),
                sequences / rows[0]["sequences"].get<double>(), 1e-3);
    if (i > 0) {
      EXPECT_GT(sequences, rows[i - 1]["sequences"].get<double>());
    }
  }
  EXPECT_EQ(rows[0]["bits_effective"], 16);
  EXPECT_GE(rows[3]["ratio_to_exact"].get<double>(), 10);
  EXPECT_GE(rows[4]["ratio_to_exact"].get<double>(), 12);
}

TEST_F(PlanCommandTest, WhatSequencesNeedIsWhatHoldsThem) {
  const auto needs = Rows({"--shapes", kLlama, "--memory", "1GiB", "--sequences", "100"});
  for (const auto& row : needs) {
    EXPECT_EQ(row["sequences"], 0);  // the weights alone are more
    EXPECT_TRUE(row["ratio_to_exact"].is_null() && row["ledger"].is_null());
    EXPECT_THAT(row["error"].get<std::string>(), HasSubstr("memory: 1073741824 bytes"));
    const auto held = Rows({"--shapes", kLlama, "--memory",
                            std::to_string(row["memory_for_sequences"].get<int64_t>()), "--schemes",
                            row["scheme"].get<std::string>()});
    EXPECT_GE(held[0]["sequences"].get<int64_t>(), 100);
  }
}

TEST_F(PlanCommandTest, PlansAModelFileWithoutItsWeights) {
  const auto rows =
      Rows({"--model", kToy, "--memory", "1GiB", "--prompt", "200", "--output", "100"});
  ASSERT_EQ(rows.size(), 5u);
  EXPECT_EQ(rows[2]["scheme"], "asymkv-2/0");
  EXPECT_GT(rows[0]["sequences"].get<int64_t>(), 100);
}

TEST_F(PlanCommandTest, LengthsComeFromATrace) {
  const std::string trace = directory_.Path("trace.csv");
  std::string text = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n";
  for (int i = 1; i <= 100; ++i) {
    text += "2023-11-16 18:17:03.9799600," + std::to_string(i == 100 ? 8192 : 2 * i) + "," +
            std::to_string(i) + "\r\n";
  }
  WriteFile(trace, text);
  const auto lengths = ReadLengthTrace(trace);
  ASSERT_THAT(lengths, IsOk());
  EXPECT_EQ(lengths->requests, 100);
  EXPECT_EQ(lengths->mean_prompt, 181);  // (2 + ... + 198 + 8192) / 100
  EXPECT_EQ(lengths->mean_output, 51);
  EXPECT_EQ(lengths->p99_prompt, 198);
  EXPECT_EQ(lengths->p99_output, 99);
  const Finished run = Run({"--shapes", kLlama, "--memory", "30GiB", "--trace", trace});
  ASSERT_EQ(run.status, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("181 prompt and 51 generated tokens"));
  EXPECT_THAT(run.out, HasSubstr("means of 100 requests of a trace; p99 198 and 99"));
  EXPECT_THAT(run.out, HasSubstr("at p99"));
}

TEST_F(PlanCommandTest, BrokenLinesOfATraceAreRefusedWithTheirNumber) {
  const std::string head = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  const std::string good = "2023-11-16 18:17:03.97,5,7\n";
  const struct {
    std::string text, message;
  } kCases[] = {
      {"time,a,b\n", "t.csv:1: expected TIMESTAMP,ContextTokens,GeneratedTokens, got \"time,a,b\""},
      {head, "t.csv:2: no requests"},
      {head + good + "2023-11-16 18:17:03,5\n", "t.csv:3: expected three fields"},
      {head + good + good + "2023-11-16 18:17:03,5,6,7\n", "t.csv:4: expected three fields"},
      {head + good + "\n" + good, "t.csv:3: expected three fields, got \"\""},
      {head + "yesterday,5,6\n", "t.csv:2: expected a time as 2023-11-16 18:17:03.97, got "},
      {head + "2023-11-16 18:17:03.x,5,6\n", "t.csv:2: expected a time"},
      {head + good + "2023-11-16 18:17:03,0,6\n", "t.csv:3: ContextTokens: expected 1 to 16777216"},
      {head + "2023-11-16 18:17:03,5,-6\n", "t.csv:2: GeneratedTokens: expected 0 to 16777216"},
      {head + "2023-11-16 18:17:03,5.5,6\n", "t.csv:2: ContextTokens: expected 1 to"},
      {head + "2023-11-16 18:17:03,99999999,6\n", "t.csv:2: ContextTokens: expected 1 to"},
  };
  for (const auto& one : kCases) {
    const auto lengths = ParseLengthTrace(one.text, "t.csv");
    EXPECT_EQ(lengths.status().code(), absl::StatusCode::kInvalidArgument) << one.message;
    EXPECT_THAT(std::string(lengths.status().message()), HasSubstr(one.message));
  }
}

TEST_F(PlanCommandTest, BadShapesAreRefusedByKey) {
  const std::string good =
      "layers: 2\nwidth: 64\nfeed_forward_width: 96\nheads: 4\nkv_heads: 2\nhead_size: 16\n"
      "vocabulary: 300\ncontext_tokens: 512\n";
  EXPECT_THAT(ParseModelShapes(good + "weight_type: Q8_0\n", "s.yaml"), IsOk());
  EXPECT_EQ(ParseModelShapes(good + "weight_bytes: 5GiB\n", "s.yaml")->weight_bytes,
            int64_t{5} << 30);
  const struct {
    std::string text, message;
  } kCases[] = {
      {good, "s.yaml: one of weight_type and weight_bytes is required"},
      {good + "weight_type: F16\nweight_bytes: 5\n", "s.yaml: one of weight_type and weight_bytes"},
      {good + "weight_type: Q9\n",
       "s.yaml: weight_type: 'Q9' is no type of weights; there are F32"},
      {good + "weight_bytes: -5\n", "s.yaml:9: weight_bytes: expected a size from 1 to 64TiB"},
      {good + "weigth_type: F16\n",
       "s.yaml:9: weigth_type: unknown key, did you mean weight_type?"},
      {good + "tied_output: perhaps\n", "s.yaml:9: tied_output: expected true or false"},
      {"layers: 0\n", "s.yaml:1: layers: expected 1 to 2147483647, got \"0\""},
      {"layers: many\n", "s.yaml:1: layers: expected 1 to"},
      {"layers: [1]\n", "s.yaml:1: layers: expected 1 to"},
      {"layers: 2\nlayers: 3\n", "s.yaml:2"},
      {"layers: 2\nweight_type: F16\n", "s.yaml: width: is required"},
      {"a: {b: 1}\n", "s.yaml:1: a: unknown key"},
      {"layers: 9999\n" + good.substr(10) + "weight_type: F16\n",
       "s.yaml: the number of layers is 9999, allowed are 1 to 4096"},
  };
  for (const auto& one : kCases) {
    const auto shapes = ParseModelShapes(one.text, "s.yaml");
    EXPECT_FALSE(shapes.ok()) << one.message;
    EXPECT_THAT(std::string(shapes.status().message()), HasSubstr(one.message));
  }
}

TEST_F(PlanCommandTest, ImpossibleInputIsRefusedByOption) {
  const std::string trace = directory_.Path("trace.csv");
  WriteFile(trace, "TIMESTAMP,ContextTokens,GeneratedTokens\nnonsense\n");
  const std::vector<std::string> kShapes = {"--shapes", kLlama};
  const std::vector<std::string> kSized = {"--shapes", kLlama, "--memory", "80GiB"};
  const struct {
    std::vector<std::string> base, arguments;
    int status;
    std::string message;
  } kCases[] = {
      {{}, {"--memory", "1GiB"}, kUsage, "model.path: is required"},
      {kShapes, {}, kUsage, "memory: is required with --shapes"},
      {kShapes, {"--memory", "-1"}, kUsage, "memory: expected a size from 1 to 64TiB"},
      {kShapes, {"--memory", "80GB"}, kUsage, "memory: expected a size"},
      {kShapes, {"--memory", "65TiB"}, kUsage, "memory: expected a size"},
      {kShapes, {"--memory", "0"}, kUsage, "memory: expected a size"},
      {kSized, {"--context", "0"}, kUsage, "context: 0; must be 1 to"},
      {kSized, {"--context", "-7"}, kUsage, "context: -7; must be 1 to"},
      {kSized, {"--prompt", "0"}, kUsage, "prompt: 0; must be 1 to"},
      {kSized, {"--output", "-1"}, kUsage, "output: -1; must be 0 to"},
      {kSized, {"--sequences", "0"}, kUsage, "sequences: 0; must be 1 to"},
      {kSized, {"--max-kl", "-1"}, kUsage, "max-kl: -1; must be 0"},
      {kSized, {"--max-kl", "nan"}, kUsage, "max-kl: nan; must be 0"},
      {kSized, {"--trace", trace}, kUsage, trace + ":2: expected three fields"},
      {kSized, {"--trace", directory_.Path("none.csv")}, kUsage, "none.csv"},
      {kSized, {"--trace", trace, "--prompt", "5"}, kUsage, "trace: says the lengths"},
      {kSized, {"--json", directory_.Path("no/x.json")}, kUsage, "json: "},
      {kSized, {"--context", "9000"}, kFailure, "context: 9000 tokens; the model was trained for"},
      {kSized, {"--prompt", "9000"}, kFailure, "context: 8192 tokens; sequences of 9000 prompt"},
      {kSized, {"--schemes", "exact,kivi-3"}, kFailure, "schemes: KV scheme 'kivi-3': unknown"},
      {kSized, {"--schemes", "asymkv-99/0"}, kFailure, "schemes: KV scheme 'asymkv-99/0'"},
      {kShapes,
       {"--memory", "1GiB"},
       kFailure,
       "memory: 1073741824 bytes (1.00 GiB) are less than"},
      {kShapes,
       {"--memory", "16GiB", "--schemes", "exact"},
       kFailure,
       "one sequence of context = 8192 in the KV scheme 'exact' needs"},
      {kShapes,
       {"--set", "engine.memory_bytes=1GiB"},
       kFailure,
       "asymserve: engine.memory_bytes: 1073741824 bytes (1.00 GiB) are less than"},
      {kSized,
       {"--set", "engine.context_tokens=9000"},
       kFailure,
       "engine.context_tokens: 9000 tokens; the model was trained for"},
      {{"--model", kToy},
       {"--set", "engine.memory_margin_bytes=64TiB"},
       kFailure,
       "engine.memory_bytes = 0 (what is available): "},
      {kSized, {"--model", kToy}, kUsage, "model.path: "},
      {kSized,
       {"--set", "kv.profile=x.asymkv"},
       kUsage,
       "kv.profile: \"x.asymkv\" is not read with"},
      {{"--shapes", "none.yaml", "--memory", "1GiB"}, {}, kFailure, "none.yaml"},
      {{"--model", "none.gguf"}, {"--memory", "1GiB"}, kFailure, "none.gguf"},
  };
  for (const auto& one : kCases) {
    SCOPED_TRACE(one.message);
    std::vector<std::string> arguments = one.base;
    arguments.insert(arguments.end(), one.arguments.begin(), one.arguments.end());
    const Finished run = Run(arguments);
    EXPECT_EQ(run.status, one.status) << run.err;
    EXPECT_THAT(run.err, HasSubstr(one.message));
    EXPECT_EQ(run.out, "");
  }
}

TEST_F(PlanCommandTest, WithoutASchemeThatFitsThereIsNoLedger) {
  const Finished run = Run({"--shapes", kLlama, "--memory", "1GiB", "--sequences", "10"});
  ASSERT_EQ(run.status, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("for 10"));
  EXPECT_THAT(run.out, HasSubstr("exact does not fit: "));
  EXPECT_THAT(run.out, ::testing::Not(HasSubstr("MiB\nweights")));
  EXPECT_THAT(run.out, ::testing::Not(HasSubstr("\nsink pages")));
}

TEST_F(PlanCommandTest, TheQualityBudgetDecidesWhichTiersAreAllowed) {
  const std::string model = ASYMSERVE_MODEL_FILE;
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "no " << model;
  const std::string profile =
      "kv.profile=" ASYMSERVE_SOURCE_DIR "/config/profiles/SmolLM2-135M-Instruct.Q4_1.asymkv";
  const std::vector<std::string> base = {"--model", model, "--memory", "1GiB", "--set", profile};
  const auto allowed = [&](const char* max_kl) {
    std::vector<std::string> arguments = base;
    arguments.insert(arguments.end(), {"--max-kl", max_kl});
    std::string names;
    for (const auto& row : Rows(arguments)) {
      if (row["allowed"] == true) names += row["scheme"].get<std::string>() + " ";
    }
    return names;
  };
  EXPECT_EQ(allowed("0.15"), "exact light balanced dense ");
  EXPECT_EQ(allowed("0.017"), "exact light balanced ");
  EXPECT_EQ(allowed("0.001"), "exact ");
  const Finished run = Run(base);
  EXPECT_THAT(run.out, HasSubstr("of the measured schemes dense holds the most sequences"));
}

}  // namespace
}  // namespace asymserve::testing
