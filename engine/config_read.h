/*
 * engine/config_read.h - how a config is made, step by step. Private to engine/config*.c.
 */
#ifndef TSR_ENGINE_CONFIG_READ_H
#define TSR_ENGINE_CONFIG_READ_H

#include "engine/checkpoint.h"
#include "engine/config.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_CONFIG_MOST_LAYERS = 4096,
    TSR_CONFIG_MOST_HEADS = 4096,
    TSR_CONFIG_MOST_WIDTH = 1 << 24 /* of any matrix: far above every known model, far below any
                                       overflow */
};

/* config->n_layers is set; the rest becomes the family's defaults. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_config_begin(tsr_config *config, const tsr_family *family);

/* Everything was read: what follows from it, and whether it makes sense. */
TSR_MUST_CHECK tsr_status tsr_config_finish(tsr_config *config);

/* The layers of the cache get their groups: c->n_groups and what follows from how far back they are
 * seen. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_config_groups_find(tsr_config *config);

/* What was made before a failure is the caller's to clear. */
TSR_MUST_CHECK tsr_status tsr_config_read_hf(tsr_config *config, const tsr_checkpoint *checkpoint);
TSR_MUST_CHECK tsr_status tsr_config_read_gguf(tsr_config *config, const tsr_gguf *gguf);

/* The keys alone, as config.json has them. */
TSR_MUST_CHECK tsr_status tsr_config_read_keys(tsr_config *config, const tsr_hf_keys *whole);

#ifdef __cplusplus
}
#endif

#endif
