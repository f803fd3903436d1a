#include "engine/backend/cpu/aligned_buffer.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

constexpr int64_t kMapFrom = int64_t{1} << 20;
constexpr std::align_val_t kAlignment{64};

}  // namespace

AlignedBuffer::~AlignedBuffer() {
  if (data_ == nullptr) return;
  if (bytes_ >= kMapFrom) {
    munmap(data_, static_cast<size_t>(bytes_));
  } else {
    ::operator delete(data_, kAlignment);
  }
}

absl::StatusOr<AlignedBuffer> AlignedBuffer::Allocate(int64_t bytes) {
  AlignedBuffer buffer;
  if (bytes <= 0) return buffer;
  const auto size = static_cast<size_t>(bytes);
  void* data = nullptr;
  if (bytes >= kMapFrom) {
    data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
      return absl::ResourceExhaustedError(
          absl::StrCat("out of memory: the system refused ", bytes, " bytes"));
    }
    // A hint: where huge pages are off, small ones do.
    (void)madvise(data, size, MADV_HUGEPAGE);
  } else {
    data = ::operator new(size, kAlignment, std::nothrow);
    if (data == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("out of memory: the system refused ", bytes, " bytes"));
    }
    std::memset(data, 0, size);
  }
  buffer.data_ = static_cast<std::byte*>(data);
  buffer.bytes_ = bytes;
  return buffer;
}

}  // namespace asymserve
