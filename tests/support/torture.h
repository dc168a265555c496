/*
 * tests/support/torture.h - fail every allocation in turn.
 */
#ifndef TSR_TESTS_SUPPORT_TORTURE_H
#define TSR_TESTS_SUPPORT_TORTURE_H

#include "base/status.h"

/*
 * Calls attempt(ctx) with the 1st, the 2nd, the 3rd ... allocation failing until it succeeds.
 * Asserts that every failure says NOMEM and that nothing stays allocated. Returns how many
 * allocations were failed. attempt() must give back whatever it made before it returns TSR_OK.
 */
int torture(tsr_status (*attempt)(void *ctx), void *ctx);

#endif
