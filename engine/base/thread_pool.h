#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace asymserve {

/// Runs one parallel region at a time on the calling thread and `threads - 1` workers. Each thread
/// takes neighbouring chunks of its own, in order (what one fetches ahead the next one reads), then
/// those that others have left, one by one: a worker that the kernel descheduled delays nothing but
/// the chunk it holds, and the caller finishes alone when no worker wakes in time. Idle workers
/// spin for at most 20 us, then park: on shared cores spinning would take the time from whoever has
/// the work. Which thread runs a chunk must not change its result. One caller thread at a time.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int threads() const { return static_cast<int>(queues_.size()); }

  /// Calls body(chunk, thread) for every chunk in [0, chunks), thread in [0, threads()), and
  /// returns when all are done. `thread` is distinct among calls that run at the same time.
  template <typename Body>
  void ParallelFor(int chunks, Body&& body) {
    if (chunks <= 1 || threads() == 1) {
      for (int chunk = 0; chunk < chunks; ++chunk) body(chunk, 0);
      return;
    }
    using Function = std::remove_reference_t<Body>;
    Run(
        chunks,
        [](void* context, int chunk, int thread) {
          (*static_cast<Function*>(context))(chunk, thread);
        },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Invoke = void (*)(void* context, int chunk, int thread);
  void Run(int chunks, Invoke invoke, void* context);
  void WorkerLoop(int thread);
  /// Takes and runs chunks of the current region until none is left.
  void TakeChunks(int thread);
  void TakeChunksOf(int queue, int thread);
  /// The first chunk of a queue's share of the region. The caller's, the first, is never smaller
  /// than another.
  int FirstChunk(int queue) const {
    return static_cast<int>((int64_t{chunks_} * queue + threads() - 1) / threads());
  }

  /// A thread's chunks. Upper 32 bits: region number; lower 32: chunks not yet taken. One word, so
  /// that a late worker cannot take a chunk of a region it did not see.
  struct Queue {
    alignas(64) std::atomic<uint64_t> ticket{0};
  };

  // A region's description is stable while any of its chunks is unfinished: it changes only between
  // regions, when all queues are empty, and a thread reads it only while it holds a chunk.
  alignas(64) Invoke invoke_ = nullptr;
  void* context_ = nullptr;
  int chunks_ = 0;
  uint64_t regions_ = 0;  // the caller's alone
  alignas(64) std::vector<Queue> queues_;
  alignas(64) std::atomic<uint32_t> unfinished_{0};
  alignas(64) std::atomic<uint32_t> region_{0};  // workers wait on this
  std::atomic<int> parked_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace asymserve
