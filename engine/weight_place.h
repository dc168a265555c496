/*
 * engine/weight_place.h - where in a model file a role's weight lies: under which name, and which
 * row of a fused, stacked or transposed tensor is which of its rows. Pure arithmetic on names and
 * shapes; no element is read.
 */
#ifndef TSR_ENGINE_WEIGHT_PLACE_H
#define TSR_ENGINE_WEIGHT_PLACE_H

#include "engine/checkpoint.h"
#include "engine/config.h"
#include "engine/packed.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_WEIGHT_PLACE_NAME_BYTES = 160
};

/*
 * Row r of the weight is line  base + r / run * pitch + r % run * step  of the matrix; a line is a
 * row of it, or a column when `transposed`, from element `skip` of the line on.
 */
typedef struct tsr_weight_place {
    const tsr_stored_tensor *source; /* of a packed weight, its codes */
    bool is_packed;
    tsr_packed packed;                /* then lines are its rows, or its columns */
    const tsr_stored_tensor *factors; /* f32, one for all or for each of a stack: elements are
                                         multiplied by it; NULL: by none */
    int64_t matrix;                   /* which of a stack */
    int64_t base;
    int64_t run;
    int64_t pitch;
    int64_t step;
    int64_t skip;
    bool transposed;
    bool is_a_head; /* the tensor is one head's part: the others have tensors of their own */
} tsr_weight_place;

/* The whole weight's shape, whatever the ranks. number: of the head or expert, for those that there
 * are several of. */
void tsr_weight_place_shape(const tsr_config *config, tsr_shard_role role, int64_t *n_rows,
                            int64_t *n_cols);

/* It is a vector and no matrix: a norm, sinks. */
bool tsr_weight_place_is_vector(tsr_shard_role role);

/*
 * Find the weight, or with `bias` the bias of it, and check its shape. Where the file has no plain
 * tensor of it, a packed one will do. name [TSR_WEIGHT_PLACE_NAME_BYTES] becomes what it is called,
 * or would be called. place->source is NULL when the file has none. The config is borrowed.
 * Errors: FORMAT (it has another shape), UNSUPPORTED (a type that is no weight's).
 */
TSR_MUST_CHECK tsr_status tsr_weight_place_find(tsr_weight_place *place,
                                                const tsr_checkpoint *checkpoint,
                                                const tsr_config *config, tsr_shard_role role,
                                                int layer, int64_t number, bool bias, char *name);

/* What the elements are multiplied by. */
float tsr_weight_place_factor(const tsr_weight_place *place);

static inline int64_t tsr_weight_place_line(const tsr_weight_place *place, int64_t row)
{
    return place->base + row / place->run * place->pitch + row % place->run * place->step;
}

/* A tensor that carries no weight, though it is in the file: masks, and tables that are computed
 * anew. */
bool tsr_weight_place_is_ignored(const tsr_stored_tensor *tensor, const tsr_config *config);

#ifdef __cplusplus
}
#endif

#endif
