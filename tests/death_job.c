/*
 * A job for tests/death.py to kill: ranks that meet step after step until somebody asks them to
 * end. death_job steps   every step an allocation and an all-reduce death_job idle    the leader is
 * quiet and the followers wait for its next broadcast death_job deaf    as steps, but nobody
 * listens to being asked to end Each rank first says "rank R process P" on stdout; the leader says
 * "ended as asked" when that is so.
 */
#include <stdio.h>
#include <string.h>

#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "parallel/comm.h"
#include "parallel/fault.h"
#include "parallel/world.h"

enum {
    N_VALUES = 576
};

static tsr_status reduce_once(tsr_comm *comm)
{
    double *values = tsr_alloc(N_VALUES, sizeof(*values));
    tsr_status st;

    if (values == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no room for %d values", (int)N_VALUES);
    }
    st = tsr_comm_all_reduce(comm, values, N_VALUES);
    tsr_free(values);
    return st;
}

/* A step as the engine does it: the leader's word first, then all meet. */
static tsr_status run_step(tsr_world *world, tsr_comm *comm, int64_t step, bool *go_on, bool deaf)
{
    int32_t word = deaf || !tsr_world_asked_to_end(world);

    tsr_world_note(world, "waiting for step", step);
    TSR_TRY(tsr_world_broadcast(world, &word, sizeof(word)));
    *go_on = word != 0;
    if (!*go_on) {
        return TSR_OK;
    }
    tsr_world_note(world, "running step", step);
    tsr_fault_maybe(world, step);
    return reduce_once(comm);
}

int main(int argc, char **argv)
{
    const bool idle = argc == 2 && strcmp(argv[1], "idle") == 0;
    const bool deaf = argc == 2 && strcmp(argv[1], "deaf") == 0;
    tsr_world *world = NULL;
    tsr_comm *comm = NULL;
    bool go_on = true;

    if (tsr_world_open(&world) != TSR_OK ||
        tsr_comm_create(&comm, world, NULL, N_VALUES) != TSR_OK) {
        (void)fprintf(stderr, "%s\n", tsr_status_message());
        return 1;
    }
    (void)printf("rank %d process %d\n", tsr_world_rank(world), (int)getpid());
    (void)fflush(stdout);
    for (int64_t step = 0; go_on; step++) {
        const tsr_status st = run_step(world, comm, step, &go_on, deaf);

        if (st != TSR_OK) {
            tsr_world_abort(world, st);
        }
        for (int nap = 0;
             go_on && tsr_world_is_leader(world) && nap < (idle && step > 3 ? 5000 : 1); nap++) {
            tsr_clock_sleep_us(2000);
            nap = tsr_world_asked_to_end(world) ? 5000 : nap;
        }
    }
    if (tsr_world_is_leader(world)) {
        (void)printf("ended as asked\n");
        (void)fflush(stdout);
    }
    tsr_comm_destroy(comm);
    tsr_world_close(world);
    return 0;
}
