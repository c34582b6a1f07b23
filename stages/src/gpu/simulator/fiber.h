// Fibers: threads of one group that take turns on one thread of the processor. x86-64 with System V's calls.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#if !defined(__x86_64__) || !defined(__clang__)
#error "the simulator of kernels switches stacks on x86-64 only, and is compiled by clang"
#endif
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define ASAN(call) call
#else
#define ASAN(call) ((void)0)
#endif

namespace simulator {

// Saves the callee's registers on this stack, keeps its address in `*from`, and goes on with the stack `to`.
extern "C" void baton_switch_stack(void **from, void *to);
asm(R"(
.text
.globl baton_switch_stack
.hidden baton_switch_stack
.type baton_switch_stack, @function
baton_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size baton_switch_stack, .-baton_switch_stack
)");

// A stack, and the place where it goes on.
class Fiber {
  public:
    static constexpr std::size_t STACK_BYTES = 128 * 1024;

    // Forgets what it did. It begins anew with `entry`, which never returns.
    void prepare(void (*entry)()) {
        if (!stack) {
            stack.reset(new unsigned char[STACK_BYTES]);
        }
        ASAN(__asan_unpoison_memory_region(stack.get(), STACK_BYTES));
        auto top = reinterpret_cast<std::uintptr_t>(stack.get() + STACK_BYTES) & ~std::uintptr_t(15);
        // A function expects its stack as after a call: 8 bytes off a multiple of 16.
        auto words = reinterpret_cast<void **>(top - 8 - 8);
        *words = reinterpret_cast<void *>(entry);
        for (int saved = 1; saved <= 6; saved++) {
            *(words - saved) = nullptr;
        }
        at = words - 6;
    }

    // Runs it until it calls `leave`.
    void enter() {
        ASAN(__sanitizer_start_switch_fiber(&callers_frames, stack.get(), STACK_BYTES));
        baton_switch_stack(&caller, at);
        ASAN(__sanitizer_finish_switch_fiber(callers_frames, nullptr, nullptr));
    }

    // The first thing in `entry`.
    void entered() { ASAN(__sanitizer_finish_switch_fiber(nullptr, &callers_stack, &callers_bytes)); }

    // Returns to the caller of `enter`, which is the same thread each time.
    void leave() {
        ASAN(__sanitizer_start_switch_fiber(&own_frames, callers_stack, callers_bytes));
        baton_switch_stack(&at, caller);
        ASAN(__sanitizer_finish_switch_fiber(own_frames, &callers_stack, &callers_bytes));
    }

  private:
    std::unique_ptr<unsigned char[]> stack;
    void *at = nullptr;
    void *caller = nullptr;
    void *own_frames = nullptr;
    void *callers_frames = nullptr;
    const void *callers_stack = nullptr;
    std::size_t callers_bytes = 0;
};

} // namespace simulator
