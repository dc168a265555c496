#include "engine/request_heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"
#include "tests/support/torture.h"

enum {
    N = 300
};

static void any_may_leave_and_the_first_is_always_first(void **state)
{
    static tsr_request all[N];
    tsr_request_heap heap = {.order = TSR_REQUEST_BY_STANDING};
    uint64_t dice = 3;
    int64_t arrival = 0;

    (void)state;
    assert_null(tsr_request_heap_first(&heap));
    assert_int_equal(tsr_request_heap_reserve(&heap, N), TSR_OK);
    for (int turn = 0; turn < 20000; turn++) {
        tsr_request *r = &all[dice_below(&dice, N)];
        const tsr_request *first = NULL;

        if (r->heap_at[TSR_REQUEST_BY_STANDING] != 0) {
            tsr_request_heap_take_out(&heap, r);
        } else {
            r->standing_ns = dice_below(&dice, 50); // many are equal
            r->arrival = arrival++;
            tsr_request_heap_put(&heap, r);
        }
        assert_true(tsr_request_heap_verify(&heap));
        for (int i = 0; turn % 16 == 0 && i < N; i++) {
            if (all[i].heap_at[TSR_REQUEST_BY_STANDING] != 0 &&
                (first == NULL || tsr_request_is_before(TSR_REQUEST_BY_STANDING, &all[i], first))) {
                first = &all[i];
            }
        }
        assert_true(turn % 16 != 0 || tsr_request_heap_first(&heap) == first);
    }
    tsr_request_heap_clear(&heap);
}

static void a_request_may_be_in_a_heap_of_each_order(void **state)
{
    tsr_request a = {.arrival = 0, .standing_ns = 1, .deadline_ns = 9};
    tsr_request b = {.arrival = 1, .standing_ns = 2, .deadline_ns = 8};
    tsr_request_heap standing = {.order = TSR_REQUEST_BY_STANDING};
    tsr_request_heap deadline = {.order = TSR_REQUEST_BY_DEADLINE};

    (void)state;
    assert_int_equal(tsr_request_heap_reserve(&standing, 2), TSR_OK);
    assert_int_equal(tsr_request_heap_reserve(&deadline, 2), TSR_OK);
    tsr_request_heap_put(&standing, &a);
    tsr_request_heap_put(&standing, &b);
    tsr_request_heap_put(&deadline, &a);
    tsr_request_heap_put(&deadline, &b);
    assert_ptr_equal(tsr_request_heap_first(&standing), &a);
    assert_ptr_equal(tsr_request_heap_first(&deadline), &b);
    tsr_request_heap_take_out(&standing, &a);
    assert_ptr_equal(tsr_request_heap_first(&standing), &b);
    assert_true(tsr_request_heap_verify(&deadline));
    tsr_request_heap_clear(&standing);
    tsr_request_heap_clear(&deadline);
}

static void without_memory_the_heap_stays_as_it_was(void **state)
{
    static tsr_request all[65];
    tsr_request_heap heap = {.order = TSR_REQUEST_BY_DEADLINE};

    (void)state;
    assert_int_equal(tsr_request_heap_reserve(&heap, 64), TSR_OK);
    for (int i = 0; i < 64; i++) {
        all[i].deadline_ns = 100 - i;
        tsr_request_heap_put(&heap, &all[i]);
    }
    tsr_alloc_fail_nth(1);
    assert_int_equal(tsr_request_heap_reserve(&heap, 65), TSR_ERR_NOMEM);
    tsr_alloc_fail_nth(0);
    assert_true(tsr_request_heap_verify(&heap));
    assert_ptr_equal(tsr_request_heap_first(&heap), &all[63]);
    assert_int_equal(tsr_request_heap_reserve(&heap, 65), TSR_OK);
    tsr_request_heap_put(&heap, &all[64]);
    assert_true(tsr_request_heap_verify(&heap));
    tsr_request_heap_clear(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_may_leave_and_the_first_is_always_first),
        cmocka_unit_test(a_request_may_be_in_a_heap_of_each_order),
        cmocka_unit_test(without_memory_the_heap_stays_as_it_was),
    };

    return cmocka_run_group_tests_name("request_heap", tests, NULL, NULL);
}
