#include "engine/quality/quality_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <vector>

namespace asymserve {
namespace {

using ::testing::HasSubstr;

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
  EXPECT_THAT(lines[2], ::testing::StartsWith("exact        3.00"));
  EXPECT_THAT(lines[3], ::testing::StartsWith("asymkv-30/0  3.00"));
  EXPECT_EQ(lines[4], "");
  EXPECT_EQ(lines[5], "second: 2048 tokens, from position 256");
  EXPECT_EQ(lines[1].size(), lines[2].size());
  EXPECT_EQ(lines[2].size(), lines[3].size());
  EXPECT_THAT(table, ::testing::Not(HasSubstr("copy")));
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

TEST(QualityReportTest, WhatWasGeneratedHasATableOfItsOwn) {
  QualityRow row = Row("fit-2/2", "text");
  row.free_running = FreeRunning{
      .prompts = 8,
      .prompt_tokens = 1024,
      .tokens = 64,
      .divergence_mean = 12.25,
      .divergence_median = 9.5,
      .equal_tokens = 0.5,
      .answers = {{"lines", 1024, 16, 0.75, 0.25}, {"answers", 0, 8, 0.125, std::nullopt}},
      .copies = {{2048, 1.5, 0.25}}};
  const std::string table = QualityTable(std::vector{Row("exact", "text"), row});
  EXPECT_THAT(table, HasSubstr("8 greedy texts of up to 64 tokens after 1024 of text\n"
                               "scheme   parts at  median  equal  lines 1K  answers  copy 2K\n"
                               "fit-2/2      12.2     9.5   50 %      25 %        -    1.500\n"
                               "lines 1K: exact scores 75 % of 16\n"
                               "answers: exact scores 12 % of 8: not judged\n"
                               "copy 2K: exact 0.250\n"));
}

}  // namespace
}  // namespace asymserve
