#pragma once

#include <istream>
#include <optional>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "config/config.h"

namespace CLI {
class App;
}

namespace asymserve {

/// The command line of `asymserve tokenize`, as written.
struct TokenizeArguments {
  std::optional<std::string> text;  // empty: standard input
  bool no_special = false;
  bool parse_special = false;
  bool pieces = false;
};

struct TokenizeOptions {
  std::string model_path;
  std::string text;
  bool add_special = true;
  bool parse_special = false;
  bool pieces = false;  // one "id<TAB>piece" a line instead of all ids on one
};

/// `arguments` outlives the parsing.
void AddTokenizeOptions(CLI::App& command, TokenizeArguments& arguments);

/// Reads the text from `in` where none was given. Never fails.
absl::StatusOr<TokenizeOptions> ReadTokenizeOptions(const TokenizeArguments& arguments,
                                                    const Config& config, std::istream& in);

/// `asymserve tokenize`: writes the token ids of a text to `out`.
absl::Status RunTokenize(const TokenizeOptions& options, std::ostream& out);

}  // namespace asymserve
