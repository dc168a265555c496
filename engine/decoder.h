/*
 * engine/decoder.h - the forward pass of a decoder-only transformer, on this rank's shard.
 *
 * One function for prompts in chunks and single tokens mixed in one batch: a decoding sequence is
 * one whose rows are one. Every rank calls it on the same batch; they meet at the embedding and
 * twice a layer.
 */
#ifndef TSR_ENGINE_DECODER_H
#define TSR_ENGINE_DECODER_H

#include "engine/weights.h"
#include "kv/kv_store.h"
#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_decoder tsr_decoder;

enum {
    TSR_DECODER_HEAD_ROWS = 32 /* rows of logits that exist at once */
};

/* All pointers are borrowed and must outlive the decoder. */
typedef struct tsr_decoder_parts {
    tsr_device *dev;
    tsr_comm *comm;
    const tsr_config *config;
    const tsr_shard *shard;
    const tsr_weights *weights;
    const tsr_kv_store *kv;
    tsr_activations activations;
    int max_rows; /* of a batch */
    int max_seqs;
    int64_t context;
    bool no_graphs; /* every op is launched anew in every step (engine/replays.h) */
} tsr_decoder_parts;

/* Every buffer of a forward pass, sized once for the largest. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_decoder_create(tsr_decoder **out, const tsr_decoder_parts *parts);

/* Bytes of those buffers and of the scratch memory of its ops on such a device. Of parts only
 * config, shard, max_rows, max_seqs and context are read. */
size_t tsr_decoder_measure(const tsr_decoder_parts *parts, tsr_device_kind kind, int n_threads);
void tsr_decoder_destroy(tsr_decoder *decoder); /* NULL is fine */

/* What the host knows of a batch's sequences. Read only for models whose positions turn by another
 * rope in long sequences (config->rope_switch). */
typedef struct tsr_decoder_spans {
    int n_seqs;
    const int32_t *row_start; /* [n_seqs + 1] */
    const int32_t *is_long; /* [n_seqs] has it more than rope_switch tokens by now, in this batch or
                               not? */
} tsr_decoder_spans;

/* Whether a batch of n_rows is only queued: the host looks at nothing on the way, so that a device
 * may record it. */
bool tsr_decoder_is_queued(const tsr_decoder *decoder, int64_t n_rows);

/*
 * Run all layers over a batch (its tables aside, which the cache has for each group of layers);
 * keys and values go into the cache. The rows' hidden states stay until the next call. tokens,
 * positions  i32 [1, n_rows]
 */
TSR_MUST_CHECK tsr_status tsr_decoder_forward(tsr_decoder *decoder, tsr_tensor tokens,
                                              tsr_tensor positions, const tsr_batch *batch,
                                              const tsr_decoder_spans *spans);

/*
 * Logits of this rank's part of the vocabulary for up to TSR_DECODER_HEAD_ROWS rows of the batch
 * run last. logits  f32 [rows, own vocabulary]; good until the next call rows    i32 [1, n]
 */
TSR_MUST_CHECK tsr_status tsr_decoder_logits(tsr_decoder *decoder, tsr_tensor *logits,
                                             tsr_tensor rows);

/* Hidden states of rows [first, first + n) of the batch run last, n up to TSR_DECODER_HEAD_ROWS,
 * behind the final norm. hidden  f32 [n, dim], the same on every rank; good until the next call.
 * No rank waits for another. */
TSR_MUST_CHECK tsr_status tsr_decoder_hidden(tsr_decoder *decoder, tsr_tensor *hidden,
                                             int64_t first, int64_t n);

#ifdef __cplusplus
}
#endif

#endif
