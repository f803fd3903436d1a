#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace simt {

/// Who touches shared memory, and when: between two block barriers the epoch is one number, between
/// two __syncwarp of its warp a thread's generation is.
struct Toucher {
  uint16_t thread = 0;  // in the block
  uint32_t epoch = 0;   // never the same in two blocks
  uint32_t generation = 0;
};

/// Why an access is refused.
enum class Offence : uint8_t {
  kNone,
  kUninitialized,  // nothing was written there since the block began
  kRaceWithWrite,  // another thread wrote it, and no barrier is in between
  kRaceWithRead,   // another thread read it, and this write comes without a barrier in between
  kAsyncPending,   // a cp.async is on its way there and was not waited for
};
struct Verdict {
  Offence offence = Offence::kNone;
  uint16_t other = 0;  // the thread that is in the way
  uint32_t byte = 0;
};

/// The dynamic shared memory of the block that runs, with a shadow of every byte. An access is
/// ordered after one of another thread by a block barrier, or, within a warp, by a __syncwarp.
class SharedMemory {
 public:
  // What a block may have on sm_80; other devices that the kernels run on have more.
  static constexpr uint32_t kMaxBytes = 163 * 1024;

  SharedMemory() : bytes_(kMaxBytes), shadow_(kMaxBytes) {}

  /// A new block: everything is NaN again. Shadows are left from the block before: they are told
  /// from those of this one by `block`, which must be new, like its epochs.
  void Begin(uint32_t size, uint32_t block);
  uint32_t size() const { return size_; }
  std::byte* data() { return bytes_.data(); }

  Verdict Read(const Toucher& by, uint32_t offset, uint32_t bytes);
  /// Whether something is there that an atomic operation could work on.
  Verdict Touch(const Toucher& by, uint32_t offset, uint32_t bytes) const;
  /// `atomic`: an access that may meet other atomic ones.
  Verdict Write(const Toucher& by, uint32_t offset, uint32_t bytes, bool atomic = false);
  /// Asynchronous copies are writes that nobody, their thread included, may look at until they end.
  Verdict BeginAsync(const Toucher& by, uint32_t offset, uint32_t bytes);
  void EndAsync(const Toucher& by, uint32_t offset, const void* source, uint32_t bytes);

 private:
  struct Byte {
    uint32_t block = 0;  // in which it was written
    bool pending = false;
    bool atomic = false;
    uint16_t writer = 0;
    uint32_t write_epoch = 0, write_generation = 0;
    // Readers since the barrier: lanes of one warp since its last __syncwarp, one of another warp.
    uint16_t reader = 0, stranger = 0;
    bool has_stranger = false;
    uint32_t read_epoch = 0, read_generation = 0, read_lanes = 0;
  };

  static bool Ordered(const Toucher& by, uint16_t earlier, uint32_t epoch, uint32_t generation);
  Offence JudgeWrite(const Toucher& by, const Byte& byte, bool atomic, uint16_t* other) const;
  static void NoteRead(const Toucher& by, Byte& byte);

  std::vector<std::byte> bytes_;
  std::vector<Byte> shadow_;
  uint32_t size_ = 0;
  uint32_t block_ = 0;
};

}  // namespace simt
