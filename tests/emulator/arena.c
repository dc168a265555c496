#define _GNU_SOURCE // MAP_ANONYMOUS, MAP_NORESERVE

#include "tests/emulator/arena.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/emulator/simt.h"

static const size_t arena_bytes = (size_t)16 << 30;

enum {
    PAGE = 4096,
    SKEW = 256, // allocations begin so far into a page: nothing may rely on more alignment
    MAX_PIECES = 1 << 20,
    MAX_DEVICES = 16
};

static char *addresses;     // [arena_bytes] reserved, never accessible
static char *contents;      // [arena_bytes]
static uint32_t *pieces_of; // [arena_bytes / PAGE] 1 + index of the piece
static void *records;
static size_t records_bytes_each;
static size_t used;
static arena_piece *pieces;
static uint32_t n_pieces;
static size_t taken[MAX_DEVICES];

static void *reserve(size_t n_bytes, int protection)
{
    void *memory =
        mmap(NULL, n_bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED) {
        (void)fprintf(stderr, "emulator: no address space for %zu bytes\n", n_bytes);
        _exit(SIMT_EXIT);
    }
    return memory;
}

static void begin(void)
{
    if (addresses != NULL) {
        return;
    }
    addresses = reserve(arena_bytes, PROT_NONE);
    contents = reserve(arena_bytes, PROT_READ | PROT_WRITE);
    pieces_of = reserve(arena_bytes / PAGE * sizeof(*pieces_of), PROT_READ | PROT_WRITE);
    pieces = reserve(MAX_PIECES * sizeof(*pieces), PROT_READ | PROT_WRITE);
    arena_watch_host();
}

size_t arena_total_bytes(void)
{
    const char *megabytes = getenv("EMULATOR_MEMORY_MB");

    return (size_t)(megabytes != NULL ? atoi(megabytes) : 2048) << 20;
}

size_t arena_free_bytes(int device)
{
    return arena_total_bytes() - taken[device];
}

void *arena_take(size_t n_bytes, int device)
{
    const size_t pages = (n_bytes + SKEW + PAGE - 1) / PAGE + 1; // the last one stays unused
    arena_piece *piece;

    begin();
    if (n_bytes == 0 || n_bytes > arena_free_bytes(device) || pages > (arena_bytes - used) / PAGE ||
        n_pieces == MAX_PIECES) {
        return NULL;
    }
    for (size_t p = 0; p < pages; p++) {
        pieces_of[used / PAGE + p] = n_pieces + 1;
    }
    piece = &pieces[n_pieces++];
    piece->begin = (uint64_t)(uintptr_t)addresses + used + SKEW;
    piece->end = piece->begin + n_bytes;
    piece->device = device;
    memset(contents + used + SKEW, 0xFF, n_bytes);
    used += pages * PAGE;
    taken[device] += n_bytes;
    return (void *)(uintptr_t)piece->begin;
}

bool arena_is_device_address(uint64_t address)
{
    return address - (uint64_t)(uintptr_t)addresses < arena_bytes && addresses != NULL;
}

const arena_piece *arena_piece_at(uint64_t address)
{
    uint32_t number;

    if (!arena_is_device_address(address)) {
        return NULL;
    }
    number = pieces_of[(address - (uint64_t)(uintptr_t)addresses) / PAGE];
    return number == 0 ? NULL : &pieces[number - 1];
}

bool arena_give_back(void *memory)
{
    arena_piece *piece = (arena_piece *)arena_piece_at((uint64_t)(uintptr_t)memory);
    size_t first;
    size_t n_bytes;

    if (piece == NULL || piece->begin != (uint64_t)(uintptr_t)memory || piece->is_freed) {
        return false;
    }
    piece->is_freed = true;
    taken[piece->device] -= piece->end - piece->begin;
    first = piece->begin - SKEW - (uint64_t)(uintptr_t)addresses;
    n_bytes = (piece->end - piece->begin + SKEW + PAGE - 1) / PAGE * PAGE;
    (void)madvise(contents + first, n_bytes, MADV_DONTNEED);
    if (records != NULL) {
        (void)madvise((char *)records + first / 4 * records_bytes_each,
                      n_bytes / 4 * records_bytes_each, MADV_DONTNEED);
    }
    return true;
}

char *arena_contents(const void *address, size_t n_bytes)
{
    const uint64_t at = (uint64_t)(uintptr_t)address;
    const arena_piece *piece = arena_piece_at(at);

    if (piece == NULL || piece->is_freed || at < piece->begin || n_bytes > piece->end - at ||
        at > piece->end) {
        return NULL;
    }
    return arena_contents_of(at);
}

char *arena_contents_of(uint64_t address)
{
    return contents + (address - (uint64_t)(uintptr_t)addresses);
}

void *arena_record(uint64_t address, size_t record_bytes)
{
    if (records == NULL) {
        records = reserve(arena_bytes / 4 * record_bytes, PROT_READ | PROT_WRITE);
        records_bytes_each = record_bytes;
    }
    return (char *)records + (address - (uint64_t)(uintptr_t)addresses) / 4 * record_bytes;
}

const char *arena_describe(uint64_t address, char text[static 160])
{
    const arena_piece *piece = arena_piece_at(address);
    const char *where;

    if (piece == NULL) {
        (void)snprintf(text, 160,
                       arena_is_device_address(address) ? "never allocated device memory"
                                                        : "not device memory");
        return text;
    }
    where = address < piece->begin ? "before"
            : address < piece->end ? "inside"
                                   : "behind the end of";
    (void)snprintf(text, 160, "%s%s allocation %d of %llu bytes, at byte %lld", where,
                   piece->is_freed ? " freed" : "", (int)(piece - pieces),
                   (unsigned long long)(piece->end - piece->begin),
                   (long long)(address - piece->begin));
    return text;
}

static void on_fault(int signal, siginfo_t *fault, void *context)
{
    const uint64_t address = (uint64_t)(uintptr_t)fault->si_addr;
    char text[160];

    (void)context;
    (void)signal;
    if (arena_is_device_address(address)) {
        (void)fprintf(stderr, "emulator: the host touches device memory at %p, %s\n",
                      fault->si_addr, arena_describe(address, text));
    } else {
        (void)fprintf(stderr, "emulator: signal %d at %p\n", signal, fault->si_addr);
    }
    _exit(SIMT_EXIT);
}

void arena_watch_host(void)
{
    static char stack[65536]; // the fault may be that a fiber's stack is used up
    const stack_t alternative = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    (void)sigaltstack(&alternative, NULL);
    (void)sigaction(SIGSEGV, &action, NULL);
    (void)sigaction(SIGBUS, &action, NULL);
}
