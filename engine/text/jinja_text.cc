#include "engine/text/jinja_text.h"

#include <string.h>

#include <algorithm>

#include "engine/base/status.h"

namespace asymserve::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

bool IsContinuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0u) == 0x80u;
}

// Offset of the code point that ends right before `end`, which is not 0.
size_t PreviousOffset(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && IsContinuation(text[begin])) --begin;
  return begin;
}

template <typename Predicate>
std::string_view StripLeftIf(std::string_view text, Predicate strip) {
  size_t begin = 0;
  while (begin < text.size()) {
    size_t next = begin;
    if (!strip(NextCodePoint(text, next))) break;
    begin = next;
  }
  return text.substr(begin);
}

template <typename Predicate>
std::string_view StripRightIf(std::string_view text, Predicate strip) {
  size_t end = text.size();
  while (end > 0) {
    const size_t begin = PreviousOffset(text, end);
    size_t next = begin;
    if (!strip(NextCodePoint(text, next))) break;
    end = begin;
  }
  return text.substr(0, end);
}

bool Contains(std::string_view characters, char32_t wanted) {
  for (size_t i = 0; i < characters.size();) {
    if (NextCodePoint(characters, i) == wanted) return true;
  }
  return false;
}

bool IsUpper(char c) {
  return c >= 'A' && c <= 'Z';
}
bool IsLower(char c) {
  return c >= 'a' && c <= 'z';
}
char Upper(char c) {
  return IsLower(c) ? static_cast<char>(c - 'a' + 'A') : c;
}
char Lower(char c) {
  return IsUpper(c) ? static_cast<char>(c - 'A' + 'a') : c;
}

}  // namespace

char32_t NextCodePoint(std::string_view text, size_t& offset) {
  const auto lead = static_cast<unsigned char>(text[offset++]);
  if (lead < 0x80) return lead;
  char32_t code_point = lead >= 0xF0 ? lead & 0x07u : lead >= 0xE0 ? lead & 0x0Fu : lead & 0x1Fu;
  while (offset < text.size() && IsContinuation(text[offset])) {
    code_point = (code_point << 6) | (static_cast<unsigned char>(text[offset++]) & 0x3Fu);
  }
  return code_point;
}

void AppendCodePoint(char32_t code_point, std::string& out) {
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
    return;
  }
  if (code_point < 0x800) {
    out += static_cast<char>(0xC0 | (code_point >> 6));
  } else {
    if (code_point < 0x10000) {
      out += static_cast<char>(0xE0 | (code_point >> 12));
    } else {
      out += static_cast<char>(0xF0 | (code_point >> 18));
      out += static_cast<char>(0x80 | ((code_point >> 12) & 0x3F));
    }
    out += static_cast<char>(0x80 | ((code_point >> 6) & 0x3F));
  }
  out += static_cast<char>(0x80 | (code_point & 0x3F));
}

int64_t CodePoints(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return !IsContinuation(c); });
}

std::vector<std::string_view> SplitCharacters(std::string_view text) {
  std::vector<std::string_view> characters;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    NextCodePoint(text, end);
    characters.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return characters;
}

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::string_view StripLeft(std::string_view text) {
  return StripLeftIf(text, IsSpace);
}
std::string_view StripRight(std::string_view text) {
  return StripRightIf(text, IsSpace);
}
std::string_view StripLeft(std::string_view text, std::string_view characters) {
  return StripLeftIf(text, [&](char32_t c) { return Contains(characters, c); });
}
std::string_view StripRight(std::string_view text, std::string_view characters) {
  return StripRightIf(text, [&](char32_t c) { return Contains(characters, c); });
}

size_t Find(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return kNone;
  if (needle.empty()) return from;
  const void* found =
      ::memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (found == nullptr) return kNone;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

std::vector<std::string_view> Split(std::string_view text, std::string_view separator,
                                    int64_t most) {
  std::vector<std::string_view> pieces;
  size_t begin = 0;
  while (most < 0 || static_cast<int64_t>(pieces.size()) < most) {
    const size_t found = Find(text, separator, begin);
    if (found == kNone) break;
    pieces.push_back(text.substr(begin, found - begin));
    begin = found + separator.size();
  }
  pieces.push_back(text.substr(begin));
  return pieces;
}

std::vector<std::string_view> SplitFromRight(std::string_view text, std::string_view separator,
                                             int64_t most) {
  if (most < 0) most = static_cast<int64_t>(text.size());
  // Matches are taken from the right, so overlapping ones differ from those of Split.
  std::vector<std::string_view> pieces;
  size_t end = text.size();
  size_t at = end;
  while (static_cast<int64_t>(pieces.size()) < most && at >= separator.size()) {
    const size_t begin = at - separator.size();
    if (text.substr(begin, separator.size()) != separator) {
      --at;
      continue;
    }
    pieces.push_back(text.substr(at, end - at));
    end = at = begin;
  }
  pieces.push_back(text.substr(0, end));
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

std::vector<std::string_view> SplitAtSpace(std::string_view text, int64_t most) {
  std::vector<std::string_view> pieces;
  text = StripLeft(text);
  while (!text.empty()) {
    if (most >= 0 && static_cast<int64_t>(pieces.size()) == most) {
      pieces.push_back(text);
      break;
    }
    const std::string_view rest = StripLeftIf(text, [](char32_t c) { return !IsSpace(c); });
    pieces.push_back(text.substr(0, text.size() - rest.size()));
    text = StripLeft(rest);
  }
  return pieces;
}

absl::StatusOr<std::string> Replace(std::string_view text, std::string_view from,
                                    std::string_view to, int64_t most, size_t limit_bytes) {
  std::string out;
  size_t begin = 0;  // first byte not yet copied
  size_t search = 0;
  for (int64_t done = 0; most < 0 || done < most; ++done) {
    const size_t found = Find(text, from, search);
    if (found == kNone) break;
    out.append(text.substr(begin, found - begin)).append(to);
    begin = search = found + from.size();
    if (out.size() > limit_bytes) return absl::ResourceExhaustedError("the result is too long");
    if (from.empty()) {  // before every code point and at the end
      if (search >= text.size()) break;
      NextCodePoint(text, search);
    }
  }
  out.append(text.substr(begin));
  return out;
}

absl::StatusOr<std::string> MapCase(std::string_view text, CaseMapping mapping) {
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (!std::all_of(text.begin(), text.end(), is_ascii)) {
    return absl::InvalidArgumentError("changing the case of non-ASCII text is not supported");
  }
  std::string out(text);
  char previous = ' ';
  for (size_t i = 0; i < out.size(); ++i) {
    const char c = out[i];
    bool upper = mapping == CaseMapping::kUpper;
    if (mapping == CaseMapping::kCapitalize) upper = i == 0;
    if (mapping == CaseMapping::kMethodTitle) upper = !IsUpper(previous) && !IsLower(previous);
    if (mapping == CaseMapping::kFilterTitle) {
      upper = IsSpace(static_cast<unsigned char>(previous)) ||
              std::string_view("-({[<").find(previous) != kNone;
    }
    out[i] = upper ? Upper(c) : Lower(c);
    previous = c;
  }
  return out;
}

}  // namespace asymserve::jinja
