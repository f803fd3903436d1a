#include "engine/quality/quality_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace asymserve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

QualityRow Row(const std::string& scheme, const std::string& text, double bits, double kl) {
  QualityRow row;
  row.scheme = scheme;
  row.text = text;
  row.tokens = 2048;
  row.from = 256;
  row.figures.kl_mean = kl;
  row.bits_sealed = bits;
  row.bits_effective = {{1024, 4 * bits}, {4096, 2 * bits}};
  return row;
}

QualityRow CopyRow(const std::string& scheme, const std::string& text, double bits, double nll) {
  QualityRow row = Row(scheme, text, bits, 0.5);
  row.copy_nll = nll;
  row.copy_nll_exact = 0.25;
  return row;
}

int Count(std::string_view text, std::string_view part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

/// The number behind `attribute="` in the last element that begins with `element`.
double Attribute(const std::string& svg, const std::string& element, const std::string& attribute) {
  const size_t at = svg.find(attribute + "=\"", svg.rfind("<" + element));
  return std::strtod(svg.c_str() + at + attribute.size() + 2, nullptr);
}

/// Elements are closed in order, and attributes quoted.
bool IsWellFormed(std::string_view svg) {
  std::vector<std::string_view> open;
  while (!svg.empty()) {
    const size_t begin = svg.find('<');
    if (begin == std::string_view::npos) break;
    const size_t end = svg.find('>', begin);
    if (end == std::string_view::npos) return false;
    std::string_view tag = svg.substr(begin + 1, end - begin - 1);
    svg.remove_prefix(end + 1);
    if (Count(tag, "\"") % 2 != 0 || tag.find('<') != std::string_view::npos) return false;
    if (tag.ends_with('/')) continue;
    if (!tag.starts_with('/')) {
      open.push_back(tag.substr(0, tag.find_first_of(" >")));
      continue;
    }
    if (open.empty() || open.back() != tag.substr(1)) return false;
    open.pop_back();
  }
  return open.empty();
}

TEST(QualityPlotTest, EverySchemeIsAMarkPerTextAndANameOnce) {
  const QualityResult result = {"model.gguf",
                                {Row("exact", "a/w.txt", 16, 0), Row("kivi-2", "a/w.txt", 3, 0.2),
                                 Row("balanced", "a/w.txt", 1, 0.04), Row("exact", "g", 16, 0),
                                 Row("kivi-2", "g", 3, 0.25), Row("balanced", "g", 1, 0.03)}};
  const std::string svg = QualityPlot(result);
  EXPECT_TRUE(IsWellFormed(svg)) << svg;
  EXPECT_THAT(svg, HasSubstr(">model.gguf</text>"));
  EXPECT_THAT(svg, HasSubstr("2048 tokens"));
  EXPECT_THAT(svg, HasSubstr(">w.txt</text>"));
  for (const char* scheme : {"exact: 0", "kivi-2", "balanced"}) {
    EXPECT_EQ(Count(svg, ">" + std::string(scheme) + "</text>"), 1) << scheme;
  }
  // Six marks, two in the legend of texts, four in that of families.
  EXPECT_EQ(Count(svg, "<circle"), 6 + 2 + 4);
  EXPECT_EQ(Count(svg, "fill=\"none\""), 3 + 1);
  EXPECT_THAT(svg, Not(HasSubstr("read again")));
}

TEST(QualityPlotTest, LossGrowsUpwardsAndBitsToTheRight) {
  const auto last_mark = [](const QualityRow& row) {
    const std::string svg =
        QualityPlot({"m", {Row("kivi-4", "t", 5, 0.01), Row("x", "t", 1, 1), row}});
    const std::string marks = svg.substr(0, svg.find(">exact, int8"));
    const std::string before = marks.substr(0, marks.rfind("<circle"));  // of the family
    return std::pair(Attribute(before, "circle", "cx"), Attribute(before, "circle", "cy"));
  };
  const auto [x, y] = last_mark(Row("fit-2/2", "t", 2, 0.1));
  const auto [x_more, y_more] = last_mark(Row("fit-2/2", "t", 3, 0.2));
  const auto [x_zero, y_zero] = last_mark(Row("fit-2/2", "t", 3, 0));
  EXPECT_GT(x_more, x);
  EXPECT_LT(y_more, y);
  EXPECT_EQ(x_zero, x_more);
  EXPECT_GT(y_zero, y);  // on the lower edge
}

TEST(QualityPlotTest, TheCopyTestHasAPanelWithExactDashed) {
  const std::string svg = QualityPlot({"m",
                                       {Row("kivi-2", "w", 3, 0.2), CopyRow("kivi-2", "w@4", 3, 2),
                                        CopyRow("light", "w@4", 1.5, 0.3)}});
  EXPECT_TRUE(IsWellFormed(svg));
  EXPECT_THAT(svg, HasSubstr("A passage read again"));
  EXPECT_THAT(svg, HasSubstr("w@4, exact 0.25 (dashed)"));
  EXPECT_EQ(Count(svg, "stroke-dasharray"), 1);
  EXPECT_EQ(Count(svg, ">kivi-2</text>"), 2);  // in either panel
  EXPECT_EQ(Count(svg, ">light</text>"), 1);   // KL is shown of the other text
}

TEST(QualityPlotTest, TextsOfTheCopyTestShowTheirKlWhereNoOtherDoes) {
  const std::string svg = QualityPlot({"m", {CopyRow("light", "w", 1.5, 0.3)}});
  EXPECT_EQ(Count(svg, ">light</text>"), 2);
}

TEST(QualityPlotTest, NamesAreEscapedAndNothingComesFromElsewhere) {
  const std::string svg = QualityPlot({"<m>&\"", {Row("a<b", "x&y.txt", 2, 0.1)}});
  EXPECT_TRUE(IsWellFormed(svg)) << svg;
  EXPECT_THAT(svg, HasSubstr("&lt;m&gt;&amp;&quot;"));
  EXPECT_THAT(svg, HasSubstr(">a&lt;b</text>"));
  EXPECT_THAT(svg, HasSubstr("x&amp;y.txt"));
  EXPECT_THAT(svg, HasSubstr("prefers-color-scheme:dark"));
  EXPECT_EQ(Count(svg, "http"), 1);  // the name space
}

TEST(QualityPlotTest, NoNameCoversAnotherOrLeavesThePicture) {
  std::vector<QualityRow> rows;
  const struct {
    const char* scheme;
    double bits, kl;
  } kSchemes[] = {
      {"exact", 8, 0.0021},       {"int8", 4.1, 0.003},       {"kivi-4", 2.8, 0.008},
      {"kivi-2", 1.83, 0.19},     {"asymkv-30/0", 1.58, 0.9}, {"asymkv-0/30", 1.58, 4.5},
      {"asymkv-15/0", 1.46, 4.5}, {"fit-2/2", 1.5, 0.086},    {"fit-2/1", 1.27, 0.177},
      {"light", 0.96, 0.031},     {"balanced", 0.73, 0.041},  {"dense", 0.62, 0.054}};
  for (const auto& one : kSchemes) rows.push_back(Row(one.scheme, "t", one.bits, one.kl));
  const std::string svg = QualityPlot({"m", rows});
  struct Name {
    double x, y, width;
  };
  std::vector<Name> names;
  for (const auto& one : kSchemes) {
    const size_t at = svg.find(">" + std::string(one.scheme) + "</text>");
    ASSERT_NE(at, std::string::npos);
    const std::string element = svg.substr(0, at);
    names.push_back({Attribute(element, "text", "x"), Attribute(element, "text", "y"),
                     6 * static_cast<double>(std::string_view(one.scheme).size())});
  }
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_GT(names[i].x, 0);
    EXPECT_LT(names[i].x + names[i].width, Attribute(svg, "svg", "width"));
    for (size_t j = 0; j < i; ++j) {
      const bool beside =
          names[i].x + names[i].width <= names[j].x || names[j].x + names[j].width <= names[i].x;
      const bool apart = std::abs(names[i].y - names[j].y) >= 10;
      EXPECT_TRUE(beside || apart) << kSchemes[i].scheme << " " << kSchemes[j].scheme;
    }
  }
}

}  // namespace
}  // namespace asymserve
