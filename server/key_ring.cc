#include "server/key_ring.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "absl/strings/str_cat.h"
#include "openssl/crypto.h"

#include "config/read_file.h"
#include "config/yaml_entries.h"
#include "engine/base/sha256.h"
#include "engine/base/status.h"

namespace asymserve {

absl::Status KeyRing::Reload() {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string text, ReadRegularFile(file_, kMaxYamlBytes));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<ApiKey> keys, ParseApiKeys(text, file_));
  for (const ApiKey& key : keys) {
    if (excluded_ != nullptr && excluded_->Has(key.sha256)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file_, ": ", key.name, ": its key is one of ", excluded_->file_, ", too"));
    }
  }
  const auto now = std::chrono::steady_clock::now();
  std::map<std::string, std::shared_ptr<KeyMeter>> meters;
  const std::shared_ptr<const List> before = Holders();
  for (const auto& holder : *before) meters[holder->name] = holder->meter;
  auto holders = std::make_shared<List>();
  for (const ApiKey& key : keys) {
    std::shared_ptr<KeyMeter>& meter = meters[key.name];
    if (meter == nullptr) {
      meter = std::make_shared<KeyMeter>(key.limits, now);
    } else {
      meter->Configure(key.limits, now);
    }
    holders->push_back(std::make_shared<KeyHolder>(
        KeyHolder{key.name, key.tenant, key.sha256, key.not_after_s, meter}));
  }
  const std::lock_guard lock(mutex_);
  holders_ = std::move(holders);
  return absl::OkStatus();
}

std::shared_ptr<const KeyRing::List> KeyRing::Holders() const {
  const std::lock_guard lock(mutex_);
  return holders_;
}

bool KeyRing::Has(const Sha256Digest& digest) const {
  const std::shared_ptr<const List> holders = Holders();
  return std::any_of(holders->begin(), holders->end(),
                     [&](const auto& holder) { return holder->sha256 == digest; });
}

int64_t KeyRing::first_expiry() const {
  int64_t first = 0;
  const std::shared_ptr<const List> holders = Holders();
  for (const auto& holder : *holders) {
    if (holder->not_after_s == 0) continue;
    first = first == 0 ? holder->not_after_s : std::min(first, holder->not_after_s);
  }
  return first;
}

std::shared_ptr<const KeyHolder> KeyRing::Find(std::string_view key) const {
  Sha256 hash;
  hash.Update(key);
  const Sha256Digest digest = hash.Finish();
  const std::shared_ptr<const List> holders = Holders();
  const std::shared_ptr<const KeyHolder>* found = nullptr;
  for (const auto& holder : *holders) {  // all of them
    if (CRYPTO_memcmp(digest.data(), holder->sha256.data(), digest.size()) == 0) found = &holder;
  }
  return found == nullptr ? nullptr : *found;
}

}  // namespace asymserve
