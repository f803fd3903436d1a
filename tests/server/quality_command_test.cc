// `asymserve quality` as a process.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include <nlohmann/json.hpp>

#include "tests/server/server_process.h"
#include "tests/support/file_io.h"
#include "tests/support/temp_dir.h"

namespace asymserve::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

constexpr int kFailure = 1, kUsage = 2;

class QualityCommandTest : public ::testing::Test {
 protected:
  QualityCommandTest() {
    std::string story;
    for (int i = 0; i < 60; ++i) {
      story += i % 3 == 0   ? "Once upon a time, there was a little girl named Lily. "
               : i % 7 == 0 ? "The big dog ran to the park and saw a red ball. "
                            : "She was very happy and said, \"Can I play with you?\" ";
    }
    WriteFile(text_, story);
  }

  /// `asymserve quality` on a trained model of 260 K parameters with a context of 512 tokens.
  Finished Run(const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {ASYMSERVE_BINARY, "quality", "--set", "engine.threads=1"};
    if (arguments.front() != "--model") all.insert(all.end(), {"--model", model_});
    all.insert(all.end(), arguments.begin(), arguments.end());
    return RunProgram(all);
  }

  const TempDir directory_;
  const std::string model_ = ASYMSERVE_SOURCE_DIR "/tests/golden/stories260K.gguf";
  const std::string text_ = directory_.Path("story.txt");
};

TEST_F(QualityCommandTest, MeasuresSchemesAgainstExactAndWritesThem) {
  const std::string json = directory_.Path("out.json");
  const Finished run =
      Run({"--schemes", "exact,int8,kivi-4,kivi-2,fit-2/2", "--text", text_, "--text",
           text_ + "@54", "--tokens", "450", "--from", "128", "--copy", "--json", json});
  ASSERT_EQ(run.status, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr(text_ + "@54: 450 tokens, from position 128"));
  // Progress at most, which is whole lines where there is no terminal.
  for (const absl::string_view line : absl::StrSplit(run.err, '\n', absl::SkipEmpty())) {
    EXPECT_THAT(std::string(line), MatchesRegex("[^\r\x1b]*, [0-9]+ %(, [0-9]+ s left)?"));
  }

  const auto rows = nlohmann::json::parse(ReadFile(json))["rows"];
  ASSERT_EQ(rows.size(), 10u);
  for (size_t text = 0; text < 2; ++text) {
    const auto row = [&](size_t i) { return rows[5 * text + i]; };
    const auto number = [&](size_t i, const char* field) { return row(i)[field].get<double>(); };
    EXPECT_EQ(row(0)["scheme"], "exact");
    EXPECT_EQ(row(4)["scheme"], "fit-2/2");
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_EQ(row(i).size(), 14u);
      EXPECT_EQ(row(i)["text"], text_ + (text == 0 ? "" : "@54"));
      EXPECT_EQ(row(i)["tokens"], 450);
      EXPECT_EQ(row(i)["from"], 128);
      EXPECT_GT(number(i, "ppl"), 1);
      EXPECT_NEAR(number(i, "ppl") / number(0, "ppl"), number(i, "ppl_ratio"), 1e-9);
      EXPECT_LE(number(i, "kl_mean"), number(i, "kl_p999"));
      EXPECT_EQ(row(i)["copy_nll_exact"], row(0)["copy_nll"]);
      for (const char* tokens : {"1024", "4096", "8192"}) {
        EXPECT_GE(row(i)["bits_effective"][tokens].get<double>(), number(i, "bits_sealed"));
      }
    }
    for (const char* field : {"kl_mean", "kl_p99", "kl_p999"}) EXPECT_EQ(number(0, field), 0);
    EXPECT_EQ(number(0, "top1"), 1);
    EXPECT_EQ(number(0, "ppl_ratio"), 1);
    EXPECT_EQ(number(0, "bits_sealed"), 16);
    EXPECT_GT(number(1, "kl_mean"), 0);
    EXPECT_LT(number(1, "kl_mean"), number(3, "kl_mean"));
    EXPECT_LT(number(2, "kl_mean"), number(3, "kl_mean"));
  }
}

TEST_F(QualityCommandTest, GeneratesTextAndSaysWhereItParts) {
  const std::string json = directory_.Path("out.json");
  const Finished run = Run({"--schemes", "exact,kivi-2", "--text", text_, "--text", text_ + "@54",
                            "--tokens", "400", "--free-running", "--json", json});
  ASSERT_EQ(run.status, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("8 greedy texts of up to 64 tokens after 200 of " + text_));
  const auto rows = nlohmann::json::parse(ReadFile(json))["rows"];
  ASSERT_EQ(rows.size(), 4u);
  for (const auto& row : rows) {
    const auto& free = row["free_running"];
    EXPECT_EQ(free["prompts"], 8);
    EXPECT_EQ(free["prompt_tokens"], 200);
    const bool exact = row["scheme"] == "exact";
    EXPECT_EQ(free["equal_tokens"].get<double>() == 1, exact);
    EXPECT_EQ(free["first_divergence_mean"].get<double>() == 64, exact) << free;
  }
}

TEST_F(QualityCommandTest, PlotsARunAndSeveralFiles) {
  const auto path = [&](const char* name) { return directory_.Path(name); };
  const std::vector<std::string> tail = {"--tokens", "300", "--from", "9"};
  std::vector<std::string> first = {"--schemes", "exact,kivi-2", "--text", text_,
                                    "--json",    path("a.json"), "--plot", path("a.svg")};
  std::vector<std::string> second = {"--schemes", "fit-2/2", "--text",      text_ + "@54",
                                     "--copy",    "--json",  path("b.json")};
  for (std::vector<std::string>* arguments : {&first, &second}) {
    arguments->insert(arguments->end(), tail.begin(), tail.end());
    const Finished run = Run(*arguments);
    ASSERT_EQ(run.status, 0) << run.err;
  }
  const std::string plot = ReadFile(path("a.svg"));
  EXPECT_THAT(plot, HasSubstr("stories260K.gguf"));
  EXPECT_THAT(plot, HasSubstr(">kivi-2</text>"));
  EXPECT_THAT(plot, HasSubstr("300 tokens"));

  const auto plot_files = [&](const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {ASYMSERVE_BINARY, "quality-plot"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return RunProgram(all);
  };
  EXPECT_EQ(plot_files({"--out", path("one.svg"), path("a.json")}).status, 0);
  EXPECT_EQ(ReadFile(path("one.svg")), plot);
  EXPECT_EQ(plot_files({path("a.json"), path("b.json"), "--out", path("all.svg")}).status, 0);
  EXPECT_THAT(ReadFile(path("all.svg")), HasSubstr("A passage read again"));
  EXPECT_THAT(ReadFile(path("all.svg")), HasSubstr(">fit-2/2</text>"));

  WriteFile(path("other.json"), R"({"model": "other", "rows": []})");
  WriteFile(path("bad.json"), R"({"model": "m", "rows": [7]})");
  const struct {
    std::vector<std::string> arguments;
    int status;
    std::string message;
  } kBad[] = {
      {{"--out", path("x.svg")}, kUsage, "json is required"},
      {{path("a.json")}, kUsage, "--out is required"},
      {{path("a.json"), "--out", path("none/x.svg")}, kUsage, "out: " + path("none/x.svg")},
      {{path("none.json"), "--out", path("x.svg")}, kFailure, "none.json"},
      {{path("bad.json"), "--out", path("x.svg")}, kFailure, "bad.json: row 0 is no object"},
      {{path("other.json"), "--out", path("x.svg")}, kFailure, "no rows in " + path("other.json")},
      {{path("a.json"), path("other.json"), "--out", path("x.svg")},
       kFailure,
       "other.json: is of model 'other'"},
  };
  for (const auto& one : kBad) {
    SCOPED_TRACE(one.message);
    const Finished run = plot_files(one.arguments);
    EXPECT_EQ(run.status, one.status) << run.err;
    EXPECT_THAT(run.err, HasSubstr(one.message));
    EXPECT_FALSE(std::filesystem::exists(path("x.svg")));
  }
}

TEST_F(QualityCommandTest, WithoutACopyTestItsFieldsAreNull) {
  const std::string json = directory_.Path("out.json");
  const Finished run = Run(
      {"--schemes", "kivi-2", "--text", text_, "--tokens", "200", "--from", "190", "--json", json});
  ASSERT_EQ(run.status, 0) << run.err;
  const auto rows = nlohmann::json::parse(ReadFile(json))["rows"];
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_TRUE(rows[0]["copy_nll"].is_null() && rows[0]["copy_nll_exact"].is_null());
}

TEST_F(QualityCommandTest, BadInputIsRefusedByName) {
  const std::string bad_text = directory_.Path("bad.txt"), bad_lines = directory_.Path("bad.jsonl");
  WriteFile(bad_text, "once \xFF");
  WriteFile(bad_lines, "{\"question\": \"q\"}\n");
  const struct {
    std::vector<std::string> arguments;
    int status;
    std::string message;
  } kCases[] = {
      {{"--text", text_}, kUsage, "--schemes is required"},
      {{"--schemes", "exact"}, kUsage, "--text is required"},
      {{"--schemes", "exact", "--text", text_ + "@x"}, kUsage, "'x' is no offset"},
      {{"--schemes", "exact", "--text", text_, "--tokens", "1"}, kUsage, "tokens: 1; must be"},
      {{"--schemes", "exact", "--text", text_, "--tokens", "many"}, kUsage, "--tokens"},
      {{"--schemes", "exact", "--text", text_, "--tokens", "100", "--from", "99"},
       kUsage,
       "from: 99; must be 0 to tokens - 2 = 98"},
      {{"--schemes", "exact", "--text", text_, "--from", "-1"}, kUsage, "from: -1"},
      {{"--schemes", "exact", "--text", text_, "--tokens", "100", "--from", "8", "--copy"},
       kUsage,
       "for the copy test"},
      {{"--schemes", "exact", "--text", text_, "--json", directory_.Path("none/out.json")},
       kUsage,
       "no folder"},
      {{"--schemes", "exact", "--text", text_, "--json", directory_.path().string()},
       kUsage,
       "is a folder"},
      {{"--schemes", "exact", "--text", text_, "--plot", directory_.Path("none/out.svg")},
       kUsage,
       "plot: " + directory_.Path("none/out.svg") + ": no folder"},
      {{"--schemes", "exact", "--text", text_, "--threads", "-2"}, kUsage, "engine.threads"},
      {{"--schemes", "exact", "--text", text_}, kFailure, "tokens: 2048; the model's context is"},
      {{"--model", "none", "--schemes", "exact", "--text", text_, "--tokens", "300", "--from", "9"},
       kFailure,
       "none"},
  };
  const std::vector<std::string> kTail = {"--tokens", "300", "--from", "9"};
  const struct {
    std::string scheme, text, message;
  } kLoaded[] = {
      {"kivi-3", text_, "KV scheme 'kivi-3': unknown"},
      {"exact,asymkv-99/0", text_, "KV scheme 'asymkv-99/0': 99 layers"},
      {"fit-3/1", text_, "KV scheme 'fit-3/1'"},
      {"exact,exakt", text_, "KV scheme 'exakt': unknown"},
      {"balanced", text_, "KV scheme 'balanced': unknown; there are exact"},
      {"exact", text_ + "@999999", "the file has"},
      {"exact", text_ + "@2800", "tokens from there, need 300"},
      {"exact", bad_text, "bad.txt: invalid UTF-8 at byte 5"},
      {"exact", bad_lines, "bad.jsonl:1: has neither"},
      {"exact", directory_.Path("missing.txt"), "missing.txt"},
  };
  const auto expect = [&](const std::vector<std::string>& arguments, int status,
                          const std::string& message) {
    SCOPED_TRACE(message);
    const Finished run = Run(arguments);
    EXPECT_EQ(run.status, status) << run.err;
    EXPECT_THAT(run.err, HasSubstr(message));
    if (status == kFailure) {
      EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1);
    }
    EXPECT_EQ(run.out, "");
  };
  for (const auto& one : kCases) expect(one.arguments, one.status, one.message);
  for (const auto& one : kLoaded) {
    std::vector<std::string> arguments = {"--schemes", one.scheme, "--text", one.text};
    arguments.insert(arguments.end(), kTail.begin(), kTail.end());
    expect(arguments, kFailure, one.message);
  }
}

}  // namespace
}  // namespace asymserve::testing
