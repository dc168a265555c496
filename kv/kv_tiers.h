/*
 * kv/kv_tiers.h - blocks over three tiers: the device's pool, a pool in host memory, a file.
 *
 * What a step writes lies on the device then; what it reads lies there or in the host pool, where
 * it is attended. Which of the others lie where is decided here: blocks that are in no table go out
 * first, least recently used first; then the oldest blocks of the longest sequences. Copies in
 * lower tiers are kept while there is room, so that going out again costs nothing. Blocks are
 * written back before they must go, and those of tables that have no rows yet are fetched ahead,
 * all beside the device's arithmetic; a slot whose block is still being copied is given to nobody.
 *
 * Promise: while at most n_device + n_host + n_disk blocks live (as the options say, without the
 * slots that are kept for exchanges), and the blocks of the tables with rows in a step number at
 * most n_device + n_host, of which at most half of n_device are written, every step can be carried
 * out. A disk that fails breaks it: then blocks of no running table are *lost*. The owner of the
 * ids is told and computes them again.
 *
 * Threads: the thread that owns the device.
 */
#ifndef TSR_KV_KV_TIERS_H
#define TSR_KV_KV_TIERS_H

#include "kernels/kv_layout.h"
#include "kv/kv_mover.h"
#include "kv/kv_tables.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_kv_tiers tsr_kv_tiers;

enum {
    TSR_KV_TIERS_EXCHANGE = 2, /* slots more in each lower tier, for blocks that change places */
    TSR_KV_TIERS_MOST_LOST = 4 /* of them named in a report */
};

typedef struct tsr_kv_tiers_options {
    size_t block_bytes;
    int n_ids;    /* block ids are in [0, n_ids) */
    int n_groups; /* so many tables following one another are of one lane */
    int n_device; /* blocks */
    int n_host;   /* 0: no such tier; TSR_KV_TIERS_EXCHANGE slots come on top, as in the next */
    int n_disk;   /* 0: no such tier */
    const char *folder; /* of the file; read during the call */
} tsr_kv_tiers_options;

/* What is about to be computed. The tables of its lanes have their entries up to the last position.
 */
typedef struct tsr_kv_visit {
    int block_tokens;
    int n_seqs;
    const int32_t *lanes;     /* [n_seqs] which one each has */
    const int32_t *first_pos; /* [n_seqs] its rows have positions from here on ... */
    const int32_t *row_start; /* [n_seqs + 1] ... row_start[s + 1] - row_start[s] of them */
    bool waits;               /* come back only when the oldest open ticket is done */
} tsr_kv_visit;

/* All counted from the start. */
typedef struct tsr_kv_report {
    int64_t n_tickets_done;
    int n_lost;                           /* lost now, not yet dropped */
    int32_t lost[TSR_KV_TIERS_MOST_LOST]; /* the first of them; those that a row reads first */
    int64_t n_spoilt;                     /* tables of the last visit with a block that is lost */
    int64_t n_ever_lost;
    int n_blocks[TSR_KV_TIER_COUNT];    /* that hold a copy now */
    int most_blocks[TSR_KV_TIER_COUNT]; /* that did at the end of a visit */
    int n_slots[TSR_KV_TIER_COUNT];
    int64_t n_moves[TSR_KV_TIER_COUNT][TSR_KV_TIER_COUNT]; /* [from][to] blocks */
    size_t block_bytes;
    int64_t busy_us;  /* that copies and transfers took */
    int64_t n_stalls; /* visits that had to wait for a copy */
    int64_t stall_us;
    int64_t n_asked[TSR_KV_TIER_COUNT]; /* blocks told to a table that were here: where the best
                                           copy lay then */
    int64_t n_late;                     /* of all blocks: those that a visit had to wait for */
} tsr_kv_report;

/* dev and tables are borrowed; device_pool [n_device * block_bytes] too. Errors: ARG, NOMEM, IO,
 * DEVICE. */
TSR_MUST_CHECK tsr_status tsr_kv_tiers_create(tsr_kv_tiers **out, tsr_device *dev,
                                              void *device_pool, tsr_kv_tables *tables,
                                              const tsr_kv_tiers_options *options);
void tsr_kv_tiers_destroy(tsr_kv_tiers *tiers); /* NULL is fine */

/* Bytes of its books, and of what copies pass through on their way to the disk. */
size_t tsr_kv_tiers_map_bytes(const tsr_kv_tiers_options *options);

/* Bytes of the host pool. */
size_t tsr_kv_tiers_host_bytes(size_t block_bytes, int n_host);

/* The host pool, for kernels; NULL: there is none. */
const void *tsr_kv_tiers_host_pool(const tsr_kv_tiers *tiers);

/* Block `id` is nobody's any more: its bytes are forgotten. */
void tsr_kv_tiers_drop(tsr_kv_tiers *tiers, int32_t id);

/* The table is empty again; its blocks stay wherever they are. */
void tsr_kv_tiers_leave(tsr_kv_tiers *tiers, int table);

/* Block `id` is block number `index` of the table now, in place of what was there. */
void tsr_kv_tiers_append(tsr_kv_tiers *tiers, int table, int index, int32_t id);

/* No row looks at block number `index` of the table, or at those before it, any more. */
void tsr_kv_tiers_let_go(tsr_kv_tiers *tiers, int table, int index);

/* The bytes of `from` are copied to `to`, which is new, with the next visit. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_kv_tiers_copy(tsr_kv_tiers *tiers, int32_t from, int32_t to);

/*
 * The changes above have been made: see to it that the visit's rows can be computed, write the
 * tables, and begin what can be done beside. The device has ended what it did before. A table that
 * was empty and has no rows in this visit is a ticket, counted from 0 in the order of their first
 * entries; a ticket is done when all blocks of the table can be used by rows (or were left).
 * Errors: FULL (the promise's conditions do not hold), DEVICE, IO.
 */
TSR_MUST_CHECK tsr_status tsr_kv_tiers_visit(tsr_kv_tiers *tiers, const tsr_kv_visit *visit);

/* Has sequence s of the last visit a block that is lost? Its tokens are not to be trusted then. */
bool tsr_kv_tiers_is_spoilt(const tsr_kv_tiers *tiers, int s);

tsr_kv_report tsr_kv_tiers_report(const tsr_kv_tiers *tiers);

/* Bit t is set when block `id` has a copy in tier t. */
uint8_t tsr_kv_tiers_places(const tsr_kv_tiers *tiers, int32_t id);

/* For tests and debug builds. */
bool tsr_kv_tiers_verify(const tsr_kv_tiers *tiers);

/* For tests: wait until nothing is on its way. */
TSR_MUST_CHECK tsr_status tsr_kv_tiers_settle(tsr_kv_tiers *tiers);

#ifdef __cplusplus
}
#endif

#endif
