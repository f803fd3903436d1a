#include "engine/text/pre_tokenizer.h"

#include <algorithm>
#include <array>

#include "engine/base/status.h"

namespace asymserve {
namespace {

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kNewline = R"([\r\n])";
constexpr std::string_view kHan = R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";
/// Cased letters by code point.
constexpr std::string_view kDeepseekLetters =
    R"(\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293})"
    R"(\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A})"
    R"(\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556})"
    R"(\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF})"
    R"(\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D})"
    R"(\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D})"
    R"(\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4})"
    R"(\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4})"
    R"(\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124})"
    R"(\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F})"
    R"(\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4})"
    R"(\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F})"
    R"(\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17})"
    R"(\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3})"
    R"(\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF})"
    R"(\x{1E900}-\x{1E943}]+)";
constexpr std::string_view kDeepseekPunctuation =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
/// Matches what \s+$ does, without a start at every space of a run: that would be quadratic.
constexpr std::string_view kTrailingSpace = R"((?<!\s)\s+$)";

/// Falcon looks for digits in GPT-2's byte alphabet, where six bytes of other characters are \p{N}.
constexpr std::string_view kAlphabetDigits = R"([0-9\xB2\xB3\xB9\xBC-\xBE]+)";
constexpr std::string_view kDigitTriple = "[0-9][0-9][0-9]";

constexpr std::string_view kDigits = "<Digits>";
constexpr std::string_view kBytes = "<ByteLevel>";
constexpr std::string_view kByteWords = "<ByteLevel words>";

using Stages = std::array<std::string_view, 7>;  // empty: none

struct Description {
  std::string_view name;
  Stages regexes;
  Stages json;  // as PreTokenizerOfStages takes it; empty: no tokenizer.json maps here
  bool normalizes_nfc = false;
  bool takes_whole_words = false;
  size_t byte_regexes = 0;  // so many of the last match bytes, not characters
};

constexpr std::array<Description, 12> kDescriptions = {{
    {"gpt-2", {kGpt2}, {kByteWords}},
    {"llama-bpe", {kLlama3}, {kLlama3, kBytes}, false, true},
    {"llama3", {kLlama3}, {}, false, true},
    {"llama-v3", {kLlama3}, {}, false, true},
    {"smollm", {R"(\p{N})", kGpt2}, {kDigits, kByteWords}},
    {"starcoder", {R"(\p{N})", kGpt2}, {}},
    {"qwen2", {kQwen2}, {kQwen2, kBytes}, true},
    {"deepseek-r1-qwen", {kQwen2}, {}, true},
    {"deepseek-llm",
     {kNewline, kDeepseekLetters, kDeepseekPunctuation, kTrailingSpace, kHan, R"(\p{N})"},
     {kNewline, kDeepseekLetters, kDeepseekPunctuation, R"(\s+$)", kHan, kDigits, kBytes}},
    {"deepseek-coder",
     {kNewline, R"(\s?\p{L}+)", R"(\s?\p{P}+)", kHan, R"(\p{N})"},
     {kNewline, R"(\s?\p{L}+)", R"(\s?\p{P}+)", kHan, kDigits, kBytes}},
    {"falcon",
     {R"([\p{P}$+<=>^~|`]+)", kGpt2, kAlphabetDigits, kDigitTriple},
     {"<Punctuation runs>", kByteWords, "<Digits runs>", kDigitTriple},
     false,
     false,
     2},
    {"default", {R"([\p{P}$+<=>^~|]+)", kGpt2, R"(\p{N}+)", kDigitTriple}, {}},
}};

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Create(std::string_view name) {
  const auto* const description =
      std::find_if(kDescriptions.begin(), kDescriptions.end(),
                   [name](const Description& known) { return known.name == name; });
  if (description == kDescriptions.end()) {
    std::string known;
    for (const Description& each : kDescriptions) {
      if (!known.empty()) known += ", ";
      known += each.name;
    }
    return absl::InvalidArgumentError(
        absl::StrCat("unknown pre-tokenizer '", std::string(name), "', known are ", known));
  }
  PreTokenizer pre_tokenizer;
  const auto* const end =
      std::find(description->regexes.begin(), description->regexes.end(), std::string_view());
  for (const auto* regex = description->regexes.begin(); regex != end; ++regex) {
    const bool is_bytes = static_cast<size_t>(end - regex) <= description->byte_regexes;
    const auto units = is_bytes ? Regex::Units::kBytes : Regex::Units::kCharacters;
    ASYMSERVE_ASSIGN_OR_RETURN(Regex stage, Regex::Compile(*regex, units));
    pre_tokenizer.stages_.push_back(std::move(stage));
  }
  pre_tokenizer.normalizes_nfc_ = description->normalizes_nfc;
  pre_tokenizer.takes_whole_words_ = description->takes_whole_words;
  return pre_tokenizer;
}

absl::Status PreTokenizer::Split(std::string_view text,
                                 std::vector<std::string_view>& words) const {
  words = {text};
  std::vector<std::string_view> pieces;
  for (const Regex& stage : stages_) {
    pieces.swap(words);
    words.clear();
    ASYMSERVE_RETURN_IF_ERROR(stage.Split(pieces, words));
  }
  return absl::OkStatus();
}

std::optional<std::string_view> PreTokenizerOfStages(std::span<const std::string> stages) {
  for (const Description& description : kDescriptions) {
    const auto end = std::find(description.json.begin(), description.json.end(), "");
    if (end == description.json.begin()) continue;
    if (std::equal(description.json.begin(), end, stages.begin(), stages.end())) {
      return description.name;
    }
  }
  return std::nullopt;
}

}  // namespace asymserve
