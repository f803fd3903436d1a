// Input: a tokenizer.json, then, behind a zero byte if there is one, a tokenizer_config.json. What
// is accepted must encode, and decode without harm.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/base/check.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace asymserve;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), input.size());
  const std::string_view config = input.substr(std::min(end + 1, input.size()));
  auto spec = ParseTokenizerJson(input.substr(0, end), config);
  if (!spec.ok()) return 0;
  const auto tokenizer = Tokenizer::Create(*std::move(spec));
  if (!tokenizer.ok()) return 0;
  for (const bool parse_special : {false, true}) {
    const auto ids =
        (*tokenizer)->Encode("ab <s>12\n\xC3\xA9  ba", {.parse_special = parse_special});
    if (!ids.ok()) continue;
    for (const int32_t id : *ids) ASYMSERVE_CHECK(id >= 0 && id < (*tokenizer)->vocabulary());
    Decode(**tokenizer, *ids, /*skip_special=*/false);
  }
  return 0;
}
