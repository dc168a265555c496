#define _GNU_SOURCE

#include "parallel/placement.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/env.h"
#include "tests/support/one_world.h"

/* Cores of two cpus each, numbered as Linux does: 0 and n, 1 and n + 1 ... */
static void make_cores(tsr_placement_core *cores, int n_cores)
{
    for (int i = 0; i < n_cores; i++) {
        cores[i] = (tsr_placement_core){.n_cpus = 2, .cpus = {i, n_cores + i}};
    }
}

static void assert_cpus(const tsr_placement *got, int n_threads, const int *cpus)
{
    assert_int_equal(got->n_threads, n_threads);
    assert_int_equal(got->n_cpus, n_threads);
    for (int i = 0; i < n_threads; i++) {
        assert_int_equal(got->cpus[i], cpus[i]);
    }
}

static void assert_unbound(const tsr_placement *got, int n_threads)
{
    assert_int_equal(got->n_threads, n_threads);
    assert_int_equal(got->n_cpus, 0);
}

static void cores_are_divided_unevenly_where_they_must_be(void **state)
{
    tsr_placement_core cores[8];
    tsr_placement got;

    (void)state;
    make_cores(cores, 8);
    tsr_placement_divide(&got, cores, 8, 0, 3, 0, 0);
    assert_cpus(&got, 3, (const int[]){0, 1, 2});
    tsr_placement_divide(&got, cores, 8, 1, 3, 0, 0);
    assert_cpus(&got, 3, (const int[]){3, 4, 5});
    tsr_placement_divide(&got, cores, 8, 2, 3, 0, 0);
    assert_cpus(&got, 2, (const int[]){6, 7});
}

static void ranks_that_outnumber_cores_run_one_free_thread_each(void **state)
{
    tsr_placement_core cores[2];
    tsr_placement got;

    (void)state;
    make_cores(cores, 2);
    for (int index = 0; index < 3; index++) {
        tsr_placement_divide(&got, cores, 2, index, 3, 0, 0);
        assert_unbound(&got, 1);
    }
}

static void a_wish_for_threads_is_followed(void **state)
{
    tsr_placement_core cores[4];
    tsr_placement got;

    (void)state;
    make_cores(cores, 4);
    tsr_placement_divide(&got, cores, 4, 1, 2, 1, 0);
    assert_cpus(&got, 1, (const int[]){2});
    // More than the two cores of this rank: their second cpus.
    tsr_placement_divide(&got, cores, 4, 1, 2, 3, 0);
    assert_cpus(&got, 3, (const int[]){2, 3, 6});
    // More than their cpus.
    tsr_placement_divide(&got, cores, 4, 1, 2, 5, 0);
    assert_unbound(&got, 5);
    // Also where ranks outnumber cores.
    tsr_placement_divide(&got, cores, 1, 1, 2, 3, 0);
    assert_unbound(&got, 3);
}

static void a_quota_of_time_limits_threads_and_binds_none(void **state)
{
    tsr_placement_core cores[16];
    tsr_placement got;

    (void)state;
    make_cores(cores, 16);
    tsr_placement_divide(&got, cores, 16, 0, 2, 0, 5);
    assert_unbound(&got, 3);
    tsr_placement_divide(&got, cores, 16, 1, 2, 0, 5);
    assert_unbound(&got, 2);
    tsr_placement_divide(&got, cores, 16, 3, 4, 0, 2);
    assert_unbound(&got, 1);
    tsr_placement_divide(&got, cores, 16, 1, 2, 0, 16); // as much as there are cores: no limit
    assert_int_equal(got.n_cpus, 8);
}

static void this_machines_cores_are_shared_out_among_the_ranks(void **state)
{
    tsr_placement mine;
    cpu_set_t allowed;
    int64_t n_threads;
    int64_t most;

    (void)state;
    assert_int_equal(tsr_placement_find(&mine, world, 0), TSR_OK);
    assert_in_range(mine.n_threads, 1, TSR_PLACEMENT_MOST);
    assert_int_equal(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
    for (int cpu = 0; cpu < 64; cpu++) {
        int64_t n_users = 0;

        // Each rank in turn tells whether it uses this cpu.
        for (int rank = 0; rank < tsr_world_size(world); rank++) {
            int64_t n_uses = 0;

            for (int i = 0; rank == tsr_world_rank(world) && i < mine.n_cpus; i++) {
                n_uses += mine.cpus[i] == cpu ? 1 : 0;
            }
            if (n_uses > 0 && !tsr_env_bound_by_default()) {
                assert_true(CPU_ISSET((size_t)cpu, &allowed));
            }
            assert_int_equal(tsr_world_max(world, &n_uses), TSR_OK);
            n_users += n_uses;
        }
        assert_in_range(n_users, 0, 1);
    }
    n_threads = mine.n_threads;
    most = mine.n_threads;
    assert_int_equal(tsr_world_min(world, &n_threads), TSR_OK);
    assert_int_equal(tsr_world_max(world, &most), TSR_OK);
    assert_in_range(most - n_threads, 0, 1);
}

static void impossible_wishes_are_refused_on_all_ranks(void **state)
{
    tsr_placement mine;

    (void)state;
    assert_int_equal(tsr_placement_find(&mine, world, -1), TSR_ERR_ARG);
    assert_int_equal(tsr_placement_find(&mine, world, TSR_PLACEMENT_MOST + 1), TSR_ERR_ARG);
    assert_int_equal(tsr_placement_find(&mine, world, 3), TSR_OK);
    assert_int_equal(mine.n_threads, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cores_are_divided_unevenly_where_they_must_be),
        cmocka_unit_test(ranks_that_outnumber_cores_run_one_free_thread_each),
        cmocka_unit_test(a_wish_for_threads_is_followed),
        cmocka_unit_test(a_quota_of_time_limits_threads_and_binds_none),
        cmocka_unit_test(this_machines_cores_are_shared_out_among_the_ranks),
        cmocka_unit_test(impossible_wishes_are_refused_on_all_ranks),
    };

    return cmocka_run_group_tests(tests, open_world, close_world);
}
