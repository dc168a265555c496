#include "kernels/machine.h"

#include "base/clock.h"
#include "kernels/backend.h"
#include "kernels/machine_cuda.h"
#include "kernels/machine_loops.h"

enum {
    MEMORY_BYTES = 128 << 20, // of the whole team: several times the caches
    ROUNDS = 100000,          // of arithmetic between two looks at the clock
    BEST_OF = 5
};

typedef struct loops {
    float (*read)(const float *memory, size_t n);
    float (*int8)(size_t n);
    float (*f32)(size_t n);
} loops;

typedef struct trial {
    const loops *with;
    tsr_activations activations;
    const float *memory;
    size_t n_floats;
    int64_t until_ns;       /* of arithmetic */
    int64_t n_rounds[1024]; /* by thread */
    volatile float sink;
} trial;

static const loops *loops_of(tsr_isa isa)
{
    static const loops plain = {tsr_machine_read_plain, tsr_machine_int8_plain,
                                tsr_machine_f32_plain};
#if defined(__x86_64__)
    static const loops avx2 = {tsr_machine_read_avx2, tsr_machine_int8_avx2, tsr_machine_f32_avx2};
    static const loops avx512 = {tsr_machine_read_avx512, tsr_machine_int8_avx512,
                                 tsr_machine_f32_avx512};

    return isa == TSR_ISA_AVX512_VNNI ? &avx512 : isa == TSR_ISA_AVX2_FMA ? &avx2 : &plain;
#else
    (void)isa;
    return &plain;
#endif
}

static void read_share(void *ctx, int thread, int n_threads)
{
    trial *t = ctx;
    const size_t n = t->n_floats / (size_t)n_threads / TSR_MACHINE_READ_FLOATS;

    t->sink = t->with->read(t->memory + (size_t)thread * n * TSR_MACHINE_READ_FLOATS, n);
    t->n_rounds[thread] = (int64_t)n;
}

static void compute_share(void *ctx, int thread, int n_threads)
{
    trial *t = ctx;
    int64_t rounds = 0;

    (void)n_threads;
    do {
        t->sink =
            t->activations == TSR_ACTIVATIONS_INT8 ? t->with->int8(ROUNDS) : t->with->f32(ROUNDS);
        rounds += ROUNDS;
    } while (tsr_clock_ns() < t->until_ns);
    t->n_rounds[thread] = rounds;
}

static double rounds_a_second(trial *t, tsr_cpu_pool *pool, tsr_cpu_pool_fn *share)
{
    const int64_t began = tsr_clock_ns();
    int64_t rounds = 0;

    tsr_cpu_pool_run(pool, share, t);
    for (int i = 0; i < tsr_cpu_pool_n_threads(pool); i++) {
        rounds += t->n_rounds[i];
    }
    return (double)rounds * 1e9 / (double)(tsr_clock_ns() - began);
}

static tsr_status measure_host(tsr_device *dev, tsr_activations activations, int ms,
                               double *read_bytes_per_s, double *macs_per_s)
{
    tsr_cpu_pool *pool = tsr_device_pool(dev);
    float *memory = tsr_device_alloc(dev, MEMORY_BYTES);
    const int64_t span_ns = (int64_t)ms * 1000000;
    const double macs =
        activations == TSR_ACTIVATIONS_INT8 ? TSR_MACHINE_INT8_MACS : TSR_MACHINE_F32_MACS;
    trial t = {.with = loops_of(dev->isa), .activations = activations};
    double best_read = 0;
    double best_compute = 0;

    if (memory == NULL || tsr_cpu_pool_n_threads(pool) > 1024) {
        tsr_device_free(dev, memory, MEMORY_BYTES);
        return tsr_fail(TSR_ERR_NOMEM, "no memory to measure the machine with");
    }
    t.memory = memory;
    t.n_floats = MEMORY_BYTES / sizeof(float);
    for (size_t i = 0; i < t.n_floats; i += 512) {
        memory[i] = 1.0F; // so that there are pages to read
    }
    (void)rounds_a_second(&t, pool, read_share);
    for (const int64_t until = tsr_clock_ns() + span_ns; tsr_clock_ns() < until;) {
        const double read =
            rounds_a_second(&t, pool, read_share) * TSR_MACHINE_READ_FLOATS * sizeof(float);

        best_read = read > best_read ? read : best_read;
    }
    for (int i = 0; i < BEST_OF; i++) {
        double compute;

        t.until_ns = tsr_clock_ns() + span_ns / BEST_OF;
        compute = rounds_a_second(&t, pool, compute_share) * macs;
        best_compute = compute > best_compute ? compute : best_compute;
    }
    tsr_device_free(dev, memory, MEMORY_BYTES);
    *read_bytes_per_s = best_read;
    *macs_per_s = best_compute;
    return TSR_OK;
}

tsr_status tsr_machine_measure(tsr_device *dev, tsr_activations activations, int ms,
                               double *read_bytes_per_s, double *macs_per_s)
{
    return tsr_device_is_host(dev)
               ? measure_host(dev, activations, ms, read_bytes_per_s, macs_per_s)
               : tsr_machine_cuda_peak(dev, read_bytes_per_s, macs_per_s);
}
