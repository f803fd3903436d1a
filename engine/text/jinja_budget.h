#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace asymserve::jinja {

/// What one rendering may use. Steps grow with the work done (one per evaluated node and per 64
/// bytes or items that an operation reads), bytes with every string, list and output piece made.
struct Limits {
  int64_t steps = 5'000'000;
  int64_t bytes = int64_t{128} << 20;
  int depth = 400;  // nested evaluations, macro calls included
};

/// Counts a rendering down to its limits. One thread.
class Budget {
 public:
  explicit Budget(const Limits& limits) : limits_(limits) {}

  absl::Status Work(size_t units = 0) {
    steps_ += 1 + static_cast<int64_t>(units / 64);
    if (steps_ <= limits_.steps) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("the template takes more than ", limits_.steps, " steps"));
  }
  absl::Status Allocate(size_t bytes) {
    if (bytes <= bytes_left()) {
      bytes_ += static_cast<int64_t>(bytes);
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("the template makes more than ", limits_.bytes, " bytes of text and lists"));
  }
  size_t bytes_left() const { return static_cast<size_t>(limits_.bytes - bytes_); }

  absl::Status Enter() {
    if (depth_ >= limits_.depth) {
      return absl::InvalidArgumentError(
          absl::StrCat("the template nests more than ", limits_.depth, " evaluations"));
    }
    ++depth_;
    return absl::OkStatus();
  }
  void Leave() { --depth_; }

 private:
  const Limits limits_;
  int64_t steps_ = 0, bytes_ = 0;
  int depth_ = 0;
};

}  // namespace asymserve::jinja
