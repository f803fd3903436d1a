#include "engine/backend/cpu/memory_region.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#define ASYMSERVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASYMSERVE_ASAN 1
#endif
#endif

#ifdef ASYMSERVE_ASAN
extern "C" {  // absl's headers declare them, too
// NOLINTNEXTLINE(readability-redundant-declaration)
void __asan_poison_memory_region(void const volatile* address, size_t size);
// NOLINTNEXTLINE(readability-redundant-declaration)
void __asan_unpoison_memory_region(void const volatile* address, size_t size);
}
#endif

namespace asymserve {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kReserve = int64_t{16} << 30;
constexpr int kSetVma = 0x53564d41;  // PR_SET_VMA and PR_SET_VMA_ANON_NAME of linux/prctl.h
constexpr int kSetVmaAnonName = 0;

// Under the address sanitizer buffers are a line apart, and what is between them is poisoned.
#ifdef ASYMSERVE_ASAN
constexpr int64_t kGap = kLine;
void Poison(const std::byte* data, int64_t bytes) {
  __asan_poison_memory_region(data, static_cast<size_t>(bytes));
}
void Unpoison(const std::byte* data, int64_t bytes) {
  __asan_unpoison_memory_region(data, static_cast<size_t>(bytes));
}
#else
constexpr int64_t kGap = 0;
void Poison(const std::byte* /*data*/, int64_t /*bytes*/) {}
void Unpoison(const std::byte* /*data*/, int64_t /*bytes*/) {}
#endif

int64_t PageBytes() {
  static const int64_t bytes = sysconf(_SC_PAGESIZE);
  return bytes;
}

int64_t RoundUp(int64_t bytes, int64_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

/// MADV_COLLAPSE does not ask.
bool HugePagesAllowed() {
  std::ifstream setting("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string text;
  return std::getline(setting, text) && text.find("[never]") == std::string::npos;
}

absl::Status Refused(int64_t bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("out of memory: the system refused ", bytes,
                   " bytes; lower engine.memory_bytes, or see ulimit -v and vm.overcommit_memory"));
}

}  // namespace

MemoryRegion::MemoryRegion(std::string name) : name_(std::move(name)) {}

MemoryRegion::~MemoryRegion() {
  for (const Range& range : ranges_) {
    ASYMSERVE_CHECK(range.used == 0);
    munmap(range.reserved, range.reserved_bytes);
  }
}

int64_t MemoryRegion::CarvedBytes(int64_t bytes) {
  return bytes <= 0 ? 0 : RoundUp(bytes, kLine) + kGap;
}

int64_t MemoryRegion::MappedBytes(int64_t carved) {
  return RoundUp(carved, PageBytes());
}

/// The first hole that is large enough.
std::byte* MemoryRegion::TakeHole(int64_t bytes) {
  for (Range& range : ranges_) {
    for (auto hole = range.holes.begin(); hole != range.holes.end(); ++hole) {
      if (hole->second < bytes) continue;
      const auto [offset, size] = *hole;
      range.holes.erase(hole);
      if (size > bytes) range.holes[offset + bytes] = size - bytes;
      std::byte* data = range.begin + offset;
      Unpoison(data, bytes);
      std::memset(data, 0, static_cast<size_t>(bytes));
      return data;
    }
  }
  return nullptr;
}

/// Sets address space aside for at least `bytes`, between pages that stay closed, so that the
/// kernel never joins it with a neighbour.
absl::Status MemoryRegion::AddRange(int64_t bytes) {
  const int64_t least = RoundUp(bytes, kHugePage);
  Range range;
  rlimit limit{};
  int64_t reserve = kReserve;
  if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    reserve = std::min(reserve, static_cast<int64_t>(limit.rlim_cur / 16) / kHugePage * kHugePage);
  }
  for (const int64_t capacity : {std::max(least, reserve), least}) {
    range.reserved_bytes = static_cast<size_t>(capacity + 2 * kHugePage);
    void* place = mmap(nullptr, range.reserved_bytes, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED) continue;
    range.reserved = static_cast<std::byte*>(place);
    range.capacity = capacity;
    const auto address = static_cast<int64_t>(reinterpret_cast<uintptr_t>(place));
    range.begin = range.reserved + (RoundUp(address + 1, kHugePage) - address);
    // A hint: where huge pages are off, small ones do.
    (void)madvise(place, range.reserved_bytes, MADV_HUGEPAGE);
    ranges_.push_back(std::move(range));
    return absl::OkStatus();
  }
  return Refused(bytes);
}

/// Makes [0, used) of a range accessible.
absl::Status MemoryRegion::Open(Range& range, int64_t used) const {
  const int64_t open = RoundUp(used, PageBytes());
  if (open > range.open) {
    const auto grown = static_cast<size_t>(open - range.open);
    if (mprotect(range.begin + range.open, grown, PROT_READ | PROT_WRITE) != 0) {
      return Refused(open - range.open);
    }
    // Kernels without names say EINVAL.
    (void)prctl(kSetVma, kSetVmaAnonName, range.begin, open, name_.c_str());
    Poison(range.begin + range.open, open - range.open);
    range.open = open;
  }
  range.used = used;
  return absl::OkStatus();
}

absl::StatusOr<std::byte*> MemoryRegion::Allocate(int64_t bytes) {
  const int64_t carved = CarvedBytes(bytes);
  std::lock_guard lock(mutex_);
  std::byte* data = TakeHole(carved);
  if (data == nullptr) {
    if (ranges_.empty() || ranges_.back().capacity - ranges_.back().used < carved) {
      if (absl::Status status = AddRange(carved); !status.ok()) return status;
    }
    Range& range = ranges_.back();
    data = range.begin + range.used;
    if (absl::Status status = Open(range, range.used + carved); !status.ok()) return status;
  }
  Poison(data, carved);
  Unpoison(data, bytes);
  return data;
}

/// Gives back the pages after the last buffer. What is left of its last page is zero again.
void MemoryRegion::Close(Range& range) {
  const int64_t open = RoundUp(range.used, PageBytes());
  if (open < range.open) {
    const auto closed = static_cast<size_t>(range.open - open);
    Unpoison(range.begin + open, range.open - open);
    (void)madvise(range.begin + open, closed, MADV_DONTNEED);
    ASYMSERVE_CHECK(mprotect(range.begin + open, closed, PROT_NONE) == 0);
    range.open = open;
  }
  Unpoison(range.begin + range.used, open - range.used);
  std::memset(range.begin + range.used, 0, static_cast<size_t>(open - range.used));
  Poison(range.begin + range.used, open - range.used);
}

void MemoryRegion::Free(std::byte* data, int64_t bytes) {
  std::lock_guard lock(mutex_);
  for (Range& range : ranges_) {
    if (data < range.begin || data >= range.begin + range.capacity) continue;
    int64_t offset = data - range.begin;
    int64_t size = CarvedBytes(bytes);
    Poison(data, size);
    const auto next = range.holes.lower_bound(offset);
    if (next != range.holes.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == offset) {
        offset = before->first;
        size += before->second;
        range.holes.erase(before);
      }
    }
    if (next != range.holes.end() && offset + size == next->first) {
      size += next->second;
      range.holes.erase(next);
    }
    if (offset + size < range.used) {
      range.holes[offset] = size;
    } else {
      range.used = offset;
      Close(range);
    }
    return;
  }
  ASYMSERVE_CHECK(false);
}

absl::Status MemoryRegion::Populate() {
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE of linux/mman.h, since Linux 5.14
  std::lock_guard lock(mutex_);
  for (const Range& range : ranges_) {
    if (madvise(range.begin, static_cast<size_t>(range.open), kPopulateWrite) == 0) continue;
    if (errno == ENOMEM) return Refused(range.open);
    Unpoison(range.begin, range.open);
    for (int64_t at = 0; at < range.open; at += PageBytes()) {
      auto* byte = reinterpret_cast<volatile uint8_t*>(range.begin + at);
      *byte = *byte;
    }
  }
  return absl::OkStatus();
}

void MemoryRegion::JoinPages() {
  if (!HugePagesAllowed()) return;
  constexpr int kCollapse = 25;  // MADV_COLLAPSE of linux/mman.h
  constexpr int64_t kStep =
      16 * kHugePage;  // the kernel stops at the first page that it cannot join
  std::lock_guard lock(mutex_);
  for (const Range& range : ranges_) {
    const int64_t whole = range.open / kHugePage * kHugePage;
    for (int64_t at = 0; at < whole; at += kStep) {
      const auto bytes = static_cast<size_t>(std::min(kStep, whole - at));
      if (madvise(range.begin + at, bytes, kCollapse) == 0) continue;
      if (errno == EAGAIN) (void)madvise(range.begin + at, bytes, kCollapse);
    }
  }
}

std::vector<AddressRange> MemoryRegion::ranges() const {
  std::lock_guard lock(mutex_);
  std::vector<AddressRange> ranges;
  for (const Range& range : ranges_) {
    if (range.open == 0) continue;
    ranges.push_back({reinterpret_cast<uintptr_t>(range.begin),
                      reinterpret_cast<uintptr_t>(range.begin + range.open)});
  }
  return ranges;
}

int64_t MemoryRegion::mapped_bytes() const {
  std::lock_guard lock(mutex_);
  int64_t bytes = 0;
  for (const Range& range : ranges_) bytes += range.open;
  return bytes;
}

}  // namespace asymserve
