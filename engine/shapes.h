/*
 * engine/shapes.h - the sizes of well-known models, so that a plan needs no file.
 *
 * Sizes are those of the models' published configurations.
 */
#ifndef TSR_ENGINE_SHAPES_H
#define TSR_ENGINE_SHAPES_H

#include "engine/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A config as good as one read from a file as far as sizes go: it has no frequencies and need not
 * be cleared. outline->encoding is left as it is. Errors: ARG (the name is none of them; lists
 * them).
 */
TSR_MUST_CHECK tsr_status tsr_shapes_find(tsr_config *config, tsr_weights_outline *outline,
                                          const char *name);

const char *tsr_shapes_name(int i); /* NULL past the last */

#ifdef __cplusplus
}
#endif

#endif
