#include "engine/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <string>
#include <utility>

#include "engine/base/status.h"

namespace asymserve {
namespace {

template <typename T, void (*free_function)(T*)>
struct Deleter {
  void operator()(T* object) const { free_function(object); }
};
using CodePointer = std::unique_ptr<pcre2_code, Deleter<pcre2_code, pcre2_code_free>>;
using MatchContextPointer =
    std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context, pcre2_match_context_free>>;
using MatchDataPointer =
    std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data, pcre2_match_data_free>>;

// PCRE2's own \s has U+180E besides, which lost the property in Unicode 6.3.
constexpr std::string_view kWhiteSpace =
    R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

std::string ExpandWhiteSpace(std::string_view pattern) {
  std::string expanded;
  bool in_class = false;
  for (size_t at = 0; at < pattern.size(); ++at) {
    const char c = pattern[at];
    if (c != '\\' || at + 1 == pattern.size()) {
      if (c == '[') in_class = true;
      if (c == ']') in_class = false;
      expanded += c;
      continue;
    }
    const char escaped = pattern[++at];
    if (escaped == 's' && in_class) {
      expanded += kWhiteSpace;
    } else if (escaped == 's' || (escaped == 'S' && !in_class)) {
      expanded += escaped == 's' ? "[" : "[^";
      expanded += kWhiteSpace;
      expanded += ']';
    } else {
      expanded += {c, escaped};
    }
  }
  return expanded;
}

std::string ErrorText(int code) {
  std::array<PCRE2_UCHAR, 160> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct Regex::Code {
  CodePointer code;
  MatchContextPointer context;
};

Regex::Regex(std::unique_ptr<const Code> code) : code_(std::move(code)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern, Units units, uint32_t match_limit) {
  const uint32_t unicode = units == Units::kCharacters ? PCRE2_UTF | PCRE2_UCP : 0;
  const std::string expanded = ExpandWhiteSpace(pattern);
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  CodePointer code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expanded.data()), expanded.size(),
                                 unicode | PCRE2_DOLLAR_ENDONLY, &error, &error_offset, nullptr));
  if (code == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("regular expression '", expanded, "' at byte ",
                                                   error_offset, ": ", ErrorText(error)));
  }
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("regular expression '", expanded, "' matches the empty string"));
  }
  // Where the platform forbids it the interpreter gives the same matches.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  MatchContextPointer context(pcre2_match_context_create(nullptr));
  if (context == nullptr) return absl::ResourceExhaustedError("no memory for a match context");
  pcre2_set_match_limit(context.get(), match_limit);
  return Regex(std::make_unique<const Code>(Code{std::move(code), std::move(context)}));
}

absl::Status Regex::Split(std::span<const std::string_view> texts,
                          std::vector<std::string_view>& pieces) const {
  const MatchDataPointer data(pcre2_match_data_create(1, nullptr));
  if (data == nullptr) return absl::ResourceExhaustedError("no memory for match data");
  const PCRE2_SIZE* const range = pcre2_get_ovector_pointer(data.get());
  for (const std::string_view text : texts) {
    for (size_t at = 0; at < text.size(); at = range[1]) {
      const int found =
          pcre2_match(code_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                      PCRE2_NO_UTF_CHECK, data.get(), code_->context.get());
      if (found == PCRE2_ERROR_NOMATCH) {
        pieces.push_back(text.substr(at));
        break;
      }
      if (found < 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            "pre-tokenizer gave up on the text behind byte ", at, ": ", ErrorText(found)));
      }
      if (range[0] > at) pieces.push_back(text.substr(at, range[0] - at));
      pieces.push_back(text.substr(range[0], range[1] - range[0]));
    }
  }
  return absl::OkStatus();
}

}  // namespace asymserve
