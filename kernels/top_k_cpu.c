#include "kernels/rows_cpu.h"
#include "kernels/top_k_loops.h"

#include <math.h>
#include <string.h>

enum {
    MAX_K = 1024,
    MAX_ROOM = 2 * MAX_K + 64,
    COLS_A_NS = 3,
    HAND_OVER_NS = 4000 // a row below it is not worth cutting
};

typedef struct job {
    const tsr_top_k_loops *loops;
    tsr_cpu_pool *pool;
    tsr_tensor ids, values, masses, logits;
    const float *sharpness;
    int64_t first_id;
    int64_t unit_cols;
    int64_t n_units;
    tsr_top_k_best *bests; // [threads]
    uint64_t *keys;        // [threads, MAX_ROOM]
} job;

size_t tsr_top_k_cpu_scratch(int n_threads, const tsr_ops_limits *limits)
{
    (void)limits;
    return (size_t)n_threads * (MAX_ROOM * sizeof(uint64_t) + sizeof(tsr_top_k_best));
}

/* Units [first, end) of a row: their masses, and the best of them. */
static void scan_units(const job *j, int64_t row, int64_t first, int64_t end, tsr_top_k_best *best)
{
    const float *x = tsr_rows_cpu_f32(j->logits, row);
    float *masses = tsr_rows_cpu_f32(j->masses, row);

    for (int64_t u = first; u < end; u++) {
        const int64_t column = u * j->unit_cols;
        const int64_t left = j->logits.n_cols - column;
        const int64_t n = left < j->unit_cols ? left : j->unit_cols;

        j->loops->mass(masses + 2 * u, x + column, n, j->sharpness[row]);
        if (!best->full || masses[2 * u] > best->least) {
            j->loops->scan(best, x + column, column, n);
        }
    }
}

static tsr_top_k_best *fresh_best(const job *j, int thread)
{
    tsr_top_k_best *best = &j->bests[thread];
    const int k = (int)j->ids.n_cols;

    *best = (tsr_top_k_best){.keys = j->keys + (int64_t)thread * MAX_ROOM,
                             .n_room = 2 * k + 64,
                             .k = k,
                             .least = -INFINITY};
    return best;
}

static void put(const job *j, int64_t row, tsr_top_k_best *best)
{
    int32_t *ids = tsr_rows_cpu_i32(j->ids, row);
    float *values = tsr_rows_cpu_f32(j->values, row);
    const float *x = tsr_rows_cpu_f32(j->logits, row);

    j->loops->sort(best);
    for (int i = 0; i < best->k; i++) {
        if (i < best->n) {
            const int64_t column = 0xFFFFFFFFU - (uint32_t)best->keys[i];

            ids[i] = (int32_t)(j->first_id + column);
            values[i] = isnan(x[column]) ? -INFINITY : x[column];
        } else {
            ids[i] = -1;
            values[i] = -INFINITY;
        }
    }
}

static void rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const job *j = ctx;

    for (int64_t r = first; r < end; r++) {
        tsr_top_k_best *best = fresh_best(j, thread);

        scan_units(j, r, 0, j->n_units, best);
        put(j, r, best);
    }
}

/* All threads at one row after another. */
static void pieces(void *ctx, int thread, int n_threads)
{
    const job *j = ctx;

    for (int64_t r = 0; r < j->logits.n_rows; r++) {
        tsr_top_k_best *best = fresh_best(j, thread);
        int64_t first;
        int64_t end;

        tsr_cpu_pool_split(j->n_units, thread, n_threads, &first, &end);
        scan_units(j, r, first, end, best);
        tsr_cpu_pool_barrier(j->pool, thread);
        if (thread == 0) {
            for (int other = 1; other < n_threads; other++) {
                j->loops->join(best, &j->bests[other]);
            }
            put(j, r, best);
        }
        if (r + 1 < j->logits.n_rows) {
            tsr_cpu_pool_barrier(j->pool, thread); // the others' candidates have been read
        }
    }
}

tsr_status tsr_top_k_cpu(tsr_device *dev, tsr_tensor ids, tsr_tensor values, tsr_tensor masses,
                         tsr_tensor logits, tsr_tensor sharpness, int64_t first_id,
                         int64_t unit_cols)
{
    const int n_threads = tsr_cpu_pool_n_threads(dev->pool);
    const size_t n_bytes = tsr_top_k_cpu_scratch(n_threads, NULL);
    const int64_t ns_a_row = logits.n_cols / COLS_A_NS;
    job j = {.loops = TSR_ISA_PICK(dev->isa, tsr_top_k_loops),
             .pool = dev->pool,
             .ids = ids,
             .values = values,
             .masses = masses,
             .logits = logits,
             .sharpness = sharpness.data,
             .first_id = first_id,
             .unit_cols = unit_cols,
             .n_units = masses.n_cols / 2,
             .keys = dev->scratch};

    if (n_bytes > dev->scratch_bytes) {
        return tsr_fail(TSR_ERR_ARG, "top_k: %zu bytes of scratch are needed, %zu are reserved",
                        n_bytes, dev->scratch_bytes);
    }
    j.bests = (tsr_top_k_best *)(void *)(j.keys + (int64_t)n_threads * MAX_ROOM);
    if (n_threads > 1 && logits.n_rows < n_threads && ns_a_row >= HAND_OVER_NS) {
        tsr_cpu_pool_run(dev->pool, pieces, &j);
    } else {
        tsr_rows_cpu_run(dev, logits.n_rows, ns_a_row + 200, rows, &j);
    }
    return TSR_OK;
}
