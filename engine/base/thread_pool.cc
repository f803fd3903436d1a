#include "engine/base/thread_pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "engine/base/check.h"

namespace asymserve {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSpin = std::chrono::microseconds(20);

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// std::atomic::wait spins for longer than we allow, hence the system call itself.
void FutexWait(std::atomic<uint32_t>& word, uint32_t expected) {
  static_assert(sizeof(word) == sizeof(uint32_t));
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}
void FutexWakeAll(std::atomic<uint32_t>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

// Spins until `done()` or 20 us have passed; true if done.
template <typename Done>
bool Spin(Done done) {
  const auto start = Clock::now();
  for (;;) {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      Relax();
    }
    if (Clock::now() - start > kSpin) return done();
  }
}

}  // namespace

ThreadPool::ThreadPool(int threads) : queues_(static_cast<size_t>(std::max(threads, 0))) {
  ASYMSERVE_CHECK(threads >= 1);
  for (int thread = 1; thread < threads; ++thread) {
    workers_.emplace_back([this, thread] { WorkerLoop(thread); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  region_.fetch_add(1);
  FutexWakeAll(region_);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(int chunks, Invoke invoke, void* context) {
  invoke_ = invoke;
  context_ = context;
  chunks_ = chunks;
  unfinished_.store(static_cast<uint32_t>(chunks), std::memory_order_relaxed);
  ++regions_;
  for (int queue = 0, first = 0; queue < threads(); ++queue) {
    const int next = FirstChunk(queue + 1);
    queues_[static_cast<size_t>(queue)].ticket.store(
        (regions_ << 32) | static_cast<uint32_t>(next - first), std::memory_order_release);
    first = next;
  }
  region_.fetch_add(1, std::memory_order_seq_cst);
  if (parked_.load(std::memory_order_seq_cst) > 0) FutexWakeAll(region_);
  TakeChunks(0);
  // A worker may still hold a chunk. It is running or about to: spin, then yield the core to it.
  while (!Spin([this] { return unfinished_.load(std::memory_order_acquire) == 0; })) {
    std::this_thread::yield();
  }
}

void ThreadPool::TakeChunks(int thread) {
  for (int i = 0; i < threads(); ++i) TakeChunksOf((thread + i) % threads(), thread);
}

void ThreadPool::TakeChunksOf(int queue, int thread) {
  std::atomic<uint64_t>& word = queues_[static_cast<size_t>(queue)].ticket;
  uint64_t ticket = word.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(ticket) != 0) {
    if (!word.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                    std::memory_order_acquire)) {
      continue;
    }
    const auto left = static_cast<int>(static_cast<uint32_t>(ticket));
    invoke_(context_, FirstChunk(queue + 1) - left, thread);
    unfinished_.fetch_sub(1, std::memory_order_release);
    ticket = word.load(std::memory_order_acquire);
  }
}

void ThreadPool::WorkerLoop(int thread) {
  uint32_t seen = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    if (!Spin([&] { return region_.load(std::memory_order_acquire) != seen; })) {
      parked_.fetch_add(1, std::memory_order_seq_cst);
      FutexWait(region_, seen);
      parked_.fetch_sub(1, std::memory_order_seq_cst);
    }
    seen = region_.load(std::memory_order_acquire);
    TakeChunks(thread);
  }
}

}  // namespace asymserve
