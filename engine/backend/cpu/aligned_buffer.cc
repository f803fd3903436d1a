#include "engine/backend/cpu/aligned_buffer.h"

#include "engine/base/status.h"

namespace asymserve {

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) region_->Free(data_, bytes_);
}

absl::StatusOr<AlignedBuffer> AlignedBuffer::Allocate(const std::shared_ptr<MemoryRegion>& region,
                                                      int64_t bytes) {
  AlignedBuffer buffer;
  if (bytes <= 0) return buffer;
  ASYMSERVE_ASSIGN_OR_RETURN(buffer.data_, region->Allocate(bytes));
  buffer.region_ = region;
  buffer.bytes_ = bytes;
  return buffer;
}

}  // namespace asymserve
