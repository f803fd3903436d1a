#include "tests/simt/machine.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "tests/simt/include/cuda_runtime.h"

namespace simt {
namespace {

/// Thrown by Fail and caught where the thread began, so that its stack is unwound.
struct Ended {};

std::string ToString(const Site& site) {
  const char* slash = std::strrchr(site.file, '/');
  return std::string(slash == nullptr ? site.file : slash + 1) + ":" + std::to_string(site.line);
}

std::string ToString(const Index3& i) {
  return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}

Index3 Unflatten(unsigned i, const Index3& extent) {
  return {i % extent.x, i / extent.x % extent.y, i / extent.x / extent.y};
}

void Arrange(Order order, std::mt19937_64& random, std::vector<unsigned>& turns) {
  std::iota(turns.begin(), turns.end(), 0u);
  if (order == Order::kReverse) std::reverse(turns.begin(), turns.end());
  if (order == Order::kRandom) std::shuffle(turns.begin(), turns.end(), random);
}

}  // namespace

Machine& Machine::Instance() {
  static Machine machine;
  return machine;
}

std::string Machine::TakeFault() {
  return std::exchange(fault_, {});
}

void Machine::NameNextKernel(std::string_view signature) {
  constexpr std::string_view kBefore = "kKernel = ";
  const size_t begin = signature.find(kBefore);
  if (begin == signature.npos) return;
  signature.remove_prefix(begin + kBefore.size());
  kernel_ = signature.substr(0, std::min(signature.find(';'), signature.find(", Args = ")));
}

// ---- Faults -------------------------------------------------------------------------------------

void Machine::Fail(const std::string& what) {
  const std::string message =
      kernel_ + " block " + ToString(Index3{blockIdx.x, blockIdx.y, blockIdx.z}) + ": " + what;
  if (fault_.empty()) fault_ = message;
  failed_ = true;
  if (!in_fiber_) {
    std::fprintf(stderr, "simt: outside of a kernel: %s\n", what.c_str());
    std::abort();
  }
  throw Ended();
}

void Machine::FailAccess(const Verdict& verdict, const char* verb, const std::string& what) {
  const std::string me = "thread " + std::to_string(current_) + " " + verb + " " + what +
                         " (shared byte " + std::to_string(verdict.byte) + ")";
  const std::string other = "thread " + std::to_string(verdict.other);
  switch (verdict.offence) {
    case Offence::kNone:
      break;
    case Offence::kUninitialized:
      Fail("uninitialized read: " + me + ", which nobody wrote");
    case Offence::kRaceWithWrite:
      Fail("race: " + me + ", which " + other + " wrote, with no barrier in between");
    case Offence::kRaceWithRead:
      Fail("race: " + me + ", which " + other + " read, with no barrier in between");
    case Offence::kAsyncPending:
      Fail("cp.async not waited for: " + me + ", which " + other + " is filling");
  }
  Fail("access refused: " + me);
}

std::string Machine::Describe(unsigned thread) const {
  const Thread& t = *threads_[thread];
  const std::string name = "thread " + std::to_string(thread);
  switch (t.wait) {
    case Wait::kNothing:
      return name + " runs";
    case Wait::kBarrier:
      return name + " waits at the barrier " + ToString(t.site);
    case Wait::kWarp:
      return name + " waits for its warp at " + ToString(t.site);
    case Wait::kDone:
      return name + " has returned";
  }
  return name;
}

/// Why, and the first thread of each kind of waiting.
std::string Machine::Stuck(const char* why) const {
  std::string text = why;
  std::vector<std::string> seen;
  for (unsigned i = 0; i < count_; ++i) {
    const std::string kind = Describe(i).substr(("thread " + std::to_string(i)).size());
    if (std::find(seen.begin(), seen.end(), kind) != seen.end()) continue;
    seen.push_back(kind);
    text += (seen.size() == 1 ? ": " : ", ") + Describe(i);
  }
  return text;
}

// ---- Running ------------------------------------------------------------------------------------

void Machine::Entry() {
  Machine& machine = Instance();
  Thread& thread = *machine.threads_[machine.current_];
  thread.fiber.Entered();
  try {
    (*machine.body_)();
    if (!thread.copies.empty()) {
      machine.Fail("cp.async not waited for: thread " + std::to_string(machine.current_) +
                   " returns before its copies end");
    }
  } catch (const Ended&) {  // the launch has failed
  }
  thread.wait = Wait::kDone;
  thread.fiber.Yield(true);
}

bool Machine::Launch(const LaunchShape& shape, const std::function<void()>& body) {
  shape_ = shape;
  body_ = &body;
  failed_ = false;
  count_ = shape.block.x * shape.block.y * shape.block.z;
  while (threads_.size() < count_) threads_.push_back(std::make_unique<Thread>());
  warps_.resize((count_ + kLanes - 1) / kLanes);
  blockDim = {shape.block.x, shape.block.y, shape.block.z};
  gridDim = {shape.grid.x, shape.grid.y, shape.grid.z};
  std::mt19937_64 random(seed);
  std::vector<unsigned> blocks(size_t{shape.grid.x} * shape.grid.y * shape.grid.z);
  Arrange(order, random, blocks);
  for (const unsigned block : blocks) {
    RunBlock(Unflatten(block, shape.grid), random);
    if (failed_) break;
  }
  kernel_ = "kernel";
  return !failed_;
}

void Machine::RunBlock(const Index3& block, std::mt19937_64& random) {
  blockIdx = {block.x, block.y, block.z};
  ++epoch_;
  shared_.Begin(static_cast<uint32_t>(shape_.shared_bytes), ++block_number_);
  for (std::deque<Rendezvous>& warp : warps_) warp.clear();
  for (unsigned i = 0; i < count_; ++i) {
    Thread& thread = *threads_[i];
    thread.fiber.Start(&Entry);
    thread.wait = Wait::kNothing;
    thread.generation = 0;
    thread.groups = 0;
    thread.copies.clear();
  }
  std::vector<unsigned> turns(count_);
  Arrange(order, random, turns);
  for (;;) {
    const bool progress = RunRound(turns);
    if (failed_) return;
    if (!progress && !ReleaseBarrier()) return;
    if (order == Order::kRandom) std::shuffle(turns.begin(), turns.end(), random);
  }
}

/// Gives each thread that can run its turn; false when none could.
bool Machine::RunRound(const std::vector<unsigned>& turns) {
  bool progress = false;
  for (const unsigned i : turns) {
    Thread& thread = *threads_[i];
    const bool met = thread.wait == Wait::kWarp && thread.rendezvous->rounds != thread.round;
    if (thread.wait != Wait::kNothing && !met) continue;
    thread.wait = Wait::kNothing;
    current_ = i;
    const Index3 index = Unflatten(i, shape_.block);
    threadIdx = {index.x, index.y, index.z};
    in_fiber_ = true;
    thread.fiber.Resume();
    in_fiber_ = false;
    if (failed_) return true;
    progress = true;
  }
  return progress;
}

/// When no thread can go on: false when the block has ended, or failed because it never will.
bool Machine::ReleaseBarrier() {
  const auto record = [&](const char* why) {
    failed_ = true;
    if (fault_.empty()) {
      fault_ = kernel_ + " block " + ToString(Index3{blockIdx.x, blockIdx.y, blockIdx.z}) + ": " +
               Stuck(why);
    }
    return false;
  };
  unsigned done = 0;
  unsigned at_barrier = 0;
  const Site* site = nullptr;
  bool one_site = true;
  for (unsigned i = 0; i < count_; ++i) {
    const Thread& thread = *threads_[i];
    done += thread.wait == Wait::kDone ? 1 : 0;
    if (thread.wait != Wait::kBarrier) continue;
    ++at_barrier;
    if (site != nullptr) one_site = one_site && *site == thread.site;
    site = &thread.site;
  }
  if (done == count_) return false;
  if (at_barrier + done < count_) return record("warp divergence: lanes of a mask never meet");
  if (at_barrier < count_) return record("divergent barrier: not all threads reach it");
  if (!one_site) return record("divergent barrier: threads wait at different ones");
  for (unsigned i = 0; i < count_; ++i) threads_[i]->wait = Wait::kNothing;
  ++epoch_;
  return true;
}

// ---- Collective operations ----------------------------------------------------------------------

void Machine::GiveWay(Wait wait, const Site& site) {
  Thread& thread = *threads_[current_];
  thread.wait = wait;
  thread.site = site;
  thread.fiber.Yield();
}

bool Machine::Skips(const Site& site) const {
  return skip_line != 0 && site.line == skip_line &&
         std::string_view(site.file).ends_with(skip_file);
}

void Machine::Barrier(const Site& site) {
  if (!Skips(site)) GiveWay(Wait::kBarrier, site);
}

uint32_t Machine::ExistingLanes() const {
  const unsigned first = current_ / kLanes * kLanes;
  const unsigned lanes = std::min(kLanes, count_ - first);
  return lanes == kLanes ? ~0u : (1u << lanes) - 1;
}

void Machine::NeedWholeWarp(const char* instruction, const Site& site) {
  if (ExistingLanes() == ~0u) return;
  Fail(std::string(instruction) + " at " + ToString(site) + " in a warp of " +
       std::to_string(std::popcount(ExistingLanes())) + " lanes");
}

Machine::Rendezvous& Machine::RendezvousOf(uint32_t mask) {
  std::deque<Rendezvous>& all = warps_[current_ / kLanes];
  for (Rendezvous& one : all) {
    if (one.mask == mask) return one;
  }
  all.emplace_back().mask = mask;
  return all.back();
}

Machine::Meeting& Machine::Collective(uint32_t mask, const void* deposit, size_t bytes,
                                      const Site& site) {
  const unsigned me = lane();
  mask &= ExistingLanes();
  if ((mask >> me & 1) == 0) {
    Fail("warp divergence: lane " + std::to_string(me) + " is not in its own mask at " +
         ToString(site));
  }
  Rendezvous& rendezvous = RendezvousOf(mask);
  const uint32_t round = rendezvous.rounds;
  Meeting& meeting = rendezvous.meetings[round % 2];
  if (rendezvous.arrived == 0) {
    rendezvous.site = site;
    meeting.has_outcome = false;
  } else if (!(rendezvous.site == site)) {
    Fail("warp divergence: lanes of one mask are at " + ToString(rendezvous.site) + " and at " +
         ToString(site));
  }
  std::memcpy(meeting.deposits[me].data(), deposit, bytes);
  rendezvous.arrived |= 1u << me;
  if (rendezvous.arrived == mask) {
    rendezvous.arrived = 0;
    ++rendezvous.rounds;
  } else {
    Thread& thread = *threads_[current_];
    thread.rendezvous = &rendezvous;
    thread.round = round;
    GiveWay(Wait::kWarp, site);
  }
  return meeting;
}

void Machine::SyncWarp(uint32_t mask, const Site& site) {
  if (Skips(site)) return;
  const std::byte nothing{};
  Collective(mask, &nothing, 1, site);
  if ((mask & ExistingLanes()) == ExistingLanes()) ++threads_[current_]->generation;
}

// ---- Asynchronous copies ------------------------------------------------------------------------

void Machine::CopyAsync(uint32_t offset, const void* source, uint32_t bytes) {
  Thread& thread = *threads_[current_];
  thread.copies.push_back({offset, bytes, source, thread.groups});
}

void Machine::CommitAsync() {
  ++threads_[current_]->groups;
}

void Machine::WaitAsync(uint32_t newest) {
  Thread& thread = *threads_[current_];
  std::erase_if(thread.copies, [&](const AsyncCopy& copy) {
    if (copy.group + newest >= thread.groups) return false;
    shared_.EndAsync(toucher(), copy.offset, copy.source, copy.bytes);
    return true;
  });
}

}  // namespace simt
