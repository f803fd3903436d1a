#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/text/jinja_value.h"

// The parsed template. Immutable once built; nothing in it is deeper than the parser allows, so
// walking it by recursion is safe.

namespace asymserve::jinja {

/// What an Expression means and how it uses its fields; `o` are the operands, `k` the keywords.
enum class ExpressionKind : uint8_t {
  kLiteral,      // literal
  kName,         // name
  kList,         // [o...]
  kTuple,        // (o...)
  kDict,         // {o[0]: o[1], o[2]: o[3], ...}
  kUnary,        // name is "-", "+" or "not"; o[0]
  kBinary,       // o[0] name o[1]; name is "+", "-", "*", "/", "//", "%", "and" or "or"
  kConcat,       // o[0] ~ o[1] ~ ...
  kCompare,      // o[0] comparisons[0] o[1] comparisons[1] o[2] ...
  kConditional,  // o[0] if o[1] else o[2]; without else o[2] is missing
  kAttribute,    // o[0].name
  kSubscript,    // o[0][o[1]]
  kSlice,        // o[0][o[1]:o[2]:o[3]]; a missing bound is a literal None
  kCall,         // name(o..., k...)
  kMethod,       // o[0].name(o[1]..., k...)
  kFilter,       // o[0] | name(o[1]..., k...)
  kTest,         // o[0] is name(o[1]...); negated: is not
};

enum class Comparison : uint8_t {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;
using Keyword = std::pair<std::string, ExpressionPtr>;

struct Expression {
  ExpressionKind kind;
  int line;
  int depth = 1;  // levels of the tree under and with this node
  std::string name;
  Value literal;
  bool negated = false;
  std::vector<ExpressionPtr> operands;
  std::vector<Keyword> keywords;
  std::vector<Comparison> comparisons;
};

struct Statement;
using Block = std::vector<Statement>;

/// What for and set assign to: a name, several names, or an attribute of a namespace.
struct Target {
  std::vector<std::string> names;  // exactly one with an attribute
  bool is_tuple = false;
  std::string attribute;  // not empty: names[0].attribute
};

struct TextStatement {
  std::string text;
};
struct PrintStatement {
  ExpressionPtr value;
};
struct IfStatement {
  std::vector<std::pair<ExpressionPtr, Block>> branches;  // if, elif ...
  Block otherwise;
};
struct ForStatement {
  Target target;
  ExpressionPtr items;
  ExpressionPtr condition;  // may be null
  Block body;
  Block otherwise;
};
struct SetStatement {
  Target target;
  ExpressionPtr value;  // null: the text of `body`
  Block body;
};
struct MacroStatement {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  // of the last parameters
  Block body;
};
/// {% generation %}: a marker for training masks; a scope of its own, otherwise transparent.
struct ScopeStatement {
  Block body;
};
struct BreakStatement {};
struct ContinueStatement {};

struct Statement {
  int line;
  std::variant<TextStatement, PrintStatement, IfStatement, ForStatement, SetStatement,
               MacroStatement, ScopeStatement, BreakStatement, ContinueStatement>
      node;
};

}  // namespace asymserve::jinja
