#include "config/yaml_entries.h"

#include <algorithm>
#include <exception>
#include <set>
#include <sstream>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "yaml-cpp/eventhandler.h"
#include "yaml-cpp/exceptions.h"
#include "yaml-cpp/mark.h"
#include "yaml-cpp/parser.h"

namespace asymserve {
namespace {

constexpr size_t kMaxDepth = 4;

/// Turns parser events into entries. After the first error it ignores what follows.
class EntryCollector final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) Fail(mark, "expected one document, found another");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Scalar(mark, YamlEntry::Kind::kNull, "", anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Fail(mark, "aliases (*name) are not supported");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    // yaml-cpp's tags for untagged text: "?" plain, "!" quoted.
    if (tag != "?" && tag != "!") return Fail(mark, "tags (!type) are not supported");
    Scalar(mark, tag == "?" ? YamlEntry::Kind::kPlain : YamlEntry::Kind::kQuoted, value, anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, YamlEntry::Kind::kList, anchor);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, YamlEntry::Kind::kMap, anchor);
  }
  void OnMapEnd() override { Close(); }

  bool failed() const { return !error_.empty(); }
  const std::string& error() const { return error_; }
  int error_line() const { return error_line_; }
  std::vector<YamlEntry> TakeEntries() { return std::move(entries_); }

 private:
  struct Level {
    Level(YamlEntry::Kind the_kind, std::string the_path)
        : kind(the_kind), path(std::move(the_path)) {}
    YamlEntry::Kind kind;
    std::string path;      // of the map or list
    bool has_key = false;  // the next event is the value of `key`
    std::string key;       // full path
    int key_line = 0;
  };

  void Fail(const YAML::Mark& mark, std::string_view error) {
    if (failed()) return;
    error_ = error;
    error_line_ = std::max(mark.line + 1, 1);
  }

  void Scalar(const YAML::Mark& mark, YamlEntry::Kind kind, const std::string& text,
              YAML::anchor_t anchor) {
    if (failed()) return;
    if (anchor != 0) return Fail(mark, "anchors (&name) are not supported");
    if (levels_.empty()) {
      // An empty file, or one of comments only, is an empty configuration.
      if (kind != YamlEntry::Kind::kNull) Fail(mark, "expected a map of sections, got text");
      return;
    }
    Level& level = levels_.back();
    if (level.kind == YamlEntry::Kind::kList) return;
    if (!level.has_key) return Key(mark, kind, text, level);
    Value(kind, text, level);
  }

  void Key(const YAML::Mark& mark, YamlEntry::Kind kind, const std::string& text, Level& level) {
    if (kind == YamlEntry::Kind::kNull || text.empty()) return Fail(mark, "expected a key");
    if (text.find('.') != std::string::npos) {
      return Fail(mark, absl::StrCat(Quoted(text), ": a key has no dots, write nested sections"));
    }
    level.key = level.path.empty() ? text : absl::StrCat(level.path, ".", text);
    level.key_line = mark.line + 1;
    level.has_key = true;
    if (!keys_.insert(level.key).second) {
      Fail(mark, absl::StrCat(Printable(level.key), ": is there twice"));
    }
  }

  void Value(YamlEntry::Kind kind, const std::string& text, Level& level) {
    level.has_key = false;
    entries_.push_back({level.key, kind, text, level.key_line});
  }

  void Open(const YAML::Mark& mark, YamlEntry::Kind kind, YAML::anchor_t anchor) {
    if (failed()) return;
    if (anchor != 0) return Fail(mark, "anchors (&name) are not supported");
    if (levels_.size() >= kMaxDepth) return Fail(mark, "nested too deeply");
    if (levels_.empty()) {
      if (kind == YamlEntry::Kind::kList) {
        return Fail(mark, "expected a map of sections, got a list");
      }
      levels_.emplace_back(kind, "");
      return;
    }
    Level& parent = levels_.back();
    if (parent.kind == YamlEntry::Kind::kList) {  // whatever is in a list is dropped
      levels_.emplace_back(YamlEntry::Kind::kList, "");
      return;
    }
    if (!parent.has_key) return Fail(mark, "expected a key, got a list or a map");
    Value(kind, "", parent);
    levels_.emplace_back(kind, entries_.back().key);
  }

  void Close() {
    if (!failed()) levels_.pop_back();
  }

  std::vector<YamlEntry> entries_;
  std::vector<Level> levels_;
  std::set<std::string> keys_;
  int documents_ = 0;
  std::string error_;
  int error_line_ = 0;
};

}  // namespace

std::string Printable(std::string_view text) {
  constexpr size_t kMaxBytes = 40;
  std::string printable =
      absl::CHexEscape(std::string(text.substr(0, std::min(text.size(), kMaxBytes))));
  if (text.size() > kMaxBytes) printable += "...";
  return printable;
}

std::string Quoted(std::string_view text) {
  return absl::StrCat("\"", Printable(text), "\"");
}

absl::StatusOr<std::vector<YamlEntry>> ReadYamlEntries(std::string_view text,
                                                       const std::string& file) {
  if (text.size() > kMaxYamlBytes) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": larger than ", kMaxYamlBytes,
                                                   " bytes, this is no configuration file"));
  }
  const auto error = [&file](int line, std::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(file, ":", line, ": ", std::string(what)));
  };
  EntryCollector collector;
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (!collector.failed() && parser.HandleNextDocument(collector)) {
    }
  } catch (const YAML::Exception& exception) {
    if (!collector.failed()) {
      return error(std::max(exception.mark.line + 1, 1),
                   absl::StrCat("not valid YAML: ", Printable(exception.msg)));
    }
  } catch (const std::exception& exception) {
    return error(1, absl::StrCat("not readable as YAML: ", Printable(exception.what())));
  }
  if (collector.failed()) return error(collector.error_line(), collector.error());
  return collector.TakeEntries();
}

}  // namespace asymserve
