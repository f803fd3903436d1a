#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "engine/base/sha256.h"

namespace asymserve {

/// What a calibration has computed so far, by name, in a file that an interrupted run leaves behind
/// and the next run of the same job goes on from:
///
///   "ASYMKVCJ", u8 job digest [32], then per entry u32 bytes of the name, name, u64 bytes, bytes;
///   u8 SHA-256 [32] of all before it; numbers little-endian
class CalibrationJournal {
 public:
  /// An empty path: nothing is kept. `job` is of everything that the results depend on. A file of
  /// another job, or one that is damaged, counts as absent and will be overwritten.
  CalibrationJournal(std::string path, const Sha256Digest& job);

  /// Entries that an earlier run left.
  size_t found() const { return found_; }
  /// Null if there is no such entry.
  const std::string* Find(const std::string& name) const;
  /// Adds an entry and writes the file, as a whole or not at all.
  absl::Status Put(const std::string& name, std::string bytes);
  absl::Status Put(const std::string& name, std::span<const double> values);
  /// Empty if there is no such entry of that many numbers.
  std::vector<double> Numbers(const std::string& name, size_t count) const;

 private:
  std::string path_;
  Sha256Digest job_;
  std::map<std::string, std::string> entries_;
  size_t found_ = 0;
};

}  // namespace asymserve
