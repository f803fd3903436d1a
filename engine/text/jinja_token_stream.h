#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/jinja_lexer.h"

namespace asymserve::jinja {

/// A cursor over tokens that end with kEnd, for the parsers.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& next() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  void Advance() {
    if (position_ + 1 < tokens_.size()) ++position_;
  }

  bool AtName() const { return current().kind == TokenKind::kName; }
  bool AtName(std::string_view name) const { return AtName() && current().text == name; }
  bool AtOperator(std::string_view text) const {
    return current().kind == TokenKind::kOperator && current().text == text;
  }
  /// Goes past the current token if it is that operator or name.
  bool TakeOperator(std::string_view text) { return TakeIf(AtOperator(text)); }
  bool TakeName(std::string_view name) { return TakeIf(AtName(name)); }

  absl::Status ExpectOperator(std::string_view text) {
    return TakeOperator(text) ? absl::OkStatus()
                              : Expected(absl::StrCat("'", std::string(text), "'"));
  }
  absl::StatusOr<std::string> ExpectName(std::string_view what) {
    if (!AtName()) return Expected(what);
    std::string name = current().text;
    Advance();
    return name;
  }

  absl::Status Error(std::string_view what) const { return ErrorAt(line(), what); }
  static absl::Status ErrorAt(int line, std::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", std::string(what)));
  }
  absl::Status Expected(std::string_view what) const {
    return Error(absl::StrCat("expected ", std::string(what), ", got ", Describe(current())));
  }

 private:
  bool TakeIf(bool matches) {
    if (matches) Advance();
    return matches;
  }
  static std::string Describe(const Token& token) {
    switch (token.kind) {
      case TokenKind::kData:
        return "text";
      case TokenKind::kVariableBegin:
        return "{{";
      case TokenKind::kVariableEnd:
        return "}}";
      case TokenKind::kBlockBegin:
        return "{%";
      case TokenKind::kBlockEnd:
        return "%}";
      case TokenKind::kString:
        return "a string";
      case TokenKind::kEnd:
        return "the end of the template";
      case TokenKind::kName:
      case TokenKind::kInteger:
      case TokenKind::kFloat:
      case TokenKind::kOperator:
        break;
    }
    return absl::StrCat("'", token.text, "'");
  }

  std::vector<Token> tokens_;
  size_t position_ = 0;
};

}  // namespace asymserve::jinja
