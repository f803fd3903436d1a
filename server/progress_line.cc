#include "server/progress_line.h"

#include <unistd.h>

#include <cmath>
#include <iostream>

#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

constexpr std::chrono::milliseconds kTerminalInterval(200);
constexpr std::chrono::seconds kLogInterval(10);

}  // namespace

ProgressLine::ProgressLine()
    : terminal_(::isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      last_(terminal_ ? Clock::time_point() : start_) {}

ProgressLine::~ProgressLine() {
  if (shown_ && terminal_) std::cerr << "\r\x1b[K" << std::flush;
}

void ProgressLine::Show(const std::string& what, double fraction) {
  const Clock::time_point now = Clock::now();
  if (fraction < last_fraction_) start_ = now;
  last_fraction_ = fraction;
  const bool due = now - last_ >= (terminal_ ? Clock::duration(kTerminalInterval) : kLogInterval);
  if (!due) return;
  last_ = now;
  shown_ = true;
  std::string line = absl::StrCat(what, ", ", static_cast<int>(100 * fraction), " %");
  if (fraction > 0) {
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    const double left = elapsed * (1 - fraction) / fraction;
    absl::StrAppend(&line, ", ", std::lround(left), " s left");
  }
  std::cerr << (terminal_ ? "\r\x1b[K" + line : line + "\n") << std::flush;
}

}  // namespace asymserve
