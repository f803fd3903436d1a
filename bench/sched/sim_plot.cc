#include "bench/sched/sim_plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "engine/quality/svg.h"

namespace asymserve {
namespace {

constexpr double kPanelWidth = 470, kFieldHeight = 320;
constexpr double kAbove = 92, kBelow = 78;
constexpr double kLeftMargin = 66, kRightMargin = 20;
constexpr double kCharacter = 6.3;  // pixels, roughly
constexpr double kCarried = 0.9;    // goodput over offered load of a load that is carried

using Points = std::vector<std::pair<double, double>>;

std::string Short(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.3g", value);
  return buffer;
}

/// Of a tick: a round number, so no digits are lost.
std::string Plain(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.8g", value);
  return buffer;
}

const char* ColorOf(std::string_view scheme) {
  if (scheme == "exact") return "#868e99";
  if (scheme == "int8") return "#b0883c";
  if (scheme.starts_with("kivi-") || scheme.starts_with("asymkv-")) return "#d9672c";
  if (scheme.starts_with("fit-")) return "#3583d6";
  if (scheme == "light") return "#7fc241";
  return scheme == "dense" ? "#8a5cd1" : "#1e9e62";
}

/// A linear axis from 0.
struct Axis {
  double high = 1;  // > 0
  double begin = 0, end = 1;

  double At(double value) const { return begin + (end - begin) * value / high; }
  /// 1, 2 or 5 times a power of ten that gives four to nine ticks.
  double Step() const {
    const double decade = std::pow(10.0, std::floor(std::log10(high)));
    for (const double part : {0.1, 0.2, 0.5}) {
      if (high / (decade * part) < 10) return decade * part;
    }
    return decade;
  }
};

struct Series {
  std::string name;
  Points points;
  bool marks = false;
};

struct Panel {
  std::string title, x_unit, y_unit;
  std::vector<Series> series;
  bool diagonal = false;
};

void PaintField(SvgCard& svg, const Panel& panel, const Axis& x, const Axis& y) {
  for (double tick = 0; tick <= y.high * 1.0001; tick += y.Step()) {
    svg.Line(x.begin, y.At(tick), x.end, y.At(tick), "grid");
    svg.Text(x.begin - 6, y.At(tick) + 4, Plain(tick), SvgAnchor::kEnd, 11, "soft");
  }
  for (double tick = 0; tick <= x.high * 1.0001; tick += x.Step()) {
    svg.Line(x.At(tick), y.begin, x.At(tick), y.end, "grid");
    svg.Text(x.At(tick), y.begin + 16, Plain(tick), SvgAnchor::kMiddle, 11, "soft");
  }
  svg.Line(x.begin, y.begin, x.end, y.begin, "axis");
  svg.Line(x.begin, y.begin, x.begin, y.end, "axis");
  svg.VerticalText(x.begin - 48, (y.begin + y.end) / 2, panel.y_unit);
  svg.Text((x.begin + x.end) / 2, y.begin + 34, panel.x_unit, SvgAnchor::kMiddle, 12, "soft");
  svg.Text(x.begin, y.end - 10, panel.title, SvgAnchor::kStart, 13);
}

void PaintPanel(SvgCard& svg, const Panel& panel, double left) {
  Axis x{0, left + kLeftMargin, left + kPanelWidth - kRightMargin};
  Axis y{0, kAbove + kFieldHeight, kAbove};
  for (const Series& series : panel.series) {
    for (const auto& [px, py] : series.points) {
      x.high = std::max(x.high, px);
      y.high = std::max(y.high, py);
    }
  }
  if (!(x.high > 0)) x.high = 1;
  if (!(y.high > 0)) y.high = 1;
  x.high *= 1.02;
  y.high *= 1.05;
  PaintField(svg, panel, x, y);
  if (panel.diagonal) {
    const double end = std::min(x.high, y.high);
    svg.Line(x.At(0), y.At(0), x.At(end), y.At(end), "axis", true);
  }
  for (const Series& series : panel.series) {
    Points pixels;
    for (const auto& [px, py] : series.points) pixels.emplace_back(x.At(px), y.At(py));
    svg.Polyline(pixels, ColorOf(series.name));
    if (!series.marks) continue;
    for (const auto& [px, py] : pixels) svg.Mark(px, py, 0, ColorOf(series.name));
  }
}

/// The runs of each load are neighbours: the index of the first run of the load to show.
size_t LoadToShow(const SweepResult& result) {
  const size_t schemes = result.schemes.size();
  for (size_t i = 0; i < result.runs.size(); ++i) {
    const SimFigures& figures = result.runs[i].figures;
    if (figures.goodput_per_second < kCarried * figures.offered_per_second) {
      return i / schemes * schemes;
    }
  }
  return result.runs.size() - schemes;
}

Panel GoodputPanel(const SweepResult& result) {
  Panel panel = {.title = absl::StrCat("Good requests: TTFT up to ", result.limits.ttft_ms / 1000,
                                       " s, TPOT up to ", result.limits.tpot_ms, " ms"),
                 .x_unit = "offered, requests per second",
                 .y_unit = "good, requests per second",
                 .series = {},
                 .diagonal = true};
  for (const SweepScheme& scheme : result.schemes) {
    Series series = {.name = scheme.name, .points = {}, .marks = true};
    for (const SweepRun& run : result.runs) {
      if (run.figures.scheme != scheme.name) continue;
      series.points.emplace_back(run.figures.offered_per_second, run.figures.goodput_per_second);
    }
    std::sort(series.points.begin(), series.points.end());
    panel.series.push_back(std::move(series));
  }
  return panel;
}

Panel MemoryPanel(const SweepResult& result) {
  const size_t first = LoadToShow(result);
  Panel panel = {
      .title = absl::StrCat("The KV arena at ",
                            Short(result.runs[first].figures.offered_per_second), " requests/s"),
      .x_unit = "seconds",
      .y_unit = "slabs in use, %",
      .series = {}};
  for (size_t i = first; i < first + result.schemes.size(); ++i) {
    Series series = {.name = result.runs[i].figures.scheme, .points = {}};
    for (const MemorySample& sample : result.runs[i].memory) {
      series.points.emplace_back(static_cast<double>(sample.at) * 1e-6, 100 * sample.used);
    }
    panel.series.push_back(std::move(series));
  }
  return panel;
}

}  // namespace

std::string SweepPlot(const SweepResult& result) {
  constexpr char kTitle[] = "Simulated serving at equal KV bytes";
  const double height = kAbove + kFieldHeight + kBelow;
  SvgCard svg(2 * kPanelWidth, height, absl::StrCat(kTitle, ": ", result.machine));
  const std::string about =
      absl::StrCat(result.machine, ", ", result.load, ", arena of ",
                   Plain(std::round(static_cast<double>(result.setup.kv_bytes) * 1e-6)),
                   " MB, at most ", result.setup.max_running, " running");
  svg.Text(kLeftMargin, 26, kTitle, SvgAnchor::kStart, 15);
  svg.Text(kLeftMargin, 46, about, SvgAnchor::kStart, 11, "soft");
  PaintPanel(svg, GoodputPanel(result), 0);
  PaintPanel(svg, MemoryPanel(result), kPanelWidth);
  double x = kLeftMargin;
  for (const SweepScheme& scheme : result.schemes) {
    const std::string name =
        absl::StrCat(scheme.name, " (", Short(scheme.bits_per_element), " bits)");
    svg.Mark(x, height - 20, 0, ColorOf(scheme.name));
    svg.Text(x + 10, height - 16, name, SvgAnchor::kStart, 11, "soft");
    x += 34 + kCharacter * static_cast<double>(name.size());
  }
  return std::move(svg).Finish();
}

}  // namespace asymserve
