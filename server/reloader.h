#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "server/server_metrics.h"

namespace asymserve {

/// Tells when files are not what they were: by inode, size and times of the file that a path leads
/// to. One thread.
class FileWatch {
 public:
  /// Empty paths are left out.
  explicit FileWatch(const std::vector<std::string>& paths);
  /// Whether one has changed since the last call, or since the construction.
  bool Changed();

 private:
  struct Stamp {
    uint64_t device = 0, inode = 0;
    int64_t bytes = -1;  // no such file
    int64_t modified_ns = 0, changed_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  static Stamp Read(const std::string& path);

  std::vector<std::string> paths_;
  std::vector<Stamp> stamps_;
};

/// Has files read again when they change. One thread.
class Reloader {
 public:
  /// `what` names them in the log. `read` leaves everything as it was when it fails.
  Reloader(std::string what, const std::vector<std::string>& paths,
           std::function<absl::Status()> read, ReloadMetrics& metrics)
      : what_(std::move(what)), watch_(paths), read_(std::move(read)), metrics_(metrics) {}

  /// Reads when a file has changed or the last attempt failed, looking once a second, or when `now`
  /// says so. Logs and counts.
  void Poll(bool now);

 private:
  const std::string what_;
  FileWatch watch_;
  const std::function<absl::Status()> read_;
  ReloadMetrics& metrics_;
  std::chrono::steady_clock::time_point next_ = {};
  std::string error_;  // of the last attempt; empty: it succeeded
};

}  // namespace asymserve
