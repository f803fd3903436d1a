#pragma once

#include <chrono>
#include <string>

namespace asymserve {

/// Progress on standard error: one line that is overwritten on a terminal, a line now and then
/// elsewhere.
class ProgressLine {
 public:
  ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  /// Clears the line.
  ~ProgressLine();

  /// `fraction` of `what`, [0, 1]; from it the time that is left is estimated, anew whenever the
  /// fraction falls back because something else has begun.
  void Show(const std::string& what, double fraction);

 private:
  using Clock = std::chrono::steady_clock;

  const bool terminal_;
  Clock::time_point start_;
  Clock::time_point last_;
  double last_fraction_ = 0;
  bool shown_ = false;
};

}  // namespace asymserve
