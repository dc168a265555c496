/*
 * engine/runner_state.h - what a runner is made of. Private to the files that work on it:
 *
 *   runner.c       steps are carried out
 *   runner_find.c  what the leader needs of the logits is found
 */
#ifndef TSR_ENGINE_RUNNER_STATE_H
#define TSR_ENGINE_RUNNER_STATE_H

#include "engine/memory_report.h"
#include "engine/replays.h"
#include "engine/runner.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One step's integers on the device. Order in `inputs`: tokens, positions, row_start, first_pos,
 * lanes, wanted, sharpness, ones. */
typedef struct tsr_runner_inputs {
    tsr_tensor tokens;
    tsr_tensor positions;
    tsr_tensor wanted;
    tsr_tensor sharpness; /* f32 */
    tsr_tensor ones;      /* f32: the sharpness of rows looked at as they are */
    tsr_batch batch;
    tsr_decoder_spans spans; /* on the host */
} tsr_runner_inputs;

struct tsr_runner {
    tsr_decoder *decoder; /* owned */
    tsr_replays *replays; /* owned */
    tsr_decoder_parts parts;
    tsr_kv_store *store; /* borrowed */
    tsr_step_limits limits;
    int64_t unit_cols; /* vocabulary columns a unit */
    int n_units;       /* of the rank that has most */
    int own_units;

    int32_t *host; /* [host_ints] what is uploaded each step, gathered here first; owned */
    size_t host_ints;
    int32_t *inputs; /* i32 [host_ints] on the device; owned */
    int32_t *words;  /* findings; owned */
    int32_t *found; /* the same on the device: `words` where its memory is the host's; else owned */
    int32_t *fetched; /* what comes from there, before it is put in its places; owned, or NULL */
    size_t words_capacity;
    tsr_memory_report said;
    float *row;           /* [own vocabulary] on the host; owned */
    tsr_runner_inputs in; /* of the step started last, as are the next */
    tsr_findings findings;
    tsr_tensor logits; /* of its wanted rows from first_kept on, while they are as the model gave
                          them; else none */
    int first_kept;

    /* The changes to this rank's logits of some rows; all owned and grown when more are met. */
    int32_t *changes_host; /* [5 * changes_room]: rows, ids, factors, adds, what was before */
    int32_t *changes;      /* the same on the device */
    int changes_room;
};

/* Room for what is found of a step's wanted rows, and where it will lie. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_runner_find_room(tsr_runner *runner, const tsr_step *step,
                                               tsr_findings *findings);

/* All that is to be found of the wanted rows, behind the forward pass. */
TSR_MUST_CHECK tsr_status tsr_runner_find(tsr_runner *runner, const tsr_step *step,
                                          const tsr_findings *findings);

/* The memory of all that was found. */
void tsr_runner_find_clear(tsr_runner *runner);

/* Columns [first, first + n) of a run of items. */
static inline tsr_tensor tsr_runner_columns(tsr_tensor row, int64_t first, int64_t n)
{
    row.data = (char *)row.data + (size_t)first * tsr_dtype_bytes(row.dtype);
    row.n_cols = n;
    row.stride = n;
    return row;
}

#ifdef __cplusplus
}
#endif

#endif
