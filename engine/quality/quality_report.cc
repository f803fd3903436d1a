#include "engine/quality/quality_report.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <vector>

#include "absl/strings/str_cat.h"

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

std::string Percent(double fraction) {
  return Number(100 * fraction, 0) + " %";
}

std::string NameOf(const AnswerScore& score) {
  return absl::StrCat(score.test, score.tokens > 0 ? " " + TokensName(score.tokens) : "");
}

Cells FreeHeadingOf(const FreeRunning& run) {
  Cells cells = {"scheme", "parts at", "median", "equal"};
  for (const AnswerScore& score : run.answers) cells.push_back(NameOf(score));
  for (const CopyScore& copy : run.copies) cells.push_back("copy " + TokensName(copy.tokens));
  return cells;
}

Cells FreeCellsOf(const std::string& scheme, const FreeRunning& run) {
  Cells cells = {scheme, Number(run.divergence_mean, 1), Number(run.divergence_median, 1),
                 Percent(run.equal_tokens)};
  for (const AnswerScore& score : run.answers) {
    cells.push_back(score.score ? Percent(*score.score) : "-");
  }
  for (const CopyScore& copy : run.copies) cells.push_back(Number(copy.nll, 3));
  return cells;
}

void AppendFreeRunning(std::span<const QualityRow> rows, const std::string& text,
                       std::string& out) {
  std::vector<Cells> lines;
  const FreeRunning* first = nullptr;
  for (const QualityRow& row : rows) {
    if (row.text != text || !row.free_running) continue;
    if (first == nullptr) {
      first = &*row.free_running;
      lines.push_back(FreeHeadingOf(*first));
    }
    lines.push_back(FreeCellsOf(row.scheme, *row.free_running));
  }
  if (first == nullptr) return;
  absl::StrAppend(&out, "\n", first->prompts, " greedy texts of up to ", first->tokens,
                  " tokens after ", first->prompt_tokens, " of ", text, "\n");
  AppendAligned(lines, out);
  for (const AnswerScore& score : first->answers) {
    absl::StrAppend(&out, NameOf(score), ": exact scores ", Percent(score.exact), " of ",
                    score.asked, score.judged() ? "" : ": not judged", "\n");
  }
  for (const CopyScore& copy : first->copies) {
    absl::StrAppend(&out, "copy ", TokensName(copy.tokens), ": exact ", Number(copy.nll_exact, 3),
                    "\n");
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
    AppendFreeRunning(rows, text, table);
  }
  return table;
}

}  // namespace asymserve
