// Input: three stop strings that end with a line feed each, then the bytes of a token stream. The
// stream delivered byte by byte must be the text of the whole.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/check.h"
#include "engine/text/output_text.h"
#include "engine/text/utf8.h"
#include "tests/engine/text/toy_vocabulary.h"

namespace asymserve {
namespace {

std::unique_ptr<Tokenizer> ByteTokenizer() {
  auto tokenizer = Tokenizer::Create(ToyByteLevelSpec());
  ASYMSERVE_CHECK(tokenizer.ok());
  return *std::move(tokenizer);
}

std::vector<std::string> TakeStopStrings(std::string_view& input) {
  std::vector<std::string> stops;
  for (int i = 0; i < 3; ++i) {
    const size_t end = std::min(input.find('\n'), input.size());
    const std::string_view stop = input.substr(0, end);
    if (!stop.empty() && ValidUtf8Prefix(stop) == stop.size()) stops.emplace_back(stop);
    input.remove_prefix(std::min(end + 1, input.size()));
  }
  return stops;
}

/// The text of all bytes at once, cut off at the stop string that completes first.
std::string Expected(std::string_view bytes, const std::vector<std::string>& stops) {
  std::string pending;
  std::string text;
  AppendUtf8(bytes, pending, text);
  ASYMSERVE_CHECK(ValidUtf8Prefix(text) == text.size());
  size_t first_end = std::string::npos;
  size_t begin = std::string::npos;
  for (const std::string& stop : stops) {
    const size_t at = text.find(stop);
    if (at == std::string::npos) continue;
    const size_t end = at + stop.size();
    if (end < first_end || (end == first_end && at < begin)) {
      first_end = end;
      begin = at;
    }
  }
  if (begin != std::string::npos) return text.substr(0, begin);
  if (!pending.empty()) text += kReplacementCharacter;
  return text;
}

}  // namespace
}  // namespace asymserve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace asymserve;
  static const std::unique_ptr<Tokenizer> tokenizer = ByteTokenizer();
  std::string_view input(reinterpret_cast<const char*>(data), size);
  OutputTextOptions options;
  options.stop_strings = TakeStopStrings(input);
  OutputText output(*tokenizer, options);

  std::string text;
  bool stopped = false;
  for (const char byte : input) {
    std::string delta;
    stopped = output.Append(static_cast<uint8_t>(byte), delta).has_value();
    ASYMSERVE_CHECK(ValidUtf8Prefix(delta) == delta.size());
    text += delta;
    if (stopped) break;
  }
  if (!stopped) output.Finish(text);
  ASYMSERVE_CHECK(text == Expected(input, options.stop_strings));
  return 0;
}
