#include "parallel/comm_ways.h"

/* In place of comm_nccl.c in a build without NCCL. */

bool tsr_comm_nccl_is_built(void)
{
    return false;
}

tsr_status tsr_comm_nccl_open(tsr_comm *comm)
{
    (void)comm;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "this build has no NCCL");
}

void tsr_comm_nccl_close(tsr_comm *comm)
{
    (void)comm;
}

tsr_status tsr_comm_nccl_all_reduce(tsr_comm *comm, double *values, size_t n_values)
{
    (void)values, (void)n_values;
    return tsr_comm_nccl_open(comm);
}
