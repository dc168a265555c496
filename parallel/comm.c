#include "parallel/comm.h"

#include "base/alloc.h"
#include "parallel/comm_ways.h"

static const char *const names[TSR_COMM_WAY_COUNT] = {
    [TSR_COMM_ALONE] = "one rank",
    [TSR_COMM_SHARED] = "shared memory",
    [TSR_COMM_MPI] = "MPI",
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
};

tsr_status tsr_comm_create(tsr_comm **out, tsr_world *world, size_t largest)
{
    tsr_comm_way way = TSR_COMM_MPI;

    if (world->n_ranks == 1) {
        way = TSR_COMM_ALONE;
    } else if (world->n_host_ranks == world->n_ranks) {
        way = TSR_COMM_SHARED;
    }
    return tsr_comm_create_way(out, world, largest, way);
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

tsr_status tsr_comm_create_way(tsr_comm **out, tsr_world *world, size_t largest, tsr_comm_way way)
{
    tsr_status st = TSR_OK;
    tsr_comm *comm = tsr_alloc(1, sizeof(*comm));

    if (comm == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "comm record");
    } else {
        comm->world = world;
        comm->way = way;
        comm->win = MPI_WIN_NULL;
    }
    // One rank without memory must not leave the others waiting for it in the window.
    TSR_TRY_GOTO(st, fail, tsr_world_agree(world, st));
    if (way == TSR_COMM_SHARED) {
        TSR_TRY_GOTO(st, fail, tsr_comm_shared_open(comm, largest));
    }
    comm->largest = largest;
    if (!comm->direct) {
        comm->own = tsr_alloc_pages(largest * sizeof(*comm->own));
        st = comm->own != NULL
                 ? TSR_OK
                 : tsr_fail(TSR_ERR_NOMEM, "no memory for sums of %zu numbers", largest);
        TSR_TRY_GOTO(st, fail, tsr_world_agree(world, st));
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
    tsr_comm_shared_close(comm);
    tsr_free_pages(comm->own, comm->largest * sizeof(*comm->own));
    tsr_free(comm);
}

const char *tsr_comm_describe(const tsr_comm *comm)
{
    return names[comm->way];
}

tsr_status tsr_comm_all_reduce(tsr_comm *comm, double *values, size_t n_values)
{
    return all_reduces[comm->way](comm, values, n_values);
}

double *tsr_comm_part(const tsr_comm *comm)
{
    return comm->direct ? tsr_comm_shared_part(comm) : comm->own;
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
    if (comm->direct) {
        *n_parts = comm->world->n_ranks;
        return tsr_comm_shared_meet(comm, parts);
    }
    *n_parts = 1;
    parts[0] = comm->own;
    return tsr_comm_all_reduce(comm, comm->own, n_values);
}
