#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tests/simt/fiber.h"
#include "tests/simt/shared_memory.h"

namespace simt {

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};

/// A place in a kernel's source.
struct Site {
  const char* file = "";
  uint32_t line = 0;

  friend bool operator==(const Site& a, const Site& b) {
    return a.line == b.line && (a.file == b.file || std::string_view(a.file) == b.file);
  }
};

/// In which order threads, and blocks, get their turns.
enum class Order : uint8_t { kForward, kReverse, kRandom };

struct LaunchShape {
  Index3 grid, block;
  size_t shared_bytes = 0;
};

/// An asynchronous copy on its way, and the group of its thread that it belongs to.
struct AsyncCopy {
  uint32_t offset;
  uint32_t bytes;
  const void* source;
  uint32_t group;
};

/// Runs kernels: one fiber for a thread, block after block, on the calling thread. A fiber runs
/// until it returns or reaches a collective operation. Not for several threads at once.
class Machine {
 public:
  static constexpr unsigned kMaxThreads = 1024;
  static constexpr unsigned kLanes = 32;
  static constexpr size_t kDepositBytes = 64;
  static constexpr size_t kOutcomeBytes = 512;
  /// A collective operation: what each lane brought, and what comes of all of it, where the first
  /// lane that goes on computes that for the others.
  struct Meeting {
    std::array<std::array<std::byte, kDepositBytes>, kLanes> deposits;
    std::array<std::byte, kOutcomeBytes> outcome;
    bool has_outcome;
  };

  /// The one that CUDA's free functions mean.
  static Machine& Instance();

  // ---- For tests ------------------------------------------------------------------------------

  Order order = Order::kForward;
  uint64_t seed = 1;  // of kRandom
  /// Block and warp barriers there do nothing: as if they were deleted. Compared with the end of
  /// the file's name.
  std::string skip_file;
  uint32_t skip_line = 0;

  /// What was wrong in the first launch that failed since it was last asked for; empty: nothing.
  std::string TakeFault();

  // ---- For the runtime ------------------------------------------------------------------------

  /// `signature`: what the compiler calls a function with a template argument kKernel.
  void NameNextKernel(std::string_view signature);
  /// False when a thread did something that a GPU does not allow: TakeFault says what.
  bool Launch(const LaunchShape& shape, const std::function<void()>& body);

  // ---- For kernels, that is from a fiber ------------------------------------------------------

  void Barrier(const Site& site);
  /// Waits until all lanes of `mask` are at `site`. The reference is valid until this lane's next
  /// collective operation but one.
  Meeting& Collective(uint32_t mask, const void* deposit, size_t bytes, const Site& site);
  void SyncWarp(uint32_t mask, const Site& site);
  /// Of the caller's warp: the last of a block may have fewer than 32.
  uint32_t ExistingLanes() const;
  /// Fails in a warp of fewer than 32 lanes.
  void NeedWholeWarp(const char* instruction, const Site& site);
  unsigned lane() const { return current_ % kLanes; }

  SharedMemory& shared() { return shared_; }
  Toucher toucher() const {
    const Thread& thread = *threads_[current_];
    return {static_cast<uint16_t>(current_), epoch_, thread.generation};
  }
  void CopyAsync(uint32_t offset, const void* source, uint32_t bytes);
  void CommitAsync();
  /// Ends all but the newest `newest` groups of the thread.
  void WaitAsync(uint32_t newest);

  /// Ends the launch.
  [[noreturn]] void Fail(const std::string& what);
  /// Fails with a refused access, `what` naming the array and its element.
  [[noreturn]] void FailAccess(const Verdict& verdict, const char* verb, const std::string& what);

 private:
  enum class Wait : uint8_t { kNothing, kBarrier, kWarp, kDone };

  struct Rendezvous {  // of the lanes of one mask
    uint32_t mask = 0;
    uint32_t arrived = 0;
    uint32_t rounds = 0;
    Site site;
    std::array<Meeting, 2> meetings = {};  // of this round and of the one before
  };
  struct Thread {
    Fiber fiber;
    Wait wait = Wait::kNothing;
    Site site;  // where it waits
    const Rendezvous* rendezvous = nullptr;
    uint32_t round = 0;
    uint32_t generation = 0;
    std::vector<AsyncCopy> copies;
    uint32_t groups = 0;
  };

  static void Entry();
  void RunBlock(const Index3& block, std::mt19937_64& random);
  bool RunRound(const std::vector<unsigned>& turns);
  bool ReleaseBarrier();
  void GiveWay(Wait wait, const Site& site);
  bool Skips(const Site& site) const;
  Rendezvous& RendezvousOf(uint32_t mask);
  std::string Describe(unsigned thread) const;
  std::string Stuck(const char* why) const;

  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<std::deque<Rendezvous>> warps_;
  SharedMemory shared_;
  LaunchShape shape_;
  const std::function<void()>* body_ = nullptr;
  std::string kernel_ = "kernel";
  std::string fault_;    // not asked for yet
  bool failed_ = false;  // the launch
  bool in_fiber_ = false;
  unsigned count_ = 0;  // threads of the block
  unsigned current_ = 0;
  uint32_t epoch_ = 0;
  uint32_t block_number_ = 0;
};

}  // namespace simt
