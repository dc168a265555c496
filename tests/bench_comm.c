/* Microseconds of an all-reduce of doubles: MPI's own, and each of ours. mpirun -n 2 bench_comm */
#include <stdio.h>

#include <mpi.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "parallel/comm_ways.h"

enum {
    MOST = 1 << 19
};

static double *values;
static tsr_comm *comm;

static double time_us(size_t n, bool ours)
{
    const int n_times = n > 10000 ? 100 : 20000;
    int64_t began = 0;

    for (int i = -n_times / 10; i < n_times; i++) {
        if (i == 0) {
            (void)MPI_Barrier(MPI_COMM_WORLD);
            began = tsr_clock_ns();
        }
        if (!ours) {
            (void)MPI_Allreduce(MPI_IN_PLACE, values, (int)n, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
        } else if (tsr_comm_all_reduce(comm, values, n) != TSR_OK) {
            return -1.0;
        }
    }
    return (double)(tsr_clock_ns() - began) / 1000.0 / n_times;
}

int main(void)
{
    static const size_t counts[] = {64, 576, 2048, 4096, 16384, 65536, 512 * 576};
    tsr_world *world = NULL;

    if (tsr_world_open(&world) != TSR_OK ||
        tsr_comm_create_way(&comm, world, NULL, MOST, TSR_COMM_SHARED) != TSR_OK) {
        fprintf(stderr, "%s\n", tsr_status_message());
        return 1;
    }
    values = tsr_alloc(MOST, sizeof(*values));
    for (size_t i = 0; values != NULL && i < sizeof(counts) / sizeof(counts[0]); i++) {
        const double theirs = time_us(counts[i], false);
        const double shared = time_us(counts[i], true);

        if (tsr_world_is_leader(world)) {
            printf("%7zu doubles: MPI_Allreduce %8.2f us, shared memory %8.2f us: %.2f times\n",
                   counts[i], theirs, shared, theirs / shared);
        }
    }
    tsr_free(values);
    tsr_comm_destroy(comm);
    tsr_world_close(world);
    return 0;
}
