#include "engine/quality/quality_json.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/support/file_io.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace asymserve {
namespace {

using absl::StatusCode;
using testing::FailsWith;
using testing::IsOk;

QualityRow Row(const std::string& scheme, const std::string& text) {
  QualityRow row;
  row.scheme = scheme;
  row.text = text;
  row.tokens = 2048;
  row.from = 256;
  row.figures = {0.125, 1.5, 2.5, 0.75, 15.25, 1.0625};
  row.bits_sealed = 3;
  row.bits_effective = {{1024, 4.25}, {4096, 3.3125}, {8192, 3.15625}};
  return row;
}

QualityRow CopiedRow() {
  QualityRow row = Row("fit-2/2", "a.txt@7");
  row.copy_nll = 1.75;
  row.copy_nll_exact = 0.25;
  return row;
}

TEST(QualityJsonTest, HasTheFieldsThatOthersRelyOn) {
  const auto json =
      nlohmann::json::parse(QualityJson({"m.gguf", {Row("kivi-2", "b"), CopiedRow()}}));
  const auto expected = nlohmann::json::parse(R"({"model": "m.gguf", "rows": [
      {"scheme": "kivi-2", "text": "b", "tokens": 2048, "from": 256, "kl_mean": 0.125,
       "kl_p99": 1.5, "kl_p999": 2.5, "top1": 0.75, "ppl": 15.25, "ppl_ratio": 1.0625,
       "bits_sealed": 3.0, "bits_effective": {"1024": 4.25, "4096": 3.3125, "8192": 3.15625},
       "copy_nll": null, "copy_nll_exact": null},
      {"scheme": "fit-2/2", "text": "a.txt@7", "tokens": 2048, "from": 256, "kl_mean": 0.125,
       "kl_p99": 1.5, "kl_p999": 2.5, "top1": 0.75, "ppl": 15.25, "ppl_ratio": 1.0625,
       "bits_sealed": 3.0, "bits_effective": {"1024": 4.25, "4096": 3.3125, "8192": 3.15625},
       "copy_nll": 1.75, "copy_nll_exact": 0.25}]})");
  EXPECT_EQ(json, expected);
}

TEST(QualityJsonTest, WhatWasGeneratedIsAFieldOfItsOwn) {
  QualityRow row = Row("fit-2/2", "t");
  FreeRunning& run = row.free_running.emplace();
  run.prompts = 8;
  run.prompt_tokens = 1024;
  run.tokens = 64;
  run.divergence_mean = 12.25;
  run.divergence_median = 9.5;
  run.equal_tokens = 0.5;
  run.answers = {{"lines", 1024, 16, 0.75, 0.25}, {"answers", 0, 8, 0.125, std::nullopt}};
  run.copies = {{2048, 1.5, 0.25}};
  const auto json = nlohmann::json::parse(QualityJson({"m", {row}}));
  EXPECT_EQ(json["rows"][0]["free_running"], nlohmann::json::parse(R"({
      "prompts": 8, "prompt_tokens": 1024, "tokens": 64, "first_divergence_mean": 12.25,
      "first_divergence_median": 9.5, "equal_tokens": 0.5,
      "answers": [
          {"test": "lines", "tokens": 1024, "asked": 16, "exact": 0.75, "score": 0.25},
          {"test": "answers", "tokens": 0, "asked": 8, "exact": 0.125, "score": null}],
      "copy": [{"tokens": 2048, "nll": 1.5, "nll_exact": 0.25}]})"));
}

TEST(QualityJsonTest, SurvivesAFileNameThatIsNotUtf8) {
  const auto json = nlohmann::json::parse(QualityJson({"m", {Row("exact", "\xFF.txt")}}));
  EXPECT_EQ(json["rows"][0]["text"], "\xEF\xBF\xBD.txt");
}

TEST(QualityJsonTest, ReadsWhatItWrote) {
  const testing::TempDir folder;
  const std::string path = folder.Path("q.json");
  const std::string written = QualityJson({"m.gguf", {Row("kivi-2", "b"), CopiedRow()}});
  testing::WriteFile(path, written);
  const auto read = ReadQualityJson(path);
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->model, "m.gguf");
  ASSERT_EQ(read->rows.size(), 2u);
  EXPECT_EQ(QualityJson(*read), written);
  EXPECT_THAT(ReadQualityJson(folder.Path("none")),
              FailsWith(StatusCode::kNotFound, folder.Path("none")));
}

TEST(QualityJsonTest, RefusesWhatItDidNotWriteByPlace) {
  const auto good = nlohmann::json::parse(QualityJson({"m", {Row("kivi-2", "b"), CopiedRow()}}));
  const struct {
    const char* path;   // of the field that is replaced
    const char* value;  // JSON
    const char* message;
  } kCases[] = {
      {"/model", "5", "q.json: model is no text"},
      {"/rows", "{}", "q.json: rows is no list"},
      {"/rows/1", "[]", "q.json: row 1 is no object"},
      {"/rows/1/scheme", "null", "q.json: row 1: scheme is no text"},
      {"/rows/0/tokens", "-1", "q.json: row 0: tokens is no count"},
      {"/rows/0/from", "1.5", "q.json: row 0: from is no count"},
      {"/rows/0/kl_mean", "\"x\"", "q.json: row 0: kl_mean is no number"},
      {"/rows/0/bits_effective", "3", "q.json: row 0: bits_effective is no object"},
      {"/rows/0/bits_effective/x", "3", "bits_effective has a key that is no number"},
      {"/rows/0/bits_effective/1024", "null", "bits_effective is no number"},
      {"/rows/1/copy_nll", "\"x\"", "q.json: row 1: copy_nll is no number"},
  };
  for (const auto& one : kCases) {
    auto bad = good;
    bad[nlohmann::json::json_pointer(one.path)] = nlohmann::json::parse(one.value);
    EXPECT_THAT(ParseQualityJson(bad.dump(), "q.json"),
                FailsWith(StatusCode::kInvalidArgument, one.message));
  }
  EXPECT_THAT(ParseQualityJson("{", "q.json"),
              FailsWith(StatusCode::kInvalidArgument, "q.json is not valid JSON"));
  auto bare = good;
  bare["rows"][0].erase("ppl");
  EXPECT_THAT(ParseQualityJson(bare.dump(), "q.json"),
              FailsWith(StatusCode::kInvalidArgument, "row 0: ppl is no number"));
}

}  // namespace
}  // namespace asymserve
