#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace asymserve {

/// A regular expression over Unicode text, with just-in-time code where the platform allows it.
/// Immutable; any thread.
class Regex {
 public:
  enum class Units : uint8_t { kCharacters, kBytes };  // what a pattern's `.` and classes match

  /// `\s` and `\S` mean Unicode's White_Space, classes and case follow Unicode, `$` is the end of
  /// the text only. `match_limit` bounds the backtracking of one match. InvalidArgument for a
  /// pattern that does not compile or that matches the empty string.
  static absl::StatusOr<Regex> Compile(std::string_view pattern, Units units = Units::kCharacters,
                                       uint32_t match_limit = kDefaultMatchLimit);
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  /// Cuts each of `texts`, valid UTF-8 unless the units are bytes, into its matches and what lies
  /// between them, and appends the pieces in order. InvalidArgument, naming the offset, when a
  /// match exceeds its limits.
  absl::Status Split(std::span<const std::string_view> texts,
                     std::vector<std::string_view>& pieces) const;

 private:
  static constexpr uint32_t kDefaultMatchLimit = 10'000'000;
  struct Code;
  explicit Regex(std::unique_ptr<const Code> code);
  std::unique_ptr<const Code> code_;
};

}  // namespace asymserve
