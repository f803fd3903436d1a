#include "engine/text/jinja_format.h"

#include <array>
#include <charconv>
#include <cstdlib>
#include <string_view>

#include "engine/base/status.h"

namespace asymserve::jinja {
namespace {

absl::Status Append(std::string_view text, Budget& budget, std::string& out) {
  ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(text.size()));
  out += text;
  return absl::OkStatus();
}

// Python's repr of a str, ASCII only: which other characters it escapes is a table of its own.
absl::Status AppendStringRepr(const std::string& text, Budget& budget, std::string& out) {
  const bool double_quotes =
      text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string repr(1, quote);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) {
      return absl::InvalidArgumentError(
          "printing a list or dict with non-ASCII strings is not supported");
    }
    if (c == quote || c == '\\') {
      repr += '\\';
      repr += c;
    } else if (c == '\n') {
      repr += "\\n";
    } else if (c == '\r') {
      repr += "\\r";
    } else if (c == '\t') {
      repr += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      static constexpr char kHex[] = "0123456789abcdef";
      repr += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      repr += c;
    }
  }
  repr += quote;
  return Append(repr, budget, out);
}

absl::Status AppendRepr(const Value& value, Budget& budget, std::string& out) {
  ASYMSERVE_RETURN_IF_ERROR(budget.Work(value.Extent()));
  if (const std::string* text = value.String()) return AppendStringRepr(*text, budget, out);
  if (value.IsUndefined()) return Append("Undefined", budget, out);
  return AppendText(value, budget, out);
}

absl::Status AppendSequenceRepr(const Sequence& sequence, Budget& budget, std::string& out) {
  const bool is_tuple = sequence.kind == SequenceKind::kTuple;
  out += is_tuple ? '(' : '[';
  for (size_t i = 0; i < sequence.items.size(); ++i) {
    if (i > 0) out += ", ";
    ASYMSERVE_RETURN_IF_ERROR(AppendRepr(sequence.items[i], budget, out));
  }
  if (is_tuple && sequence.items.size() == 1) out += ',';
  return Append(is_tuple ? ")" : "]", budget, out);
}

absl::Status AppendDictRepr(const Dict& dict, Budget& budget, std::string& out) {
  out += '{';
  bool first = true;
  for (const auto& [key, value] : dict.entries) {
    if (!first) out += ", ";
    first = false;
    ASYMSERVE_RETURN_IF_ERROR(AppendStringRepr(key, budget, out));
    out += ": ";
    ASYMSERVE_RETURN_IF_ERROR(AppendRepr(value, budget, out));
  }
  return Append("}", budget, out);
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget& budget, std::string& out)
      : style_(style), budget_(budget), out_(out) {}

  absl::Status Write(const Value& value) {
    ASYMSERVE_RETURN_IF_ERROR(budget_.Work(value.Extent()));
    if (value.IsNone()) return Append("null", budget_, out_);
    if (const bool* flag = value.If<bool>()) {
      return Append(*flag ? "true" : "false", budget_, out_);
    }
    if (value.If<int64_t>() != nullptr || value.If<double>() != nullptr) {
      return AppendText(value, budget_, out_);
    }
    if (const std::string* text = value.String()) return WriteString(*text);
    if (const Dict* dict = value.AsDict()) return WriteDict(*dict);
    const Sequence* sequence = value.AsSequence();
    if (sequence != nullptr &&
        (sequence->kind == SequenceKind::kList || sequence->kind == SequenceKind::kTuple)) {
      return WriteList(*sequence);
    }
    return absl::InvalidArgumentError(
        absl::StrCat("a value of type ", std::string(value.TypeName()), " has no JSON form"));
  }

 private:
  absl::Status WriteString(const std::string& text) {
    std::string json = "\"";
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (c == '"' || c == '\\') {
        json += '\\';
        json += c;
      } else if (byte >= 0x20) {
        json += c;
      } else {
        AppendControl(byte, json);
      }
    }
    json += '"';
    return Append(json, budget_, out_);
  }

  static void AppendControl(unsigned char byte, std::string& json) {
    static constexpr std::array<std::pair<char, std::string_view>, 5> kShort = {
        {{'\n', "\\n"}, {'\r', "\\r"}, {'\t', "\\t"}, {'\f', "\\f"}, {'\b', "\\b"}}};
    for (const auto& [c, text] : kShort) {
      if (byte != static_cast<unsigned char>(c)) continue;
      json += text;
      return;
    }
    static constexpr char kHex[] = "0123456789abcdef";
    json += "\\u00";
    json += kHex[byte >> 4];
    json += kHex[byte & 15];
  }

  absl::Status WriteList(const Sequence& sequence) {
    if (sequence.items.empty()) return Append("[]", budget_, out_);
    out_ += '[';
    ++level_;
    bool first = true;
    for (const Value& item : sequence.items) {
      ASYMSERVE_RETURN_IF_ERROR(Separate(first));
      first = false;
      ASYMSERVE_RETURN_IF_ERROR(Write(item));
    }
    --level_;
    ASYMSERVE_RETURN_IF_ERROR(NewLine());
    return Append("]", budget_, out_);
  }

  absl::Status WriteDict(const Dict& dict) {
    if (dict.entries.empty()) return Append("{}", budget_, out_);
    out_ += '{';
    ++level_;
    bool first = true;
    for (const auto& [key, value] : dict.entries) {
      ASYMSERVE_RETURN_IF_ERROR(Separate(first));
      first = false;
      ASYMSERVE_RETURN_IF_ERROR(WriteString(key));
      out_ += ": ";
      ASYMSERVE_RETURN_IF_ERROR(Write(value));
    }
    --level_;
    ASYMSERVE_RETURN_IF_ERROR(NewLine());
    return Append("}", budget_, out_);
  }

  absl::Status Separate(bool first) {
    if (!first) out_ += style_.indent < 0 ? ", " : ",";
    return NewLine();
  }

  absl::Status NewLine() {
    if (style_.indent < 0) return absl::OkStatus();
    const auto spaces = static_cast<size_t>(style_.indent * level_);
    ASYMSERVE_RETURN_IF_ERROR(budget_.Allocate(spaces + 1));
    out_ += '\n';
    out_.append(spaces, ' ');
    return absl::OkStatus();
  }

  const JsonStyle style_;
  Budget& budget_;
  std::string& out_;
  int64_t level_ = 0;
};

}  // namespace

absl::Status AppendJson(const Value& value, const JsonStyle& style, Budget& budget,
                        std::string& out) {
  return JsonWriter(style, budget, out).Write(value);
}

std::string FloatText(double value) {
  // The shortest digits that read back the same, laid out as Python does: d.ddde-05 below 1e-4 and
  // from 1e16 on, otherwise without exponent and with at least one decimal.
  std::array<char, 40> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 std::chars_format::scientific)
                       .ptr;
  std::string text(buffer.data(), end);
  const size_t e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  if (exponent < -4 || exponent >= 16) return text;
  const auto fixed =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed)
          .ptr;
  text.assign(buffer.data(), fixed);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

absl::Status AppendText(const Value& value, Budget& budget, std::string& out) {
  if (const std::string* text = value.String()) return Append(*text, budget, out);
  if (value.IsUndefined()) return absl::OkStatus();
  if (value.IsNone()) return Append("None", budget, out);
  if (const bool* flag = value.If<bool>()) return Append(*flag ? "True" : "False", budget, out);
  if (const int64_t* number = value.If<int64_t>()) {
    return Append(std::to_string(*number), budget, out);
  }
  if (const double* number = value.If<double>()) return Append(FloatText(*number), budget, out);
  if (const Dict* dict = value.AsDict()) return AppendDictRepr(*dict, budget, out);
  const Sequence* sequence = value.AsSequence();
  if (sequence != nullptr &&
      (sequence->kind == SequenceKind::kList || sequence->kind == SequenceKind::kTuple)) {
    return AppendSequenceRepr(*sequence, budget, out);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "printing a value of type ", std::string(value.TypeName()), " is not supported"));
}

}  // namespace asymserve::jinja
