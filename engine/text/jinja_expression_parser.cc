#include "engine/text/jinja_expression_parser.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "engine/text/jinja_vocabulary.h"

namespace asymserve::jinja {
namespace {

constexpr int kMaxNesting = 48;  // brackets and operators that the parser itself recurses for
constexpr int kMaxDepth = 128;   // levels of a finished tree

}  // namespace

ExpressionParser::Node ExpressionParser::Make(ExpressionKind kind, int line) {
  Node node(new Expression{kind, line, 1, {}, {}, false, {}, {}, {}});
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::MakeLiteral(Value value, int line) {
  Node node = Make(ExpressionKind::kLiteral, line);
  node->literal = std::move(value);
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::Finish(Node node) {
  int depth = 0;
  for (const ExpressionPtr& operand : node->operands) depth = std::max(depth, operand->depth);
  for (const Keyword& keyword : node->keywords) depth = std::max(depth, keyword.second->depth);
  if (depth >= kMaxDepth) {
    return TokenStream::ErrorAt(
        node->line, absl::StrCat("an expression nests deeper than ", kMaxDepth, " levels"));
  }
  node->depth = depth + 1;
  return ExpressionPtr(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::Parse(bool with_condition) {
  if (nesting_ >= kMaxNesting) {
    return tokens_.Error(absl::StrCat("brackets nest deeper than ", kMaxNesting, " levels"));
  }
  ++nesting_;
  auto result = with_condition ? ParseConditional() : ParseOr();
  --nesting_;
  return result;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTuple(bool with_condition) {
  const int line = tokens_.line();
  ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr first, Parse(with_condition));
  if (!tokens_.AtOperator(",")) return first;
  Node tuple = Make(ExpressionKind::kTuple, line);
  tuple->operands.push_back(std::move(first));
  while (tokens_.TakeOperator(",")) {
    const TokenKind kind = tokens_.current().kind;
    if (kind == TokenKind::kVariableEnd || kind == TokenKind::kBlockEnd ||
        tokens_.AtOperator(")") || tokens_.AtOperator("=")) {
      break;
    }
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr item, Parse(with_condition));
    tuple->operands.push_back(std::move(item));
  }
  return Finish(std::move(tuple));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseConditional() {
  ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
  while (tokens_.AtName("if")) {
    Node node = Make(ExpressionKind::kConditional);
    tokens_.Advance();
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    node->operands.push_back(std::move(value));
    node->operands.push_back(std::move(condition));
    if (tokens_.TakeName("else")) {
      ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr otherwise, Parse());
      node->operands.push_back(std::move(otherwise));
    }
    ASYMSERVE_ASSIGN_OR_RETURN(value, Finish(std::move(node)));
  }
  return value;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseOr() {
  ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr left, ParseAnd());
  while (tokens_.AtName("or")) {
    Node node = Make(ExpressionKind::kBinary);
    node->name = "or";
    tokens_.Advance();
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr right, ParseAnd());
    node->operands.push_back(std::move(left));
    node->operands.push_back(std::move(right));
    ASYMSERVE_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseAnd() {
  ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr left, ParseNot());
  while (tokens_.AtName("and")) {
    Node node = Make(ExpressionKind::kBinary);
    node->name = "and";
    tokens_.Advance();
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr right, ParseNot());
    node->operands.push_back(std::move(left));
    node->operands.push_back(std::move(right));
    ASYMSERVE_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseNot() {
  if (!tokens_.AtName("not")) return ParseCompare();
  if (nesting_ >= kMaxNesting) return tokens_.Error("too many 'not' in a row");
  Node node = Make(ExpressionKind::kUnary);
  node->name = "not";
  tokens_.Advance();
  ++nesting_;
  auto operand = ParseNot();
  --nesting_;
  if (!operand.ok()) return operand;
  node->operands.push_back(*std::move(operand));
  return Finish(std::move(node));
}

bool ExpressionParser::TakeComparison(Comparison& comparison) {
  static constexpr std::pair<std::string_view, Comparison> kOperators[] = {
      {"==", Comparison::kEqual},  {"!=", Comparison::kNotEqual},
      {"<", Comparison::kLess},    {"<=", Comparison::kLessEqual},
      {">", Comparison::kGreater}, {">=", Comparison::kGreaterEqual}};
  for (const auto& [text, value] : kOperators) {
    if (!tokens_.TakeOperator(text)) continue;
    comparison = value;
    return true;
  }
  if (tokens_.TakeName("in")) {
    comparison = Comparison::kIn;
    return true;
  }
  const Token& next = tokens_.next();
  if (!tokens_.AtName("not") || next.kind != TokenKind::kName || next.text != "in") return false;
  tokens_.Advance();
  tokens_.Advance();
  comparison = Comparison::kNotIn;
  return true;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseCompare() {
  const int line = tokens_.line();
  ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
  Comparison comparison{};
  if (!TakeComparison(comparison)) return first;
  Node node = Make(ExpressionKind::kCompare, line);
  node->operands.push_back(std::move(first));
  do {
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseSum());
    node->operands.push_back(std::move(operand));
    node->comparisons.push_back(comparison);
  } while (TakeComparison(comparison));
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSum() {
  ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr left, ParseConcat());
  while (tokens_.AtOperator("+") || tokens_.AtOperator("-")) {
    Node node = Make(ExpressionKind::kBinary);
    node->name = tokens_.current().text;
    tokens_.Advance();
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr right, ParseConcat());
    node->operands.push_back(std::move(left));
    node->operands.push_back(std::move(right));
    ASYMSERVE_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseConcat() {
  ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr first, ParseProduct());
  if (!tokens_.AtOperator("~")) return first;
  Node node = Make(ExpressionKind::kConcat);
  node->operands.push_back(std::move(first));
  while (tokens_.TakeOperator("~")) {
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseProduct());
    node->operands.push_back(std::move(operand));
  }
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseProduct() {
  ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr left, ParseUnary(true));
  for (;;) {
    const bool is_product = tokens_.AtOperator("*") || tokens_.AtOperator("/") ||
                            tokens_.AtOperator("//") || tokens_.AtOperator("%");
    if (tokens_.AtOperator("**")) return tokens_.Error("the operator ** is not supported");
    if (!is_product) return left;
    Node node = Make(ExpressionKind::kBinary);
    node->name = tokens_.current().text;
    tokens_.Advance();
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr right, ParseUnary(true));
    node->operands.push_back(std::move(left));
    node->operands.push_back(std::move(right));
    ASYMSERVE_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseUnary(bool with_filters) {
  ExpressionPtr value;
  if (tokens_.AtOperator("-") || tokens_.AtOperator("+")) {
    if (nesting_ >= kMaxNesting) return tokens_.Error("too many signs in a row");
    Node node = Make(ExpressionKind::kUnary);
    node->name = tokens_.current().text;
    tokens_.Advance();
    ++nesting_;
    auto operand = ParseUnary(false);
    --nesting_;
    if (!operand.ok()) return operand;
    node->operands.push_back(*std::move(operand));
    ASYMSERVE_ASSIGN_OR_RETURN(value, Finish(std::move(node)));
  } else {
    ASYMSERVE_ASSIGN_OR_RETURN(value, ParsePrimary());
  }
  ASYMSERVE_ASSIGN_OR_RETURN(value, ParsePostfix(std::move(value)));
  if (!with_filters) return value;
  return ParseFilters(std::move(value));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePrimary() {
  const Token& token = tokens_.current();
  const int line = token.line;
  if (token.kind == TokenKind::kName) {
    const std::string name = token.text;
    tokens_.Advance();
    if (name == "true" || name == "True") return MakeLiteral(Value::MakeBool(true), line);
    if (name == "false" || name == "False") return MakeLiteral(Value::MakeBool(false), line);
    if (name == "none" || name == "None") return MakeLiteral(Value::MakeNone(), line);
    Node node = Make(ExpressionKind::kName, line);
    node->name = name;
    return Finish(std::move(node));
  }
  if (token.kind == TokenKind::kString) {
    std::string text;
    for (; tokens_.current().kind == TokenKind::kString; tokens_.Advance()) {
      text += tokens_.current().text;  // adjacent literals are one
    }
    return MakeLiteral(Value::MakeString(std::move(text)), line);
  }
  if (token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat) return ParseNumber();
  if (tokens_.AtOperator("(")) return ParseParentheses();
  if (tokens_.AtOperator("[")) return ParseList();
  if (tokens_.AtOperator("{")) return ParseDict();
  return tokens_.Expected("an expression");
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseNumber() {
  const Token& token = tokens_.current();
  const char* const end = token.text.data() + token.text.size();
  Value value;
  std::errc error;
  if (token.kind == TokenKind::kInteger) {
    int64_t number = 0;
    error = std::from_chars(token.text.data(), end, number).ec;
    value = Value::MakeInt(number);
  } else {
    double number = 0;
    error = std::from_chars(token.text.data(), end, number).ec;
    value = Value::MakeFloat(number);
  }
  if (error != std::errc()) {
    return tokens_.Error(absl::StrCat("the number ", token.text, " does not fit in 64 bits"));
  }
  const int line = token.line;
  tokens_.Advance();
  return MakeLiteral(std::move(value), line);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseParentheses() {
  Node empty = Make(ExpressionKind::kTuple);
  tokens_.Advance();
  if (tokens_.TakeOperator(")")) return Finish(std::move(empty));
  ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr value, ParseTuple());
  ASYMSERVE_RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
  return value;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseList() {
  Node node = Make(ExpressionKind::kList);
  tokens_.Advance();
  while (!tokens_.AtOperator("]")) {
    if (!node->operands.empty()) ASYMSERVE_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    if (tokens_.AtOperator("]")) break;
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr item, Parse());
    node->operands.push_back(std::move(item));
  }
  tokens_.Advance();
  return Finish(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseDict() {
  Node node = Make(ExpressionKind::kDict);
  tokens_.Advance();
  while (!tokens_.AtOperator("}")) {
    if (!node->operands.empty()) ASYMSERVE_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    if (tokens_.AtOperator("}")) break;
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr key, Parse());
    ASYMSERVE_RETURN_IF_ERROR(tokens_.ExpectOperator(":"));
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr value, Parse());
    node->operands.push_back(std::move(key));
    node->operands.push_back(std::move(value));
  }
  tokens_.Advance();
  return Finish(std::move(node));
}

}  // namespace asymserve::jinja
