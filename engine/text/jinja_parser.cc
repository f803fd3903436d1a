#include "engine/text/jinja_parser.h"

#include <algorithm>
#include <initializer_list>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/jinja_expression_parser.h"
#include "engine/text/jinja_token_stream.h"

namespace asymserve::jinja {
namespace {

constexpr int kMaxBlockNesting = 32;

bool IsReserved(std::string_view name) {
  static constexpr std::string_view kNames[] = {"true", "false", "none", "True", "False",
                                                "None", "loop",  "not",  "and",  "or",
                                                "in",   "is",    "if",   "else"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)), expressions_(tokens_) {}

  absl::StatusOr<Block> Run() {
    ASYMSERVE_ASSIGN_OR_RETURN(Block block, ParseBlock({}));
    for (const auto& [name, line] : expressions_.called()) {
      if (!functions_.contains(name)) {
        return TokenStream::ErrorAt(line,
                                    absl::StrCat("the function '", name, "' is not supported"));
      }
    }
    return block;
  }

 private:
  // Statements up to a tag whose name is one of `ends`; leaves the tokens behind that name. Without
  // `ends`: up to the end of the template.
  absl::StatusOr<Block> ParseBlock(std::initializer_list<std::string_view> ends) {
    const int first_line = tokens_.line();
    if (block_nesting_ >= kMaxBlockNesting) {
      return tokens_.Error(absl::StrCat("blocks nest deeper than ", kMaxBlockNesting, " levels"));
    }
    ++block_nesting_;
    Block block;
    for (;;) {
      const TokenKind kind = tokens_.current().kind;
      if (kind == TokenKind::kEnd) {
        if (ends.size() == 0) break;
        return TokenStream::ErrorAt(
            first_line, absl::StrCat("a block is not closed by ", std::string(*(ends.end() - 1))));
      }
      if (kind == TokenKind::kBlockBegin) {
        tokens_.Advance();
        if (tokens_.AtName() &&
            std::find(ends.begin(), ends.end(), tokens_.current().text) != ends.end()) {
          end_name_ = tokens_.current().text;
          tokens_.Advance();
          break;
        }
        ASYMSERVE_RETURN_IF_ERROR(ParseTag(block));
      } else {
        ASYMSERVE_RETURN_IF_ERROR(ParseOutput(block));
      }
    }
    --block_nesting_;
    return block;
  }

  absl::Status ParseOutput(Block& block) {
    const int line = tokens_.line();
    if (tokens_.current().kind == TokenKind::kData) {
      block.push_back({line, TextStatement{tokens_.current().text}});
      tokens_.Advance();
      return absl::OkStatus();
    }
    tokens_.Advance();
    ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.ParseTuple());
    if (tokens_.current().kind != TokenKind::kVariableEnd) return tokens_.Expected("}}");
    tokens_.Advance();
    block.push_back({line, PrintStatement{std::move(value)}});
    return absl::OkStatus();
  }

  absl::Status EndTag() {
    if (tokens_.current().kind != TokenKind::kBlockEnd) return tokens_.Expected("%}");
    tokens_.Advance();
    return absl::OkStatus();
  }

  absl::Status ParseTag(Block& block) {
    const int line = tokens_.line();
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string name, tokens_.ExpectName("a statement"));
    if (name == "if") return ParseIf(line, block);
    if (name == "for") return ParseFor(line, block);
    if (name == "set") return ParseSet(line, block);
    if (name == "macro") return ParseMacro(line, block);
    if (name == "generation") return ParseGeneration(line, block);
    if (name == "break" || name == "continue") {
      if (loop_nesting_ == 0) {
        return TokenStream::ErrorAt(line, absl::StrCat("'", name, "' outside a for"));
      }
      if (name == "break") {
        block.push_back({line, BreakStatement{}});
      } else {
        block.push_back({line, ContinueStatement{}});
      }
      return EndTag();
    }
    if (name.starts_with("end") || name == "else" || name == "elif") {
      return TokenStream::ErrorAt(line, absl::StrCat("unexpected '", name, "'"));
    }
    return TokenStream::ErrorAt(line, absl::StrCat("the statement '", name, "' is not supported"));
  }

  absl::Status ParseIf(int line, Block& block) {
    IfStatement node;
    do {
      ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr condition, expressions_.ParseTuple(false));
      ASYMSERVE_RETURN_IF_ERROR(EndTag());
      ASYMSERVE_ASSIGN_OR_RETURN(Block body, ParseBlock({"elif", "else", "endif"}));
      node.branches.emplace_back(std::move(condition), std::move(body));
    } while (end_name_ == "elif");
    if (end_name_ == "else") {
      ASYMSERVE_RETURN_IF_ERROR(EndTag());
      ASYMSERVE_ASSIGN_OR_RETURN(node.otherwise, ParseBlock({"endif"}));
    }
    block.push_back({line, std::move(node)});
    return EndTag();
  }

  absl::Status ParseFor(int line, Block& block) {
    ForStatement node;
    ASYMSERVE_ASSIGN_OR_RETURN(node.target, ParseTarget(false));
    if (!tokens_.TakeName("in")) return tokens_.Expected("'in'");
    ASYMSERVE_ASSIGN_OR_RETURN(node.items, expressions_.ParseTuple(false));
    if (tokens_.TakeName("if")) {
      ASYMSERVE_ASSIGN_OR_RETURN(node.condition, expressions_.Parse());
    }
    if (tokens_.AtName("recursive")) return tokens_.Error("a recursive for is not supported");
    ASYMSERVE_RETURN_IF_ERROR(EndTag());
    ++loop_nesting_;
    ASYMSERVE_ASSIGN_OR_RETURN(node.body, ParseBlock({"else", "endfor"}));
    --loop_nesting_;
    if (end_name_ == "else") {
      ASYMSERVE_RETURN_IF_ERROR(EndTag());
      ASYMSERVE_ASSIGN_OR_RETURN(node.otherwise, ParseBlock({"endfor"}));
    }
    block.push_back({line, std::move(node)});
    return EndTag();
  }

  absl::StatusOr<Target> ParseTarget(bool with_attribute) {
    Target target;
    const bool parenthesized = tokens_.TakeOperator("(");
    do {
      ASYMSERVE_ASSIGN_OR_RETURN(std::string name, tokens_.ExpectName("a variable name"));
      if (IsReserved(name)) return tokens_.Error(absl::StrCat("cannot assign to '", name, "'"));
      functions_.insert(name);
      target.names.push_back(std::move(name));
      if (with_attribute && target.names.size() == 1 && tokens_.TakeOperator(".")) {
        ASYMSERVE_ASSIGN_OR_RETURN(target.attribute, tokens_.ExpectName("an attribute name"));
        break;
      }
      if (!tokens_.AtOperator(",")) break;
      target.is_tuple = true;
      tokens_.Advance();
    } while (!(parenthesized && tokens_.AtOperator(")")));
    if (parenthesized) ASYMSERVE_RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
    return target;
  }

  absl::Status ParseSet(int line, Block& block) {
    SetStatement node;
    ASYMSERVE_ASSIGN_OR_RETURN(node.target, ParseTarget(true));
    if (tokens_.TakeOperator("=")) {
      ASYMSERVE_ASSIGN_OR_RETURN(node.value, expressions_.ParseTuple());
    } else {
      if (tokens_.AtOperator("|"))
        return tokens_.Error("a set block with filters is not supported");
      if (node.target.is_tuple) return tokens_.Expected("'='");
      ASYMSERVE_RETURN_IF_ERROR(EndTag());
      ASYMSERVE_ASSIGN_OR_RETURN(node.body, ParseDetached({"endset"}));
    }
    block.push_back({line, std::move(node)});
    return EndTag();
  }

  absl::Status ParseMacro(int line, Block& block) {
    // A macro sees the variables of the template, not of its caller: only the top level has no
    // others that it might have to close over.
    if (block_nesting_ != 1) {
      return TokenStream::ErrorAt(line, "a macro inside another block is not supported");
    }
    MacroStatement node;
    ASYMSERVE_ASSIGN_OR_RETURN(node.name, tokens_.ExpectName("a macro name"));
    functions_.insert(node.name);
    ASYMSERVE_RETURN_IF_ERROR(tokens_.ExpectOperator("("));
    while (!tokens_.AtOperator(")")) {
      if (!node.parameters.empty()) ASYMSERVE_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      ASYMSERVE_ASSIGN_OR_RETURN(std::string parameter, tokens_.ExpectName("a parameter name"));
      if (IsReserved(parameter) || std::find(node.parameters.begin(), node.parameters.end(),
                                             parameter) != node.parameters.end()) {
        return tokens_.Error(absl::StrCat("'", parameter, "' cannot be a parameter here"));
      }
      node.parameters.push_back(std::move(parameter));
      if (tokens_.TakeOperator("=")) {
        ASYMSERVE_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.Parse());
        node.defaults.push_back(std::move(value));
      } else if (!node.defaults.empty()) {
        return tokens_.Error("a parameter without a default follows one with a default");
      }
    }
    tokens_.Advance();
    ASYMSERVE_RETURN_IF_ERROR(EndTag());
    ASYMSERVE_ASSIGN_OR_RETURN(node.body, ParseDetached({"endmacro"}));
    block.push_back({line, std::move(node)});
    return EndTag();
  }

  absl::Status ParseGeneration(int line, Block& block) {
    ASYMSERVE_RETURN_IF_ERROR(EndTag());
    ScopeStatement node;
    ASYMSERVE_ASSIGN_OR_RETURN(node.body, ParseDetached({"endgeneration"}));
    block.push_back({line, std::move(node)});
    return EndTag();
  }

  // A body that a break cannot leave.
  absl::StatusOr<Block> ParseDetached(std::initializer_list<std::string_view> ends) {
    const int loops = std::exchange(loop_nesting_, 0);
    auto body = ParseBlock(ends);
    loop_nesting_ = loops;
    return body;
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int block_nesting_ = 0;
  int loop_nesting_ = 0;
  std::string end_name_;  // the tag that ended the last block
  // Names that may be called: built in, macros, and variables, which may hold a macro.
  std::set<std::string> functions_ = {"raise_exception", "range", "namespace", "strftime_now"};
};

}  // namespace

absl::StatusOr<Block> Parse(std::string_view source) {
  ASYMSERVE_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace asymserve::jinja
