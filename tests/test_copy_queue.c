#include "kernels/copy_queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kernels/task_queue.h"
#include "tests/support/torture.h"

enum {
    DEPTH = 4,
    BYTES = 1 << 20
};

static int open_cpu(void **state)
{
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};

    return tsr_device_open((tsr_device **)state, &options) == TSR_OK ? 0 : -1;
}

static int close_cpu(void **state)
{
    tsr_device_close(*state);
    return 0;
}

static void
copies_are_carried_out_in_order_and_none_is_done_before_its_bytes_are_there(void **state)
{
    tsr_device *dev = *state;
    tsr_copy_queue *queue = NULL;
    unsigned char *host = tsr_device_alloc_host(dev, BYTES);
    unsigned char *device = tsr_device_alloc(dev, BYTES);

    assert_non_null(host);
    assert_non_null(device);
    assert_int_equal(tsr_copy_queue_create(&queue, dev, DEPTH), TSR_OK);
    for (int round = 0; round < 200; round++) {
        int64_t there, back;

        memset(host, round, BYTES);
        assert_int_equal(tsr_copy_queue_put(queue, TSR_COPY_TO_DEVICE, device, host, BYTES, &there),
                         TSR_OK);
        // The second reads what the first writes: the order is the queue's.
        assert_int_equal(
            tsr_copy_queue_put(queue, TSR_COPY_TO_HOST, host, device, BYTES / 2, &back), TSR_OK);
        assert_int_equal(there, 2 * round);
        assert_int_equal(back, 2 * round + 1);
        assert_int_equal(tsr_copy_queue_wait(queue, back), TSR_OK);
        assert_true(tsr_copy_queue_is_done(queue, there));
        assert_int_equal(device[BYTES - 1], round % 256);
        assert_int_equal(host[0], round % 256);
    }
    assert_true(tsr_copy_queue_busy_ns(queue) > 0);
    tsr_copy_queue_destroy(queue);
    tsr_device_free_host(dev, host, BYTES);
    tsr_device_free(dev, device, BYTES);
}

static void a_full_queue_says_so_and_takes_copies_again(void **state)
{
    tsr_copy_queue *queue = NULL;
    unsigned char *host = tsr_device_alloc_host(*state, (size_t)64 * BYTES);
    int64_t ticket = -1;
    int n_put = 0;
    tsr_status st;

    assert_non_null(host);
    assert_int_equal(tsr_copy_queue_create(&queue, *state, DEPTH), TSR_OK);
    do { // each takes milliseconds, so that the queue fills
        st = tsr_copy_queue_put(queue, TSR_COPY_TO_DEVICE, host + 32 * (size_t)BYTES, host,
                                (size_t)32 * BYTES, &ticket);
        n_put += st == TSR_OK ? 1 : 0;
    } while (st == TSR_OK);
    assert_int_equal(st, TSR_ERR_FULL);
    assert_true(n_put >= DEPTH);
    assert_int_equal(ticket, n_put - 1);
    assert_int_equal(tsr_copy_queue_wait(queue, ticket), TSR_OK);
    assert_int_equal(tsr_copy_queue_put(queue, TSR_COPY_TO_DEVICE, host + BYTES, host, 1, &ticket),
                     TSR_OK);
    tsr_copy_queue_destroy(queue); // waits for it
    tsr_device_free_host(*state, host, (size_t)64 * BYTES);
}

static void a_copy_that_fails_says_so_and_the_next_ones_do_not(void **state)
{
    tsr_copy_queue *queue = NULL;
    char from[] = "bytes";
    char to[3][sizeof(from)] = {{0}};
    int64_t tickets[3];

    assert_int_equal(tsr_copy_queue_create(&queue, *state, DEPTH), TSR_OK);
    tsr_task_queue_fail(TSR_TASK_COPY, 2, 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(
            tsr_copy_queue_put(queue, TSR_COPY_TO_HOST, to[i], from, sizeof(from), &tickets[i]),
            TSR_OK);
    }
    assert_int_equal(tsr_copy_queue_wait(queue, tickets[0]), TSR_OK);
    assert_int_equal(tsr_copy_queue_wait(queue, tickets[1]), TSR_ERR_IO);
    assert_non_null(strstr(tsr_status_message(), "on purpose"));
    assert_int_equal(tsr_copy_queue_wait(queue, tickets[2]), TSR_OK);
    assert_string_equal(to[0], "bytes");
    assert_string_equal(to[1], "");
    assert_string_equal(to[2], "bytes");
    tsr_copy_queue_destroy(queue);
}

static void a_queue_without_room_for_a_copy_is_refused(void **state)
{
    tsr_copy_queue *queue = NULL;
    tsr_task_queue *tasks = NULL;

    assert_int_equal(tsr_copy_queue_create(&queue, *state, 0), TSR_ERR_ARG);
    assert_int_equal(tsr_task_queue_create(&tasks, 0, NULL), TSR_ERR_ARG);
    tsr_copy_queue_destroy(NULL);
    tsr_task_queue_destroy(NULL);
}

static tsr_status make_and_destroy(void *dev)
{
    tsr_copy_queue *queue = NULL;

    TSR_TRY(tsr_copy_queue_create(&queue, dev, DEPTH));
    tsr_copy_queue_destroy(queue);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    assert_int_equal(torture(make_and_destroy, *state), 4); // two records, two rings
}

#define ON_CPU(test) cmocka_unit_test_setup_teardown(test, open_cpu, close_cpu)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_CPU(copies_are_carried_out_in_order_and_none_is_done_before_its_bytes_are_there),
        ON_CPU(a_full_queue_says_so_and_takes_copies_again),
        ON_CPU(a_copy_that_fails_says_so_and_the_next_ones_do_not),
        ON_CPU(a_queue_without_room_for_a_copy_is_refused),
        ON_CPU(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("copy_queue", tests, NULL, NULL);
}
