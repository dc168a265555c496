/*
 * engine/weight_walk.h - goes over all weights that a model has, in order: finds each in the file,
 * checks it, says where this rank's part of it will lie, and lists what is to be packed there. For
 * engine/weights.c, which walks twice: first to count, then with memory there. Vectors are small
 * and are read on the way.
 */
#ifndef TSR_ENGINE_WEIGHT_WALK_H
#define TSR_ENGINE_WEIGHT_WALK_H

#include "engine/weight_pack.h"
#include "engine/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One matrix to be packed. */
typedef struct tsr_weight_job {
    tsr_weight_pack pack;
    int64_t first_panel; /* over all jobs */
    int64_t n_panels;
} tsr_weight_job;

typedef struct tsr_weight_walk {
    const tsr_checkpoint *checkpoint; /* NULL: there is none, ... */
    tsr_stored_tensor imagined;       /* and this stands in for each of its tensors */
    tsr_encoding imagined_as;         /* its encoding where it is a matrix */
    const tsr_config *config;
    const tsr_shard *shard;
    tsr_format as; /* as tsr_weights_load() has it */
    tsr_device_kind on;

    tsr_weights *weights; /* NULL: only count */
    char *packed; /* what the host packs into: the device's memory if it may, else as much of its
                     own */

    bool *used;     /* [tensors] owned by the caller, as are the jobs */
    size_t n_bytes; /* placed so far; this and what follows begins as 0 */
    uint64_t file_bytes;
    tsr_weight_job *jobs; /* [n_jobs of the count] */
    int64_t n_jobs;
    int64_t n_numbered;
    int64_t n_panels;
} tsr_weight_walk;

/* Errors: as of tsr_weights_load(). */
TSR_MUST_CHECK tsr_status tsr_weight_walk_run(tsr_weight_walk *walk);

/* Whether a layer has what its model has. */
bool tsr_weight_walk_layer_has(const tsr_layer_config *layer, tsr_shard_role role);

/* What plain weights of a role become when `as` is asked for. */
tsr_format tsr_weight_walk_wish(tsr_format as, tsr_shard_role role, int64_t n_cols);

/* How many weights are one of several a layer. */
int64_t tsr_weight_walk_numbered(const tsr_config *config, const tsr_shard *shard);

#ifdef __cplusplus
}
#endif

#endif
