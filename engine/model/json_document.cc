#include "engine/model/json_document.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/model/printable.h"

namespace asymserve {
namespace {

constexpr int kMaxDepth = 16;

/// Watches the parser's events for what it would accept and we do not.
class Watcher {
 public:
  /// False drops the value, which bounds the memory of a text that is refused anyway.
  bool See(int depth, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
    if (!problem_.empty()) return false;
    if (depth > kMaxDepth) {
      problem_ = absl::StrCat("is nested more than ", kMaxDepth, " deep");
      return false;
    }
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) keys_.emplace_back();
    if (event == Event::object_end && !keys_.empty()) keys_.pop_back();
    if (event == Event::key && !keys_.empty()) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys_.back().insert(key).second) problem_ = "has twice the key " + Printable(key);
    }
    return problem_.empty();
  }

  const std::string& problem() const { return problem_; }

 private:
  std::vector<std::set<std::string>> keys_;  // of the open objects
  std::string problem_;
};

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view what) {
  Watcher watcher;
  const auto callback = [&watcher](int depth, nlohmann::json::parse_event_t event,
                                   nlohmann::json& parsed) {
    return watcher.See(depth, event, parsed);
  };
  nlohmann::json document =
      nlohmann::json::parse(text.begin(), text.end(), callback, /*allow_exceptions=*/false);
  if (!watcher.problem().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(what), " ", watcher.problem()));
  }
  if (document.is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(what), " is not valid JSON"));
  }
  if (!document.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(what), " is no JSON object"));
  }
  return document;
}

}  // namespace asymserve
