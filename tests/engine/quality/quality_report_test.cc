#include "engine/quality/quality_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <vector>

#include <nlohmann/json.hpp>

namespace asymserve {
namespace {

using testing::HasSubstr;

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

TEST(QualityReportTest, TheJsonHasTheFieldsThatOthersRelyOn) {
  QualityRow copied = Row("fit-2/2", "a.txt@7");
  copied.copy_nll = 1.75;
  copied.copy_nll_exact = 0.25;
  const auto json = nlohmann::json::parse(QualityJson(std::vector{Row("kivi-2", "b"), copied}));
  const auto expected = nlohmann::json::parse(R"({"rows": [
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

TEST(QualityReportTest, JsonSurvivesAFileNameThatIsNotUtf8) {
  const auto json = nlohmann::json::parse(QualityJson(std::vector{Row("exact", "\xFF.txt")}));
  EXPECT_EQ(json["rows"][0]["text"], "\xEF\xBF\xBD.txt");
  EXPECT_EQ(nlohmann::json::parse(QualityJson({})), nlohmann::json::parse(R"({"rows": []})"));
}

TEST(QualityReportTest, TheTableGroupsTextsAndAlignsColumns) {
  const std::vector rows = {Row("exact", "first"), Row("exact", "second"),
                            Row("asymkv-30/0", "first")};
  const std::string table = QualityTable(rows);
  std::vector<std::string> lines;
  std::istringstream stream(table);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 8u) << table;
  EXPECT_EQ(lines[0], "first: 2048 tokens, from position 256");
  EXPECT_THAT(lines[1], HasSubstr("at 4K"));
  EXPECT_THAT(lines[2], testing::StartsWith("exact        3.00"));
  EXPECT_THAT(lines[3], testing::StartsWith("asymkv-30/0  3.00"));
  EXPECT_EQ(lines[4], "");
  EXPECT_EQ(lines[5], "second: 2048 tokens, from position 256");
  EXPECT_EQ(lines[1].size(), lines[2].size());
  EXPECT_EQ(lines[2].size(), lines[3].size());
  EXPECT_THAT(table, testing::Not(HasSubstr("copy")));
}

TEST(QualityReportTest, TheTableShowsTheCopyTestWhereItWasRun) {
  QualityRow row = Row("exact", "text");
  row.copy_nll = 0.5;
  row.copy_nll_exact = 0.25;
  const std::string table = QualityTable(std::vector{row});
  EXPECT_THAT(table, HasSubstr("copy NLL"));
  EXPECT_THAT(table, HasSubstr("0.500"));
  EXPECT_THAT(table, HasSubstr("0.250"));
}

}  // namespace
}  // namespace asymserve
