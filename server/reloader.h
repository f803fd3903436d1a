#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>
#include <functional>
#include <mutex>
#include <optional>
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

/// What came of reading files again.
struct ReloadReport {
  // Options of the configuration, each as "engine.step_ms: 80 -> 40".
  std::vector<std::string> changed;
  std::vector<std::string> needs_restart;  // what runs is not what the file says
};

/// Has files read again when they change, or only when asked. One thread.
class Reloader {
 public:
  using Read = std::function<absl::Status(ReloadReport&)>;

  /// `what` names them in the log. `read` leaves everything as it was when it fails. Without paths
  /// it reads only when asked.
  Reloader(std::string what, const std::vector<std::string>& paths, Read read,
           ReloadMetrics& metrics)
      : what_(std::move(what)),
        watches_(!paths.empty()),
        watch_(paths),
        read_(std::move(read)),
        metrics_(metrics) {}

  /// Reads when a file has changed or the last attempt failed, looking once a second, or when `now`
  /// says so. Logs and counts. The result, if it read.
  std::optional<absl::Status> Poll(bool now, ReloadReport& report);
  const std::string& what() const { return what_; }

 private:
  const std::string what_;
  const bool watches_;
  FileWatch watch_;
  const Read read_;
  ReloadMetrics& metrics_;
  std::chrono::steady_clock::time_point next_ = {};
  std::string error_;  // of the last attempt; empty: it succeeded
};

/// All that is read again. Any thread.
class Reloads {
 public:
  struct Outcome {
    std::string what;
    absl::Status status;
    ReloadReport report;
  };

  void Add(Reloader reloader);
  /// Reloader::Poll of each, in the order of Add; of those that read, what came of it.
  std::vector<Outcome> Poll(bool now);

 private:
  std::mutex mutex_;
  std::vector<Reloader> reloaders_;  // guarded by mutex_
};

}  // namespace asymserve
