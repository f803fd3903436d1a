#include "engine/text/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "engine/base/status.h"

namespace asymserve {
namespace {

absl::Status Failure(utf8proc_ssize_t code) {
  return absl::InvalidArgumentError(
      absl::StrCat("Unicode normalization failed: ", utf8proc_errmsg(code)));
}

/// Canonical ordering: stably by combining class within each run of non-starters. The library's own
/// is quadratic in the length of a run.
void Reorder(std::vector<utf8proc_int32_t>& code_points) {
  const auto combining_class = [](utf8proc_int32_t code_point) {
    return utf8proc_get_property(code_point)->combining_class;
  };
  for (auto begin = code_points.begin(); begin != code_points.end();) {
    if (combining_class(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end = std::find_if(begin, code_points.end(), [&](utf8proc_int32_t code_point) {
      return combining_class(code_point) == 0;
    });
    std::stable_sort(begin, end, [&](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    begin = end;
  }
}

}  // namespace

bool IsSurelyNfc(std::string_view text) {
  // U+0300 is 0xCC 0x80; lower code points have lower first bytes.
  return std::all_of(text.begin(), text.end(),
                     [](char byte) { return static_cast<uint8_t>(byte) < 0xCC; });
}

absl::StatusOr<std::string> NormalizeNfc(std::string_view text) {
  constexpr int kLongestDecomposition = 8;  // code points; Unicode's canonical ones have at most 4
  std::vector<utf8proc_int32_t> code_points;
  code_points.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    utf8proc_int32_t code_point = 0;
    const utf8proc_ssize_t read =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                         static_cast<utf8proc_ssize_t>(text.size() - at), &code_point);
    if (read <= 0) return Failure(read);
    at += static_cast<size_t>(read);
    utf8proc_int32_t parts[kLongestDecomposition];
    int boundary_class = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        code_point, parts, kLongestDecomposition,
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE), &boundary_class);
    if (count < 0 || count > kLongestDecomposition) return Failure(count);
    code_points.insert(code_points.end(), parts, parts + count);
  }
  Reorder(code_points);
  const utf8proc_ssize_t composed = utf8proc_normalize_utf32(
      code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()),
      static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  if (composed < 0) return Failure(composed);
  std::string normalized;
  normalized.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < composed; ++i) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t count = utf8proc_encode_char(code_points[i], bytes);
    normalized.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
  }
  return normalized;
}

}  // namespace asymserve
