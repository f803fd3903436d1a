#include "engine/quality/svg.h"

#include <array>
#include <cstdio>

#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

constexpr double kMarkRadius = 4;
constexpr char kStyle[] =
    "<style>.card{fill:#ffffff;stroke:#d0d4da}.ink{fill:#1f2328}.soft{fill:#59626d}"
    ".grid{stroke:#e1e4e8}.axis{stroke:#59626d}text{font-family:sans-serif}"
    "@media (prefers-color-scheme:dark){.card{fill:#14181d;stroke:#3a414a}.ink{fill:#e6e9ed}"
    ".soft{fill:#a3acb7}.grid{stroke:#2a3038}.axis{stroke:#a3acb7}}</style>\n";

std::string Pixel(double value) {
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.1f", value);
  return buffer.data();
}

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c >= 0 && c < ' ' ? '?' : c;
    }
  }
  return out;
}

const char* NameOf(SvgAnchor anchor) {
  switch (anchor) {
    case SvgAnchor::kStart:
      return "start";
    case SvgAnchor::kMiddle:
      return "middle";
    case SvgAnchor::kEnd:
      return "end";
  }
  return "";
}

}  // namespace

SvgCard::SvgCard(double width, double height, std::string_view title) {
  const std::string w = Pixel(width), h = Pixel(height);
  absl::StrAppend(&out_, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", w, " ", h,
                  "\" width=\"", w, "\" height=\"", h, "\" role=\"img\">\n<title>", Escaped(title),
                  "</title>\n", kStyle);
  absl::StrAppend(&out_, "<rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"", Pixel(width - 1),
                  "\" height=\"", Pixel(height - 1), "\" rx=\"8\"/>\n");
}

void SvgCard::Text(double x, double y, std::string_view text, SvgAnchor anchor, int size,
                   std::string_view style) {
  absl::StrAppend(&out_, "<text class=\"", std::string(style), "\" x=\"", Pixel(x), "\" y=\"",
                  Pixel(y), "\" font-size=\"", size, "\" text-anchor=\"", NameOf(anchor), "\">",
                  Escaped(text), "</text>\n");
}

void SvgCard::VerticalText(double x, double y, std::string_view text) {
  absl::StrAppend(&out_, "<text class=\"soft\" transform=\"translate(", Pixel(x), ",", Pixel(y),
                  ") rotate(-90)\" font-size=\"12\" text-anchor=\"middle\">", Escaped(text),
                  "</text>\n");
}

void SvgCard::Line(double x0, double y0, double x1, double y1, std::string_view style,
                   bool dashed) {
  absl::StrAppend(&out_, "<line class=\"", std::string(style), "\" x1=\"", Pixel(x0), "\" y1=\"",
                  Pixel(y0), "\" x2=\"", Pixel(x1), "\" y2=\"", Pixel(y1), "\"",
                  dashed ? " stroke-dasharray=\"5 4\"" : "", "/>\n");
}

void SvgCard::Polyline(const std::vector<std::pair<double, double>>& points,
                       std::string_view color) {
  if (points.size() < 2) return;
  out_ += "<polyline fill=\"none\" stroke-width=\"1.5\" stroke=\"";
  absl::StrAppend(&out_, std::string(color), "\" points=\"");
  for (const auto& [x, y] : points) absl::StrAppend(&out_, Pixel(x), ",", Pixel(y), " ");
  out_.back() = '"';
  out_ += "/>\n";
}

void SvgCard::Mark(double x, double y, int shape, std::string_view color) {
  const std::string paint(color);
  const std::string fill = shape % 2 == 0 ? paint : "none";
  if (shape % 4 < 2) {
    absl::StrAppend(&out_, "<circle cx=\"", Pixel(x), "\" cy=\"", Pixel(y), "\" r=\"",
                    Pixel(kMarkRadius));
  } else {
    absl::StrAppend(&out_, "<rect x=\"", Pixel(x - kMarkRadius), "\" y=\"", Pixel(y - kMarkRadius),
                    "\" width=\"", Pixel(2 * kMarkRadius), "\" height=\"", Pixel(2 * kMarkRadius));
  }
  absl::StrAppend(&out_, "\" fill=\"", fill, "\" stroke=\"", paint, "\" stroke-width=\"1.5\"/>\n");
}

std::string SvgCard::Finish() && {
  return std::move(out_) + "</svg>\n";
}

}  // namespace asymserve
