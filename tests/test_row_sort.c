#include "engine/row_sort.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/dice.h"

enum {
    MOST = 5000
};

static int32_t ids[MOST];
static float sorted[MOST];
static float logits[MOST];
static uint64_t work[2 * MOST];

static float plain(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

static void check(size_t n)
{
    static bool seen[MOST];

    memset(seen, 0, sizeof(seen));
    tsr_row_sort(ids, sorted, logits, n, work);
    for (size_t i = 0; i < n; i++) {
        assert_in_range(ids[i], 0, n - 1);
        assert_false(seen[ids[i]]);
        seen[ids[i]] = true;
        assert_true(sorted[i] == plain(logits[ids[i]]));
        if (i > 0) {
            assert_true(sorted[i - 1] > sorted[i] ||
                        (sorted[i - 1] == sorted[i] && ids[i - 1] < ids[i]));
        }
    }
}

static void every_number_has_its_place(void **state)
{
    const float edges[] = {0.0F,  -0.0F,     1.0F,   -1.0F,    INFINITY, -INFINITY,
                           NAN,   -NAN,      1e-45F, -1e-45F,  3.4e38F,  -3.4e38F,
                           0.25F, -0.25F,    1e-38F, -1e-38F,  0.0F,     -0.0F,
                           2.0F,  1.999999F, -2.0F,  -1.9999F, INFINITY, 7.0F};
    const size_t n = sizeof(edges) / sizeof(edges[0]);

    (void)state;
    memcpy(logits, edges, sizeof(edges));
    check(n);
    check(1);
    check(0);
}

static void random_rows_fall(void **state)
{
    uint64_t dice = 5;

    (void)state;
    for (int round = 0; round < 200; round++) {
        const size_t n = (size_t)dice_below(&dice, MOST + 1);
        const bool has_ties = round % 2 == 0;

        for (size_t i = 0; i < n; i++) {
            if (has_ties) {
                logits[i] = (float)(dice_below(&dice, 9) - 4);
            } else {
                const uint32_t bits = (uint32_t)dice_roll(&dice); // any float there is

                memcpy(&logits[i], &bits, sizeof(bits));
            }
        }
        check(n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_has_its_place),
        cmocka_unit_test(random_rows_fall),
    };

    return cmocka_run_group_tests_name("row_sort", tests, NULL, NULL);
}
