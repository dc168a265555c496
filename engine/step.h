/*
 * engine/step.h - the waist: a flat plan of integers that every rank carries out alike.
 *
 * Above it only the leader works (requests, scheduler, bookkeeping, sampling, text); below it every
 * rank runs the same function on the same plan with its own weights, heads and memory. It is the
 * only message from the leader while generating, and it carries changes: blocks appended to tables
 * and blocks dropped, never whole tables.
 *
 * A *lane* is a running sequence's place in the ranks' block tables; a lane keeps its table from
 * step to step.
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
    TSR_STEP_END,     /* leave the loop; nothing else in it counts */
    TSR_STEP_KIND_COUNT
} tsr_step_kind;

/* How large a step may become; the same on all ranks. */
typedef struct tsr_step_limits {
    int max_rows;     /* tokens */
    int max_seqs;     /* sequences, and lanes */
    int max_blocks;   /* of a sequence */
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

    int32_t n_dropped; /* carried out first */
    int32_t *dropped;  /* [n_dropped] block ids that have become free */

    int32_t n_appended;
    int32_t *append_lane;  /* [n_appended] */
    int32_t *append_index; /* [n_appended] which block of the sequence, in [0, max_blocks) */
    int32_t *append_block; /* [n_appended] block id */

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

    int32_t *memory;       /* owned: all arrays lie in it, but for the entries */
    int32_t *entry_memory; /* owned: the entries */
    int32_t max_entries;   /* that it has room for */
    int32_t *marks;        /* [max_seqs] for tsr_step_unpack() alone: zero between calls */
} tsr_step;

/* All arrays sized for the limits; everything else zero. Errors: ARG, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_step_init(tsr_step *step, const tsr_step_limits *limits);
size_t tsr_step_table_bytes(const tsr_step_limits *limits); /* of those arrays */
void tsr_step_clear(tsr_step *step);                        /* frees; fine on {0} */

/* Back to an empty RUN step; arrays stay. */
void tsr_step_reset(tsr_step *step);

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
