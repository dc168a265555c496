/*
 * engine/text/unigram.h - the most likely tokens of one piece of text.
 *
 * Each token has a score, the logarithm of its likelihood; of all ways to write a piece as tokens
 * the one of the largest sum is taken, found from left to right (Kudo 2018,
 * arxiv.org/abs/1804.10959). A character that is no token by itself may be passed over as unknown,
 * for the lowest score of all less 10; neighbours that are unknown become one.
 *
 * Threads: a tsr_unigram is read-only after create; a tsr_unigram_work belongs to one at a time.
 */
#ifndef TSR_ENGINE_TEXT_UNIGRAM_H
#define TSR_ENGINE_TEXT_UNIGRAM_H

#include "base/ids.h"
#include "engine/text/vocab.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_unigram tsr_unigram;

/*
 * vocab is borrowed and must outlive it.
 *
 *   scores      [n_scores] of the tokens from 0 on; the others are never taken. Copied
 *   unknown     -1: what is unknown is left out
 *   falls_back  what is unknown becomes the tokens of its bytes, if it can
 *
 * Errors: FORMAT (a score is no number), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_unigram_create(tsr_unigram **out, const tsr_vocab *vocab,
                                             const double *scores, int32_t n_scores,
                                             int32_t unknown, bool falls_back);
void tsr_unigram_destroy(tsr_unigram *unigram);

/* Room to search in. Start with {0}; clear when done. */
typedef struct tsr_unigram_work {
    struct tsr_unigram_node *nodes;
    size_t capacity;
} tsr_unigram_work;

void tsr_unigram_work_clear(tsr_unigram_work *work);

/* Append the tokens of one piece, at most 2^31-1 bytes. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_unigram_split(const tsr_unigram *unigram, tsr_unigram_work *work,
                                            tsr_ids *out, const char *piece, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
