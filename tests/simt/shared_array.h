#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "tests/simt/machine.h"

namespace simt {

template <typename T>
class SharedArray;

/// What an element of shared memory looks like to a kernel: reading and writing it are checked.
template <typename T>
class SharedElement {
 public:
  SharedElement(const SharedArray<T>& array, int64_t index) : array_(array), index_(index) {}
  SharedElement(const SharedElement&) = default;
  ~SharedElement() = default;

  // NOLINTNEXTLINE(google-explicit-constructor): it stands for a T&
  operator T() const { return array_.Load(index_); }
  const SharedElement& operator=(T value) const {
    array_.Store(index_, value);
    return *this;
  }
  SharedElement& operator=(const SharedElement& other) {
    array_.Store(index_, static_cast<T>(other));
    return *this;
  }
  const SharedElement& operator+=(T value) const { return *this = static_cast<T>(*this) + value; }
  const SharedElement& operator-=(T value) const { return *this = static_cast<T>(*this) - value; }
  const SharedElement& operator*=(T value) const { return *this = static_cast<T>(*this) * value; }

 private:
  const SharedArray<T> array_;
  const int64_t index_;
};

/// `count` elements of the block's shared memory: the only way for a kernel to get at it, so that
/// every access is inside, initialized and free of races. Device code has a plain pointer under the
/// same name (engine/backend/cuda/shared_array.cuh).
template <typename T>
class SharedArray {
 public:
  static_assert(std::is_trivially_copyable_v<T>);

  SharedArray() = default;
  SharedArray(const char* name, uint32_t offset, int64_t count)
      : name_(name), offset_(offset), count_(count) {
    Machine& machine = Machine::Instance();
    if (offset + count * static_cast<int64_t>(sizeof(T)) > machine.shared().size()) {
      machine.Fail("out of bounds: " + std::string(name) + " ends " +
                   std::to_string(offset + count * static_cast<int64_t>(sizeof(T))) +
                   " bytes into the " + std::to_string(machine.shared().size()) +
                   " bytes of shared memory");
    }
  }

  SharedElement<T> operator[](int64_t index) const { return {*this, index}; }
  SharedElement<T> operator*() const { return {*this, 0}; }
  /// The elements from `first` on.
  SharedArray operator+(int64_t first) const {
    SharedArray rest = *this;
    rest.start_ += first;
    return rest;
  }

  T Load(int64_t index) const {
    const uint32_t at = Offset(index, 1);
    Machine& machine = Machine::Instance();
    const Verdict verdict = machine.shared().Read(machine.toucher(), at, sizeof(T));
    if (verdict.offence != Offence::kNone) machine.FailAccess(verdict, "reads", Element(index));
    T value = {};
    std::memcpy(&value, machine.shared().data() + at, sizeof(T));
    return value;
  }
  void Store(int64_t index, T value, bool atomic = false) const {
    const uint32_t at = Offset(index, 1);
    Machine& machine = Machine::Instance();
    const Verdict verdict = machine.shared().Write(machine.toucher(), at, sizeof(T), atomic);
    if (verdict.offence != Offence::kNone) machine.FailAccess(verdict, "writes", Element(index));
    std::memcpy(machine.shared().data() + at, &value, sizeof(T));
  }
  /// The value before.
  T AtomicAdd(int64_t index, T value) const {
    const uint32_t at = Offset(index, 1);
    Machine& machine = Machine::Instance();
    T before = {};
    std::memcpy(&before, machine.shared().data() + at, sizeof(T));
    Verdict verdict = machine.shared().Touch(machine.toucher(), at, sizeof(T));
    if (verdict.offence != Offence::kNone) machine.FailAccess(verdict, "adds to", Element(index));
    Store(index, static_cast<T>(before + value), true);
    return before;
  }

  /// Where `count` elements from `index` on are; fails when they are not all inside.
  uint32_t Offset(int64_t index, int64_t count) const {
    const int64_t first = start_ + index;
    if (first < 0 || first + count > count_) {
      Machine::Instance().Fail("out of bounds: " + Element(first < 0 ? index : index + count - 1) +
                               " of " + std::to_string(count_) + " elements");
    }
    return offset_ + static_cast<uint32_t>(first * static_cast<int64_t>(sizeof(T)));
  }
  std::string Element(int64_t index) const {
    return std::string(name_) + "[" + std::to_string(start_ + index) + "]";
  }

 private:
  const char* name_ = "";
  uint32_t offset_ = 0;
  int64_t start_ = 0;
  int64_t count_ = 0;
};

}  // namespace simt
