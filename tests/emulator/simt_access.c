#define _GNU_SOURCE // MAP_ANONYMOUS

#include "tests/emulator/simt_inside.h"

#include <string.h>
#include <sys/mman.h>

#include "tests/emulator/arena.h"
#include "tests/emulator/pinned.h"

/*
 * Of every four bytes the last write and the last read are remembered. A new access races with a
 * remembered one if one of the two writes, they share a byte, and nothing orders them.
 * (A write of other bytes of the four displaces the record of the first: neighbours of a word that
 * two threads share are seen less sharply than whole words.)
 */
typedef struct record {
    uint32_t run; // of the block; 0: nothing
    uint32_t place;
    uint32_t epoch;
    uint32_t clock;
    uint16_t thread;
    uint8_t bytes; // bit = byte of the four
    uint8_t kind;
} record;

enum kind {
    READ,
    WRITE,
    ATOMIC,
    ARRIVING, // a cp.async that was not waited for
    MANY      // reads of several threads, of which the first is kept
};

enum space {
    GLOBAL,
    SHARED
};

typedef struct records {
    record write, read;
} records;

static char *shared;            // [SIMT_MAX_SHARED] contents
static records *shared_records; // [SIMT_MAX_SHARED / 4]
static char *shared_addresses;  // reserved: what generic addresses of shared memory look like
static uint64_t n_accesses;

uint64_t simt_access_count(void)
{
    return n_accesses;
}

static void *pages(size_t n_bytes, int protection)
{
    return mmap(NULL, n_bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

void simt_access_block_begins(const simt_block *block)
{
    if (shared == NULL) {
        shared = pages(SIMT_MAX_SHARED, PROT_READ | PROT_WRITE);
        shared_records = pages(SIMT_MAX_SHARED / 4 * sizeof(records), PROT_READ | PROT_WRITE);
    }
    memset(shared, 0xFF, block->shared_bytes);
}

uint64_t simt_shared_base(void)
{
    if (shared_addresses == NULL) {
        shared_addresses = pages(SIMT_MAX_SHARED, PROT_NONE);
    }
    return (uint64_t)(uintptr_t)shared_addresses;
}

/* Is what the record says before everything that t does now? */
static bool is_before(const simt_thread *t, const record *r)
{
    if (r->run != t->block->run) {
        return false; // another block of the launch
    }
    if (r->thread == t->number || r->epoch < t->block->epoch) {
        return true;
    }
    return r->thread / SIMT_LANES == t->number / SIMT_LANES &&
           t->warp->knows[t->lane][r->thread % SIMT_LANES] > r->clock;
}

static _Noreturn void report_race(const simt_thread *t, const record *r, const char *what,
                                  const char *where, uint32_t place)
{
    char text[128];

    simt_fail(t, place,
              "race: this thread %s %s that thread %u of %s %s at %s, with no barrier between",
              what, where, r->thread, r->run == t->block->run ? "its block" : "another block",
              r->kind == READ || r->kind == MANY ? "read"
              : r->kind == ATOMIC                ? "changed atomically"
                                                 : "wrote",
              simt_place_name(r->place, text));
}

static record make_record(const simt_thread *t, uint32_t place, enum kind kind, uint32_t bytes)
{
    return (record){.run = t->block->run,
                    .place = place,
                    .epoch = t->block->epoch,
                    .clock = t->clock,
                    .thread = (uint16_t)t->number,
                    .bytes = (uint8_t)bytes,
                    .kind = (uint8_t)kind};
}

/* One access to bytes of one word. */
static void look(simt_thread *t, records *word, uint32_t bytes, enum kind kind, enum space space,
                 uint32_t place)
{
    // Blocks have their own shared memory; launches follow one another.
    const uint32_t first_run = space == SHARED ? t->block->run : t->block->first_run;
    const char *where = space == SHARED ? "shared memory" : "global memory";
    record *w = &word->write;
    record *r = &word->read;
    const bool both_atomic = kind == ATOMIC && w->kind == ATOMIC;

    if (w->run >= first_run && (w->bytes & bytes) != 0) {
        if (w->kind == ARRIVING) {
            char text[128];

            simt_fail(t, place,
                      "%s that the cp.async at %s (thread %u) fills and nobody waited for", where,
                      simt_place_name(w->place, text), w->thread);
        }
        if (!both_atomic && !is_before(t, w)) {
            report_race(t, w, kind == READ ? "reads" : "writes", where, place);
        }
    }
    if (kind == READ && r->run == t->block->run && r->thread == t->number &&
        r->epoch == t->block->epoch && r->clock == t->clock && (r->bytes & bytes) == bytes) {
        return; // it has read this already
    }
    if (kind == READ) {
        if (r->run == t->block->run && r->epoch == t->block->epoch && r->thread != t->number &&
            !is_before(t, r)) {
            r->kind = MANY;
            r->bytes |= (uint8_t)bytes;
        } else if (r->run < first_run || is_before(t, r)) {
            *r = make_record(t, place, READ, bytes);
        } // else: a read of another block is kept; whoever writes now races with one or the other
        return;
    }
    if (r->run >= first_run && (r->bytes & bytes) != 0 &&
        (!is_before(t, r) ||
         (r->kind == MANY && r->thread == t->number && r->epoch == t->block->epoch &&
          r->run == t->block->run && t->clock == r->clock))) {
        report_race(t, r, "writes", where, place);
    }
    *w = make_record(t, place, kind, bytes);
}

static void look_at_words(simt_thread *t, records *words, uint64_t address, uint32_t n_bytes,
                          enum kind kind, enum space space, uint32_t place)
{
    n_accesses++;
    if (n_bytes < 4) {
        look(t, words, ((1U << n_bytes) - 1) << (address & 3), kind, space, place);
        return;
    }
    for (uint32_t i = 0; i < n_bytes / 4; i++) {
        look(t, words + i, 0xF, kind, space, place);
    }
}

static void check_alignment(const simt_thread *t, uint64_t address, uint32_t n_bytes,
                            uint32_t place)
{
    if ((address & (n_bytes - 1)) != 0) {
        simt_fail(t, place, "misaligned: %u bytes at address %#llx", n_bytes,
                  (unsigned long long)address);
    }
}

static const char *const verbs[] = {
    [SIMT_READ] = "reads", [SIMT_WRITE] = "writes", [SIMT_ATOMIC] = "changes"};
static const enum kind kinds[] = {[SIMT_READ] = READ, [SIMT_WRITE] = WRITE, [SIMT_ATOMIC] = ATOMIC};

char *simt_global(simt_thread *t, uint64_t address, uint32_t n_bytes, simt_access access,
                  uint32_t place)
{
    const arena_piece *piece = arena_piece_at(address);

    check_alignment(t, address, n_bytes, place);
    if (piece == NULL || piece->is_freed || address < piece->begin ||
        address + n_bytes > piece->end) {
        char text[160];

        if (!arena_is_device_address(address) &&
            pinned_holds((const void *)(uintptr_t)address, n_bytes)) {
            return (char *)(uintptr_t)address;
        }
        simt_fail(t, place, "%s %u bytes at %#llx, %s", verbs[access], n_bytes,
                  (unsigned long long)address, arena_describe(address, text));
    }
    if (piece->device != t->block->launch->device) {
        simt_fail(t, place, "%s memory of device %d on device %d", verbs[access], piece->device,
                  t->block->launch->device);
    }
    look_at_words(t, arena_record(address, sizeof(records)), address, n_bytes, kinds[access],
                  GLOBAL, place);
    return arena_contents_of(address);
}

static void check_shared(const simt_thread *t, uint32_t offset, uint32_t n_bytes, const char *verb,
                         uint32_t place)
{
    check_alignment(t, offset, n_bytes, place);
    if (offset > t->block->shared_bytes || n_bytes > t->block->shared_bytes - offset) {
        simt_fail(t, place, "%s %u bytes of shared memory at %u; the block has %u", verb, n_bytes,
                  offset, t->block->shared_bytes);
    }
}

char *simt_shared(simt_thread *t, uint32_t offset, uint32_t n_bytes, simt_access access,
                  uint32_t place)
{
    records *words = &shared_records[offset / 4];

    check_shared(t, offset, n_bytes, verbs[access], place);
    for (uint32_t i = 0; access != SIMT_WRITE && i < (n_bytes + 3) / 4; i++) {
        if (words[i].write.run != t->block->run) {
            simt_fail(t, place, "%s shared memory at %u that nobody of the block has written",
                      verbs[access], offset + 4 * i);
        }
    }
    look_at_words(t, words, offset, n_bytes, kinds[access], SHARED, place);
    return shared + offset;
}

char *simt_generic(simt_thread *t, uint64_t address, uint32_t n_bytes, simt_access access,
                   uint32_t place)
{
    const uint64_t offset = address - simt_shared_base();

    if (offset < SIMT_MAX_SHARED) {
        return simt_shared(t, (uint32_t)offset, n_bytes, access, place);
    }
    return simt_global(t, address, n_bytes, access, place);
}

char *simt_access_copy_target(simt_thread *t, uint32_t offset, uint32_t n_bytes, uint32_t place)
{
    check_shared(t, offset, n_bytes, "copies to", place);
    look_at_words(t, &shared_records[offset / 4], offset, n_bytes, ARRIVING, SHARED, place);
    return shared + offset;
}

void simt_access_copy_arrives(simt_thread *t, uint32_t offset, uint32_t n_bytes, uint32_t place)
{
    for (uint32_t i = 0; i < n_bytes / 4; i++) {
        shared_records[offset / 4 + i].write = make_record(t, place, WRITE, 0xF);
    }
}
