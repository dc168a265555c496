#include <stdlib.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/tokenizer_parts.h"

enum {
    MOST_PIECE_BYTES = 1024 // what is longer is no piece of text, and would take for ever to cut
};

/* A token that merging may make. */
typedef struct scored {
    float score;
    int32_t id;
} scored;

static int by_score(const void *a, const void *b)
{
    const scored *x = a;
    const scored *y = b;

    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return (x->id > y->id) - (x->id < y->id);
}

static bool may_be_made(const tsr_vocab *vocab, int32_t id)
{
    const tsr_token_kind kind = tsr_vocab_kind(vocab, id);

    return !tsr_vocab_is_control(vocab, id) && kind != TSR_TOKEN_KIND_BYTE &&
           tsr_vocab_text(vocab, id).n_bytes <= MOST_PIECE_BYTES;
}

/* The rules of one token: each way to cut it in two tokens. Into `rules` from *n on, or only
 * counted if it is NULL. */
static void add_rules(tsr_bpe_rule *rules, uint32_t *n, const tsr_vocab *vocab, int32_t id,
                      uint32_t rank)
{
    const tsr_text_view text = tsr_vocab_text(vocab, id);

    for (size_t at = 0; at < text.n_bytes;) {
        const int n_char = tsr_utf8_measure(text.bytes + at, text.n_bytes - at);
        int32_t left;
        int32_t right;

        at += n_char > 0 ? (size_t)n_char : 1;
        left = tsr_vocab_find_plain(vocab, text.bytes, at);
        right = at < text.n_bytes && left >= 0
                    ? tsr_vocab_find_plain(vocab, text.bytes + at, text.n_bytes - at)
                    : -1;
        if (right >= 0 && at < text.n_bytes) {
            if (rules != NULL) {
                rules[*n] = (tsr_bpe_rule){left, right, id, rank};
            }
            (*n)++;
        }
    }
}

tsr_status tsr_spm_rules(tsr_bpe_rule **rules, uint32_t *n_rules, const tsr_vocab *vocab,
                         const float *scores)
{
    const int32_t n_tokens = tsr_vocab_n_tokens(vocab);
    scored *order = tsr_alloc((size_t)n_tokens, sizeof(*order));
    uint32_t rank = 0;
    uint32_t n = 0;
    int32_t n_order = 0;

    if (order == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "scores of %d tokens", n_tokens);
    }
    for (int32_t id = 0; id < n_tokens; id++) {
        if (may_be_made(vocab, id)) {
            order[n_order++] = (scored){scores[id], id};
            add_rules(NULL, &n, vocab, id, 0);
        }
    }
    *rules = tsr_alloc(n, sizeof(**rules));
    if (*rules == NULL) {
        tsr_free(order);
        return tsr_fail(TSR_ERR_NOMEM, "%u merges", n);
    }
    qsort(order, (size_t)n_order, sizeof(*order), by_score);
    n = 0;
    for (int32_t i = 0; i < n_order; i++) {
        rank += i > 0 && order[i].score < order[i - 1].score; // tokens of one score have one rank
        add_rules(*rules, &n, vocab, order[i].id, rank);
    }
    *n_rules = n;
    tsr_free(order);
    return TSR_OK;
}
