#define _GNU_SOURCE // pthread_getattr_np

#include "tests/emulator/fiber.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ADDRESS_SANITIZER 1
#endif
#endif

#ifdef WITH_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#if defined(__x86_64__)
// What a called function must keep goes onto the stack, and the stack is exchanged. Ending in ret
// keeps the processor's prediction of returns in step: 20 ns a switch.
void fiber_exchange(void **save, void *load);
__asm__(".text\n"
        ".globl fiber_exchange\n"
        ".type fiber_exchange,@function\n"
        "fiber_exchange:\n"
        "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    mov %rsp,(%rdi)\n"
        "    mov %rsi,%rsp\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
        "    ret\n"
        ".size fiber_exchange,.-fiber_exchange\n");
#endif

void fiber_adopt(fiber *self)
{
    pthread_attr_t attributes;
    void *low = NULL;

    memset(self, 0, sizeof(*self));
    if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
        (void)pthread_attr_getstack(&attributes, &low, &self->stack_bytes);
        (void)pthread_attr_destroy(&attributes);
    }
    self->stack = low;
#if defined(__SANITIZE_THREAD__)
    self->thread_sanitizers = __tsan_get_current_fiber();
#endif
}

void fiber_prepare(fiber *f, char *stack, size_t stack_bytes, void (*entry)(void))
{
    f->stack = stack;
    f->stack_bytes = stack_bytes;
    f->fake_stack = NULL;
#ifdef WITH_ADDRESS_SANITIZER
    __asan_unpoison_memory_region(stack, stack_bytes); // frames that never returned
#endif
#if defined(__SANITIZE_THREAD__)
    if (f->thread_sanitizers == NULL) {
        f->thread_sanitizers = __tsan_create_fiber(0);
    }
#endif
#if defined(__x86_64__)
    {
        uintptr_t *top = (uintptr_t *)(((uintptr_t)stack + stack_bytes) & ~(uintptr_t)63);

        *--top = 0; // where entry would return to
        *--top = (uintptr_t)entry;
        top -= 6; // the registers that the exchange loads
        memset(top, 0, 6 * sizeof(*top));
        f->stack_pointer = top;
    }
#else
    (void)getcontext(&f->context);
    f->context.uc_stack.ss_sp = stack;
    f->context.uc_stack.ss_size = stack_bytes;
    f->context.uc_link = NULL;
    makecontext(&f->context, entry, 0);
#endif
}

void fiber_switch(fiber *from, fiber *to, bool ends)
{
#ifdef WITH_ADDRESS_SANITIZER
    __sanitizer_start_switch_fiber(ends ? NULL : &from->fake_stack, to->stack, to->stack_bytes);
#else
    (void)ends;
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to->thread_sanitizers, 0);
#endif
#if defined(__x86_64__)
    fiber_exchange(&from->stack_pointer, to->stack_pointer);
#else
    (void)swapcontext(&from->context, &to->context);
#endif
#ifdef WITH_ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

void fiber_begin(void)
{
#ifdef WITH_ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
}
