/*
 * tests/emulator/arena.h - device memory, at addresses that the host cannot touch.
 *
 * A device address lies in a reserved range without access rights; its contents lie elsewhere,
 * where only the emulator looks. Addresses are never used twice, there are unused pages between
 * allocations, and new memory is full of 0xFF: NaN in every float type, -1 in integers.
 */
#ifndef TSR_TESTS_EMULATOR_ARENA_H
#define TSR_TESTS_EMULATOR_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct arena_piece {
    uint64_t begin, end; /* device addresses */
    int device;
    bool is_freed;
} arena_piece;

/* 256-byte aligned and no better; NULL when the device (EMULATOR_MEMORY_MB, 2048 if unset) or the
 * address space is full. */
void *arena_take(size_t n_bytes, int device);
bool arena_give_back(void *memory); /* false: it is not the begin of a live allocation */

size_t arena_free_bytes(int device);
size_t arena_total_bytes(void);

bool arena_is_device_address(uint64_t address);

/* The allocation that an address lies in, or lay in, or lies closely behind; NULL if none. */
const arena_piece *arena_piece_at(uint64_t address);

/* Where the contents of n_bytes at a device address lie; NULL unless they are all inside one live
 * allocation. */
char *arena_contents(const void *address, size_t n_bytes);

/* The same for an address that is known to be inside one. */
char *arena_contents_of(uint64_t address);

/* Room for what the engine remembers of every four bytes: record_bytes each, zero at first. */
void *arena_record(uint64_t address, size_t record_bytes);

/* "inside allocation 3 of 100 bytes, at byte 4" and the like. */
const char *arena_describe(uint64_t address, char text[static 160]);

/* A report instead of a bare signal when the host touches device memory. */
void arena_watch_host(void);

#endif
