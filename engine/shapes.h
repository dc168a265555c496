/*
 * engine/shapes.h - the sizes of well-known models, so that a plan needs no file.
 *
 * Sizes are those of the models' published configurations.
 */
#ifndef TSR_ENGINE_SHAPES_H
#define TSR_ENGINE_SHAPES_H

#include "engine/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A config as good as one read from a file as far as sizes go: it has no frequencies. The caller
 * clears it. Errors: ARG (the name is none of them; lists them), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_shapes_find(tsr_config *config, const char *name);

const char *tsr_shapes_name(int i); /* NULL past the last */

#ifdef __cplusplus
}
#endif

#endif
