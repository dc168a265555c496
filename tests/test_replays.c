#include "engine/replays.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void a_rung_holds_its_lengths_and_is_less_than_twice_as_long(void **state)
{
    enum {
        CONTEXT = 5000
    };

    (void)state;
    for (int64_t longest = 1; longest <= CONTEXT; longest++) {
        const int64_t rung = tsr_replays_rung(longest, CONTEXT);

        assert_in_range(rung, longest, CONTEXT); // kernels have scratch for no more
        assert_true(rung == TSR_ATTENTION_RUN || rung < 2 * longest);
    }
}

static void a_ladder_has_few_rungs(void **state)
{
    int n = 0;

    (void)state;
    for (int64_t longest = 1; longest <= 100000; longest = tsr_replays_rung(longest, 100000) + 1) {
        n++;
    }
    assert_int_equal(n, 10); // 256 * 2^9 is the first above 100000
}

static void a_width_holds_its_sequences_and_wastes_few_rows(void **state)
{
    int n_widths = 0;
    int last = 0;

    (void)state;
    for (int n = 1; n <= 200; n++) {
        const int width = tsr_replays_width(n, 200);

        assert_in_range(width, n, 200); // activations have no more rows
        // Rows of nobody have small positions: they look at a sequence's first block.
        assert_true(width - n < 16 && width < 2 * n);
        n_widths += width != last ? 1 : 0;
        last = width;
    }
    assert_int_equal(n_widths, 4 + 13); // 1, 2, 4, 8; 16, 32, ... 192; 200
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rung_holds_its_lengths_and_is_less_than_twice_as_long),
        cmocka_unit_test(a_ladder_has_few_rungs),
        cmocka_unit_test(a_width_holds_its_sequences_and_wastes_few_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
