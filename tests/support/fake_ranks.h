/*
 * tests/support/fake_ranks.h - what ranks do with a step, without a model: tables, blocks and a
 * cache that remembers who wrote what. Every rule that planning must keep is asserted on the way.
 */
#ifndef TSR_TESTS_SUPPORT_FAKE_RANKS_H
#define TSR_TESTS_SUPPORT_FAKE_RANKS_H

#include "engine/scheduler.h"

/* One token's place in the cache. */
typedef struct fake_slot {
    int64_t writer; /* id of the request, or -1 */
    int32_t position;
    int32_t token;
} fake_slot;

typedef struct fake_ranks {
    tsr_step_limits limits;
    int64_t context;  /* positions a sequence */
    tsr_step step;    /* as it was unpacked */
    int32_t *message; /* [tsr_step_max_ints()] */
    int32_t *tables;  /* [max_seqs, max_blocks] block ids, or -1 */
    bool shares;      /* sequences may share blocks; else whoever writes to one owns it */
    int64_t *owners;  /* [n_block_ids] id of the request whose block it is, or -1 */
    fake_slot *slots; /* [n_block_ids, block_tokens] */
    int32_t *next;    /* [max_seqs] of the step that ran last */

    /* Tiers: what is asked for with a ticket comes after some steps. */
    bool is_tiered;
    int max_delay;         /* in steps; each ticket's is drawn from 0 .. max_delay */
    int *delays;           /* [max_seqs] of the open tickets, oldest first */
    int32_t *ticket_lanes; /* [max_seqs] whose they are; -1: left */
    int n_open;
    tsr_step_report report; /* of the step that ran last */
    uint64_t dice;
    long n_rows;       /* that ran in all */
    long n_copied;     /* blocks */
    long n_given_over; /* blocks dropped and appended in one step */
} fake_ranks;

void fake_ranks_init(fake_ranks *ranks, const tsr_step_limits *limits, int64_t context);
void fake_ranks_clear(fake_ranks *ranks);

/*
 * Carry out the step planned last: pack, unpack, drop, append, write, read. next[s] is then a
 * function of all tokens of the sequence, read back from the cache.
 */
void fake_ranks_run(fake_ranks *ranks, const tsr_scheduler *scheduler, const tsr_step *step);

/* The bytes of a block are gone, as the report will say until it is dropped. */
void fake_ranks_lose(fake_ranks *ranks, int32_t block);

/* That function: what follows n tokens. */
int32_t fake_ranks_next(const int32_t *tokens, int64_t n, int n_vocab);

#endif
