/*
 * tests/support/timed_ranks.h - a scheduler above a machine that only takes time, on a clock that
 * only this machine moves.
 */
#ifndef TSR_TESTS_SUPPORT_TIMED_RANKS_H
#define TSR_TESTS_SUPPORT_TIMED_RANKS_H

#include "engine/scheduler.h"

/* A step takes fixed + max(read, rows x row) + place x (sum over rows of their positions). */
typedef struct machine {
    const char *name;
    double fixed_us;
    double read_us;
    double row_us;
    double place_us;
    double noise; /* each step that much longer or shorter at most, as a share */
} machine;

typedef struct timed_ranks {
    machine machine;
    tsr_scheduler *scheduler;
    tsr_step step;
    int32_t *next;
    uint64_t dice;
    int64_t now_ns;
    double last_us;  /* of the step that ran last */
    double usual_us; /* what it would have been without prompts and noise */
    bool mute;       /* do not tell the scheduler what steps take */
} timed_ranks;

void timed_ranks_init(timed_ranks *t, const machine *machine, const tsr_scheduler_options *options);
void timed_ranks_clear(timed_ranks *t);

/* Submitted now; goes on to max_tokens. NULL: refused with FULL. */
tsr_request *timed_ranks_submit(timed_ranks *t, int64_t n_prompt, int max_tokens, int priority);

/* One step; false when there was none. */
bool timed_ranks_step(timed_ranks *t);

#endif
