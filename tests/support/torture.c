#include "tests/support/torture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"

int torture(tsr_status (*attempt)(void *ctx), void *ctx)
{
    const long live_before = tsr_alloc_live();

    for (int nth = 1;; nth++) {
        tsr_status st;

        tsr_alloc_fail_nth(nth);
        st = attempt(ctx);
        tsr_alloc_fail_nth(0);
        assert_int_equal(tsr_alloc_live(), live_before);
        if (st == TSR_OK) {
            return nth - 1;
        }
        assert_int_equal(st, TSR_ERR_NOMEM);
    }
}
