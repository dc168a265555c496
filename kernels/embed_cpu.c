#include "kernels/row_loops.h"
#include "kernels/rows_cpu.h"

#include <string.h>

typedef struct job {
    const tsr_row_loops *loops;
    tsr_tensor sums;
    const int32_t *ids;
    const tsr_weight *table;
    int64_t first_id;
    bool add;
    float *scratch; // [threads, dim]
} job;

size_t tsr_embed_cpu_scratch(int n_threads, const tsr_ops_limits *limits)
{
    return (size_t)n_threads * (size_t)limits->n_cols * sizeof(float);
}

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;
    const int64_t dim = j->sums.n_cols;
    float *row = j->scratch + thread * dim;

    for (int64_t r = first; r < end; r++) {
        const int64_t own = j->ids[r] - j->first_id;
        double *out = tsr_rows_cpu_f64(j->sums, r);

        if (own >= 0 && own < j->table->n_rows) {
            tsr_weight_unpack_row(j->table, own, row);
            if (j->add) {
                for (int64_t c = 0; c < dim; c++) {
                    out[c] += (double)row[c];
                }
            } else {
                j->loops->widen(out, row, dim);
            }
        } else if (!j->add) {
            memset(out, 0, (size_t)dim * sizeof(*out));
        }
    }
}

tsr_status tsr_embed_cpu(tsr_device *dev, tsr_tensor sums, tsr_tensor ids, const tsr_weight *table,
                         int64_t first_id, bool add)
{
    const job j = {
        TSR_ISA_PICK(dev->isa, tsr_row_loops), sums, ids.data, table, first_id, add, dev->scratch};
    const tsr_ops_limits needed = {.n_cols = sums.n_cols};
    const size_t n_bytes = tsr_embed_cpu_scratch(tsr_cpu_pool_n_threads(dev->pool), &needed);

    if (n_bytes > dev->scratch_bytes) {
        return tsr_fail(TSR_ERR_ARG, "embed: %zu bytes of scratch are needed, %zu are reserved",
                        n_bytes, dev->scratch_bytes);
    }
    tsr_rows_cpu_run(dev, sums.n_rows, sums.n_cols * 2, rows, &j);
    return TSR_OK;
}
