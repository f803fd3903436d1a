#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_token_stream.h"

namespace asymserve::jinja {

/// A recursive-descent parser of Jinja 2 expressions with that language's precedences (a filter or
/// test binds tighter than any operator; + and - bind looser than ~). Reads from `tokens`, which
/// outlives it.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  /// With `with_condition` false a trailing `if` is left alone: it filters a for.
  absl::StatusOr<ExpressionPtr> Parse(bool with_condition = true);
  /// An expression, or a tuple of several without parentheses.
  absl::StatusOr<ExpressionPtr> ParseTuple(bool with_condition = true);
  /// The names called as functions so far and their lines: the template must define them.
  const std::vector<std::pair<std::string, int>>& called() const { return called_; }

 private:
  using Node = std::unique_ptr<Expression>;
  struct Arguments {
    std::vector<ExpressionPtr> positional;
    std::vector<Keyword> keywords;
  };

  absl::StatusOr<ExpressionPtr> ParseConditional();
  absl::StatusOr<ExpressionPtr> ParseOr();
  absl::StatusOr<ExpressionPtr> ParseAnd();
  absl::StatusOr<ExpressionPtr> ParseNot();
  absl::StatusOr<ExpressionPtr> ParseCompare();
  absl::StatusOr<ExpressionPtr> ParseSum();
  absl::StatusOr<ExpressionPtr> ParseConcat();
  absl::StatusOr<ExpressionPtr> ParseProduct();
  absl::StatusOr<ExpressionPtr> ParseUnary(bool with_filters);
  absl::StatusOr<ExpressionPtr> ParsePrimary();
  absl::StatusOr<ExpressionPtr> ParseNumber();
  absl::StatusOr<ExpressionPtr> ParseList();
  absl::StatusOr<ExpressionPtr> ParseDict();
  absl::StatusOr<ExpressionPtr> ParseParentheses();
  absl::StatusOr<ExpressionPtr> ParsePostfix(ExpressionPtr base);
  absl::StatusOr<ExpressionPtr> ParseDot(ExpressionPtr base);
  absl::StatusOr<ExpressionPtr> ParseSubscript(ExpressionPtr base);
  absl::StatusOr<ExpressionPtr> ParseCall(ExpressionPtr callee);
  absl::StatusOr<ExpressionPtr> ParseFilters(ExpressionPtr base);
  absl::StatusOr<ExpressionPtr> ParseFilter(ExpressionPtr base);
  absl::StatusOr<ExpressionPtr> ParseTest(ExpressionPtr base);
  absl::StatusOr<Arguments> ParseArguments();
  absl::StatusOr<ExpressionPtr> ParseBound();
  bool TakeComparison(Comparison& comparison);

  Node Make(ExpressionKind kind) const { return Make(kind, tokens_.line()); }
  static Node Make(ExpressionKind kind, int line);
  static absl::StatusOr<ExpressionPtr> MakeLiteral(Value value, int line);
  /// Sets the depth; refuses a tree that is too deep to walk.
  static absl::StatusOr<ExpressionPtr> Finish(Node node);

  TokenStream& tokens_;
  int nesting_ = 0;
  std::vector<std::pair<std::string, int>> called_;
};

}  // namespace asymserve::jinja
