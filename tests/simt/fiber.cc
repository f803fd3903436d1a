#include "tests/simt/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#define ASYMSERVE_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASYMSERVE_ADDRESS_SANITIZER
#endif
#endif
#ifdef ASYMSERVE_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// A switch saves what the System V calling convention lets a callee keep, and changes stacks.
// Unlike swapcontext it makes no system call.
#if defined(__x86_64__)
extern "C" void SimtSwitch(void** from, void* to);
__asm__(
    ".text\n"
    ".globl SimtSwitch\n"
    ".type SimtSwitch,@function\n"
    "SimtSwitch:\n"
    "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp,(%rdi)\n"
    "  mov %rsi,%rsp\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n"
    "  ret\n"
    ".size SimtSwitch,.-SimtSwitch\n");
#elif defined(__aarch64__)
extern "C" void SimtSwitch(void** from, void* to);
__asm__(
    ".text\n"
    ".globl SimtSwitch\n"
    ".type SimtSwitch,@function\n"
    "SimtSwitch:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n"
    "  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n"
    "  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n"
    ".size SimtSwitch,.-SimtSwitch\n");
#else
#error "tests/simt: no stack switch for this processor"
#endif

namespace simt {
namespace {

/// More than the frames of a fiber's first function and of Yield take.
[[maybe_unused]] constexpr size_t kEndedBytes = 4096;

/// The frame that the first switch to a new stack restores: `entry` as the return address.
void* FirstFrame(std::byte* end, void (*entry)()) {
  auto* top = reinterpret_cast<void**>(end);
#if defined(__x86_64__)
  *--top = nullptr;  // the stack is 16 byte aligned before a call, and so 8 past it after
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
#else
  for (int i = 0; i < 20; ++i) *--top = nullptr;
  top[11] = reinterpret_cast<void*>(entry);  // x30
#endif
  return top;
}

}  // namespace

Fiber::Fiber() {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, page + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
    std::fputs("simt: no memory for a stack\n", stderr);
    std::abort();
  }
  memory_ = static_cast<std::byte*>(memory);
  stack_ = memory_ + page;
}

Fiber::~Fiber() {
  munmap(memory_, static_cast<size_t>(stack_ - memory_) + kStackBytes);
}

void Fiber::Start(void (*entry)()) {
#ifdef ASYMSERVE_ADDRESS_SANITIZER
  // Frames that did not return are still marked: all of them, or those of `entry` and its last
  // Yield.
  const size_t bytes = abandoned_ ? kStackBytes : kEndedBytes;
  ASAN_UNPOISON_MEMORY_REGION(stack_ + kStackBytes - bytes, bytes);
#endif
  abandoned_ = true;
  fake_stack_ = nullptr;
  pointer_ = FirstFrame(stack_ + kStackBytes, entry);
}

void Fiber::Resume() {
#ifdef ASYMSERVE_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(&caller_fake_stack_, stack_, kStackBytes);
#endif
  SimtSwitch(&caller_, pointer_);
#ifdef ASYMSERVE_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(caller_fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::Yield(bool last) {
  abandoned_ = !last;
#ifdef ASYMSERVE_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(last ? nullptr : &fake_stack_, caller_stack_, caller_stack_bytes_);
#endif
  SimtSwitch(&pointer_, caller_);
#ifdef ASYMSERVE_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(fake_stack_, &caller_stack_, &caller_stack_bytes_);
#endif
}

void Fiber::Entered() {
#ifdef ASYMSERVE_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(nullptr, &caller_stack_, &caller_stack_bytes_);
#endif
}

}  // namespace simt
