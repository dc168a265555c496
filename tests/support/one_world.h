/*
 * tests/support/one_world.h - the world of a test's ranks, for cmocka_run_group_tests().
 */
#ifndef TSR_TESTS_SUPPORT_ONE_WORLD_H
#define TSR_TESTS_SUPPORT_ONE_WORLD_H

#include "parallel/world.h"

static tsr_world *world;

static inline int open_world(void **state)
{
    (void)state;
    return tsr_world_open(&world) == TSR_OK ? 0 : -1;
}

static inline int close_world(void **state)
{
    (void)state;
    tsr_world_close(world);
    return 0;
}

#endif
