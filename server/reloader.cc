#include "server/reloader.h"

#include <sys/stat.h>

#include "engine/base/log.h"

namespace asymserve {
namespace {

constexpr std::chrono::milliseconds kInterval(1000);

int64_t Nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

FileWatch::FileWatch(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    if (path.empty()) continue;
    paths_.push_back(path);
    stamps_.push_back(Read(path));
  }
}

FileWatch::Stamp FileWatch::Read(const std::string& path) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) return {};
  return {.device = found.st_dev,
          .inode = found.st_ino,
          .bytes = found.st_size,
          .modified_ns = Nanoseconds(found.st_mtim),
          .changed_ns = Nanoseconds(found.st_ctim)};
}

bool FileWatch::Changed() {
  bool changed = false;
  for (size_t i = 0; i < paths_.size(); ++i) {
    const Stamp stamp = Read(paths_[i]);
    changed = changed || stamp != stamps_[i];
    stamps_[i] = stamp;
  }
  return changed;
}

std::optional<absl::Status> Reloader::Poll(bool now, ReloadReport& report) {
  const auto time = std::chrono::steady_clock::now();
  if (!now && (!watches_ || time < next_)) return std::nullopt;
  next_ = time + kInterval;
  // The stamps are taken before the files are read: what changes meanwhile is seen the next time.
  const bool changed = watch_.Changed();
  if (!changed && !now && error_.empty()) return std::nullopt;
  absl::Status status = read_(report);
  const std::string error(status.message());
  if (status.ok()) {
    metrics_.done.Add();
    Log(LogLevel::kInfo, "reloaded", {{"what", what_}});
  } else if (changed || now || error != error_) {
    metrics_.failed.Add();
    Log(LogLevel::kError, "reload_failed",
        {{"what", what_}, {"error", error}, {"hint", "the old ones stay in use"}});
  }
  error_ = status.ok() ? "" : error;
  return status;
}

void Reloads::Add(Reloader reloader) {
  const std::lock_guard lock(mutex_);
  reloaders_.push_back(std::move(reloader));
}

std::vector<Reloads::Outcome> Reloads::Poll(bool now) {
  const std::lock_guard lock(mutex_);
  std::vector<Outcome> outcomes;
  for (Reloader& reloader : reloaders_) {
    ReloadReport report;
    const std::optional<absl::Status> status = reloader.Poll(now, report);
    if (status.has_value()) outcomes.push_back({reloader.what(), *status, std::move(report)});
  }
  return outcomes;
}

}  // namespace asymserve
