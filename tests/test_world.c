#include "parallel/world.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/env.h"
#include "parallel/fault.h"
#include "tests/support/one_world.h"
#include "tests/support/torture.h"

static void every_rank_has_its_place(void **state)
{
    int64_t sum_high = tsr_world_rank(world);
    int64_t sum_low = tsr_world_rank(world);

    (void)state;
    assert_in_range(tsr_world_rank(world), 0, tsr_world_size(world) - 1);
    assert_int_equal(tsr_world_is_leader(world), tsr_world_rank(world) == 0);
    assert_int_equal(tsr_world_max(world, &sum_high), TSR_OK);
    assert_int_equal(tsr_world_min(world, &sum_low), TSR_OK);
    assert_int_equal(sum_high, tsr_world_size(world) - 1);
    assert_int_equal(sum_low, 0);
    // The tests run on one host.
    assert_int_equal(tsr_world_host_rank(world), tsr_world_rank(world));
    assert_int_equal(tsr_world_host_size(world), tsr_world_size(world));
}

static void what_the_leader_broadcasts_reaches_every_rank(void **state)
{
    static const size_t counts[] = {0, 1, 100, 5000, 300000};
    unsigned char *bytes = tsr_alloc(300001, 1);

    (void)state;
    assert_non_null(bytes);
    for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
        for (size_t i = 0; i <= counts[c]; i++) {
            bytes[i] = (unsigned char)(tsr_world_is_leader(world) ? i * 7 + c : 255);
        }
        bytes[counts[c]] = 99;
        assert_int_equal(tsr_world_broadcast(world, bytes, counts[c]), TSR_OK);
        for (size_t i = 0; i < counts[c]; i++) {
            assert_int_equal(bytes[i], (unsigned char)(i * 7 + c));
        }
        assert_int_equal(bytes[counts[c]], 99);
    }
    tsr_free(bytes);
}

static void followers_that_fell_asleep_hear_the_next_broadcast(void **state)
{
    int32_t value = 0;

    (void)state;
    if (tsr_world_is_leader(world)) {
        tsr_clock_sleep_us(50000);
        value = 7;
    }
    assert_int_equal(tsr_world_broadcast(world, &value, sizeof(value)), TSR_OK);
    assert_int_equal(value, 7);
}

static void gathered_bytes_stand_in_rank_order(void **state)
{
    const int n_ranks = tsr_world_size(world);
    const int32_t mine[2] = {tsr_world_rank(world), 100 + tsr_world_rank(world)};
    int32_t all[2 * 64] = {0};

    (void)state;
    assert_int_equal(tsr_world_gather(world, all, mine, sizeof(mine)), TSR_OK);
    for (int rank = 0; tsr_world_is_leader(world) && rank < n_ranks; rank++) {
        assert_int_equal(all[2 * rank], rank);
        assert_int_equal(all[2 * rank + 1], 100 + rank);
    }
}

static void parts_of_different_length_stand_end_to_end(void **state)
{
    const int n_ranks = tsr_world_size(world);
    const int self = tsr_world_rank(world);
    size_t n_bytes[64];
    char mine[64 * 3];
    char all[64 * 64 * 3];
    size_t at = 0;

    (void)state;
    for (int rank = 0; rank < n_ranks; rank++) {
        n_bytes[rank] = (size_t)((rank * 3 + 3) % 7); // 3, 6, 2, 5: and with an empty one below
    }
    n_bytes[n_ranks - 1] = n_ranks % 2 == 0 ? 0 : n_bytes[n_ranks - 1];
    memset(mine, 'a' + self, sizeof(mine));
    assert_int_equal(tsr_world_gather_parts(world, all, n_bytes, mine, n_bytes[self]), TSR_OK);
    for (int rank = 0; self == 0 && rank < n_ranks; rank++) {
        for (size_t i = 0; i < n_bytes[rank]; i++) {
            assert_int_equal(all[at++], 'a' + rank);
        }
    }
}

static void all_agree_when_all_is_well(void **state)
{
    (void)state;
    assert_int_equal(tsr_world_agree(world, TSR_OK), TSR_OK);
}

static void the_failure_of_the_lowest_rank_becomes_everybodys(void **state)
{
    const int last = tsr_world_size(world) - 1;
    const int lowest = last > 1 ? 1 : last; // 1 and upward fail, each in its own way
    char expected[64];
    tsr_status st = TSR_OK;

    (void)state;
    if (tsr_world_rank(world) >= lowest) {
        st = tsr_status_fail("kv/kv_store.c", 40 + tsr_world_rank(world),
                             tsr_world_rank(world) == lowest ? TSR_ERR_FORMAT : TSR_ERR_IO,
                             "told by %d", tsr_world_rank(world));
    }
    assert_int_equal(tsr_world_agree(world, st), TSR_ERR_FORMAT);
    (void)snprintf(expected, sizeof(expected), "told by %d", lowest);
    assert_non_null(strstr(tsr_status_message(), expected));
    (void)snprintf(expected, sizeof(expected), "kv/kv_store.c:%d", 40 + lowest);
    assert_string_equal(tsr_status_place(), expected);
    // And the ranks can go on meeting.
    assert_int_equal(tsr_world_agree(world, TSR_OK), TSR_OK);
}

static void an_interrupt_can_be_taken_back_where_there_is_one_rank(void **state)
{
    (void)state;
    assert_false(tsr_world_take_interrupt(world));
    if (tsr_world_size(world) > 1) {
        return;
    }
    // Without taking them back the second one would end the process.
    for (int i = 0; i < 3; i++) {
        assert_int_equal(raise(SIGINT), 0);
        assert_true(tsr_world_asked_to_end(world));
        tsr_clock_sleep_us(210000);
        assert_true(tsr_world_take_interrupt(world));
        assert_false(tsr_world_asked_to_end(world));
        assert_false(tsr_world_take_interrupt(world));
    }
}

static void asking_any_rank_of_the_host_to_end_asks_all(void **state)
{
    (void)state;
    assert_false(tsr_world_asked_to_end(world));
    assert_int_equal(tsr_world_agree(world, TSR_OK), TSR_OK);
    if (tsr_world_rank(world) == tsr_world_size(world) - 1) {
        assert_int_equal(raise(SIGTERM), 0);
    }
    assert_int_equal(tsr_world_agree(world, TSR_OK), TSR_OK);
    assert_true(tsr_world_asked_to_end(world));
    assert_false(tsr_world_take_interrupt(world)); // it was more than an interrupt
    tsr_clock_sleep_us(250000); // the watches look: an asked rank is not a lost one
    assert_int_equal(tsr_world_agree(world, TSR_OK), TSR_OK);
}

static void a_process_has_one_world(void **state)
{
    tsr_world *second = NULL;

    (void)state;
    if (tsr_world_size(world) == 1 && !tsr_env_under_mpi()) {
        assert_int_equal(tsr_world_open(&second), TSR_ERR_ARG);
        assert_null(second);
    }
}

static tsr_status open_and_close(void *ctx)
{
    tsr_world *alone = NULL;

    (void)ctx;
    TSR_TRY(tsr_world_open(&alone));
    tsr_world_note(alone, "being tortured", 1);
    tsr_world_close(alone);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    // Under MPI a world cannot be opened twice.
    if (!tsr_env_under_mpi()) {
        assert_true(torture(open_and_close, NULL) > 0);
    }
}

static void faults_are_read_as_rank_kind_and_step(void **state)
{
    static const char *const wrong[] = {"1",         "1:kill",   "kill@3",    "1:kill@",
                                        ":kill@3",   "1:burn@3", "1:kill@3x", "-1:kill@3",
                                        "1:kill@-3", "x"};
    tsr_fault fault = {.rank = 9};

    (void)state;
    assert_int_equal(tsr_fault_parse(&fault, "2:stop@57"), TSR_OK);
    assert_int_equal(fault.rank, 2);
    assert_int_equal(fault.kind, TSR_FAULT_STOP);
    assert_int_equal(fault.step, 57);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(tsr_fault_parse(&fault, wrong[i]), TSR_ERR_ARG);
        assert_int_equal(fault.rank, 2); // untouched
    }
    assert_int_equal(tsr_fault_parse(&fault, ""), TSR_OK);
    assert_int_equal(fault.kind, TSR_FAULT_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_has_its_place),
        cmocka_unit_test(what_the_leader_broadcasts_reaches_every_rank),
        cmocka_unit_test(followers_that_fell_asleep_hear_the_next_broadcast),
        cmocka_unit_test(gathered_bytes_stand_in_rank_order),
        cmocka_unit_test(parts_of_different_length_stand_end_to_end),
        cmocka_unit_test(all_agree_when_all_is_well),
        cmocka_unit_test(the_failure_of_the_lowest_rank_becomes_everybodys),
        cmocka_unit_test(an_interrupt_can_be_taken_back_where_there_is_one_rank),
        cmocka_unit_test(asking_any_rank_of_the_host_to_end_asks_all),
        cmocka_unit_test(a_process_has_one_world),
        cmocka_unit_test(faults_are_read_as_rank_kind_and_step),
    };
    const struct CMUnitTest unopened[] = {
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };
    const int n_failed = cmocka_run_group_tests(unopened, NULL, NULL);

    return n_failed + cmocka_run_group_tests(tests, open_world, close_world);
}
