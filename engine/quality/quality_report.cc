#include "engine/quality/quality_report.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <vector>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

namespace asymserve {
namespace {

using Cells = std::vector<std::string>;

std::string Number(double value, int decimals) {
  std::array<char, 64> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.*f", decimals, value);
  return buffer.data();
}

/// 1024 -> "1K".
std::string TokensName(int64_t tokens) {
  return tokens % 1024 == 0 ? absl::StrCat(tokens / 1024, "K") : absl::StrCat(tokens);
}

Cells HeadingOf(const QualityRow& row) {
  Cells cells = {"scheme", "b/e"};
  for (const auto& [tokens, bits] : row.bits_effective) cells.push_back("at " + TokensName(tokens));
  for (const char* name : {"KL", "KL p99", "KL p99.9", "top-1", "ppl", "ratio"}) {
    cells.emplace_back(name);
  }
  if (row.copy_nll) cells.insert(cells.end(), {"copy NLL", "exact"});
  return cells;
}

Cells CellsOf(const QualityRow& row) {
  Cells cells = {row.scheme, Number(row.bits_sealed, 2)};
  for (const auto& [tokens, bits] : row.bits_effective) cells.push_back(Number(bits, 2));
  const QualityFigures& f = row.figures;
  cells.insert(cells.end(), {Number(f.kl_mean, 4), Number(f.kl_p99, 3), Number(f.kl_p999, 3),
                             Number(f.same_top, 3), Number(f.ppl, 2), Number(f.ppl_ratio, 3)});
  if (row.copy_nll) {
    cells.push_back(Number(*row.copy_nll, 3));
    cells.push_back(Number(row.copy_nll_exact.value_or(0), 3));
  }
  return cells;
}

/// Columns two spaces apart, the first left-aligned, the others right-aligned.
void AppendAligned(std::span<const Cells> lines, std::string& out) {
  std::vector<size_t> widths;
  for (const Cells& line : lines) {
    widths.resize(std::max(widths.size(), line.size()));
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  for (const Cells& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - line[i].size(), ' ');
      out += i == 0 ? line[i] + padding : "  " + padding + line[i];
    }
    out += '\n';
  }
}

}  // namespace

std::string QualityTable(std::span<const QualityRow> rows) {
  std::vector<std::string> texts;
  for (const QualityRow& row : rows) {
    if (std::find(texts.begin(), texts.end(), row.text) == texts.end()) texts.push_back(row.text);
  }
  std::string table;
  for (const std::string& text : texts) {
    std::vector<Cells> lines;
    for (const QualityRow& row : rows) {
      if (row.text != text) continue;
      if (lines.empty()) {
        absl::StrAppend(&table, table.empty() ? "" : "\n", text, ": ", row.tokens,
                        " tokens, from position ", row.from, "\n");
        lines.push_back(HeadingOf(row));
      }
      lines.push_back(CellsOf(row));
    }
    AppendAligned(lines, table);
  }
  return table;
}

std::string QualityJson(std::span<const QualityRow> rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const QualityRow& row : rows) {
    nlohmann::ordered_json item;
    item["scheme"] = row.scheme;
    item["text"] = row.text;
    item["tokens"] = row.tokens;
    item["from"] = row.from;
    item["kl_mean"] = row.figures.kl_mean;
    item["kl_p99"] = row.figures.kl_p99;
    item["kl_p999"] = row.figures.kl_p999;
    item["top1"] = row.figures.same_top;
    item["ppl"] = row.figures.ppl;
    item["ppl_ratio"] = row.figures.ppl_ratio;
    item["bits_sealed"] = row.bits_sealed;
    nlohmann::ordered_json effective = nlohmann::ordered_json::object();
    for (const auto& [tokens, bits] : row.bits_effective) effective[absl::StrCat(tokens)] = bits;
    item["bits_effective"] = effective;
    item["copy_nll"] = row.copy_nll ? nlohmann::ordered_json(*row.copy_nll) : nullptr;
    item["copy_nll_exact"] =
        row.copy_nll_exact ? nlohmann::ordered_json(*row.copy_nll_exact) : nullptr;
    list.push_back(std::move(item));
  }
  const nlohmann::ordered_json document = {{"rows", std::move(list)}};
  constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;  // of odd file names
  return document.dump(2, ' ', false, kReplace) + "\n";
}

}  // namespace asymserve
