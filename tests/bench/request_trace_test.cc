#include "bench/sched/request_trace.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using testing::FailsWith;
using testing::IsOk;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
const char kAzure[] = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n";
const char kCompact[] = "milliseconds,prompt_tokens,generated_tokens\n";

TEST(RequestTraceTest, BothFormsGiveTheSameRequests) {
  const auto azure = ParseTrace(std::string(kAzure) +
                                    "2023-11-30 23:59:59.9990000,374,44\r\n"
                                    "2023-12-01 00:00:00.1,1,2\r\n",
                                "a");
  const auto compact = ParseTrace(std::string(kCompact) + "7,374,44\n108,1,2", "c");
  ASSERT_THAT(azure, IsOk());
  ASSERT_THAT(compact, IsOk());
  EXPECT_EQ(*azure, (std::vector<TraceRow>{{0, 374, 44}, {101'000, 1, 2}}));
  EXPECT_EQ(*azure, *compact);
}

TEST(RequestTraceTest, ABrokenLineIsNamedWithItsNumber) {
  const char* const rows[] = {
      "",       "5,1",          "5,1,2,3", "5,0,2",    "5,1,-2",
      "5,1,2 ", "5,1,99999999", "-5,1,2",  "five,1,2", "99999999999999999999,1,2",
      "3,1,2"};
  for (const char* row : rows) {
    const std::string text = std::string(kCompact) + "4,1,2\n" + row + "\n9,1,2\n";
    EXPECT_THAT(ParseTrace(text, "t.csv"), FailsWith(kInvalid, "t.csv:3: ")) << row;
  }
}

TEST(RequestTraceTest, ATimeThatIsNoneIsRefused) {
  const char* const times[] = {"2023-11-31 18:15:46.68",
                               "2023-13-01 18:15:46.68",
                               "2023-11-16 24:15:46.68",
                               "2023-11-16 18:60:46.68",
                               "2023-11-16 18:15:61.68",
                               "2023-11-16 18:15:46",
                               "2023-11-16 18:15:46.",
                               "2023-11-16T18:15:46.68",
                               "2023-11-16 18:15:4-.68",
                               "2023-11-16 18:15:46.1234567890",
                               "5"};
  for (const char* time : times) {
    const std::string text = std::string(kAzure) + time + ",1,2\r\n";
    EXPECT_THAT(ParseTrace(text, "t.csv"), FailsWith(kInvalid, "t.csv:2: ")) << time;
  }
}

TEST(RequestTraceTest, OtherColumnsAndNoRequestsAreRefused) {
  EXPECT_THAT(ParseTrace("", "t"), FailsWith(kInvalid, "t:1: expected the columns"));
  EXPECT_THAT(ParseTrace("TIMESTAMP,GeneratedTokens,ContextTokens\n", "t"),
              FailsWith(kInvalid, "t:1: "));
  EXPECT_THAT(ParseTrace(kCompact, "t"), FailsWith(kInvalid, "t: no requests"));
  EXPECT_THAT(ReadTrace("/nowhere/t.csv"), FailsWith(absl::StatusCode::kNotFound, "/nowhere/t"));
}

TEST(RequestTraceTest, TheTracesOfTheTreeAreWholeAndMatchTheOriginals) {
  for (const auto& [name, count] : {std::pair{"conv", 19'366u}, std::pair{"code", 8'819u}}) {
    const auto kept = ReadTrace(
        std::string(ASYMSERVE_SOURCE_DIR "/bench/sched/traces/azure-2023-") + name + ".csv");
    ASSERT_THAT(kept, IsOk());
    EXPECT_EQ(kept->size(), count);
    const auto original = ReadTrace(std::string(ASYMSERVE_SHARED_DIR) +
                                    "/data/traces/AzureLLMInferenceTrace_" + name + ".csv");
    if (original.status().code() == absl::StatusCode::kNotFound) continue;
    ASSERT_THAT(original, IsOk());
    ASSERT_EQ(original->size(), count);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ((*kept)[i].at_us, (*original)[i].at_us / 1000 * 1000);
      EXPECT_EQ((*kept)[i].prompt_tokens, (*original)[i].prompt_tokens);
      EXPECT_EQ((*kept)[i].output_tokens, (*original)[i].output_tokens);
    }
  }
}

}  // namespace
}  // namespace asymserve
