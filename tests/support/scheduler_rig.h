/*
 * tests/support/scheduler_rig.h - a scheduler with fake ranks below it, checked at every turn.
 */
#ifndef TSR_TESTS_SUPPORT_SCHEDULER_RIG_H
#define TSR_TESTS_SUPPORT_SCHEDULER_RIG_H

#include "tests/support/fake_ranks.h"

enum {
    VOCAB = 50,
    END_TOKEN = 7,
    MAX_PROMPT = 64,
    MAX_SEQS = 64
};

typedef struct rig {
    tsr_scheduler_options options;
    tsr_scheduler *scheduler;
    tsr_step step;
    bool plans_ahead; /* a step while the one before runs, where that can be done */
    bool is_ahead;    /* the next is in `ahead` */
    tsr_step ahead;
    int n_ahead;    /* so often */
    int64_t now_ns; /* a nanosecond later at each plan and commit, or as a test sets it */
    fake_ranks ranks;
} rig;

/* 100 blocks of 4 tokens, 8 rows a step, 4 sequences of up to 80 positions. */
extern const tsr_scheduler_options roomy;

void rig_init(rig *g, const tsr_scheduler_options *options); /* n_vocab must be VOCAB */
void rig_clear(rig *g);

bool rig_plan(rig *g);
void rig_run(rig *g);  /* carry out what was planned, and commit */
bool rig_step(rig *g); /* both; false when there was nothing to do */

/* Any prompt of that length; the same for the same id. */
tsr_request *rig_request(int64_t id, int64_t n_prompt, int max_tokens);

/* The same, submitted, and not stopped by an end token. */
tsr_request *rig_submit(rig *g, int64_t id, int64_t n_prompt, int max_tokens);

/* The next that has ended, or NULL. Its tokens must be those it would have had alone. */
tsr_request *rig_take_ended(rig *g);

/* Run until all have ended, and throw them away. */
void rig_finish(rig *g);

#endif
