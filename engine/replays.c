#include "engine/replays.h"

#include "base/alloc.h"

enum {
    MOST_RECORDINGS = 64
};

/* A kind of step that has been met. */
typedef struct kind {
    int64_t n_rows; /* 0: none */
    int64_t longest;
    int64_t met_at;
    tsr_recording *recording; /* NULL: met once */
} kind;

struct tsr_replays {
    tsr_decoder *decoder;
    tsr_decoder_parts parts;
    bool can; /* the device, and where ranks meet */
    int64_t n_steps;
    kind kinds[MOST_RECORDINGS];
};

tsr_status tsr_replays_create(tsr_replays **out, tsr_decoder *decoder,
                              const tsr_decoder_parts *parts)
{
    tsr_replays *r = tsr_alloc(1, sizeof(*r));

    if (r == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for recordings of steps");
    }
    r->decoder = decoder;
    r->parts = *parts;
    r->can = !parts->no_graphs && tsr_comm_is_queued(parts->comm); // else the host stages sums
    *out = r;
    return TSR_OK;
}

void tsr_replays_destroy(tsr_replays *r)
{
    if (r == NULL) {
        return;
    }
    for (int i = 0; i < MOST_RECORDINGS; i++) {
        tsr_device_forget(r->parts.dev, r->kinds[i].recording);
    }
    tsr_free(r);
}

int64_t tsr_replays_rung(int64_t longest, int64_t context)
{
    int64_t rung = TSR_ATTENTION_RUN;

    while (rung < longest) {
        rung *= 2;
    }
    return rung < context ? rung : context;
}

/* The entry of a kind; a new one takes the place of that which has not been met for longest. */
static kind *entry_of(tsr_replays *r, int64_t n_rows, int64_t longest, bool *is_new)
{
    kind *oldest = &r->kinds[0];

    *is_new = false;
    for (int i = 0; i < MOST_RECORDINGS; i++) {
        kind *k = &r->kinds[i];

        if (k->n_rows == n_rows && k->longest == longest) {
            return k;
        }
        if (k->met_at < oldest->met_at) {
            oldest = k;
        }
    }
    tsr_device_forget(r->parts.dev, oldest->recording);
    *oldest = (kind){.n_rows = n_rows, .longest = longest};
    *is_new = true;
    return oldest;
}

static tsr_status record(tsr_replays *r, kind *k, tsr_tensor tokens, tsr_tensor positions,
                         const tsr_batch *batch, const tsr_decoder_spans *spans)
{
    tsr_batch longest = *batch;
    tsr_recording *ended = NULL;
    tsr_status st;

    longest.longest = k->longest;
    TSR_TRY(tsr_device_record_begin(r->parts.dev));
    st = tsr_decoder_forward(r->decoder, tokens, positions, &longest, spans);
    if (st != TSR_OK) {
        (void)!tsr_device_record_end(r->parts.dev, &ended);
        tsr_device_forget(r->parts.dev, ended);
        return st;
    }
    return tsr_device_record_end(r->parts.dev, &k->recording);
}

tsr_status tsr_replays_forward(tsr_replays *r, tsr_tensor tokens, tsr_tensor positions,
                               const tsr_batch *batch, const tsr_decoder_spans *spans)
{
    bool is_new;
    kind *k;

    if (!r->can || batch->n_seqs != tokens.n_cols ||
        !tsr_decoder_is_queued(r->decoder, tokens.n_cols)) {
        return tsr_decoder_forward(r->decoder, tokens, positions, batch, spans);
    }
    k = entry_of(r, tokens.n_cols, tsr_replays_rung(batch->longest, r->parts.context), &is_new);
    k->met_at = ++r->n_steps;
    if (is_new) {
        return tsr_decoder_forward(r->decoder, tokens, positions, batch, spans);
    }
    if (k->recording == NULL) {
        TSR_TRY(record(r, k, tokens, positions, batch, spans));
    }
    return tsr_device_replay(r->parts.dev, k->recording);
}
