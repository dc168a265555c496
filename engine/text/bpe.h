/*
 * engine/text/bpe.h - byte-pair merging: the tokens of one piece of text.
 *
 * A piece begins as its bytes. Of all neighbours that the model knows how to merge, the pair of the
 * lowest rank merges, the leftmost among equals, until none is left (Sennrich et al. 2016,
 * arxiv.org/abs/1508.07909). The pairs wait in a heap, so n bytes cost n log n.
 *
 * Bytes that have no token are left out before anything merges, so their neighbours may meet.
 *
 * Threads: a tsr_bpe is read-only after create; a tsr_bpe_work belongs to one thread at a time.
 */
#ifndef TSR_ENGINE_TEXT_BPE_H
#define TSR_ENGINE_TEXT_BPE_H

#include "base/ids.h"
#include "engine/text/vocab.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_bpe tsr_bpe;

/*
 * Both are borrowed only during the call.
 * Errors: FORMAT (no merges; one that names a token which the vocabulary lacks), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_bpe_create(tsr_bpe **out, const tsr_gguf *gguf,
                                         const tsr_vocab *vocab);
void tsr_bpe_destroy(tsr_bpe *bpe);

/* Room to merge in, kept from piece to piece. Start with {0}; clear when done. */
typedef struct tsr_bpe_work {
    struct tsr_bpe_symbol *symbols;
    uint64_t *heap;
    size_t capacity; /* bytes of the longest piece that fits */
    size_t n_heap;
} tsr_bpe_work;

void tsr_bpe_work_clear(tsr_bpe_work *work);

/* Append the tokens of one piece, at most 2^31-1 bytes. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_bpe_merge(const tsr_bpe *bpe, tsr_bpe_work *work, tsr_ids *out,
                                        const char *piece, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
