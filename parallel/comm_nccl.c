#include "parallel/comm_ways.h"

#include <nccl.h>

#include "base/alloc.h"

/*
 * Sums of GPUs, by NCCL, on the devices' queues: a call returns when the sum is queued.
 *
 * No call of NCCL blocks here. Each may say that it is in progress, and is then asked until it has
 * come to an end; and whenever the host waits for the queue, which waits for the other GPUs, it
 * asks NCCL whether those are still there. An error, or a time without progress, ends the
 * communicator, and with it all that is queued in it; the step fails on this rank, which ends the
 * job in words.
 */

typedef struct comm_nccl {
    ncclComm_t handle; /* NULL: ended */
    tsr_wait wait;     /* of the host for the queue */
} comm_nccl;

_Static_assert(sizeof(double) == 8, "ncclFloat64");

bool tsr_comm_nccl_is_built(void)
{
    return true;
}

/* The communicator and what is queued in it are given up. */
static void give_up(tsr_comm *comm)
{
    comm_nccl *n = comm->nccl;
    const ncclComm_t handle = n->handle;

    n->handle = NULL;
    tsr_device_set_guard(comm->dev, NULL, NULL);
    if (handle != NULL) {
        (void)ncclCommAbort(handle);
    }
}

static tsr_status failed(tsr_comm *comm, ncclResult_t code, const char *what)
{
    const comm_nccl *n = comm->nccl;
    const tsr_status st = tsr_fail(TSR_ERR_COMM, "NCCL, %s: %s (%s)", what,
                                   ncclGetErrorString(code), ncclGetLastError(n->handle));

    give_up(comm);
    return st;
}

static tsr_status late(tsr_comm *comm, const char *what)
{
    give_up(comm);
    return tsr_world_late(comm->world, what);
}

/* What NCCL says of the communicator. */
static ncclResult_t state_of(const comm_nccl *n)
{
    ncclResult_t code = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(n->handle, &code);

    return asked == ncclSuccess ? code : asked;
}

/* A call gave `code`: until it has come to an end. */
static tsr_status settle(tsr_comm *comm, ncclResult_t code, const char *what)
{
    tsr_wait wait;

    tsr_wait_begin(&wait, tsr_world_step_policy(comm->world));
    while (code == ncclInProgress) {
        code = state_of(comm->nccl);
        if (code == ncclInProgress && !tsr_wait_turn(&wait)) {
            return late(comm, what);
        }
    }
    return code == ncclSuccess ? TSR_OK : failed(comm, code, what);
}

/* While the host waits for the queue (tsr_device_set_guard). */
static tsr_status watch(void *ctx, bool begins)
{
    tsr_comm *comm = ctx;
    comm_nccl *n = comm->nccl;
    ncclResult_t code;

    if (begins) {
        tsr_wait_begin(&n->wait, tsr_world_step_policy(comm->world));
        return TSR_OK;
    }
    code = state_of(n);
    if (code != ncclSuccess && code != ncclInProgress) {
        comm->world->broken = true;
        return failed(comm, code, "an all-reduce");
    }
    return tsr_wait_turn(&n->wait) ? TSR_OK : late(comm, "an all-reduce of the GPUs");
}

tsr_status tsr_comm_nccl_open(tsr_comm *comm)
{
    tsr_world *world = comm->world;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    comm_nccl *n = tsr_alloc(1, sizeof(*n));
    ncclUniqueId id = {0};
    tsr_status st = TSR_OK;

    comm->nccl = n;
    if (n == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "comm record");
    } else if (tsr_world_is_leader(world) && ncclGetUniqueId(&id) != ncclSuccess) {
        st = tsr_fail(TSR_ERR_COMM, "NCCL cannot begin: %s", ncclGetLastError(NULL));
    }
    TSR_TRY(tsr_world_agree(world, st));
    TSR_TRY(tsr_world_broadcast(world, &id, sizeof(id)));
    config.blocking = 0;
    st = tsr_world_agree(
        world,
        settle(comm, ncclCommInitRankConfig(&n->handle, world->n_ranks, id, world->rank, &config),
               "meeting the other GPUs"));
    if (st != TSR_OK) {
        give_up(comm);
        return st;
    }
    tsr_device_set_guard(comm->dev, watch, comm);
    return TSR_OK;
}

void tsr_comm_nccl_close(tsr_comm *comm)
{
    comm_nccl *n = comm->nccl;

    if (n != NULL && n->handle != NULL) {
        tsr_device_set_guard(comm->dev, NULL, NULL);
        if (settle(comm, ncclCommFinalize(n->handle), "taking leave of the other GPUs") == TSR_OK) {
            (void)ncclCommDestroy(n->handle);
        }
    }
    tsr_free(n);
    comm->nccl = NULL;
}

tsr_status tsr_comm_nccl_all_reduce(tsr_comm *comm, double *values, size_t n_values)
{
    const comm_nccl *n = comm->nccl;
    const tsr_status st =
        settle(comm,
               ncclAllReduce(values, values, n_values, ncclFloat64, ncclSum, n->handle,
                             (cudaStream_t)tsr_device_queue(comm->dev)),
               "an all-reduce");

    comm->world->broken = comm->world->broken || st != TSR_OK;
    return st;
}
