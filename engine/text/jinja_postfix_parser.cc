// The part of ExpressionParser behind a primary: attributes, subscripts, calls, filters and tests.

#include <algorithm>
#include <utility>

#include "engine/text/jinja_expression_parser.h"
#include "engine/text/jinja_vocabulary.h"

namespace asymserve::jinja {

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePostfix(ExpressionPtr base) {
  for (;;) {
    if (tokens_.AtOperator(".")) {
      ASYMSERVE_ASSIGN_OR_RETURN(base, ParseDot(std::move(base)));
    } else if (tokens_.AtOperator("[")) {
      ASYMSERVE_ASSIGN_OR_RETURN(base, ParseSubscript(std::move(base)));
    } else if (tokens_.AtOperator("(")) {
      ASYMSERVE_ASSIGN_OR_RETURN(base, ParseCall(std::move(base)));
    } else {
      return base;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseDot(ExpressionPtr base) {
  const int line = tokens_.line();
  tokens_.Advance();
  if (tokens_.current().kind == TokenKind::kInteger) {
    Node node = Make(ExpressionKind::kSubscript, line);
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr index, ParseNumber());
    node->operands.push_back(std::move(base));
    node->operands.push_back(std::move(index));
    return Finish(std::move(node));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string name, tokens_.ExpectName("an attribute name"));
  if (name.starts_with("_")) {
    return TokenStream::ErrorAt(line, absl::StrCat("the attribute '", name, "' is not supported"));
  }
  if (!tokens_.AtOperator("(")) {
    Node node = Make(ExpressionKind::kAttribute, line);
    node->name = name;
    node->operands.push_back(std::move(base));
    return Finish(std::move(node));
  }
  if (!IsKnownMethod(name)) {
    return TokenStream::ErrorAt(line, absl::StrCat("the method '", name, "' is not supported"));
  }
  Node node = Make(ExpressionKind::kMethod, line);
  node->name = name;
  ASYMSERVE_ASSIGN_OR_RETURN(Arguments arguments, ParseArguments());
  node->operands.push_back(std::move(base));
  std::move(arguments.positional.begin(), arguments.positional.end(),
            std::back_inserter(node->operands));
  node->keywords = std::move(arguments.keywords);
  return Finish(std::move(node));
}

// A bound of a slice: an expression, or None where there is none.
absl::StatusOr<ExpressionPtr> ExpressionParser::ParseBound() {
  if (tokens_.AtOperator(":") || tokens_.AtOperator("]")) {
    return MakeLiteral(Value::MakeNone(), tokens_.line());
  }
  return Parse();
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSubscript(ExpressionPtr base) {
  const int line = tokens_.line();
  tokens_.Advance();
  if (tokens_.AtOperator("]")) return tokens_.Expected("a subscript");
  std::vector<ExpressionPtr> bounds;
  do {
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr bound, ParseBound());
    bounds.push_back(std::move(bound));
  } while (bounds.size() < 3 && tokens_.TakeOperator(":"));
  if (tokens_.AtOperator(","))
    return tokens_.Error("a subscript of several parts is not supported");
  ASYMSERVE_RETURN_IF_ERROR(tokens_.ExpectOperator("]"));

  const bool is_slice = bounds.size() > 1;
  Node node = Make(is_slice ? ExpressionKind::kSlice : ExpressionKind::kSubscript, line);
  node->operands.push_back(std::move(base));
  std::move(bounds.begin(), bounds.end(), std::back_inserter(node->operands));
  if (node->operands.size() == 3) {
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr step, MakeLiteral(Value::MakeNone(), line));
    node->operands.push_back(std::move(step));
  }
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseCall(ExpressionPtr callee) {
  if (callee->kind != ExpressionKind::kName) {
    return tokens_.Error("calling anything but a named function or a method is not supported");
  }
  Node node = Make(ExpressionKind::kCall, callee->line);
  node->name = callee->name;
  called_.emplace_back(callee->name, callee->line);
  ASYMSERVE_ASSIGN_OR_RETURN(Arguments arguments, ParseArguments());
  node->operands = std::move(arguments.positional);
  node->keywords = std::move(arguments.keywords);
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionParser::Arguments> ExpressionParser::ParseArguments() {
  Arguments arguments;
  ASYMSERVE_RETURN_IF_ERROR(tokens_.ExpectOperator("("));
  bool first = true;
  while (!tokens_.AtOperator(")")) {
    if (!first) ASYMSERVE_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    if (tokens_.AtOperator(")")) break;
    first = false;
    if (tokens_.AtOperator("*") || tokens_.AtOperator("**")) {
      return tokens_.Error("unpacking arguments with * is not supported");
    }
    const Token& next = tokens_.next();
    if (tokens_.AtName() && next.kind == TokenKind::kOperator && next.text == "=") {
      std::string name = tokens_.current().text;
      tokens_.Advance();
      tokens_.Advance();
      ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
      const auto is_same = [&](const Keyword& keyword) { return keyword.first == name; };
      if (std::any_of(arguments.keywords.begin(), arguments.keywords.end(), is_same)) {
        return tokens_.Error(absl::StrCat("the argument '", name, "' is given twice"));
      }
      arguments.keywords.emplace_back(std::move(name), std::move(value));
      continue;
    }
    if (!arguments.keywords.empty()) {
      return tokens_.Error("a positional argument follows one given by keyword");
    }
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
    arguments.positional.push_back(std::move(value));
  }
  tokens_.Advance();
  return arguments;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilters(ExpressionPtr base) {
  for (;;) {
    if (tokens_.AtOperator("|")) {
      ASYMSERVE_ASSIGN_OR_RETURN(base, ParseFilter(std::move(base)));
    } else if (tokens_.AtName("is")) {
      ASYMSERVE_ASSIGN_OR_RETURN(base, ParseTest(std::move(base)));
    } else if (tokens_.AtOperator("(")) {
      ASYMSERVE_ASSIGN_OR_RETURN(base, ParseCall(std::move(base)));
    } else {
      return base;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilter(ExpressionPtr base) {
  Node node = Make(ExpressionKind::kFilter);
  tokens_.Advance();
  ASYMSERVE_ASSIGN_OR_RETURN(node->name, tokens_.ExpectName("a filter name"));
  if (!IsKnownFilter(node->name)) {
    return TokenStream::ErrorAt(node->line,
                                absl::StrCat("the filter '", node->name, "' is not supported"));
  }
  node->operands.push_back(std::move(base));
  if (tokens_.AtOperator("(")) {
    ASYMSERVE_ASSIGN_OR_RETURN(Arguments arguments, ParseArguments());
    std::move(arguments.positional.begin(), arguments.positional.end(),
              std::back_inserter(node->operands));
    node->keywords = std::move(arguments.keywords);
  }
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTest(ExpressionPtr base) {
  Node node = Make(ExpressionKind::kTest);
  tokens_.Advance();
  node->negated = tokens_.TakeName("not");
  ASYMSERVE_ASSIGN_OR_RETURN(node->name, tokens_.ExpectName("a test name"));
  if (!IsKnownTest(node->name)) {
    return TokenStream::ErrorAt(node->line,
                                absl::StrCat("the test '", node->name, "' is not supported"));
  }
  node->operands.push_back(std::move(base));
  const TokenKind kind = tokens_.current().kind;
  if (tokens_.AtOperator("(")) {
    ASYMSERVE_ASSIGN_OR_RETURN(Arguments arguments, ParseArguments());
    if (!arguments.keywords.empty()) {
      return TokenStream::ErrorAt(node->line, "a test with keyword arguments is not supported");
    }
    std::move(arguments.positional.begin(), arguments.positional.end(),
              std::back_inserter(node->operands));
  } else if (TestTakesArgument(node->name) &&
             (kind == TokenKind::kName || kind == TokenKind::kString ||
              kind == TokenKind::kInteger || kind == TokenKind::kFloat || tokens_.AtOperator("[") ||
              tokens_.AtOperator("{"))) {
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    ASYMSERVE_ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    node->operands.push_back(std::move(argument));
  }
  if (node->operands.size() != (TestTakesArgument(node->name) ? 2u : 1u)) {
    return TokenStream::ErrorAt(node->line, absl::StrCat("the test '", node->name, "' has ",
                                                         node->operands.size() - 1, " arguments"));
  }
  return Finish(std::move(node));
}

}  // namespace asymserve::jinja
