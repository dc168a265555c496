#define _GNU_SOURCE // sched_getaffinity

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "kernels/cpu_pool.h"
#include "tests/support/torture.h"

enum {
    MAX_THREADS = 5,
    N_RUNS = 4000,
    N_MEETINGS = 200
};

typedef struct sums {
    int64_t n_items;
    int64_t of[MAX_THREADS]; // plain memory: the pool's hand-over is what makes it safe
} sums;

static void add_share(void *ctx, int thread, int n_threads)
{
    sums *s = ctx;
    int64_t first;
    int64_t end;

    tsr_cpu_pool_split(s->n_items, thread, n_threads, &first, &end);
    s->of[thread] = 0;
    for (int64_t i = first; i < end; i++) {
        s->of[thread] += i;
    }
}

static tsr_cpu_pool *make_pool(int n_threads)
{
    tsr_cpu_pool *pool = NULL;

    assert_int_equal(tsr_cpu_pool_create(&pool, n_threads, NULL), TSR_OK);
    assert_int_equal(tsr_cpu_pool_n_threads(pool), n_threads);
    return pool;
}

static void every_run_does_every_share_once_and_has_ended_when_it_returns(void **state)
{
    (void)state;
    for (int n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
        tsr_cpu_pool *pool = make_pool(n_threads);

        for (int64_t run = 0; run < N_RUNS; run++) {
            sums s = {.n_items = run};
            int64_t total = 0;

            tsr_cpu_pool_run(pool, add_share, &s);
            for (int t = 0; t < n_threads; t++) {
                total += s.of[t];
            }
            assert_int_equal(total, run * (run - 1) / 2);
        }
        tsr_cpu_pool_destroy(pool);
    }
}

static void threads_that_sleep_wake_for_the_next_run(void **state)
{
    tsr_cpu_pool *pool = make_pool(3);

    (void)state;
    for (int i = 0; i < 5; i++) {
        sums s = {.n_items = 30};

        tsr_clock_sleep_us(2000); // longer than anyone spins
        tsr_cpu_pool_run(pool, add_share, &s);
        assert_int_equal(s.of[0] + s.of[1] + s.of[2], 435);
    }
    tsr_cpu_pool_destroy(pool);
}

typedef struct meetings {
    tsr_cpu_pool *pool;
    int64_t here[MAX_THREADS];
    atomic_int n_wrong;
    bool one_is_late;
} meetings;

static void meet_often(void *ctx, int thread, int n_threads)
{
    meetings *m = ctx;

    for (int64_t i = 1; i <= N_MEETINGS; i++) {
        if (m->one_is_late && thread == 0 && i % 50 == 0) {
            tsr_clock_sleep_us(500);
        }
        m->here[thread] = i;
        tsr_cpu_pool_barrier(m->pool, thread);
        for (int t = 0; t < n_threads; t++) {
            m->n_wrong += m->here[t] != i;
        }
        tsr_cpu_pool_barrier(m->pool, thread);
    }
}

static void nobody_leaves_a_barrier_before_all_have_come(void **state)
{
    (void)state;
    for (int n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
        for (int late = 0; late < 2; late++) {
            meetings m = {.pool = make_pool(n_threads), .one_is_late = late != 0};

            tsr_cpu_pool_run(m.pool, meet_often, &m);
            assert_int_equal(m.n_wrong, 0);
            tsr_cpu_pool_destroy(m.pool);
        }
    }
}

static int first_cpu(const cpu_set_t *set)
{
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET((size_t)cpu, set)) {
            return cpu;
        }
    }
    return -1;
}

static void note_cpus(void *ctx, int thread, int n_threads)
{
    cpu_set_t *sets = ctx;

    (void)n_threads;
    (void)sched_getaffinity(0, sizeof(*sets), &sets[thread]);
}

static void threads_stay_where_they_are_bound_and_the_caller_is_given_back(void **state)
{
    cpu_set_t before;
    cpu_set_t after;
    cpu_set_t sets[2];
    tsr_cpu_pool *pool = NULL;
    int cpus[2];

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    cpus[0] = first_cpu(&before);
    cpus[1] = cpus[0];
    assert_int_equal(tsr_cpu_pool_create(&pool, 2, cpus), TSR_OK);
    tsr_cpu_pool_run(pool, note_cpus, sets);
    for (int t = 0; t < 2; t++) {
        assert_int_equal(CPU_COUNT(&sets[t]), 1);
        assert_int_equal(first_cpu(&sets[t]), cpus[t]);
    }
    tsr_cpu_pool_destroy(pool);
    assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}

static void what_cannot_be_is_refused(void **state)
{
    const int none[] = {0, -1};
    const int absent[] = {0, CPU_SETSIZE - 1};
    tsr_cpu_pool *pool = NULL;

    (void)state;
    assert_int_equal(tsr_cpu_pool_create(&pool, 0, NULL), TSR_ERR_ARG);
    assert_int_equal(tsr_cpu_pool_create(&pool, 1 << 20, NULL), TSR_ERR_ARG);
    assert_int_equal(tsr_cpu_pool_create(&pool, 2, none), TSR_ERR_ARG);
    assert_int_equal(tsr_cpu_pool_create(&pool, 2, absent), TSR_ERR_DEVICE);
    assert_null(pool);
    tsr_cpu_pool_destroy(NULL);
}

static tsr_status make_and_destroy(void *ctx)
{
    tsr_cpu_pool *pool = NULL;

    (void)ctx;
    TSR_TRY(tsr_cpu_pool_create(&pool, 3, NULL));
    tsr_cpu_pool_destroy(pool);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_int_equal(torture(make_and_destroy, NULL), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_run_does_every_share_once_and_has_ended_when_it_returns),
        cmocka_unit_test(threads_that_sleep_wake_for_the_next_run),
        cmocka_unit_test(nobody_leaves_a_barrier_before_all_have_come),
        cmocka_unit_test(threads_stay_where_they_are_bound_and_the_caller_is_given_back),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
