#include "parallel/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "parallel/comm_ways.h"
#include "tests/support/one_world.h"
#include "tests/support/torture.h"

/* A number on the grid of 2^-28 that differs by rank, place and round. */
static double term(int rank, size_t i, int round)
{
    const int64_t mixed =
        (int64_t)(((uint64_t)i * 2654435761u + (uint64_t)rank * 40503u + (uint64_t)round * 9176u) %
                  0x7fffffffu);

    return (double)(mixed - 0x3fffffff) / 268435456.0;
}

static void check_sums(tsr_comm *comm, double *values, size_t n, int round)
{
    const int n_ranks = tsr_world_size(world);

    for (size_t i = 0; i < n; i++) {
        values[i] = term(tsr_world_rank(world), i, round);
    }
    values[n] = 0.5; // must not be touched
    assert_int_equal(tsr_comm_all_reduce(comm, values, n), TSR_OK);
    for (size_t i = 0; i < n; i++) {
        double sum = 0.0;

        for (int rank = 0; rank < n_ranks; rank++) {
            sum += term(rank, i, round);
        }
        if (values[i] != sum) {
            fail_msg("rank %d: value %zu of %zu is %a, expected %a", tsr_world_rank(world), i, n,
                     values[i], sum);
        }
    }
    assert_true(values[n] == 0.5);
}

static void check_way(tsr_comm_way way, size_t largest)
{
    // 0, one, odd, lines and pieces and their neighbours, several pieces.
    static const size_t counts[] = {0,   1,   2,    15,   16,    17,    33,    575,
                                    576, 577, 1000, 4096, 16383, 16384, 16385, 40000};
    double *values = tsr_alloc(40001, sizeof(*values));
    tsr_comm *comm = NULL;

    assert_non_null(values);
    assert_int_equal(tsr_comm_create_way(&comm, world, NULL, largest, way), TSR_OK);
    for (int round = 0; round < 6; round++) {
        for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
            check_sums(comm, values, counts[i], round);
        }
    }
    tsr_comm_destroy(comm);
    tsr_free(values);
}

static void mpi_sums_over_all_ranks(void **state)
{
    (void)state;
    check_way(TSR_COMM_MPI, 0);
}

static void shared_memory_sums_over_all_ranks(void **state)
{
    (void)state;
    if (tsr_world_size(world) > 1) {
        check_way(TSR_COMM_SHARED, 40000);
    }
}

static void a_call_larger_than_promised_is_cut_into_pieces(void **state)
{
    (void)state;
    if (tsr_world_size(world) > 1) {
        check_way(TSR_COMM_SHARED, 100);
        check_way(TSR_COMM_SHARED, 0);
    }
}

/* Parts that stay where they were written: whoever needs the sum adds them. */
static void check_parts(tsr_comm_way way)
{
    enum {
        LARGEST = 1000
    };
    static const size_t counts[] = {1, 576, 0, LARGEST, 17};
    const double *parts[TSR_COMM_MOST_PARTS];
    tsr_comm *comm = NULL;
    int n_parts;

    assert_int_equal(tsr_comm_create_way(&comm, world, NULL, LARGEST, way), TSR_OK);
    for (int round = 0; round < 200; round++) {
        const size_t n = counts[(size_t)round % (sizeof(counts) / sizeof(counts[0]))];
        double *own = tsr_comm_part(comm);

        for (size_t i = 0; i < n; i++) {
            own[i] = term(tsr_world_rank(world), i, round);
        }
        for (volatile int i = 0; round % 5 == tsr_world_rank(world) && i < 3000;) {
            i = i + 1; // late in its own rounds: the others must not write over what it still reads
        }
        assert_int_equal(tsr_comm_meet(comm, n, parts, &n_parts), TSR_OK);
        assert_int_equal(n_parts, way == TSR_COMM_SHARED ? tsr_world_size(world) : 1);
        for (size_t i = 0; i < n; i++) {
            double sum = 0.0;
            double expected = 0.0;

            for (int p = 0; p < n_parts; p++) {
                sum += parts[p][i];
            }
            for (int rank = 0; rank < tsr_world_size(world); rank++) {
                expected += term(rank, i, round);
            }
            assert_true(sum == expected);
        }
    }
    assert_int_equal(tsr_comm_meet(comm, LARGEST + 1, parts, &n_parts), TSR_ERR_ARG);
    tsr_comm_destroy(comm);
}

static void parts_meet_without_copies(void **state)
{
    (void)state;
    check_parts(TSR_COMM_MPI);
    if (tsr_world_size(world) > 1) {
        check_parts(TSR_COMM_SHARED);
    } else {
        check_parts(TSR_COMM_ALONE);
    }
}

static void ranks_that_come_at_different_times_get_their_own_rounds_sums(void **state)
{
    tsr_comm *comm = NULL;
    double values[65];

    (void)state;
    assert_int_equal(tsr_comm_create(&comm, world, NULL, 64), TSR_OK);
    for (int round = 0; round < 1000; round++) {
        // Every rank is late in its own rounds, so that the others run ahead as far as they can.
        for (volatile int i = 0; round % 7 == tsr_world_rank(world) && i < 3000;) {
            i = i + 1;
        }
        check_sums(comm, values, 64, round);
    }
    tsr_comm_destroy(comm);
}

static void two_comms_live_side_by_side(void **state)
{
    tsr_comm *first = NULL;
    tsr_comm *second = NULL;
    double values[101];

    (void)state;
    assert_int_equal(tsr_comm_create(&first, world, NULL, 100), TSR_OK);
    assert_int_equal(tsr_comm_create(&second, world, NULL, 100), TSR_OK);
    for (int round = 0; round < 100; round++) {
        check_sums(first, values, 100, round);
        check_sums(second, values, 50, round);
    }
    tsr_comm_destroy(first);
    tsr_comm_destroy(second);
}

static void a_comm_says_how_it_works(void **state)
{
    tsr_comm *comm = NULL;

    (void)state;
    assert_int_equal(tsr_comm_create(&comm, world, NULL, 1), TSR_OK);
    assert_string_equal(tsr_comm_describe(comm),
                        tsr_world_size(world) == 1 ? "one rank" : "shared memory");
    tsr_comm_destroy(comm);
}

static tsr_status create_and_destroy(void *ctx)
{
    tsr_comm *comm = NULL;

    (void)ctx;
    TSR_TRY(tsr_comm_create(&comm, world, NULL, 64));
    tsr_comm_destroy(comm);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing_and_leaves_nobody_waiting(void **state)
{
    tsr_comm *comm = NULL;

    (void)state;
    assert_true(torture(create_and_destroy, NULL) > 0);
    // One rank alone without memory: all are told.
    if (tsr_world_rank(world) == tsr_world_size(world) - 1) {
        tsr_alloc_fail_nth(1);
    }
    assert_int_equal(tsr_comm_create(&comm, world, NULL, 64), TSR_ERR_NOMEM);
    tsr_alloc_fail_nth(0);
    assert_null(comm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mpi_sums_over_all_ranks),
        cmocka_unit_test(shared_memory_sums_over_all_ranks),
        cmocka_unit_test(a_call_larger_than_promised_is_cut_into_pieces),
        cmocka_unit_test(parts_meet_without_copies),
        cmocka_unit_test(ranks_that_come_at_different_times_get_their_own_rounds_sums),
        cmocka_unit_test(two_comms_live_side_by_side),
        cmocka_unit_test(a_comm_says_how_it_works),
        cmocka_unit_test(running_out_of_memory_leaks_nothing_and_leaves_nobody_waiting),
    };

    return cmocka_run_group_tests(tests, open_world, close_world);
}
