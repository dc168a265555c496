#include "engine/text/unigram.h"

#include <math.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/lexicon.h"

enum {
    MOST_PIECE_BYTES = 1024 // a longer one would make a hostile text take for ever
};

static const double UNKNOWN_PENALTY =
    10.0; // as in github.com/google/sentencepiece, unigram_model.cc

struct tsr_unigram {
    tsr_lexicon *lexicon; // owned, as the scores
    double *scores;       // [n_scores]
    double unknown_score;
    int32_t unknown;
    int32_t byte_ids[256]; // -1: none
};

/* The best way to an offset of the piece. */
typedef struct tsr_unigram_node {
    double score;
    int32_t id;    // of the last token; -1: unknown
    int32_t start; // of the last token; -1: no way leads here
} node;

static tsr_status copy_scores(tsr_unigram *unigram, const double *scores, int32_t n_scores)
{
    double least = INFINITY;

    for (int32_t id = 0; id < n_scores; id++) {
        if (!isfinite(scores[id])) {
            return tsr_fail(TSR_ERR_FORMAT, "the score of token %d is no number", id);
        }
        unigram->scores[id] = scores[id];
        least = scores[id] < least ? scores[id] : least;
    }
    unigram->unknown_score = least - UNKNOWN_PENALTY;
    return TSR_OK;
}

static tsr_status fill_lexicon(tsr_unigram *unigram, const tsr_vocab *vocab, int32_t n_scores)
{
    tsr_lexicon_entry *entries = tsr_alloc((size_t)n_scores, sizeof(*entries));
    tsr_status st;
    int n = 0;

    if (entries == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "scores of %d tokens", n_scores);
    }
    for (int32_t id = 0; id < n_scores; id++) {
        const tsr_text_view text = tsr_vocab_text(vocab, id);

        if (text.n_bytes > 0 && text.n_bytes <= MOST_PIECE_BYTES &&
            !tsr_vocab_is_control(vocab, id)) {
            entries[n++] = (tsr_lexicon_entry){.text = text, .id = id};
        }
    }
    st = tsr_lexicon_create(&unigram->lexicon, entries, n);
    tsr_free(entries);
    return st;
}

tsr_status tsr_unigram_create(tsr_unigram **out, const tsr_vocab *vocab, const double *scores,
                              int32_t n_scores, int32_t unknown, bool falls_back)
{
    tsr_unigram *unigram = tsr_alloc(1, sizeof(*unigram));
    tsr_status st = TSR_OK;

    if (unigram == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "scores record");
    }
    unigram->unknown = unknown;
    unigram->scores = tsr_alloc((size_t)n_scores, sizeof(*unigram->scores));
    if (unigram->scores == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "scores of %d tokens", n_scores);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, copy_scores(unigram, scores, n_scores));
    TSR_TRY_GOTO(st, fail, fill_lexicon(unigram, vocab, n_scores));
    for (int byte = 0; byte < 256; byte++) {
        unigram->byte_ids[byte] = falls_back ? tsr_vocab_find_byte(vocab, (uint8_t)byte) : -1;
    }
    *out = unigram;
    return TSR_OK;

fail:
    tsr_unigram_destroy(unigram);
    return st;
}

void tsr_unigram_destroy(tsr_unigram *unigram)
{
    if (unigram == NULL) {
        return;
    }
    tsr_lexicon_destroy(unigram->lexicon);
    tsr_free(unigram->scores);
    tsr_free(unigram);
}

void tsr_unigram_work_clear(tsr_unigram_work *work)
{
    tsr_free(work->nodes);
    *work = (tsr_unigram_work){0};
}

static tsr_status make_room(tsr_unigram_work *work, size_t n_nodes)
{
    size_t wanted = work->capacity < 256 ? 256 : work->capacity;

    if (n_nodes <= work->capacity) {
        return TSR_OK;
    }
    while (wanted < n_nodes) {
        wanted *= 2;
    }
    tsr_unigram_work_clear(work);
    work->nodes = tsr_alloc(wanted, sizeof(*work->nodes));
    if (work->nodes == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no room to tokenize a piece of %zu bytes", n_nodes - 1);
    }
    work->capacity = wanted;
    return TSR_OK;
}

static void reach(node *at, double score, int32_t id, size_t start)
{
    if (at->start < 0 || score > at->score) {
        *at = (node){score, id, (int32_t)start};
    }
}

static void find_ways(const tsr_unigram *unigram, node *nodes, const char *piece, size_t n_bytes)
{
    for (size_t i = 0; i <= n_bytes; i++) {
        nodes[i] = (node){.start = -1};
    }
    for (size_t at = 0; at < n_bytes;) {
        const int measured = tsr_utf8_measure(piece + at, n_bytes - at);
        const size_t n_char = measured > 0 ? (size_t)measured : 1;
        const double here = nodes[at].score;
        const tsr_lexicon_entry *entry;
        tsr_lexicon_cursor cursor = {0};
        bool is_token = false;

        while ((entry = tsr_lexicon_next(unigram->lexicon, &cursor, piece + at, n_bytes - at)) !=
               NULL) {
            reach(&nodes[at + entry->text.n_bytes], here + unigram->scores[entry->id], entry->id,
                  at);
            is_token |= entry->text.n_bytes == n_char;
        }
        if (!is_token) {
            reach(&nodes[at + n_char], here + unigram->unknown_score, -1, at);
        }
        at += n_char;
    }
}

/* The way back, turned round: each node on it then has in `start` where the next one is. */
static void turn_round(node *nodes, size_t n_bytes)
{
    size_t later = n_bytes;
    int32_t later_id = -1;

    for (size_t at = n_bytes; at > 0;) {
        const node here = nodes[at];

        nodes[at].start = (int32_t)later;
        nodes[at].id = later_id;
        later = at;
        later_id = here.id;
        at = (size_t)here.start;
    }
    nodes[0].start = (int32_t)later;
    nodes[0].id = later_id;
}

static tsr_status append_unknown(const tsr_unigram *unigram, tsr_ids *out, const char *text,
                                 size_t n_bytes)
{
    bool falls_back = true;

    for (size_t i = 0; i < n_bytes && falls_back; i++) {
        falls_back = unigram->byte_ids[(uint8_t)text[i]] >= 0;
    }
    if (!falls_back) {
        return unigram->unknown >= 0 ? tsr_ids_append(out, unigram->unknown) : TSR_OK;
    }
    for (size_t i = 0; i < n_bytes; i++) {
        TSR_TRY(tsr_ids_append(out, unigram->byte_ids[(uint8_t)text[i]]));
    }
    return TSR_OK;
}

tsr_status tsr_unigram_split(const tsr_unigram *unigram, tsr_unigram_work *work, tsr_ids *out,
                             const char *piece, size_t n_bytes)
{
    const node *nodes;

    TSR_TRY(make_room(work, n_bytes + 1));
    find_ways(unigram, work->nodes, piece, n_bytes);
    turn_round(work->nodes, n_bytes);
    nodes = work->nodes;
    for (size_t at = 0; at < n_bytes;) {
        size_t end = (size_t)nodes[at].start;

        if (nodes[at].id >= 0) {
            TSR_TRY(tsr_ids_append(out, nodes[at].id));
        } else {
            while (end < n_bytes && nodes[end].id < 0) {
                end = (size_t)nodes[end].start;
            }
            TSR_TRY(append_unknown(unigram, out, piece + at, end - at));
        }
        at = end;
    }
    return TSR_OK;
}
