#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "config/api_keys.h"
#include "server/key_meter.h"

namespace asymserve {

/// Who holds a key.
struct KeyHolder {
  std::string name, tenant;
  Sha256Digest sha256 = {};
  int64_t not_after_s = 0;  // since 1970: from then on the key is not valid; 0: it always is
  std::shared_ptr<KeyMeter> meter;
};

/// The keys of a file. Any thread.
class KeyRing {
 public:
  /// Empty until Reload.
  explicit KeyRing(std::string file) : file_(std::move(file)) {}
  KeyRing(const KeyRing&) = delete;
  KeyRing& operator=(const KeyRing&) = delete;
  ~KeyRing() = default;

  /// No key may be in both. Before other threads use either; `other` outlives this.
  void Exclude(const KeyRing& other) { excluded_ = &other; }

  /// Reads the file. What a name has used of its limits stays counted. An error of the file or of
  /// ParseApiKeys, which names the file, leaves everything as it was.
  absl::Status Reload();
  /// Null: nobody's. Expired ones are found. Its time does not depend on how much of the key is
  /// right.
  std::shared_ptr<const KeyHolder> Find(std::string_view key) const;
  size_t size() const { return Holders()->size(); }
  /// When the first of them expires, or has expired, in seconds since 1970; 0: none does.
  int64_t first_expiry() const;

 private:
  using List = std::vector<std::shared_ptr<const KeyHolder>>;
  bool Has(const Sha256Digest& digest) const;
  std::shared_ptr<const List> Holders() const;

  const std::string file_;
  const KeyRing* excluded_ = nullptr;
  mutable std::mutex mutex_;
  std::shared_ptr<const List> holders_ = std::make_shared<List>();  // guarded by mutex_
};

}  // namespace asymserve
