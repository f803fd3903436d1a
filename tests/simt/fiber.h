#pragma once

#include <cstddef>

namespace simt {

/// A stack of its own that runs a function in slices. One operating system thread resumes it; it
/// gives way by Yield. What it was doing when Start is called again is abandoned: no destructor
/// runs, so the function must own nothing.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// The next Resume calls `entry`, which must not return: its last act is Yield(true).
  void Start(void (*entry)());
  /// Runs the fiber until it yields.
  void Resume();
  /// From inside: gives way to whoever called Resume. `last`: it will not be resumed.
  void Yield(bool last = false);
  /// From inside, once, before anything else: tells the sanitizer that the switch is done.
  void Entered();

 private:
  static constexpr size_t kStackBytes = size_t{256} << 10;

  std::byte* memory_;  // a guard page, then the stack
  std::byte* stack_;
  void* pointer_ = nullptr;  // where the stack stands while it does not run
  void* caller_ = nullptr;   // where the resumer's stack stands while it does
  // What the address sanitizer wants to know.
  bool abandoned_ = true;  // frames that never returned may be left on the stack
  void* fake_stack_ = nullptr;
  void* caller_fake_stack_ = nullptr;
  const void* caller_stack_ = nullptr;
  size_t caller_stack_bytes_ = 0;
};

}  // namespace simt
