/*
 * engine/settings.h - an engine's options made definite: every zero replaced by a choice, every
 * choice checked.
 */
#ifndef TSR_ENGINE_SETTINGS_H
#define TSR_ENGINE_SETTINGS_H

#include "engine/config.h"
#include "engine/step.h"
#include "engine/tessera.h"
#include "parallel/placement.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_settings {
    tsr_device_options device; /* its cpus point into `placement` */
    tsr_placement placement;
    int64_t context;
    tsr_dtype kv_dtype;
    int block_tokens;
    int n_blocks; /* of the cache: what this rank has room for, until tsr_settings_fix_blocks() */
    tsr_activations activations;
    int max_batch_tokens;
    int max_sequences;
    int max_queue;         /* 0: any number */
    int64_t target_itl_us; /* 0: twice a step without prompts */
} tsr_settings;

/*
 * Where threads run is found with the other ranks: all together, before anything that can fail
 * alone. Errors: ARG, IO, COMM.
 */
TSR_MUST_CHECK tsr_status tsr_settings_place(tsr_settings *settings, tsr_world *world,
                                             const tsr_engine_options *options);

/* The rest but n_blocks. Errors: ARG (an option out of range, in words). */
TSR_MUST_CHECK tsr_status tsr_settings_choose(tsr_settings *settings,
                                              const tsr_engine_options *options,
                                              const tsr_config *config);

/* All the rest, on each rank alone. Errors: as above. */
TSR_MUST_CHECK tsr_status tsr_settings_resolve(tsr_settings *settings,
                                               const tsr_engine_options *options,
                                               const tsr_config *config, const tsr_shard *shard,
                                               int host_size);

/* n_blocks becomes what the rank with the least room has. Errors: ARG (not even one block). */
TSR_MUST_CHECK tsr_status tsr_settings_fix_blocks(tsr_settings *settings, int64_t n_blocks);

/* Blocks that fit so many bytes: never more than a cache may have; block_bytes may be 0. */
int64_t tsr_settings_blocks_in(uint64_t n_bytes, size_t block_bytes);

/* What a step may become once n_blocks is known. */
tsr_step_limits tsr_settings_step_limits(const tsr_settings *settings, const tsr_config *config);

/* The cache's layout on the rank that owns `shard`. */
tsr_kv_layout tsr_settings_kv_layout(const tsr_settings *settings, const tsr_config *config,
                                     const tsr_shard *shard);

#ifdef __cplusplus
}
#endif

#endif
