#include "engine/text/end_tokens.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace asymserve {
namespace {

constexpr std::array<std::string_view, 7> kEndOfTurn = {
    "<|im_end|>",    "<|eot_id|>", "<|end|>",         "<|endoftext|>",
    "<end_of_turn>", "<|eom_id|>", "<|end_of_text|>",
};

}  // namespace

void AddEndOfTurnTokens(TokenizerSpec& spec) {
  std::vector<int32_t>& ends = spec.end_ids;
  for (size_t i = 0; i < spec.types.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    if (spec.types[i] != TokenizerSpec::TokenType::kControl || id == spec.eos) continue;
    const bool ends_turn =
        std::find(kEndOfTurn.begin(), kEndOfTurn.end(), spec.tokens[i]) != kEndOfTurn.end();
    if (ends_turn && std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  }
}

}  // namespace asymserve
