#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/base/kernel_memory.h"

namespace asymserve {

/// The memory of one class, in one mapping: address space is set aside, and opened from its start
/// page by page as buffers are carved from it. A second range is set aside when the first is full.
/// Where the kernel can name mappings (PR_SET_VMA_ANON_NAME), /proc/PID/smaps shows the name. Pages
/// are huge where the system gives them, and cost nothing until they are touched. Any thread.
class MemoryRegion {
 public:
  /// `name` of up to 79 printable characters.
  explicit MemoryRegion(std::string name);
  MemoryRegion(const MemoryRegion&) = delete;
  MemoryRegion& operator=(const MemoryRegion&) = delete;
  /// Everything was given back.
  ~MemoryRegion();

  /// What a buffer takes from a region, at a cache line.
  static int64_t CarvedBytes(int64_t bytes);
  /// What a region that holds `carved` bytes maps.
  static int64_t MappedBytes(int64_t carved);

  /// Zeroed, at a cache line. ResourceExhausted when the system refuses.
  absl::StatusOr<std::byte*> Allocate(int64_t bytes);
  void Free(std::byte* data, int64_t bytes);
  /// Touches every page that is open. ResourceExhausted when the system cannot give them.
  absl::Status Populate();
  /// Copies what small pages hold into huge ones, where the system can (Linux 6.1) and may: pages
  /// that were touched before all of a huge page was open are small, so at most two huge pages of
  /// each buffer are copied. Reading 92 MB of weights from small pages takes a third longer. What
  /// cannot be joined stays as it is.
  void JoinPages();

  /// The open addresses.
  std::vector<AddressRange> ranges() const;
  int64_t mapped_bytes() const;

 private:
  struct Range {
    std::byte* reserved = nullptr;
    size_t reserved_bytes = 0;
    std::byte* begin = nullptr;
    int64_t capacity = 0;
    int64_t used = 0;                  // offset after the last buffer
    int64_t open = 0;                  // a multiple of the page size
    std::map<int64_t, int64_t> holes;  // offset to bytes, never adjacent, none at the end
  };

  std::byte* TakeHole(int64_t bytes);
  absl::Status AddRange(int64_t bytes);
  absl::Status Open(Range& range, int64_t used) const;
  static void Close(Range& range);

  const std::string name_;
  mutable std::mutex mutex_;
  std::vector<Range> ranges_;
};

}  // namespace asymserve
