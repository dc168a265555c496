/*
 * engine/decoder_beside.h - the CPU beside a GPU, which attends what of the cache lies in host
 * memory.
 *
 * A sequence that is longer than the GPU's pool has its first blocks in the host's. Its first runs
 * of TSR_ATTENTION_RUN positions, as far as they lie there as a whole, are attended by the rank's
 * threads, from the memory they lie in; what comes of it goes up (output, largest score and sum of
 * each row and head), and the GPU goes on from there. What else lies in host memory, and what has a
 * form that this is not for, the GPU reads over the bus.
 *
 * The GPU waits meanwhile: what it has to read itself takes a small part of the time.
 */
#ifndef TSR_ENGINE_DECODER_BESIDE_H
#define TSR_ENGINE_DECODER_BESIDE_H

#include "engine/decoder.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_decoder_beside tsr_decoder_beside;

/* *out is NULL where there is nothing to do: on a CPU, and without a host pool. Errors: NOMEM,
 * UNSUPPORTED (tsr_device_open_beside). */
TSR_MUST_CHECK tsr_status tsr_decoder_beside_create(tsr_decoder_beside **out,
                                                    const tsr_decoder_parts *parts);
void tsr_decoder_beside_destroy(tsr_decoder_beside *b); /* NULL is fine */

/* Which runs of the next batch are the CPU's. Errors: DEVICE. */
TSR_MUST_CHECK tsr_status tsr_decoder_beside_look(tsr_decoder_beside *b,
                                                  const tsr_decoder_spans *spans);
bool tsr_decoder_beside_is_needed(const tsr_decoder_beside *b);

/* In a layer of a group: attends those runs for queries q [n_rows, heads * key_dim]; batch and
 * shape become what is left for the GPU. Errors: DEVICE. */
TSR_MUST_CHECK tsr_status tsr_decoder_beside_attend(tsr_decoder_beside *b, tsr_tensor q,
                                                    const tsr_kv_view *kv, int group,
                                                    tsr_batch *batch, tsr_attention_shape *shape);

#ifdef __cplusplus
}
#endif

#endif
