/*
 * parallel/wait.h - how a rank waits for the others without wasting its core.
 *
 * First it spins, because the others are mostly some microseconds away; then it lets others run;
 * then it sleeps in growing naps. Waiting for the next step (idle) goes to sleep soon and long,
 * waiting inside a step late and short.
 *
 *     tsr_wait wait;
 *     tsr_wait_begin(&wait, policy);
 *     while (!there_yet()) {
 *         if (!tsr_wait_turn(&wait)) { the limit has passed }
 *     }
 *
 * A lost rank does not show here: the watch (parallel/watch.h) ends the process from its own
 * thread.
 */
#ifndef TSR_PARALLEL_WAIT_H
#define TSR_PARALLEL_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_wait_policy {
    int64_t spin_ns;     /* spin so long */
    int64_t yield_ns;    /* then offer the core to others until so long after the begin */
    int64_t nap_most_us; /* then nap, each nap twice as long as the one before, at most so long */
    int64_t limit_ns;    /* 0: without end */
} tsr_wait_policy;

/* crowded: more ranks than cores on this host, so that spinning takes the core from the one that is
 * waited for. */
tsr_wait_policy tsr_wait_policy_step(bool crowded, int64_t limit_ns);
tsr_wait_policy tsr_wait_policy_idle(bool crowded);

typedef struct tsr_wait {
    tsr_wait_policy policy;
    int64_t began_ns; /* 0: the clock has not been read yet */
    int64_t nap_us;
    unsigned n_turns;
    bool spinning;
} tsr_wait;

void tsr_wait_begin(tsr_wait *wait, tsr_wait_policy policy);

/* Pass some time. false: the limit has passed. */
bool tsr_wait_turn(tsr_wait *wait);

#ifdef __cplusplus
}
#endif

#endif
