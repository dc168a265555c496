/*
 * tests/support/store_ranks.h - ranks that carry out steps with the real storage and without a
 * model: each has tiers of its own size, writes a token's place with the token, in each group of
 * layers, and reads back all that a sequence's rows see.
 */
#ifndef TSR_TESTS_SUPPORT_STORE_RANKS_H
#define TSR_TESTS_SUPPORT_STORE_RANKS_H

#include "engine/scheduler.h"
#include "kv/kv_store.h"

enum {
    STORE_RANKS = 4,        /* at most */
    STORE_BLOCK_TOKENS = 16 /* of the scheduler's blocks */
};

typedef struct store_ranks {
    int n_ranks;
    tsr_step_limits limits;
    int64_t reach[TSR_BLOCK_MOST_GROUPS];
    struct {
        tsr_device *dev;
        tsr_kv_store *store;
        int n_device, n_host;
    } ranks[STORE_RANKS];
    tsr_step step;    /* as it was unpacked */
    int32_t *message; /* [message_ints] */
    size_t message_ints;
    int32_t *next; /* [max_seqs] of the step that ran last */
    bool *known;   /* [n_block_ids] told of and not dropped */
    tsr_step_report report;
    char why[240]; /* what was wrong, when something was */
    int64_t n_rows, n_appended, n_dropped, n_left, n_copied, n_spoilt;
} store_ranks;

/* What each rank has room for at least; those behind the first have more, each differently. */
typedef struct store_room {
    int n_device, n_host, n_disk;         /* blocks; without the last two there are no tiers */
    int64_t reach[TSR_BLOCK_MOST_GROUPS]; /* [n_groups] the last positions that rows of a group of
                                             layers see; 0: all */
} store_room;

/* False: it could not be made; `why` says it. */
bool store_ranks_open(store_ranks *r, int n_ranks, const tsr_step_limits *limits,
                      const store_room *room, const char *folder);
void store_ranks_close(store_ranks *r);

/*
 * Carry out the step planned last on every rank, and report. next[s] is then a function of all
 * tokens of the sequence. False: something was not as it must be; `why` says what.
 */
bool store_ranks_run(store_ranks *r, const tsr_scheduler *scheduler, const tsr_step *planned);

/* That function: what follows n tokens. */
int32_t store_ranks_next(const int32_t *tokens, int64_t n, int n_vocab);

/* Blocks moved down from the device, and up to it, on all ranks so far. */
void store_ranks_moves(const store_ranks *r, int64_t *n_down, int64_t *n_up);

#endif
