/*
 * engine/replays.h - forward passes that are the same but for numbers on the device: recorded once,
 * then replayed.
 *
 * On a GPU a step of single tokens is some hundred short kernels, and launching them one by one
 * takes the host longer than they run. What such a step launches depends on two numbers only, how
 * many rows it has and how many runs of positions the longest sequence may have; everything else
 * (tokens, positions, block tables, keys and values) lies on the device at the same place in every
 * step. Both numbers are rounded up to rungs of a ladder, and there is one recording for each pair,
 * made when a step of that kind comes for the second time; sums over ranks are part of it. Rows
 * that fill a step up to its rung belong to no sequence: nothing is written for them, and what they
 * give is read by nobody.
 */
#ifndef TSR_ENGINE_REPLAYS_H
#define TSR_ENGINE_REPLAYS_H

#include "engine/decoder.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_replays tsr_replays;

/* decoder is borrowed, and so is what parts name. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_replays_create(tsr_replays **out, tsr_decoder *decoder,
                                             const tsr_decoder_parts *parts);
void tsr_replays_destroy(tsr_replays *replays); /* NULL is fine */

/* tsr_decoder_forward(), from a recording where there can be one: tensors of the same shape must
 * then lie at the same place in every call. All ranks together. */
TSR_MUST_CHECK tsr_status tsr_replays_forward(tsr_replays *replays, tsr_tensor tokens,
                                              tsr_tensor positions, const tsr_batch *batch,
                                              const tsr_decoder_spans *spans);

/* How many rows a step has that has one of each of n_seqs sequences: a rung, or n_seqs where
 * nothing can be recorded. The same on every rank, though only some may replay. */
int tsr_replays_rows(const tsr_replays *replays, int n_seqs);

/* The rung of a number of sequences, of which there are at most `most`. */
int tsr_replays_width(int n_seqs, int most);

/* The longest sequence that the recording for one of `longest` positions is good for. */
int64_t tsr_replays_rung(int64_t longest, int64_t context);

#ifdef __cplusplus
}
#endif

#endif
