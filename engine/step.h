/*
 * engine/step.h - the waist: a flat plan of integers that every rank carries out alike.
 *
 * Above it only the leader works (requests, scheduler, bookkeeping, sampling, text); below it every
 * rank runs the same function on the same plan with its own weights, heads and memory. It is the
 * only message from the leader while generating, and it carries changes: blocks appended to tables
 * and blocks dropped, never whole tables.
 *
 * A *lane* is a sequence's place in the ranks' block tables; a lane keeps its table from step to
 * step until it is left. A step is carried out in this order: blocks are dropped, lanes are left,
 * tables get their new entries, blocks are copied, and then the rows are computed. A step may have
 * no rows at all.
 *
 * A lane that has a table and no rows in a step is a hint: its sequence will run soon, and what it
 * has in slower memory may be fetched meanwhile. The first entry of a lane that had no table, in a
 * step in which the lane has no rows, is a *ticket*. Tickets are counted from 0 in the order in
 * which they stand in the steps, alike on all ranks; how many of them are done, which is to say
 * that all blocks of that lane are where rows can use them, is what ranks report.
 *
 * Threads: none of its own.
 */
#ifndef TSR_ENGINE_STEP_H
#define TSR_ENGINE_STEP_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_step_kind {
    TSR_STEP_RUN,
    TSR_STEP_MEASURE, /* measure what this rank's cores can do; nothing else in it counts */
    TSR_STEP_MEMORY,  /* tell what memory holds, tsr_engine_memory(); nothing else in it counts */
    TSR_STEP_BLOCKS,  /* tell where blocks lie, tsr_engine_blocks(); nothing else in it counts */
    TSR_STEP_END,     /* leave the loop; nothing else in it counts */
    TSR_STEP_KIND_COUNT
} tsr_step_kind;

/* How large a step may become; the same on all ranks. */
typedef struct tsr_step_limits {
    int max_rows;     /* tokens */
    int max_seqs;     /* sequences, and lanes */
    int max_blocks;   /* of a sequence, in each group of layers */
    int n_groups;     /* of layers: kv/block_table.h */
    int block_tokens; /* positions are below max_blocks * block_tokens */
    int n_block_ids;  /* of the pool */
    int n_vocab;
} tsr_step_limits;

typedef struct tsr_step {
    tsr_step_limits limits;
    int32_t kind;

    int32_t n_rows;
    int32_t *tokens; /* [n_rows] ids */

    int32_t n_seqs; /* each has at least one row */
    /* [n_seqs + 1] rows of sequence s are row_start[s] .. row_start[s + 1] - 1 */
    int32_t *row_start;
    int32_t *first_pos; /* [n_seqs] position of its first row */
    int32_t *lanes;     /* [n_seqs] in [0, max_seqs), no lane twice */
    int32_t *is_long;   /* [n_seqs] 1: it has more tokens than config->rope_switch, in this step or
                           not; else 0 */

    int32_t n_dropped; /* carried out first */
    int32_t *dropped;  /* [n_dropped] block ids that have become free */

    int32_t n_left;
    int32_t *left; /* [n_left] lanes whose tables are forgotten, none twice; blocks stay */

    int32_t n_appended;
    int32_t *append_lane;  /* [n_appended] */
    int32_t *append_index; /* [n_appended] column * n_groups + group, the column in
                              [0, max_blocks); what the lane had there is replaced */
    int32_t *append_block; /* [n_appended] block id; -1: no row of the lane looks there any more, or
                              at what the group has before; said when memory has tiers */

    /* Whole blocks that are copied, [n_copied]: from one that is held until the step is committed,
     * to one that was appended in this step. */
    int32_t n_copied;
    int32_t *copy_from;
    int32_t *copy_to;

    int32_t n_wanted; /* rows whose logits matter */
    int32_t *wanted;  /* [n_wanted] row numbers, rising */
    int32_t *targets; /* [n_wanted] a token whose logit is asked for as well, or -1 */
    float *sharpness; /* [n_wanted] 1 / temperature for the masses; 1 for greedy */
    int32_t n_best;   /* candidates wanted of each row, >= 1 */
    /* Wanted rows that are looked at twice: first as they are, at sharpness 1. */
    int32_t n_raw;
    int32_t *raw;       /* [n_raw] which of the wanted, rising */
    int32_t n_raw_best; /* candidates of each in that first look, >= 1 */

    /* Wanted rows some of whose logits are changed (tsr_adjust_logits() of kernels/ops.h) before
     * the candidates are found. */
    int32_t n_adjusted;
    int32_t *adjusted;     /* [n_adjusted] which of the wanted, rising */
    int32_t *adjust_start; /* [n_adjusted + 1] the entries of each */
    int32_t n_entries;     /* in all: adjust_start[n_adjusted] */
    int32_t *entry_ids;    /* [n_entries] tokens, rising within a row */
    float *entry_factors;  /* [n_entries] above 0 */
    float *entry_adds;     /* [n_entries] */

    int32_t may_ask; /* 1: the leader may ask for whole rows of logits after the candidates */
    int32_t waits;   /* 1, without rows: the step ends only when the oldest open ticket is done */

    int32_t *memory;       /* owned: all arrays lie in it, but for the next two */
    int32_t *table_memory; /* owned: what is appended */
    int32_t max_appended;  /* that it has room for */
    int32_t *entry_memory; /* owned: the entries */
    int32_t max_entries;   /* that it has room for */
    int32_t *marks;        /* [max_seqs] for tsr_step_unpack() alone: zero between calls */
} tsr_step;

enum {
    TSR_STEP_MOST_LOST = 4
};

/* What comes back of a step about memory, of all ranks together. */
typedef struct tsr_step_report {
    int64_t n_tickets_done; /* in their order, on every rank; those of lanes that were left count */
    int32_t n_lost;
    int32_t lost[TSR_STEP_MOST_LOST]; /* [n_lost] blocks whose bytes cannot be read back on some
                                         rank; said again until they are dropped */
    /* A sequence of the step has read a block that is lost: nothing that came of the step counts.
     */
    bool is_spoilt;
    /* Between device memory and lower tiers, since the report before: by the rank that takes
     * longest for a byte. */
    int64_t moved_bytes;
    int64_t moved_us;
} tsr_step_report;

/* All arrays sized for the limits; everything else zero. Errors: ARG, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_step_init(tsr_step *step, const tsr_step_limits *limits);
void tsr_step_clear(tsr_step *step); /* frees; fine on {0} */

/* Ints of those arrays but for what is appended. */
static inline size_t tsr_step_array_ints(const tsr_step_limits *limits)
{
    return 5 * (size_t)limits->max_rows +
           (8 + 2 * (size_t)limits->n_groups) * (size_t)limits->max_seqs + 2 +
           (size_t)limits->n_block_ids;
}

/* Bytes of all: as many blocks can be appended as there are ids, each with a table, an index and an
 * id. */
static inline size_t tsr_step_table_bytes(const tsr_step_limits *limits)
{
    return (tsr_step_array_ints(limits) + 3 * (size_t)limits->n_block_ids) * sizeof(int32_t);
}

/* Back to an empty RUN step; arrays stay. */
void tsr_step_reset(tsr_step *step);

/* Room for n appended blocks in all; those that are there stay. It has room for each block id once
 * from the start; sequences that share blocks can need more. It grows to the largest step that is
 * met and stays. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_step_reserve_appended(tsr_step *step, int64_t n);

/* Room for n entries in all; those that are there stay. It grows to the largest step that is met
 * and stays. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_step_reserve(tsr_step *step, int64_t n);

/* The most int32 that a packed step can take: a bound in whole and far above what any step takes;
 * what a step takes in fact follows what it changes. */
size_t tsr_step_max_ints(const tsr_step_limits *limits);

/* What this step takes. */
size_t tsr_step_n_ints(const tsr_step *step);

/* Write the step to message [tsr_step_n_ints()]; returns how many ints were written. message[0]
 * is that number. */
size_t tsr_step_pack(const tsr_step *step, int32_t *message);

/*
 * Read a packed step into an initialised one; on failure that is as it was. Every count and every
 * index is checked against the limits, so that what follows may trust them. n_ints: how many ints
 * there are to read; those past message[0] are not looked at. Errors: FORMAT, NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_step_unpack(tsr_step *step, const int32_t *message, size_t n_ints);

#ifdef __cplusplus
}
#endif

#endif
