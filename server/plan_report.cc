#include "server/plan_report.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "engine/base/json_text.h"

namespace asymserve {
namespace {

std::string Fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

/// 12,345.
std::string Grouped(int64_t value) {
  std::string text = absl::StrCat(value);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3) {
    text.insert(static_cast<size_t>(at), ",");
  }
  return text;
}

/// Rounded up, in the words of engine.memory_bytes: with so many, what was asked for fits.
std::string WholeMebibytes(int64_t bytes) {
  return absl::StrCat((bytes + (1 << 20) - 1) >> 20, "MiB");
}

std::string Name(const CapacityRow& row) {
  return absl::StrCat(row.scheme, row.assumed ? "*" : "");
}

const char* Word(CapacityRow::Quality quality) {
  switch (quality) {
    case CapacityRow::Quality::kAllowed:
      return "yes";
    case CapacityRow::Quality::kRefused:
      return "no";
    case CapacityRow::Quality::kUnmeasured:
      return "not measured";
  }
  return "?";
}

/// Columns as wide as their widest cell, the first to the left, the others to the right.
class Table {
 public:
  void Add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string Text() const {
    std::vector<size_t> widths;
    for (const std::vector<std::string>& row : rows_) {
      widths.resize(std::max(widths.size(), row.size()));
      for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    std::string text;
    for (const std::vector<std::string>& row : rows_) {
      std::string line;
      for (size_t i = 0; i < row.size(); ++i) {
        const std::string pad(widths[i] - row[i].size(), ' ');
        absl::StrAppend(&line, i == 0 ? "" : "  ", i == 0 ? row[i] + pad : pad + row[i]);
      }
      line.erase(line.find_last_not_of(' ') + 1);
      absl::StrAppend(&text, line, "\n");
    }
    return text;
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

Table CapacityTable(const PlanHead& head, std::span<const CapacityRow> rows) {
  const bool long_load = head.options.long_load.has_value();
  const bool wanted = head.options.sequences > 0;
  Table table;
  std::vector<std::string> titles = {"scheme",       "bits",    "sealed",    "sequences", "x exact",
                                     "tokens alone", "mean KL", "copy loss", "allowed"};
  if (long_load) titles.emplace_back("at p99");
  if (wanted) titles.push_back(absl::StrCat("for ", Grouped(head.options.sequences)));
  table.Add(titles);
  for (const CapacityRow& row : rows) {
    const bool fits = row.status.ok();
    const auto number = [&](const std::string& text) { return fits ? text : std::string("-"); };
    const auto loss = [&](double KvWorstLoss::*member) {
      if (row.losses.has_value()) return Fixed((*row.losses).*member, 3);
      return std::string("-");
    };
    std::vector<std::string> cells = {
        Name(row),
        number(Fixed(row.plan.effective_bits, 2)),
        number(Fixed(row.plan.sealed_bits, 2)),
        fits ? Grouped(row.plan.running) : "0",
        row.ratio_to_exact.has_value() ? Fixed(*row.ratio_to_exact, 1) : "-",
        number(Grouped(row.plan.capacity.tokens)),
        loss(&KvWorstLoss::mean_kl),
        loss(&KvWorstLoss::copy_loss),
        Word(row.quality)};
    if (long_load) {
      cells.push_back(row.long_sequences.has_value() ? Grouped(*row.long_sequences) : "-");
    }
    if (wanted) {
      cells.push_back(
          row.memory_for_sequences.has_value() ? WholeMebibytes(*row.memory_for_sequences) : "-");
    }
    table.Add(std::move(cells));
  }
  return table;
}

Table LedgerTable(std::span<const CapacityRow> rows) {
  constexpr double kMiB = 1 << 20;
  Table table;
  std::vector<std::string> titles = {"MiB"};
  for (const CapacityRow& row : rows) {
    if (row.status.ok()) titles.push_back(Name(row));
  }
  table.Add(std::move(titles));
  const auto line = [&](const std::string& name, auto value) {
    std::vector<std::string> cells = {name};
    for (const CapacityRow& row : rows) {
      if (row.status.ok()) {
        cells.push_back(Fixed(static_cast<double>(value(row.plan.ledger)) / kMiB, 1));
      }
    }
    table.Add(std::move(cells));
  };
  for (size_t i = 0; i < kLedgerRows; ++i) {
    const auto row = static_cast<LedgerRow>(i);
    std::string name = LedgerRowName(row);
    std::replace(name.begin(), name.end(), '_', ' ');
    line(name, [row](const MemoryLedger& ledger) { return ledger[row]; });
  }
  line("budget", [](const MemoryLedger& ledger) { return ledger.total(); });
  return table;
}

/// Which schemes the quality budget allows, cheapest last.
std::string QualityNote(const PlanHead& head, std::span<const CapacityRow> rows) {
  std::vector<const CapacityRow*> allowed;
  for (const CapacityRow& row : rows) {
    if (row.quality == CapacityRow::Quality::kAllowed && row.status.ok()) allowed.push_back(&row);
  }
  std::stable_sort(allowed.begin(), allowed.end(), [](const CapacityRow* a, const CapacityRow* b) {
    return a->plan.running < b->plan.running;
  });
  const auto limit = [](double nats) {
    return nats > 0 ? Fixed(nats, 3) : std::string("no limit");
  };
  std::string text =
      absl::StrCat("quality budget: mean KL ", limit(head.options.limits.max_mean_kl),
                   ", copy loss ", limit(head.options.limits.max_copy_loss), "; ");
  if (allowed.empty()) return text + "no scheme that was measured is within it\n";
  return absl::StrCat(text, "of the measured schemes ", Name(*allowed.back()),
                      " holds the most sequences within it (",
                      Grouped(allowed.back()->plan.running), ")\n");
}

std::string Notes(const PlanHead& head, std::span<const CapacityRow> rows) {
  std::string text = QualityNote(head, rows);
  int64_t most = 0;
  bool assumed = false;
  for (const CapacityRow& row : rows) {
    assumed = assumed || row.assumed;
    most = std::max(most, row.plan.running);
    if (row.status.ok()) continue;
    absl::StrAppend(&text, Name(row), " does not fit: ", std::string(row.status.message()), "\n");
  }
  if (assumed) {
    absl::StrAppend(&text,
                    "* assumed: the widths of a learned tier, not calibrated on this model "
                    "(asymserve calibrate)\n");
  }
  if (most > head.max_running) {
    absl::StrAppend(&text, "engine.max_running is ", head.max_running,
                    ": a server runs no more at once until that is raised\n");
  }
  if (head.shapes_only) {
    absl::StrAppend(&text,
                    "shapes only: workspace and tables are those of this build's backend, the "
                    "weights as dense as their type\n");
  }
  return text;
}

// ---- JSON
// -----------------------------------------------------------------------------------------

template <typename T>
std::string JsonOr(const std::optional<T>& value) {
  return value.has_value() ? absl::StrCat(*value) : "null";
}

std::string RowJson(const CapacityRow& row) {
  const bool fits = row.status.ok();
  std::vector<std::string> fields;
  const auto add = [&](const char* key, const std::string& value) {
    fields.push_back(absl::StrCat("\"", key, "\": ", value));
  };
  const auto known = [&](auto value) { return fits ? absl::StrCat(value) : std::string("null"); };
  add("scheme", JsonText(row.scheme));
  add("assumed", row.assumed ? "true" : "false");
  add("bits_effective", known(row.plan.effective_bits));
  add("bits_sealed", known(row.plan.sealed_bits));
  add("sequences", absl::StrCat(row.plan.running));
  add("ratio_to_exact", JsonOr(row.ratio_to_exact));
  add("tokens_alone", absl::StrCat(row.plan.capacity.tokens));
  add("sequences_p99", JsonOr(row.long_sequences));
  add("memory_for_sequences", JsonOr(row.memory_for_sequences));
  add("mean_kl", row.losses.has_value() ? absl::StrCat(row.losses->mean_kl) : "null");
  add("copy_loss", row.losses.has_value() ? absl::StrCat(row.losses->copy_loss) : "null");
  add("allowed", row.quality == CapacityRow::Quality::kUnmeasured ? "null"
                 : row.quality == CapacityRow::Quality::kAllowed  ? "true"
                                                                  : "false");
  add("error", fits ? "null" : JsonText(std::string(row.status.message())));
  std::vector<std::string> ledger;
  for (size_t i = 0; i < kLedgerRows; ++i) {
    const auto entry = static_cast<LedgerRow>(i);
    ledger.push_back(absl::StrCat("\"", LedgerRowName(entry), "\": ", row.plan.ledger[entry]));
  }
  add("ledger", fits ? absl::StrCat("{", absl::StrJoin(ledger, ", "), "}") : "null");
  return absl::StrCat("{", absl::StrJoin(fields, ", "), "}");
}

}  // namespace

std::string PlanText(const PlanHead& head, std::span<const CapacityRow> rows) {
  const CapacityOptions& options = head.options;
  std::string text = absl::StrCat(head.model, " in ", ReadableBytes(options.memory_bytes), " (",
                                  Grouped(options.memory_bytes), " bytes), context ",
                                  Grouped(options.context_tokens), ", sequences of ",
                                  Grouped(options.load.prompt_tokens), " prompt and ",
                                  Grouped(options.load.output_tokens), " generated tokens\n");
  if (head.trace.has_value()) {
    absl::StrAppend(&text, "lengths: means of ", Grouped(head.trace->requests),
                    " requests of a trace; p99 ", Grouped(head.trace->p99_prompt), " and ",
                    Grouped(head.trace->p99_output), "\n");
  }
  absl::StrAppend(&text, "\n", CapacityTable(head, rows).Text(), "\n");
  const bool any_fits =
      std::any_of(rows.begin(), rows.end(), [](const CapacityRow& row) { return row.status.ok(); });
  if (any_fits) absl::StrAppend(&text, LedgerTable(rows).Text(), "\n");
  return text + Notes(head, rows);
}

std::string PlanJson(const PlanHead& head, std::span<const CapacityRow> rows) {
  std::vector<std::string> lines;
  lines.reserve(rows.size());
  for (const CapacityRow& row : rows) lines.push_back("  " + RowJson(row));
  return absl::StrCat("{\"model\": ", JsonText(head.model),
                      ", \"memory_bytes\": ", head.options.memory_bytes,
                      ", \"context_tokens\": ", head.options.context_tokens,
                      ", \"prompt_tokens\": ", head.options.load.prompt_tokens,
                      ", \"output_tokens\": ", head.options.load.output_tokens, ", \"rows\": [\n",
                      absl::StrJoin(lines, ",\n"), "\n]}\n");
}

}  // namespace asymserve
