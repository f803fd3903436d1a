#include "tests/simt/shared_memory.h"

#include <cstring>

namespace simt {
namespace {

constexpr uint16_t kWarp = 32;

uint32_t LaneBit(uint16_t thread) {
  return 1u << thread % kWarp;
}

}  // namespace

void SharedMemory::Begin(uint32_t size, uint32_t block) {
  size_ = size;
  block_ = block;
  std::memset(bytes_.data(), 0xFF, size);
}

bool SharedMemory::Ordered(const Toucher& by, uint16_t earlier, uint32_t epoch,
                           uint32_t generation) {
  if (epoch != by.epoch || earlier == by.thread) return true;
  return earlier / kWarp == by.thread / kWarp && generation < by.generation;
}

void SharedMemory::NoteRead(const Toucher& by, Byte& byte) {
  const bool first = byte.read_epoch != by.epoch;
  if (!first && byte.reader / kWarp != by.thread / kWarp) {
    byte.has_stranger = true;
    byte.stranger = by.thread;
    return;
  }
  if (first) byte.has_stranger = false;
  if (first || by.generation > byte.read_generation) byte.read_lanes = 0;
  byte.reader = by.thread;
  byte.read_epoch = by.epoch;
  byte.read_generation = by.generation;
  byte.read_lanes |= LaneBit(by.thread);
}

Verdict SharedMemory::Read(const Toucher& by, uint32_t offset, uint32_t bytes) {
  for (uint32_t i = offset; i < offset + bytes; ++i) {
    Byte& byte = shadow_[i];
    if (byte.block != block_) return {Offence::kUninitialized, 0, i};
    if (byte.pending) return {Offence::kAsyncPending, byte.writer, i};
    if (!Ordered(by, byte.writer, byte.write_epoch, byte.write_generation)) {
      return {Offence::kRaceWithWrite, byte.writer, i};
    }
    NoteRead(by, byte);
  }
  return {};
}

Verdict SharedMemory::Touch(const Toucher& by, uint32_t offset, uint32_t bytes) const {
  for (uint32_t i = offset; i < offset + bytes; ++i) {
    if (shadow_[i].block != block_) return {Offence::kUninitialized, by.thread, i};
  }
  return {};
}

Offence SharedMemory::JudgeWrite(const Toucher& by, const Byte& byte, bool atomic,
                                 uint16_t* other) const {
  if (byte.block == block_) {
    *other = byte.writer;
    if (byte.pending) return Offence::kAsyncPending;
    const bool both_atomic = atomic && byte.atomic;
    if (!both_atomic && !Ordered(by, byte.writer, byte.write_epoch, byte.write_generation)) {
      return Offence::kRaceWithWrite;
    }
  }
  if (byte.read_epoch != by.epoch) return Offence::kNone;
  if (byte.reader / kWarp != by.thread / kWarp) {
    *other = byte.reader;
    return Offence::kRaceWithRead;
  }
  if (byte.has_stranger) {
    *other = byte.stranger;
    return Offence::kRaceWithRead;
  }
  const uint32_t others = byte.read_lanes & ~LaneBit(by.thread);
  if (byte.read_generation >= by.generation && others != 0) {
    *other = static_cast<uint16_t>(by.thread / kWarp * kWarp + __builtin_ctz(others));
    return Offence::kRaceWithRead;
  }
  return Offence::kNone;
}

Verdict SharedMemory::Write(const Toucher& by, uint32_t offset, uint32_t bytes, bool atomic) {
  for (uint32_t i = offset; i < offset + bytes; ++i) {
    Byte& byte = shadow_[i];
    uint16_t other = 0;
    const Offence offence = JudgeWrite(by, byte, atomic, &other);
    if (offence != Offence::kNone) return {offence, other, i};
    byte.block = block_;
    byte.pending = false;
    byte.atomic = atomic;
    byte.writer = by.thread;
    byte.write_epoch = by.epoch;
    byte.write_generation = by.generation;
  }
  return {};
}

Verdict SharedMemory::BeginAsync(const Toucher& by, uint32_t offset, uint32_t bytes) {
  const Verdict verdict = Write(by, offset, bytes);
  if (verdict.offence != Offence::kNone) return verdict;
  for (uint32_t i = offset; i < offset + bytes; ++i) shadow_[i].pending = true;
  return {};
}

void SharedMemory::EndAsync(const Toucher& by, uint32_t offset, const void* source,
                            uint32_t bytes) {
  std::memcpy(bytes_.data() + offset, source, bytes);
  for (uint32_t i = offset; i < offset + bytes; ++i) {
    shadow_[i].pending = false;
    shadow_[i].write_epoch = by.epoch;
    shadow_[i].write_generation = by.generation;
  }
}

}  // namespace simt
