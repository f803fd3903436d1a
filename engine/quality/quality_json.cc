#include "engine/quality/quality_json.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "engine/base/mapped_file.h"
#include "engine/base/status.h"
#include "engine/model/json_document.h"

namespace asymserve {
namespace {

using Json = nlohmann::ordered_json;

Json OrNull(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json FreeRunningJson(const FreeRunning& run) {
  Json item;
  item["prompts"] = run.prompts;
  item["prompt_tokens"] = run.prompt_tokens;
  item["tokens"] = run.tokens;
  item["first_divergence_mean"] = run.divergence_mean;
  item["first_divergence_median"] = run.divergence_median;
  item["equal_tokens"] = run.equal_tokens;
  Json answers = Json::array(), copies = Json::array();
  for (const AnswerScore& score : run.answers) {
    answers.push_back({{"test", score.test},
                       {"tokens", score.tokens},
                       {"asked", score.asked},
                       {"exact", score.exact},
                       {"score", OrNull(score.score)}});
  }
  for (const CopyScore& copy : run.copies) {
    copies.push_back({{"tokens", copy.tokens}, {"nll", copy.nll}, {"nll_exact", copy.nll_exact}});
  }
  item["answers"] = std::move(answers);
  item["copy"] = std::move(copies);
  return item;
}

/// Reads the fields of one object; the first error stays.
class Fields {
 public:
  Fields(const nlohmann::json& object, std::string where)
      : object_(object), where_(std::move(where)) {}

  std::string Text(const char* name) {
    const nlohmann::json* value = Find(name);
    if (value != nullptr && value->is_string()) return value->get<std::string>();
    Fail(name, "is no text");
    return "";
  }
  double Number(const char* name) { return Finite(Find(name), name); }
  int32_t Count(const char* name) {
    const double value = Number(name);
    if (value >= 0 && value <= std::numeric_limits<int32_t>::max() && value == std::floor(value)) {
      return static_cast<int32_t>(value);
    }
    Fail(name, "is no count");
    return 0;
  }
  std::optional<double> Optional(const char* name) {
    const nlohmann::json* value = Find(name);
    if (value == nullptr || value->is_null()) return std::nullopt;
    return Finite(value, name);
  }
  std::map<int64_t, double> ByTokens(const char* name) {
    std::map<int64_t, double> values;
    const nlohmann::json* object = Find(name);
    if (object == nullptr || !object->is_object()) {
      Fail(name, "is no object");
      return values;
    }
    for (const auto& [key, value] : object->items()) {
      int64_t tokens = 0;
      const char* const end = key.data() + key.size();
      const auto parsed = std::from_chars(key.data(), end, tokens);
      if (parsed.ec != std::errc() || parsed.ptr != end) Fail(name, "has a key that is no number");
      values[tokens] = Finite(&value, name);
    }
    return values;
  }
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json* Find(const char* name) const {
    const auto found = object_.find(name);
    return found == object_.end() ? nullptr : &*found;
  }
  double Finite(const nlohmann::json* value, const char* name) {
    const double number = value != nullptr && value->is_number()
                              ? value->get<double>()
                              : std::numeric_limits<double>::quiet_NaN();
    if (std::isfinite(number)) return number;
    Fail(name, "is no number");
    return 0;
  }
  void Fail(const char* name, const char* problem) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": ", name, " ", problem));
  }

  const nlohmann::json& object_;
  const std::string where_;
  absl::Status status_;
};

absl::StatusOr<QualityRow> ParseRow(const nlohmann::json& object, std::string where) {
  if (!object.is_object()) return absl::InvalidArgumentError(absl::StrCat(where, " is no object"));
  Fields fields(object, std::move(where));
  QualityRow row;
  row.scheme = fields.Text("scheme");
  row.text = fields.Text("text");
  row.tokens = fields.Count("tokens");
  row.from = fields.Count("from");
  row.figures = {.kl_mean = fields.Number("kl_mean"),
                 .kl_p99 = fields.Number("kl_p99"),
                 .kl_p999 = fields.Number("kl_p999"),
                 .same_top = fields.Number("top1"),
                 .ppl = fields.Number("ppl"),
                 .ppl_ratio = fields.Number("ppl_ratio")};
  row.bits_sealed = fields.Number("bits_sealed");
  row.bits_effective = fields.ByTokens("bits_effective");
  row.copy_nll = fields.Optional("copy_nll");
  row.copy_nll_exact = fields.Optional("copy_nll_exact");
  ASYMSERVE_RETURN_IF_ERROR(fields.status());
  return row;
}

}  // namespace

std::string QualityJson(const QualityResult& result) {
  Json list = Json::array();
  for (const QualityRow& row : result.rows) {
    Json item;
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
    Json effective = Json::object();
    for (const auto& [tokens, bits] : row.bits_effective) effective[absl::StrCat(tokens)] = bits;
    item["bits_effective"] = std::move(effective);
    item["copy_nll"] = OrNull(row.copy_nll);
    item["copy_nll_exact"] = OrNull(row.copy_nll_exact);
    if (row.free_running) item["free_running"] = FreeRunningJson(*row.free_running);
    list.push_back(std::move(item));
  }
  const Json document = {{"model", result.model}, {"rows", std::move(list)}};
  constexpr auto kReplace = Json::error_handler_t::replace;  // of odd file names
  return document.dump(2, ' ', false, kReplace) + "\n";
}

absl::StatusOr<QualityResult> ParseQualityJson(std::string_view json, std::string_view what) {
  const std::string name(what);
  ASYMSERVE_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJsonObject(json, name));
  QualityResult result;
  Fields fields(document, name);
  result.model = fields.Text("model");
  ASYMSERVE_RETURN_IF_ERROR(fields.status());
  const auto rows = document.find("rows");
  if (rows == document.end() || !rows->is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": rows is no list"));
  }
  for (size_t i = 0; i < rows->size(); ++i) {
    ASYMSERVE_ASSIGN_OR_RETURN(QualityRow row,
                               ParseRow((*rows)[i], absl::StrCat(name, ": row ", i)));
    result.rows.push_back(std::move(row));
  }
  return result;
}

absl::StatusOr<QualityResult> ReadQualityJson(const std::string& path) {
  ASYMSERVE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()),
                               file.bytes().size());
  return ParseQualityJson(bytes, path);
}

}  // namespace asymserve
