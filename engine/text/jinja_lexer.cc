#include "engine/text/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "engine/base/status.h"
#include "engine/text/jinja_string_literal.h"
#include "engine/text/jinja_text.h"

namespace asymserve::jinja {
namespace {

// "\r\n" and "\r" become "\n", and one newline at the very end is dropped.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}
bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeNewlines(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (position_ < source_.size()) {
      const size_t tag = FindTag();
      EmitData(tag);
      if (tag == source_.size()) break;
      ASYMSERVE_RETURN_IF_ERROR(LexTag());
    }
    Emit(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("line ", line_, ": ", std::string(what)));
  }
  std::string_view Rest() const { return std::string_view(source_).substr(position_); }
  bool At(std::string_view text) const { return Rest().starts_with(text); }
  void Emit(TokenKind kind, std::string_view text) {
    tokens_.push_back({kind, std::string(text), line_});
  }
  void Advance(size_t bytes) {
    const auto begin = source_.begin() + static_cast<std::ptrdiff_t>(position_);
    line_ += static_cast<int>(std::count(begin, begin + static_cast<std::ptrdiff_t>(bytes), '\n'));
    position_ += bytes;
  }

  // Offset of the next "{{", "{%" or "{#", or the end.
  size_t FindTag() const {
    for (size_t i = position_; i + 1 < source_.size(); ++i) {
      const char next = source_[i + 1];
      if (source_[i] == '{' && (next == '{' || next == '%' || next == '#')) return i;
    }
    return source_.size();
  }

  // The text up to the tag at `end`, less the white space that the tag's sign or lstrip_blocks
  // takes away.
  void EmitData(size_t end) {
    std::string_view text = Rest().substr(0, end - position_);
    const size_t bytes = text.size();
    if (end < source_.size()) {
      const char sign = end + 2 < source_.size() ? source_[end + 2] : '\0';
      if (sign == '-') {
        text = StripRight(text);
      } else if (sign != '+' && source_[end + 1] != '{') {
        const size_t newline = text.rfind('\n');
        const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
        const bool whole_line = line_begin > 0 || at_line_start_;
        if (whole_line && StripLeft(text.substr(line_begin)).empty()) {
          text = text.substr(0, line_begin);
        }
      }
    }
    if (!text.empty()) Emit(TokenKind::kData, text);
    Advance(bytes);
  }

  // A whole tag from its opening on.
  absl::Status LexTag() {
    const char type = source_[position_ + 1];
    const int first_line = line_;
    Advance(2);
    if (At("-") || At("+")) Advance(1);
    if (type == '#') return LexComment();
    const bool is_block = type == '%';
    Emit(is_block ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "");
    const std::string_view close = is_block ? "%}" : "}}";
    brackets_.clear();
    for (;;) {
      SkipSpace();
      if (position_ >= source_.size()) {
        line_ = first_line;
        return Error(absl::StrCat("a tag is not closed by ", std::string(close)));
      }
      if (brackets_.empty() && AtClose(close, is_block)) {
        Emit(is_block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
        Close(close, is_block);
        return absl::OkStatus();
      }
      ASYMSERVE_RETURN_IF_ERROR(LexToken());
    }
  }

  absl::Status LexComment() {
    const size_t end = Find(source_, "#}", position_);
    if (end == std::string::npos) return Error("a comment is not closed by #}");
    const bool has_sign = end > position_ && (source_[end - 1] == '-' || source_[end - 1] == '+');
    Advance(end - position_ - (has_sign ? 1 : 0));
    Close("#}", true);
    return absl::OkStatus();
  }

  bool AtClose(std::string_view close, bool takes_plus) const {
    if (At(close)) return true;
    return (At("-") || (takes_plus && At("+"))) && Rest().substr(1).starts_with(close);
  }

  // Goes past a tag's end and the white space that belongs to it: all of it after "-", one newline
  // after a block or comment (trim_blocks), none after "+" or a variable.
  void Close(std::string_view close, bool trims_newline) {
    const bool minus = At("-");
    const bool plus = At("+");
    Advance(close.size() + (minus || plus ? 1 : 0));
    size_t space = 0;
    if (minus) {
      space = Rest().size() - StripLeft(Rest()).size();
    } else if (!plus && trims_newline && At("\n")) {
      space = 1;
    }
    at_line_start_ = space > 0 && source_[position_ + space - 1] == '\n';
    Advance(space);
  }

  void SkipSpace() { Advance(Rest().size() - StripLeft(Rest()).size()); }

  absl::Status LexToken() {
    const char c = source_[position_];
    if (IsDigit(c)) return LexNumber();
    if (IsNameStart(c)) {
      size_t end = position_;
      while (end < source_.size() && (IsNameStart(source_[end]) || IsDigit(source_[end]))) ++end;
      Emit(TokenKind::kName, Rest().substr(0, end - position_));
      Advance(end - position_);
      return absl::OkStatus();
    }
    if (c == '\'' || c == '"') return LexString();
    return LexOperator();
  }

  absl::Status LexString() {
    const char quote = source_[position_];
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return Error("a string is not closed");
    const std::string_view body = Rest().substr(1, end - position_ - 1);
    absl::StatusOr<std::string> value = DecodeStringLiteral(body);
    if (!value.ok()) return Error(std::string(value.status().message()));
    Emit(TokenKind::kString, *value);
    Advance(body.size() + 2);
    return absl::OkStatus();
  }

  // Digits, with single underscores between them, from `begin`.
  size_t DigitsEnd(size_t begin) const {
    size_t end = begin;
    while (end < source_.size() &&
           (IsDigit(source_[end]) || (source_[end] == '_' && end > begin && DigitAt(end + 1)))) {
      ++end;
    }
    return end;
  }
  bool DigitAt(size_t i) const { return i < source_.size() && IsDigit(source_[i]); }

  absl::Status LexNumber() {
    size_t end = DigitsEnd(position_);
    TokenKind kind = TokenKind::kInteger;
    const bool after_dot = position_ > 0 && source_[position_ - 1] == '.';
    if (!after_dot && end < source_.size() && source_[end] == '.' && DigitAt(end + 1)) {
      end = DigitsEnd(end + 1);
      kind = TokenKind::kFloat;
    }
    if (!after_dot && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const bool sign =
          end + 1 < source_.size() && (source_[end + 1] == '-' || source_[end + 1] == '+');
      if (DigitAt(end + (sign ? 2 : 1))) {
        end = DigitsEnd(end + (sign ? 2 : 1));
        kind = TokenKind::kFloat;
      }
    }
    if (end < source_.size() && IsNameStart(source_[end])) {
      return Error("numbers other than decimal ones are not supported");
    }
    std::string digits(Rest().substr(0, end - position_));
    std::erase(digits, '_');
    if (kind == TokenKind::kInteger && digits.size() > 1 && digits[0] == '0' &&
        digits.find_first_not_of('0') != std::string::npos) {
      return Error(absl::StrCat("the number ", digits, " begins with 0"));
    }
    Emit(kind, digits);
    Advance(end - position_);
    return absl::OkStatus();
  }

  absl::Status LexOperator() {
    static constexpr std::array<std::string_view, 25> kOperators = {
        "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
        ">",  "=",  "(",  ")",  "[",  "]",  "{", "}", ".", ":", ",", "|"};
    const auto* const found = std::find_if(kOperators.begin(), kOperators.end(),
                                           [this](std::string_view text) { return At(text); });
    if (found == kOperators.end()) {
      size_t end = position_;
      NextCodePoint(source_, end);
      return Error(
          absl::StrCat("unexpected character '", source_.substr(position_, end - position_), "'"));
    }
    const char first = found->front();
    if (first == '(' || first == '[' || first == '{') {
      brackets_ += first == '(' ? ')' : first == '[' ? ']' : '}';
    } else if (first == ')' || first == ']' || first == '}') {
      if (brackets_.empty() || brackets_.back() != first) {
        return Error(absl::StrCat("unexpected '", std::string(*found), "'"));
      }
      brackets_.pop_back();
    }
    Emit(TokenKind::kOperator, *found);
    Advance(found->size());
    return absl::OkStatus();
  }

  const std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;  // the last tag's end took a newline with it
  std::string brackets_;       // closing brackets that are due inside the current tag
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  return Lexer(source).Run();
}

}  // namespace asymserve::jinja
