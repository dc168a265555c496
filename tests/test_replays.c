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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rung_holds_its_lengths_and_is_less_than_twice_as_long),
        cmocka_unit_test(a_ladder_has_few_rungs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
