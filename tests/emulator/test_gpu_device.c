#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kernels/copy_queue.h"
#include "kernels/task_queue.h"

/* The queue of a GPU, its copies and recordings; on a real GPU as well (tests/gpu). */

static tsr_device *dev;

static int open_gpu(void **state)
{
    const tsr_device_options options = {.kind = TSR_DEVICE_CUDA, .n_threads = 1};

    (void)state;
    return tsr_device_open(&dev, &options) == TSR_OK ? 0 : -1;
}

static int close_gpu(void **state)
{
    (void)state;
    tsr_device_close(dev);
    return 0;
}

static void fill(uint32_t *words, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        words[i] = (uint32_t)i * 2654435761U + seed;
    }
}

static void what_is_uploaded_has_left_the_callers_memory(void **state)
{
    enum {
        N = 5 * 1000 * 1000 + 1 // words: more than the ring of pinned memory holds, twice
    };
    uint32_t *words = tsr_alloc(N, sizeof(*words));
    uint32_t *expected = tsr_alloc(N, sizeof(*expected));
    uint32_t *there = tsr_device_alloc(dev, N * sizeof(*there));

    (void)state;
    fill(words, N, 7);
    fill(expected, N, 7);
    assert_int_equal(tsr_device_upload(dev, there, words, N * sizeof(*words)), TSR_OK);
    memset(words, 0, N * sizeof(*words));
    assert_int_equal(tsr_device_download(dev, words, there, N * sizeof(*words)), TSR_OK);
    assert_memory_equal(words, expected, N * sizeof(*words));
    tsr_device_free(dev, there, N * sizeof(*there));
    tsr_free(expected);
    tsr_free(words);
}

static void many_small_uploads_do_not_meet_in_the_ring(void **state)
{
    enum {
        N = 40000, // each takes 256 bytes of the ring
        WORDS = 3
    };
    uint32_t *expected = tsr_alloc((size_t)N * WORDS, sizeof(*expected));
    uint32_t *got = tsr_alloc((size_t)N * WORDS, sizeof(*got));
    uint32_t *there = tsr_device_alloc(dev, (size_t)N * WORDS * sizeof(*there));
    uint32_t words[WORDS];

    (void)state;
    fill(expected, (size_t)N * WORDS, 3);
    for (size_t i = 0; i < N; i++) {
        memcpy(words, expected + i * WORDS, sizeof(words));
        assert_int_equal(tsr_device_upload(dev, there + i * WORDS, words, sizeof(words)), TSR_OK);
    }
    assert_int_equal(tsr_device_download(dev, got, there, (size_t)N * WORDS * sizeof(*got)),
                     TSR_OK);
    assert_memory_equal(got, expected, (size_t)N * WORDS * sizeof(*got));
    tsr_device_free(dev, there, (size_t)N * WORDS * sizeof(*there));
    tsr_free(got);
    tsr_free(expected);
}

static void a_recording_works_on_what_lies_there_by_then(void **state)
{
    uint32_t *from = tsr_device_alloc(dev, 64);
    uint32_t *to = tsr_device_alloc(dev, 64);
    tsr_recording *recording = NULL;
    uint32_t number = 1;

    (void)state;
    assert_int_equal(tsr_device_upload(dev, from, &number, sizeof(number)), TSR_OK);
    assert_int_equal(tsr_device_record_begin(dev), TSR_OK);
    assert_int_equal(tsr_device_copy(dev, to, from, 64), TSR_OK);
    assert_int_equal(tsr_device_record_end(dev, &recording), TSR_OK);
    assert_int_equal(tsr_device_download(dev, &number, to, sizeof(number)), TSR_OK);
    assert_int_equal(number, 0); // nothing has run
    for (uint32_t i = 5; i < 8; i++) {
        assert_int_equal(tsr_device_upload(dev, from, &i, sizeof(i)), TSR_OK);
        assert_int_equal(tsr_device_replay(dev, recording), TSR_OK);
        assert_int_equal(tsr_device_download(dev, &number, to, sizeof(number)), TSR_OK);
        assert_int_equal(number, i);
    }
    tsr_device_forget(dev, recording);
    tsr_device_free(dev, from, 64);
    tsr_device_free(dev, to, 64);
}

typedef struct watch {
    int n_begun;
    int n_asked;
    int fails_at; /* how often it may be asked */
} watch;

static tsr_status ask(void *ctx, bool begins)
{
    watch *w = ctx;

    w->n_begun += begins;
    w->n_asked += !begins;
    return !begins && w->n_asked >= w->fails_at ? tsr_fail(TSR_ERR_COMM, "nobody is there")
                                                : TSR_OK;
}

static void a_guard_is_asked_while_the_host_waits_and_ends_the_wait(void **state)
{
    enum {
        N = 50000
    };
    char *there = tsr_device_alloc(dev, 2 * N);
    watch w = {.fails_at = 1 << 30};
    tsr_status st;

    (void)state;
    tsr_device_set_guard(dev, ask, &w);
    assert_int_equal(tsr_device_copy(dev, there, there + N, N), TSR_OK);
    assert_int_equal(tsr_device_sync(dev), TSR_OK);
    assert_int_equal(w.n_begun, 1);
    w = (watch){.fails_at = 1};
    for (int i = 0; i < 1000; i++) { // so that there is something to wait for
        assert_int_equal(tsr_device_copy(dev, there, there + N, N), TSR_OK);
    }
    // In a queue that runs at once nothing may be left to wait for.
    st = tsr_device_sync(dev);
    assert_int_equal(st, w.n_asked > 0 ? TSR_ERR_COMM : TSR_OK);
    tsr_device_set_guard(dev, NULL, NULL);
    assert_int_equal(tsr_device_sync(dev), TSR_OK);
    tsr_device_free(dev, there, 2 * N);
}

enum {
    DEPTH = 4,
    WORDS = 5000,
    BYTES = WORDS * 4
};

static void copies_aside_are_carried_out_in_order_and_are_done_when_they_say_so(void **state)
{
    tsr_copy_queue *queue = NULL;
    uint32_t *host = tsr_device_alloc_host(dev, 2 * BYTES);
    uint32_t *there = tsr_device_alloc(dev, BYTES);
    int64_t ticket = -1;

    (void)state;
    assert_int_equal(tsr_copy_queue_create(&queue, dev, DEPTH), TSR_OK);
    for (uint32_t round = 0; round < 20; round++) {
        int64_t back = -1;

        fill(host, WORDS, round);
        assert_int_equal(tsr_copy_queue_put(queue, TSR_COPY_TO_DEVICE, there, host, BYTES, &ticket),
                         TSR_OK);
        assert_int_equal(
            tsr_copy_queue_put(queue, TSR_COPY_TO_HOST, host + WORDS, there, BYTES, &back), TSR_OK);
        assert_int_equal(ticket, 2 * round);
        assert_int_equal(back, 2 * round + 1);
        if (round % 2 == 0) {
            assert_int_equal(tsr_copy_queue_wait(queue, back), TSR_OK);
        } else {
            while (!tsr_copy_queue_is_done(queue, back)) {
            }
        }
        assert_true(tsr_copy_queue_is_done(queue, ticket));
        assert_memory_equal(host + WORDS, host, BYTES);
    }
    assert_true(tsr_copy_queue_busy_ns(queue) > 0);
    tsr_copy_queue_destroy(queue);
    tsr_device_free_host(dev, host, 2 * BYTES);
    tsr_device_free(dev, there, BYTES);
}

static void a_copy_aside_comes_after_what_the_device_was_given_before(void **state)
{
    tsr_copy_queue *queue = NULL;
    uint32_t *host = tsr_device_alloc_host(dev, 2 * BYTES);
    uint32_t *a = tsr_device_alloc(dev, BYTES);
    uint32_t *b = tsr_device_alloc(dev, BYTES);
    uint32_t got[WORDS];
    int64_t ticket;

    (void)state;
    fill(host, WORDS, 1);
    assert_int_equal(tsr_device_upload(dev, a, host, BYTES), TSR_OK);
    assert_int_equal(tsr_copy_queue_create(&queue, dev, DEPTH), TSR_OK);
    // b is to hold what a held, and not what the copy beside brings there next ...
    fill(host + WORDS, WORDS, 2);
    assert_int_equal(tsr_device_copy(dev, b, a, BYTES), TSR_OK);
    assert_int_equal(tsr_copy_queue_put(queue, TSR_COPY_TO_DEVICE, a, host + WORDS, BYTES, &ticket),
                     TSR_OK);
    assert_int_equal(tsr_copy_queue_wait(queue, ticket), TSR_OK);
    assert_int_equal(tsr_device_download(dev, got, b, BYTES), TSR_OK);
    assert_memory_equal(got, host, BYTES);
    // ... and what is fetched from b next is what was written there before.
    assert_int_equal(tsr_device_copy(dev, b, a, BYTES), TSR_OK);
    assert_int_equal(tsr_copy_queue_put(queue, TSR_COPY_TO_HOST, host, b, BYTES, &ticket), TSR_OK);
    assert_int_equal(tsr_copy_queue_wait(queue, ticket), TSR_OK);
    assert_memory_equal(host, host + WORDS, BYTES);
    tsr_copy_queue_destroy(queue);
    tsr_device_free_host(dev, host, 2 * BYTES);
    tsr_device_free(dev, a, BYTES);
    tsr_device_free(dev, b, BYTES);
}

static void a_full_queue_says_so_and_a_copy_that_fails_does(void **state)
{
    tsr_copy_queue *queue = NULL;
    uint32_t *host = tsr_device_alloc_host(dev, BYTES);
    uint32_t *there = tsr_device_alloc(dev, BYTES);
    int64_t tickets[DEPTH + 1];
    int n = 0;

    (void)state;
    assert_int_equal(tsr_copy_queue_create(&queue, dev, 0), TSR_ERR_ARG);
    assert_int_equal(tsr_copy_queue_create(&queue, dev, DEPTH), TSR_OK);
    tsr_task_queue_fail(TSR_TASK_COPY, 2, 1);
    for (; n < DEPTH; n++) {
        assert_int_equal(
            tsr_copy_queue_put(queue, TSR_COPY_TO_DEVICE, there, host, BYTES, &tickets[n]), TSR_OK);
    }
    // A queue that runs at once is never full.
    if (tsr_copy_queue_put(queue, TSR_COPY_TO_HOST, host, there, BYTES, &tickets[n]) == TSR_OK) {
        assert_true(tsr_copy_queue_is_done(queue, tickets[0]));
        n++;
    }
    assert_int_equal(tsr_copy_queue_wait(queue, tickets[1]), TSR_ERR_IO);
    assert_non_null(strstr(tsr_status_message(), "on purpose"));
    assert_int_equal(tsr_copy_queue_wait(queue, tickets[n - 1]), TSR_OK);
    assert_int_equal(tsr_copy_queue_put(queue, TSR_COPY_TO_HOST, host, there, BYTES, &tickets[0]),
                     TSR_OK);
    tsr_copy_queue_destroy(queue); // waits for it
    tsr_device_free_host(dev, host, BYTES);
    tsr_device_free(dev, there, BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_uploaded_has_left_the_callers_memory),
        cmocka_unit_test(many_small_uploads_do_not_meet_in_the_ring),
        cmocka_unit_test(a_recording_works_on_what_lies_there_by_then),
        cmocka_unit_test(a_guard_is_asked_while_the_host_waits_and_ends_the_wait),
        cmocka_unit_test(copies_aside_are_carried_out_in_order_and_are_done_when_they_say_so),
        cmocka_unit_test(a_copy_aside_comes_after_what_the_device_was_given_before),
        cmocka_unit_test(a_full_queue_says_so_and_a_copy_that_fails_does),
    };

    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
