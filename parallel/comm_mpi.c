#include "parallel/comm_ways.h"

enum {
    PIECE_VALUES = 1 << 30 // MPI counts are int
};

tsr_status tsr_comm_mpi_all_reduce(tsr_comm *comm, double *values, size_t n_values)
{
    tsr_world *world = comm->world;
    const tsr_wait_policy policy = tsr_world_step_policy(world);

    for (size_t first = 0; first < n_values; first += PIECE_VALUES) {
        const size_t left = n_values - first;
        const int n_piece = (int)(left < PIECE_VALUES ? left : PIECE_VALUES);
        MPI_Request request;

        // Not the blocking call: it would wait for a lost rank without end, and burn the core.
        TSR_WORLD_TRY_MPI(world, MPI_Iallreduce(MPI_IN_PLACE, values + first, n_piece, MPI_DOUBLE,
                                                MPI_SUM, world->all, &request));
        TSR_TRY(tsr_world_wait(world, 1, &request, &policy, "an all-reduce"));
    }
    return TSR_OK;
}
