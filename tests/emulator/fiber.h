/*
 * tests/emulator/fiber.h - threads that take turns by being told to: each has a stack, one runs.
 *
 * The sanitizers are told of every switch, so that a build with them runs fibers too.
 */
#ifndef TSR_TESTS_EMULATOR_FIBER_H
#define TSR_TESTS_EMULATOR_FIBER_H

#include <stdbool.h>
#include <stddef.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

typedef struct fiber {
    void *stack_pointer; /* while it does not run */
    char *stack;
    size_t stack_bytes;
    void *thread_sanitizers;
    void *fake_stack;
#if !defined(__x86_64__)
    ucontext_t context;
#endif
} fiber;

/* Make the running thread a fiber that others can switch back to. */
void fiber_adopt(fiber *self);

/* The next switch to `f` calls entry() on that stack. entry must not return: its last act is a
 * switch with `ends`. A fiber that has ended may be prepared again. */
void fiber_prepare(fiber *f, char *stack, size_t stack_bytes, void (*entry)(void));

/* Run `to`; returns when somebody switches back. ends: `from` will not run again. */
void fiber_switch(fiber *from, fiber *to, bool ends);

/* The first thing that entry() does. */
void fiber_begin(void);

#endif
