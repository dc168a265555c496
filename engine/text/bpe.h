/*
 * engine/text/bpe.h - byte-pair merging: the tokens of one piece of text.
 *
 * A piece begins as its symbols: its bytes, where a vocabulary is written in the letters of
 * engine/text/byte_alphabet.h, or its characters. Of all neighbours that the model knows how to
 * merge, the pair of the lowest rank merges, the leftmost among equals, until none is left
 * (Sennrich et al. 2016, arxiv.org/abs/1508.07909). The pairs wait in a heap, so n bytes cost n log
 * n.
 *
 * A symbol that has no token becomes those of its bytes ("<0x0A>") if the model falls back on them,
 * else the token for what is unknown. If there is none, it is left out before anything merges, so
 * its neighbours may meet.
 *
 * Threads: a tsr_bpe may be used by several at once; a tsr_bpe_work belongs to one at a time.
 */
#ifndef TSR_ENGINE_TEXT_BPE_H
#define TSR_ENGINE_TEXT_BPE_H

#include "base/ids.h"
#include "engine/text/vocab.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_bpe tsr_bpe;

enum {
    TSR_BPE_MOST_AFFIX = 64 /* bytes of a prefix or a suffix */
};

/* left and right, in this order, become whole. */
typedef struct tsr_bpe_rule {
    int32_t left;
    int32_t right;
    int32_t whole;
    uint32_t rank;
} tsr_bpe_rule;

typedef struct tsr_bpe_options {
    bool of_bytes;      /* the symbols are bytes; else characters */
    bool keeps_whole;   /* a piece that is a token is taken at once, whatever merging would make */
    bool falls_back;    /* on the tokens of bytes */
    bool fuses_unknown; /* neighbours that are unknown become one token */
    bool last_counts;   /* of two rules for one pair; else the first */
    int32_t unknown;    /* -1: there is none */
    tsr_text_view prefix; /* written before each character of a piece but the first; of characters
                             only, as the next */
    tsr_text_view suffix; /* written behind the last character */
} tsr_bpe_options;

/*
 * The rule that merges two texts. prefix_bytes of the second are not part of the whole.
 * Errors: FORMAT (one of the three is no token).
 */
TSR_MUST_CHECK tsr_status tsr_bpe_rule_read(tsr_bpe_rule *out, const tsr_vocab *vocab,
                                            tsr_text_view left, tsr_text_view right,
                                            size_t prefix_bytes);

/*
 * vocab is borrowed and must outlive it; rules [n_rules], options and their texts are copied.
 * Errors: NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_bpe_create(tsr_bpe **out, const tsr_vocab *vocab,
                                         const tsr_bpe_options *options, const tsr_bpe_rule *rules,
                                         uint32_t n_rules);
void tsr_bpe_destroy(tsr_bpe *bpe);

/* Room to merge in, kept from piece to piece. Start with {0}; clear when done. */
typedef struct tsr_bpe_work {
    struct tsr_bpe_symbol *symbols;
    uint64_t *heap;
    size_t capacity; /* symbols that fit */
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
