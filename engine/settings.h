/*
 * engine/settings.h - an engine's options made definite: every zero replaced by a choice, every
 * choice checked.
 */
#ifndef TSR_ENGINE_SETTINGS_H
#define TSR_ENGINE_SETTINGS_H

#include "engine/config.h"
#include "engine/scheduler.h"
#include "engine/step.h"
#include "engine/tessera.h"
#include "engine/tier_room.h"
#include "kv/block_table.h"
#include "kv/kv_store.h"
#include "parallel/placement.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_settings {
    tsr_device_options device; /* its cpus point into `placement` */
    tsr_placement placement;
    int64_t context;
    tsr_kv_type kv_type;
    int block_tokens;
    tsr_tier_room own;  /* what this rank has room for */
    tsr_tier_room room; /* what all have, at least; from tsr_settings_agree() on, as are the next */
    tsr_tier_room used; /* by this rank: at least that */
    int n_blocks;       /* ids: of all tiers together */
    const char *disk_folder; /* borrowed from the options */
    tsr_activations activations;
    bool prefix_cache;
    bool no_graphs;
    tsr_preempt preempt;
    tsr_format weights_as; /* what plain weights become; TSR_FORMAT_COUNT: as they are stored */
    int max_batch_tokens;
    int max_sequences;
    int max_queue;         /* 0: any number */
    bool plans_ahead;      /* the next step, while one runs */
    int64_t target_itl_us; /* 0: 1.6 times a step without prompts */
} tsr_settings;

/*
 * Where threads run is found with the other ranks: all together, before anything that can fail
 * alone. Errors: ARG, IO, COMM.
 */
TSR_MUST_CHECK tsr_status tsr_settings_place(tsr_settings *settings, tsr_world *world,
                                             const tsr_engine_options *options);

/* The rest but for blocks. Errors: ARG (an option out of range, in words). */
TSR_MUST_CHECK tsr_status tsr_settings_choose(tsr_settings *settings,
                                              const tsr_engine_options *options,
                                              const tsr_config *config);

/* What plain weights become: `dtype` or `quantize` of tsr_engine_options, at most one of which asks
 * for something. Errors: ARG. */
TSR_MUST_CHECK tsr_status tsr_settings_weights(tsr_format *out, const char *dtype,
                                               const char *quantize);

/* All the rest, on each rank alone. Errors: as above. */
TSR_MUST_CHECK tsr_status tsr_settings_resolve(tsr_settings *settings,
                                               const tsr_engine_options *options,
                                               const tsr_config *config, const tsr_shard *shard,
                                               int host_size);

/* The rank with the least room in a tier decides for all; all together. A rank may use more than
 * that for itself, and does. Errors: COMM, ARG (not even one block). */
TSR_MUST_CHECK tsr_status tsr_settings_agree(tsr_settings *settings, tsr_world *world);

/* What a step may become, and what the cache is made of here; once n_blocks and `used` are known.
 * The folder is borrowed. */
tsr_step_limits tsr_settings_step_limits(const tsr_settings *settings, const tsr_config *config);
tsr_kv_store_options tsr_settings_store(const tsr_settings *settings, const tsr_config *config,
                                        const tsr_shard *shard);

/* How far back the layers of a block see, group by group. */
tsr_block_groups tsr_settings_groups(const tsr_settings *settings, const tsr_config *config);

/* The cache's layout on the rank that owns `shard`: of one group. */
tsr_kv_layout tsr_settings_kv_layout(const tsr_settings *settings, const tsr_config *config,
                                     const tsr_shard *shard);

#ifdef __cplusplus
}
#endif

#endif
