/*
 * tests/support/loaded.h - one rank's weights of a model file, and whether they are those of
 * another.
 */
#ifndef TSR_TESTS_SUPPORT_LOADED_H
#define TSR_TESTS_SUPPORT_LOADED_H

#include "engine/weights.h"

/* All that a rank has of a model; begins as {0}. */
typedef struct loaded {
    tsr_checkpoint *checkpoint;
    tsr_config config;
    tsr_shard shard;
    tsr_weights weights;
} loaded;

/* Errors: those of reading and loading; there is nothing to close then. */
tsr_status loaded_open(loaded *l, tsr_device *dev, const char *path, int rank, int n_ranks);
void loaded_close(loaded *l);

/* Every linear weight of a layer is the same in both, bit for bit, or the running test fails. How
 * many of a's are in the formats that packed weights go into. */
int loaded_compare(const loaded *a, const loaded *b, int layer);

#endif
