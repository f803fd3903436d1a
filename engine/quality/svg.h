#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace asymserve {

enum class SvgAnchor { kStart, kMiddle, kEnd };

/// Builds an SVG picture of a card with text and marks, in pixels from its upper left corner. The
/// card brings its own background, and is dark where the reader prefers dark. No fonts, scripts or
/// files from elsewhere.
class SvgCard {
 public:
  SvgCard(double width, double height, std::string_view title);

  /// `style`: "ink" (text), "soft" (less of it) or "grid"; strings are escaped.
  void Text(double x, double y, std::string_view text, SvgAnchor anchor = SvgAnchor::kStart,
            int size = 12, std::string_view style = "ink");
  /// Text that runs upwards, centred at (x, y).
  void VerticalText(double x, double y, std::string_view text);
  void Line(double x0, double y0, double x1, double y1, std::string_view style,
            bool dashed = false);
  /// From point to point (x, y); nothing for fewer than two. `color` as #rrggbb.
  void Polyline(const std::vector<std::pair<double, double>>& points, std::string_view color);
  /// Shape 0: disc, 1: ring, 2: filled square, 3: empty square; others repeat. `color` as #rrggbb.
  void Mark(double x, double y, int shape, std::string_view color);

  /// The document.
  std::string Finish() &&;

 private:
  std::string out_;
};

}  // namespace asymserve
