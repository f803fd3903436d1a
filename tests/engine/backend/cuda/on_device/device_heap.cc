#include "tests/engine/backend/cuda/on_device/device_heap.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>

namespace {

/// Pieces of powers of two, from one region; those that are freed are used again.
class PinnedHeap {
 public:
  bool Enable(int64_t bytes) {
    void* memory = nullptr;
    const cudaError_t error = cudaHostAlloc(&memory, static_cast<size_t>(bytes),
                                            cudaHostAllocMapped | cudaHostAllocPortable);
    if (error != cudaSuccess) {
      std::fprintf(stderr, "pinning %lld bytes: %s\n", static_cast<long long>(bytes),
                   cudaGetErrorString(error));
      return false;
    }
    next_ = static_cast<std::byte*>(memory);
    end_ = next_ + bytes;
    begin_.store(next_, std::memory_order_release);
    return true;
  }
  /// Null when it is not enabled, or full.
  void* Take(size_t bytes) {
    if (begin_.load(std::memory_order_acquire) == nullptr) return nullptr;
    const auto order = static_cast<size_t>(std::bit_width(std::max(bytes, kSmallest) - 1));
    const std::lock_guard lock(mutex_);
    Piece*& free = free_[order];
    if (free != nullptr) {
      Piece* piece = free;
      free = piece->next;
      return piece;
    }
    // The order is kept in front of a piece, which keeps its alignment.
    const size_t size = (size_t{1} << order) + kHead;
    if (static_cast<size_t>(end_ - next_) < size) return nullptr;
    std::byte* place = next_;
    next_ += size;
    *reinterpret_cast<size_t*>(place) = order;
    return place + kHead;
  }
  /// False: not of here.
  bool Give(void* memory) {
    auto* place = static_cast<std::byte*>(memory);
    const std::byte* begin = begin_.load(std::memory_order_acquire);
    if (begin == nullptr || place < begin || place >= end_) return false;
    const size_t order = *reinterpret_cast<size_t*>(place - kHead);
    const std::lock_guard lock(mutex_);
    auto* piece = reinterpret_cast<Piece*>(place);
    piece->next = free_[order];
    free_[order] = piece;
    return true;
  }

 private:
  static constexpr size_t kSmallest = 64;
  static constexpr size_t kHead = 64;
  struct Piece {
    Piece* next;
  };

  std::mutex mutex_;
  std::atomic<std::byte*> begin_ = nullptr;
  std::byte* next_ = nullptr;
  std::byte* end_ = nullptr;
  Piece* free_[64] = {};
};

// Never destroyed: memory is freed until the process ends.
PinnedHeap& Heap() {
  alignas(PinnedHeap) static std::byte place[sizeof(PinnedHeap)];
  static auto* heap = new (place) PinnedHeap;
  return *heap;
}

void* Allocate(size_t bytes) {
  void* memory = Heap().Take(bytes);
  if (memory == nullptr) memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) std::abort();
  return memory;
}

void Free(void* memory) {
  if (memory != nullptr && !Heap().Give(memory)) std::free(memory);
}

}  // namespace

void* operator new(size_t bytes) {
  return Allocate(bytes);
}
void* operator new[](size_t bytes) {
  return Allocate(bytes);
}
void operator delete(void* memory) noexcept {
  Free(memory);
}
void operator delete[](void* memory) noexcept {
  Free(memory);
}
void operator delete(void* memory, size_t /*bytes*/) noexcept {
  Free(memory);
}
void operator delete[](void* memory, size_t /*bytes*/) noexcept {
  Free(memory);
}

namespace asymserve::testing {

bool EnableDeviceHeap(int64_t bytes) {
  return Heap().Enable(bytes);
}

}  // namespace asymserve::testing
