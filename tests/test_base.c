#include "base/alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/env.h"

static void a_fault_keeps_its_code_message_and_place(void **state)
{
    (void)state;
    assert_int_equal(tsr_fail(TSR_ERR_FORMAT, "%d of %d", 3, 4), TSR_ERR_FORMAT);
    assert_string_equal(tsr_status_message(), "3 of 4");
    assert_non_null(strstr(tsr_status_place(), "tests/test_base.c:"));
}

static void every_status_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int a = 0; a < TSR_STATUS_COUNT; a++) {
        assert_non_null(tsr_status_name((tsr_status)a));
        for (int b = 0; b < a; b++) {
            assert_string_not_equal(tsr_status_name((tsr_status)a), tsr_status_name((tsr_status)b));
        }
    }
}

static void memory_comes_zeroed_and_is_counted(void **state)
{
    const long before = tsr_alloc_live();
    const size_t n_bytes = 3 << 20;
    char *small = tsr_alloc(100, 3);
    char *pages = tsr_alloc_pages(n_bytes);

    (void)state;
    assert_non_null(small);
    assert_non_null(pages);
    assert_int_equal(tsr_alloc_live(), before + 2);
    assert_int_equal((uintptr_t)pages % (2 << 20), 0);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(small[i], 0);
    }
    pages[0] = 1;
    pages[n_bytes - 1] = 1;
    small = tsr_alloc_resize(small, 4096, 1);
    assert_non_null(small);
    assert_int_equal(small[299], 0);
    tsr_free(small);
    tsr_free_pages(pages, n_bytes);
    assert_int_equal(tsr_alloc_live(), before);
}

static void absurd_sizes_are_refused(void **state)
{
    (void)state;
    assert_null(tsr_alloc(SIZE_MAX / 2, 3));
    assert_null(tsr_alloc_resize(NULL, SIZE_MAX / 2, 3));
    assert_null(tsr_alloc_pages(SIZE_MAX - 5));
    assert_null(tsr_alloc_text("x", SIZE_MAX));
}

static void the_nth_allocation_and_only_it_fails(void **state)
{
    (void)state;
    tsr_alloc_fail_nth(2);
    for (int i = 1; i <= 4; i++) {
        void *block = tsr_alloc(1, 1);

        assert_true((block == NULL) == (i == 2));
        tsr_free(block);
    }
    tsr_alloc_fail_nth(0);
}

static void every_variable_is_described_and_the_table_keeps_its_budget(void **state)
{
    (void)state;
    assert_true(TSR_ENV_COUNT <= 10);
    for (int i = 0; i < TSR_ENV_COUNT; i++) {
        const tsr_env_entry *entry = tsr_env_describe((tsr_env_id)i);

        assert_memory_equal(entry->name, "TSR_", 4);
        assert_true(strlen(entry->help) > 10);
    }
}

static void the_clock_goes_forward(void **state)
{
    const int64_t before = tsr_clock_ns();

    (void)state;
    tsr_clock_sleep_us(2000);
    assert_true(tsr_clock_ns() - before >= 1900000);
}

static void a_message_may_have_the_one_before_in_it(void **state)
{
    (void)state;
    assert_int_equal(tsr_fail(TSR_ERR_IO, "the disk is gone"), TSR_ERR_IO);
    assert_int_equal(tsr_fail(TSR_ERR_DEVICE, "%d copies: %s", 3, tsr_status_message()),
                     TSR_ERR_DEVICE);
    assert_string_equal(tsr_status_message(), "3 copies: the disk is gone");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_may_have_the_one_before_in_it),
        cmocka_unit_test(a_fault_keeps_its_code_message_and_place),
        cmocka_unit_test(every_status_has_a_name_of_its_own),
        cmocka_unit_test(memory_comes_zeroed_and_is_counted),
        cmocka_unit_test(absurd_sizes_are_refused),
        cmocka_unit_test(the_nth_allocation_and_only_it_fails),
        cmocka_unit_test(every_variable_is_described_and_the_table_keeps_its_budget),
        cmocka_unit_test(the_clock_goes_forward),
    };

    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
