#include "engine/quality/calibration_journal.h"

#include <cstring>
#include <string_view>
#include <utility>

#include "engine/base/atomic_file.h"
#include "engine/base/mapped_file.h"

namespace asymserve {
namespace {

constexpr std::string_view kMagic = "ASYMKVCJ";

template <typename T>
void Append(T value, std::string& bytes) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename Container>
std::string_view BytesOf(const Container& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(*values.data())};
}

/// Takes a length of type T and as many bytes off `bytes`; false if there are fewer.
template <typename T>
bool Take(std::string_view& bytes, std::string& out) {
  T size;
  if (bytes.size() < sizeof(size)) return false;
  std::memcpy(&size, bytes.data(), sizeof(size));
  bytes.remove_prefix(sizeof(size));
  if (bytes.size() < size) return false;
  out = bytes.substr(0, size);
  bytes.remove_prefix(size);
  return true;
}

}  // namespace

CalibrationJournal::CalibrationJournal(std::string path, const Sha256Digest& job)
    : path_(std::move(path)), job_(job) {
  if (path_.empty()) return;
  const auto file = MappedFile::Open(path_);
  if (!file.ok()) return;
  std::string_view bytes = BytesOf(file->bytes());
  if (bytes.size() < kMagic.size() + 2 * job_.size()) return;
  const Sha256Digest digest = Sha256Of(file->bytes().first(bytes.size() - job_.size()));
  if (!bytes.ends_with(BytesOf(digest))) return;
  bytes.remove_suffix(digest.size());
  if (!bytes.starts_with(kMagic)) return;
  bytes.remove_prefix(kMagic.size());
  if (!bytes.starts_with(BytesOf(job_))) return;
  bytes.remove_prefix(job_.size());
  std::string name, value;
  while (Take<uint32_t>(bytes, name) && Take<uint64_t>(bytes, value)) {
    entries_[name] = std::move(value);
  }
  found_ = entries_.size();
}

const std::string* CalibrationJournal::Find(const std::string& name) const {
  const auto entry = entries_.find(name);
  return entry == entries_.end() ? nullptr : &entry->second;
}

absl::Status CalibrationJournal::Put(const std::string& name, std::string bytes) {
  entries_[name] = std::move(bytes);
  if (path_.empty()) return absl::OkStatus();
  std::string file(kMagic);
  file += BytesOf(job_);
  for (const auto& [key, value] : entries_) {
    Append(static_cast<uint32_t>(key.size()), file);
    file += key;
    Append(uint64_t{value.size()}, file);
    file += value;
  }
  const Sha256Digest digest = Sha256Of(std::as_bytes(std::span(file)));
  file += BytesOf(digest);
  return WriteFileAtomically(path_, std::as_bytes(std::span(file)));
}

absl::Status CalibrationJournal::Put(const std::string& name, std::span<const double> values) {
  return Put(name, std::string(BytesOf(values)));
}

std::vector<double> CalibrationJournal::Numbers(const std::string& name, size_t count) const {
  const std::string* bytes = Find(name);
  if (bytes == nullptr || bytes->size() != count * sizeof(double)) return {};
  std::vector<double> values(count);
  std::memcpy(values.data(), bytes->data(), bytes->size());
  return values;
}

}  // namespace asymserve
