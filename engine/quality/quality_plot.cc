#include "engine/quality/quality_plot.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "engine/quality/log_axis.h"
#include "engine/quality/svg.h"

namespace asymserve {
namespace {

constexpr int64_t kTokens = 4096;  // whose bits per element are shown
constexpr double kPanelWidth = 470;
constexpr double kFieldHeight = 350;
constexpr double kAbove = 90, kBelow = 78;  // a panel's field, without its legend
constexpr double kLegendLine = 16;
constexpr double kLeftMargin = 66, kRightMargin = 16;
constexpr double kLabelHeight = 12, kLabelCharacter = 6.3;  // pixels of a name, roughly

struct Family {
  const char* name;
  const char* color;
};
constexpr std::array<Family, 4> kFamilies = {{{"exact, int8", "#868e99"},
                                              {"KIVI, AsymKV", "#d9672c"},
                                              {"fitted", "#3583d6"},
                                              {"learned", "#1e9e62"}}};

size_t FamilyOf(const std::string& scheme) {
  if (scheme == "exact" || scheme == "int8") return 0;
  if (scheme.starts_with("kivi-") || scheme.starts_with("asymkv-")) return 1;
  return scheme.starts_with("fit-") ? 2 : 3;
}

struct Point {
  std::string scheme;
  int text = 0;  // number of its text in the panel
  double bits = 0;
  double loss = 0;
};

struct Panel {
  std::string title, unit;
  std::vector<std::string> texts;
  std::vector<Point> points;
  std::vector<double> exact;  // by text; empty: not shown
};

struct Box {
  double left, top, right, bottom;
  int cost = 0;  // of writing over it
};
constexpr int kLineCost = 1, kMarkCost = 2, kNameCost = 4, kOutsideCost = 1000;

bool Overlap(const Box& a, const Box& b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

std::string Short(double value) {
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.3g", value);
  return buffer.data();
}

double BitsOf(const QualityRow& row) {
  const auto found = row.bits_effective.find(kTokens);
  return found == row.bits_effective.end() ? row.bits_sealed : found->second;
}

int TextNumber(Panel& panel, const QualityRow& row) {
  const std::string name = row.text.substr(row.text.rfind('/') + 1);
  const auto found = std::find(panel.texts.begin(), panel.texts.end(), name);
  if (found == panel.texts.end()) panel.texts.push_back(name);
  return static_cast<int>(std::find(panel.texts.begin(), panel.texts.end(), name) -
                          panel.texts.begin());
}

Panel DivergencePanel(const QualityResult& result) {
  Panel panel;
  panel.title = "New text";
  panel.unit = "mean KL(exact, scheme), nats per token";
  const auto plain = [](const QualityRow& row) { return !row.copy_nll.has_value(); };
  const bool any_plain = std::any_of(result.rows.begin(), result.rows.end(), plain);
  for (const QualityRow& row : result.rows) {
    if (any_plain && !plain(row)) continue;
    const int text = TextNumber(panel, row);
    panel.points.push_back({row.scheme, text, BitsOf(row), row.figures.kl_mean});
  }
  return panel;
}

Panel CopyPanel(const QualityResult& result) {
  Panel panel;
  panel.title = "A passage read again";
  panel.unit = "negative log-likelihood, nats per token";
  for (const QualityRow& row : result.rows) {
    if (!row.copy_nll) continue;
    const int text = TextNumber(panel, row);
    panel.points.push_back({row.scheme, text, BitsOf(row), *row.copy_nll});
    panel.exact.resize(panel.texts.size());
    panel.exact[static_cast<size_t>(text)] = row.copy_nll_exact.value_or(0);
  }
  return panel;
}

class PanelPainter {
 public:
  /// The field begins at (left + kLeftMargin, top).
  PanelPainter(SvgCard& svg, const Panel& panel, double left, double top)
      : svg_(svg),
        panel_(panel),
        left_(left + kLeftMargin),
        right_(left + kPanelWidth - kRightMargin),
        top_(top),
        bottom_(top + kFieldHeight) {
    std::vector<double> bits, losses = panel.exact;
    for (const Point& point : panel.points) {
      bits.push_back(point.bits);
      losses.push_back(point.loss);
    }
    x_ = AxisAround(bits, left_, right_);
    y_ = AxisAround(losses, bottom_, top_);
    // Bits span little: the range ends where the schemes do.
    if (const auto [least, most] = std::minmax_element(bits.begin(), bits.end());
        least != bits.end() && *least > 0) {
      x_.low = *least * 0.85;
      x_.high = *most * 1.18;
    }
  }

  void Paint() {
    PaintAxes();
    PaintExact();
    PaintLegend();
    PaintMarks();
    PaintNames();
  }

 private:
  double YOf(const Point& point) const { return point.loss > 0 ? y_.At(point.loss) : bottom_; }

  void PaintAxes() {
    for (const double tick : y_.Ticks()) {
      svg_.Line(left_, y_.At(tick), right_, y_.At(tick), "grid");
      svg_.Text(left_ - 6, y_.At(tick) + 4, Short(tick), SvgAnchor::kEnd, 11, "soft");
    }
    for (const double tick : {0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0}) {
      if (tick < x_.low || tick > x_.high) continue;
      svg_.Line(x_.At(tick), top_, x_.At(tick), bottom_, "grid");
      svg_.Text(x_.At(tick), bottom_ + 16, Short(tick), SvgAnchor::kMiddle, 11, "soft");
    }
    svg_.Line(left_, bottom_, right_, bottom_, "axis");
    svg_.Line(left_, top_, left_, bottom_, "axis");
    svg_.VerticalText(left_ - 48, (top_ + bottom_) / 2, panel_.unit);
    svg_.Text((left_ + right_) / 2, bottom_ + 34, "bits per element of 4,096 tokens in all",
              SvgAnchor::kMiddle, 12, "soft");
  }

  void PaintExact() {
    for (const double exact : panel_.exact) {
      if (!(exact > 0)) continue;
      const double y = y_.At(exact);
      svg_.Line(left_, y, right_, y, "axis", true);
      taken_.push_back({left_, y - 1, right_, y + 1, kLineCost});
    }
  }

  /// Above the field: the title, then a line per text.
  void PaintLegend() {
    double y = top_ - 8 - kLegendLine * static_cast<double>(panel_.texts.size());
    svg_.Text(left_, y, panel_.title, SvgAnchor::kStart, 13);
    for (size_t i = 0; i < panel_.texts.size(); ++i) {
      y += kLegendLine;
      const std::string exact = i < panel_.exact.size()
                                    ? absl::StrCat(", exact ", Short(panel_.exact[i]), " (dashed)")
                                    : "";
      svg_.Mark(left_ + 6, y - 4, static_cast<int>(i), kFamilies[0].color);
      svg_.Text(left_ + 18, y, panel_.texts[i] + exact, SvgAnchor::kStart, 11, "soft");
    }
  }

  void PaintMarks() {
    for (const Point& point : panel_.points) {
      const double x = x_.At(point.bits), y = YOf(point);
      svg_.Mark(x, y, point.text, kFamilies[FamilyOf(point.scheme)].color);
      taken_.push_back({x - 5, y - 5, x + 5, y + 5, kMarkCost});
    }
  }

  /// Each scheme's name beside one of its marks, where there is most room.
  void PaintNames() {
    std::vector<std::string> named;
    for (const Point& point : panel_.points) {
      if (std::find(named.begin(), named.end(), point.scheme) != named.end()) continue;
      named.push_back(point.scheme);
      PaintName(point.scheme);
    }
  }

  int CostOf(const Box& box) const {
    const bool outside =
        box.left < left_ || box.right > right_ || box.top < top_ - 4 || box.bottom > bottom_;
    int cost = outside ? kOutsideCost : 0;
    for (const Box& other : taken_) cost += Overlap(box, other) ? other.cost : 0;
    return cost;
  }

  void PaintName(const std::string& scheme) {
    const bool loses =
        std::any_of(panel_.points.begin(), panel_.points.end(),
                    [&](const Point& point) { return point.scheme == scheme && point.loss > 0; });
    const std::string name = loses ? scheme : scheme + ": 0";  // which the axis has no place for
    const double width = kLabelCharacter * static_cast<double>(name.size());
    std::optional<Box> best;
    int least = 0;
    for (const Point& point : panel_.points) {
      if (point.scheme != scheme) continue;
      const double x = x_.At(point.bits), y = YOf(point);
      const double over = x - width / 2, right = x + 8, left = x - 8 - width;
      const std::array<std::pair<double, double>, 10> places = {{{over, y - 8},
                                                                 {right, y + 4},
                                                                 {left, y + 4},
                                                                 {over, y + 17},
                                                                 {right, y - 6},
                                                                 {left, y - 6},
                                                                 {right, y + 15},
                                                                 {left, y + 15},
                                                                 {over, y + 22},
                                                                 {over, y - 13}}};
      for (const auto& [begin, base] : places) {
        const Box box = {begin, base - kLabelHeight + 2, begin + width, base + 3, kNameCost};
        const int cost = CostOf(box);
        if (best && cost >= least) continue;
        best = box;
        least = cost;
      }
    }
    if (!best) return;
    svg_.Text(best->left, best->bottom - 3, name, SvgAnchor::kStart, 11);
    taken_.push_back(*best);
  }

  SvgCard& svg_;
  const Panel& panel_;
  const double left_, right_, top_, bottom_;
  LogAxis x_, y_;
  std::vector<Box> taken_;
};

void PaintFamilies(SvgCard& svg, double y) {
  double x = kLeftMargin;
  for (const Family& family : kFamilies) {
    svg.Mark(x, y - 4, 0, family.color);
    svg.Text(x + 10, y, family.name, SvgAnchor::kStart, 11, "soft");
    x += 34 + kLabelCharacter * static_cast<double>(std::string_view(family.name).size());
  }
}

}  // namespace

std::string QualityPlot(const QualityResult& result) {
  std::vector<Panel> panels = {DivergencePanel(result)};
  if (Panel copy = CopyPanel(result); !copy.points.empty()) panels.push_back(std::move(copy));
  size_t texts = 0;
  for (const Panel& panel : panels) texts = std::max(texts, panel.texts.size());
  const double width = kPanelWidth * static_cast<double>(panels.size());
  const double top = kAbove + kLegendLine * static_cast<double>(texts);
  const double height = top + kFieldHeight + kBelow;
  constexpr char kTitle[] = "What the KV cache loses";
  SvgCard svg(width, height, absl::StrCat(kTitle, ": ", result.model));
  svg.Text(kLeftMargin, 26, kTitle, SvgAnchor::kStart, 15);
  svg.Text(kLeftMargin, 43, result.model, SvgAnchor::kStart, 11, "soft");
  if (!result.rows.empty()) {
    const QualityRow& row = result.rows.front();
    svg.Text(kLeftMargin, 58,
             absl::StrCat("pseudo-decode of ", row.tokens, " tokens a text, positions from ",
                          row.from, " on"),
             SvgAnchor::kStart, 11, "soft");
  }
  for (size_t i = 0; i < panels.size(); ++i) {
    PanelPainter(svg, panels[i], kPanelWidth * static_cast<double>(i), top).Paint();
  }
  PaintFamilies(svg, height - 16);
  return std::move(svg).Finish();
}

}  // namespace asymserve
