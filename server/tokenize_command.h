#pragma once

#include <ostream>
#include <string>

#include "absl/status/status.h"

namespace asymserve {

struct TokenizeOptions {
  std::string model_path;
  std::string text;
  bool add_special = true;
  bool parse_special = false;
  bool pieces = false;  // one "id<TAB>piece" a line instead of all ids on one
};

/// `asymserve tokenize`: writes the token ids of a text to `out`.
absl::Status RunTokenize(const TokenizeOptions& options, std::ostream& out);

}  // namespace asymserve
