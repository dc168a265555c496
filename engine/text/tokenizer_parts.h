/*
 * engine/text/tokenizer_parts.h - what a tokenizer is made of; private to engine/tokenizer.c and
 * engine/text/tokenizer_*.c.
 */
#ifndef TSR_ENGINE_TEXT_TOKENIZER_PARTS_H
#define TSR_ENGINE_TEXT_TOKENIZER_PARTS_H

#include "engine/text/bpe.h"
#include "engine/text/normalizer.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/special.h"
#include "engine/text/token_decoder.h"
#include "engine/text/unigram.h"
#include "engine/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All pointers are owned. */
struct tsr_tokenizer {
    tsr_vocab *vocab;
    tsr_special *special;            /* all special tokens, by their own texts */
    tsr_special *special_normalized; /* those that are sought after normalizing; NULL: none */
    tsr_normalizer *normalizer;      /* NULL: text is taken as it is */
    tsr_pretokenizer *pre;
    tsr_bpe *bpe; /* this or the next, the other is NULL */
    tsr_unigram *unigram;
    tsr_token_decoder *decoder;
    tsr_ids before;
    tsr_ids after;
    bool *is_end;      /* [n_tokens] */
    tsr_ids more_ends; /* ids beyond the tokens */
    int32_t bos;
    int32_t eos;
    int32_t pad;
    char *chat_template;
    size_t chat_template_bytes;
};

/* A tokenizer without parts. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_tokenizer_create_empty(tsr_tokenizer **out);

/* With the vocabulary in its place: eos, and the control tokens whose usual names say so, end a
 * generation. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_tokenizer_mark_ends(tsr_tokenizer *tok);

/* The merge rules that SentencePiece's scores amount to: of all pairs whose whole is a token the
 * one of the highest score merges first. scores [n_tokens]. rules is the caller's, tsr_free().
 * Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_spm_rules(tsr_bpe_rule **rules, uint32_t *n_rules,
                                        const tsr_vocab *vocab, const float *scores);

#ifdef __cplusplus
}
#endif

#endif
