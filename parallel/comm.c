#include "parallel/comm.h"

#include "base/alloc.h"
#include "parallel/comm_ways.h"
#include "parallel/shard.h"

static const struct {
    const char *name;
    const char *staged; /* where what GPUs add goes through the host */
} names[TSR_COMM_WAY_COUNT] = {
    [TSR_COMM_ALONE] = {"one rank", "one rank"},
    [TSR_COMM_SHARED] = {"shared memory", "shared memory of the host"},
    [TSR_COMM_MPI] = {"MPI", "MPI from host to host"},
    [TSR_COMM_NCCL] = {"NCCL", "NCCL"},
};

static tsr_status all_reduce_alone(tsr_comm *comm, double *values, size_t n_values)
{
    (void)comm;
    (void)values; // the sum of one part is that part
    (void)n_values;
    return TSR_OK;
}

static tsr_comm_all_reduce_fn *const all_reduces[TSR_COMM_WAY_COUNT] = {
    [TSR_COMM_ALONE] = all_reduce_alone,
    [TSR_COMM_SHARED] = tsr_comm_shared_all_reduce,
    [TSR_COMM_MPI] = tsr_comm_mpi_all_reduce,
    [TSR_COMM_NCCL] = tsr_comm_nccl_all_reduce,
};

static bool is_apart(const tsr_device *dev)
{
    return dev != NULL && !tsr_device_is_host(dev);
}

/* Has each rank a GPU that no other has? NCCL refuses two ranks on one. */
static tsr_status ranks_have_gpus(bool *out, tsr_world *world, const tsr_device *dev)
{
    const int64_t own = tsr_device_identity(dev);
    int64_t all[TSR_SHARD_MAX_RANKS];
    int64_t shared = world->n_host_ranks > TSR_SHARD_MAX_RANKS;

    if (shared == 0) {
        TSR_WORLD_TRY_MPI(world,
                          MPI_Allgather(&own, 1, MPI_INT64_T, all, 1, MPI_INT64_T, world->host));
        for (int rank = 0; rank < world->n_host_ranks; rank++) {
            shared += rank != world->host_rank && all[rank] == own;
        }
    }
    TSR_TRY(tsr_world_max(world, &shared));
    *out = shared == 0;
    return TSR_OK;
}

tsr_status tsr_comm_create(tsr_comm **out, tsr_world *world, tsr_device *dev, size_t largest)
{
    tsr_comm_way way = TSR_COMM_MPI;
    bool have_gpus = false;

    if (world->n_ranks == 1) {
        way = TSR_COMM_ALONE;
    } else if (world->n_host_ranks == world->n_ranks) {
        way = TSR_COMM_SHARED;
    }
    if (world->n_ranks > 1 && is_apart(dev) && tsr_comm_nccl_is_built()) {
        TSR_TRY(ranks_have_gpus(&have_gpus, world, dev));
    }
    return tsr_comm_create_way(out, world, dev, largest, have_gpus ? TSR_COMM_NCCL : way);
}

size_t tsr_comm_rank_bytes(int n_ranks, size_t largest)
{
    tsr_comm_areas areas;

    if (n_ranks == 1) {
        return largest * sizeof(double);
    }
    areas = tsr_comm_shared_areas((size_t)n_ranks, largest);
    return areas.n_bytes / (size_t)n_ranks + (areas.direct ? 0 : largest * sizeof(double));
}

/* This rank's memory for parts. */
static tsr_status make_room(tsr_comm *comm)
{
    const size_t n_bytes = comm->largest * sizeof(double);
    const bool apart = is_apart(comm->dev);
    const bool on_host = apart ? !tsr_comm_is_queued(comm) : !comm->direct;

    if (apart) {
        comm->on_device = tsr_device_alloc(comm->dev, n_bytes);
    }
    if (on_host) {
        comm->own = tsr_alloc_pages(n_bytes);
    }
    return (apart && comm->on_device == NULL) || (on_host && comm->own == NULL)
               ? tsr_fail(TSR_ERR_NOMEM, "no memory for sums of %zu numbers", comm->largest)
               : TSR_OK;
}

tsr_status tsr_comm_create_way(tsr_comm **out, tsr_world *world, tsr_device *dev, size_t largest,
                               tsr_comm_way way)
{
    tsr_status st = TSR_OK;
    tsr_comm *comm = tsr_alloc(1, sizeof(*comm));

    if (comm == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "comm record");
    } else {
        comm->world = world;
        comm->dev = dev;
        comm->way = way;
        comm->largest = largest;
        comm->win = MPI_WIN_NULL;
    }
    // One rank without memory must not leave the others waiting for it in the window.
    TSR_TRY_GOTO(st, fail, tsr_world_agree(world, st));
    if (way == TSR_COMM_SHARED) {
        TSR_TRY_GOTO(st, fail, tsr_comm_shared_open(comm, largest));
    }
    TSR_TRY_GOTO(st, fail, tsr_world_agree(world, make_room(comm)));
    if (way == TSR_COMM_NCCL) {
        TSR_TRY_GOTO(st, fail, tsr_comm_nccl_open(comm));
    }
    *out = comm;
    return TSR_OK;

fail:
    tsr_comm_destroy(comm);
    return st;
}

void tsr_comm_destroy(tsr_comm *comm)
{
    if (comm == NULL) {
        return;
    }
    tsr_comm_nccl_close(comm);
    tsr_comm_shared_close(comm);
    tsr_free_pages(comm->own, comm->largest * sizeof(*comm->own));
    if (comm->on_device != NULL) {
        tsr_device_free(comm->dev, comm->on_device, comm->largest * sizeof(*comm->on_device));
    }
    tsr_free(comm);
}

const char *tsr_comm_describe(const tsr_comm *comm)
{
    return is_apart(comm->dev) ? names[comm->way].staged : names[comm->way].name;
}

bool tsr_comm_is_queued(const tsr_comm *comm)
{
    return is_apart(comm->dev) && (comm->way == TSR_COMM_ALONE || comm->way == TSR_COMM_NCCL);
}

tsr_status tsr_comm_all_reduce(tsr_comm *comm, double *values, size_t n_values)
{
    return all_reduces[comm->way](comm, values, n_values);
}

double *tsr_comm_part(const tsr_comm *comm)
{
    return comm->on_device != NULL ? comm->on_device
           : comm->direct          ? tsr_comm_shared_part(comm)
                                   : comm->own;
}

/* Down to the host, to the others, and up again. */
static tsr_status stage(tsr_comm *comm, size_t n_values)
{
    const size_t n_bytes = n_values * sizeof(double);

    TSR_TRY(tsr_device_download(comm->dev, comm->own, comm->on_device, n_bytes));
    TSR_TRY(tsr_comm_all_reduce(comm, comm->own, n_values));
    return tsr_device_upload(comm->dev, comm->on_device, comm->own, n_bytes);
}

tsr_status tsr_comm_meet(tsr_comm *comm, size_t n_values, const double **parts, int *n_parts)
{
    if (n_values > comm->largest) {
        return tsr_fail(TSR_ERR_ARG, "a sum of %zu numbers; %zu is the most", n_values,
                        comm->largest);
    }
    if (comm->world->broken) {
        return tsr_fail(TSR_ERR_COMM, "the ranks cannot meet after an earlier failure");
    }
    *n_parts = 1;
    parts[0] = tsr_comm_part(comm);
    if (tsr_comm_is_queued(comm)) {
        return tsr_comm_all_reduce(comm, comm->on_device, n_values);
    }
    if (comm->on_device != NULL) {
        return stage(comm, n_values);
    }
    if (comm->dev != NULL) {
        TSR_TRY(tsr_device_sync(comm->dev));
    }
    if (comm->direct) {
        *n_parts = comm->world->n_ranks;
        return tsr_comm_shared_meet(comm, parts);
    }
    return tsr_comm_all_reduce(comm, comm->own, n_values);
}
