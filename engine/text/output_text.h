#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/stop_matcher.h"
#include "engine/text/tokenizer.h"

namespace asymserve {

struct OutputTextOptions {
  std::vector<std::string> stop_strings = {};  // non-empty strings, valid UTF-8
  int32_t min_tokens = 0;     // stop strings are looked for in text of later tokens only
  bool include_stop = false;  // deliver the matched stop string too
  bool skip_special = true;   // leave control tokens out of the text
  /// The tokens go on from a text: a SentencePiece text then keeps its leading space.
  bool continues_text = false;
};

/// Turns generated tokens into deliverable text, incrementally. What it releases never splits a
/// UTF-8 character and never holds a part of a stop string that may still complete; the pieces
/// joined equal the text of all tokens at once. Bytes that can never become valid UTF-8 are
/// replaced by U+FFFD (maximal subpart, one each). One sequence, one thread.
class OutputText {
 public:
  /// `tokenizer` outlives this object.
  OutputText(const Tokenizer& tokenizer, const OutputTextOptions& options);

  /// Takes the next token and appends to `out` the text that is now certain. Returns the index of
  /// the stop string that is complete: the one that completes first as the text is read byte by
  /// byte, so that the cut into tokens does not matter; of several completed by the same byte the
  /// longest. Text behind the match is dropped; no further calls after a match.
  std::optional<int> Append(int32_t token, std::string& out);

  /// The sequence ended for another reason: releases what was held back.
  void Finish(std::string& out);

 private:
  const Tokenizer& tokenizer_;
  bool include_stop_, skip_special_;
  int32_t min_tokens_;
  int32_t tokens_ = 0;  // appended so far
  StopMatcher stops_;
  std::string pending_bytes_;  // an incomplete UTF-8 character
  std::string held_;           // valid UTF-8 that may begin a stop string
  bool drop_space_;            // the next byte begins a SentencePiece text
};

}  // namespace asymserve
