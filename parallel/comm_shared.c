#include "parallel/comm_ways.h"

#include <stdatomic.h>
#include <string.h>

#include "parallel/shard.h"

/*
 * All-reduce through memory that the ranks of a host share.
 *
 * The window holds a flag for each rank and two sets of areas, one area a rank. In a meeting a rank
 * raises its flag to the number of the meeting and waits until all flags are there. What it wrote
 * before is then visible to all.
 *
 *   small: write own part to own area; meet; add all areas, in the order of ranks, into the values.
 *   large: write own part; meet; add all areas in own range only, into own area; meet; copy every
 * range from its owner.
 *
 * Why two sets and no meeting at the end: a rank that writes to a set again has met the others in
 * the other set since, and they came there only after they had read this one.
 */

enum {
    LINE_BYTES = TSR_WORLD_LINE_BYTES,
    LINE_VALUES = LINE_BYTES / 8,
    N_SETS = 2,
    PIECE_MOST = 16384, // doubles: an area and the values it adds to stay in a second-level cache
    DIRECT_BYTES_MOST = 48 << 20, // of all areas: shared memory is often limited to 64 MiB
    // Reading so many doubles of others takes as long as meeting once more (about half a
    // microsecond).
    MEETING_VALUES = 700
};

typedef struct flag {
    _Alignas(LINE_BYTES) _Atomic uint64_t n_meets;
} flag;

static size_t whole_lines(size_t n_values)
{
    return (n_values + LINE_VALUES - 1) / LINE_VALUES * LINE_VALUES;
}

tsr_comm_areas tsr_comm_shared_areas(size_t n_ranks, size_t largest)
{
    const size_t most = largest < PIECE_MOST ? largest : PIECE_MOST;
    tsr_comm_areas areas = {
        .piece = whole_lines(largest < 1 ? 1 : most),
        .area = whole_lines(largest < 1 ? 1 : largest),
        .n_flag_bytes = n_ranks * sizeof(flag),
    };

    areas.direct = n_ranks <= TSR_COMM_MOST_PARTS &&
                   areas.area <= DIRECT_BYTES_MOST / sizeof(double) / n_ranks / N_SETS;
    if (!areas.direct) {
        areas.area = areas.piece;
    }
    areas.n_bytes = areas.n_flag_bytes + N_SETS * n_ranks * areas.area * sizeof(double);
    return areas;
}

tsr_status tsr_comm_shared_open(tsr_comm *comm, size_t largest)
{
    const tsr_comm_areas areas = tsr_comm_shared_areas((size_t)comm->world->n_ranks, largest);

    comm->piece = areas.piece;
    comm->area = areas.area;
    comm->direct = areas.direct;
    return tsr_world_share(comm->world, &comm->win, &comm->memory, areas.n_bytes,
                           areas.n_flag_bytes);
}

void tsr_comm_shared_close(tsr_comm *comm)
{
    // After a failed meeting the others may never come to give the window back.
    if (comm->win != MPI_WIN_NULL && !comm->world->broken) {
        (void)MPI_Win_free(&comm->win);
    }
}

static double *area_of(const tsr_comm *comm, int rank)
{
    const size_t n_ranks = (size_t)comm->world->n_ranks;
    double *areas = (double *)((flag *)comm->memory + n_ranks);

    return areas + ((size_t)comm->turn * n_ranks + (size_t)rank) * comm->area;
}

static tsr_status meet(tsr_comm *comm)
{
    const tsr_world *world = comm->world;
    flag *flags = comm->memory;
    const uint64_t meeting = ++comm->n_meets;

    atomic_store_explicit(&flags[world->rank].n_meets, meeting, memory_order_release);
    for (int rank = 0; rank < world->n_ranks; rank++) {
        tsr_wait wait;

        if (atomic_load_explicit(&flags[rank].n_meets, memory_order_acquire) >= meeting) {
            continue;
        }
        tsr_wait_begin(&wait, tsr_world_step_policy(world));
        do {
            if (!tsr_wait_turn(&wait)) {
                return tsr_world_late(comm->world, "an all-reduce");
            }
        } while (atomic_load_explicit(&flags[rank].n_meets, memory_order_acquire) < meeting);
    }
    return TSR_OK;
}

/* into[0 .. n) = the sum of all areas' values [first, first + n), in the order of ranks. */
static void add_areas(const tsr_comm *comm, double *restrict into, size_t first, size_t n)
{
    const double *one = area_of(comm, 0) + first;
    const double *two = area_of(comm, 1) + first;

    for (size_t i = 0; i < n; i++) {
        into[i] = one[i] + two[i];
    }
    for (int rank = 2; rank < comm->world->n_ranks; rank++) {
        const double *more = area_of(comm, rank) + first;

        for (size_t i = 0; i < n; i++) {
            into[i] += more[i];
        }
    }
}

static tsr_status reduce_small(tsr_comm *comm, double *values, size_t n)
{
    memcpy(area_of(comm, comm->world->rank), values, n * sizeof(double));
    TSR_TRY(meet(comm));
    add_areas(comm, values, 0, n);
    return TSR_OK;
}

static tsr_status reduce_large(tsr_comm *comm, double *values, size_t n)
{
    const int n_ranks = comm->world->n_ranks;
    const int self = comm->world->rank;
    const tsr_range own = tsr_shard_deal((int64_t)n, LINE_VALUES, self, n_ranks);

    memcpy(area_of(comm, self), values, n * sizeof(double));
    TSR_TRY(meet(comm));
    // The sum goes to `values` first: the own area is one of the terms.
    add_areas(comm, values + own.first, (size_t)own.first, (size_t)own.count);
    memcpy(area_of(comm, self) + own.first, values + own.first, (size_t)own.count * sizeof(double));
    TSR_TRY(meet(comm));
    for (int rank = 0; rank < n_ranks; rank++) {
        const tsr_range part = tsr_shard_deal((int64_t)n, LINE_VALUES, rank, n_ranks);

        if (rank != self) {
            memcpy(values + part.first, area_of(comm, rank) + part.first,
                   (size_t)part.count * sizeof(double));
        }
    }
    return TSR_OK;
}

/* Adding it all everywhere reads n_ranks - 1 parts of others; sharing the adding reads two parts
 * less 2 / n_ranks. */
static bool sharing_pays(size_t n, int n_ranks)
{
    const size_t ranks = (size_t)n_ranks;

    return n * (ranks - 1) * (ranks - 2) / ranks > MEETING_VALUES;
}

double *tsr_comm_shared_part(const tsr_comm *comm)
{
    return area_of(comm, comm->world->rank);
}

tsr_status tsr_comm_shared_meet(tsr_comm *comm, const double **parts)
{
    TSR_TRY(meet(comm));
    for (int rank = 0; rank < comm->world->n_ranks; rank++) {
        parts[rank] = area_of(comm, rank);
    }
    comm->turn = (comm->turn + 1) % N_SETS;
    return TSR_OK;
}

tsr_status tsr_comm_shared_all_reduce(tsr_comm *comm, double *values, size_t n_values)
{
    if (comm->world->broken) {
        return tsr_fail(TSR_ERR_COMM, "the ranks cannot meet after an earlier failure");
    }
    for (size_t first = 0; first < n_values; first += comm->piece) {
        const size_t left = n_values - first;
        const size_t n = left < comm->piece ? left : comm->piece;

        if (sharing_pays(n, comm->world->n_ranks)) {
            TSR_TRY(reduce_large(comm, values + first, n));
        } else {
            TSR_TRY(reduce_small(comm, values + first, n));
        }
        comm->turn = (comm->turn + 1) % N_SETS;
    }
    return TSR_OK;
}
