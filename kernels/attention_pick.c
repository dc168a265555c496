#include "kernels/attention_tile.h"

#include <string.h>

#include "kernels/kv_code.h"

enum {
    LINE_BYTES = 64
};

/* Where tokens lie. */
typedef struct places {
    const tsr_attention_call *c;
    const tsr_kv_layout *layout;
    size_t offset; // of the head's keys in a block
    size_t cell_bytes, key_row_bytes, value_row_bytes;
    const char *blocks[TSR_ATTENTION_RUN]; // at the head's keys
    uint8_t at[TSR_ATTENTION_RUN];         // which token of its block
} places;

static void prepare(places *p, const tsr_attention_call *c, const tsr_attention_rows *t)
{
    const tsr_kv_layout *layout = c->kv->layout;
    const size_t bits = (size_t)tsr_kv_type_bits(layout->type);

    p->c = c;
    p->layout = layout;
    p->offset = tsr_kv_layout_offset(layout, c->kv->layer, t->kv_head);
    p->cell_bytes = bits < 8 ? 1 : bits / 8;
    p->key_row_bytes = (size_t)tsr_kv_layout_key_cells(layout) * p->cell_bytes;
    p->value_row_bytes = (size_t)c->padded_dim * bits / 8;
}

/* Finds tokens [from, to) of a run. */
static void find_keys(places *p, const char **rows, const tsr_attention_rows *t,
                      const tsr_attention_span *span, int from, int to)
{
    const tsr_kv_view *kv = p->c->kv;
    const int64_t block_tokens = p->layout->block_tokens;
    const int shift = __builtin_ctz((unsigned)block_tokens);

    for (int i = from; i < to; i++) {
        const int64_t position = span->first + i * span->step;
        const size_t at = (size_t)(position & (block_tokens - 1));

        p->at[i] = (uint8_t)at;
        p->blocks[i] = tsr_attention_tile_block(kv, t->in.slots[position >> shift]) + p->offset;
        rows[i] = p->blocks[i] + at * p->key_row_bytes;
    }
}

static void ask_for(const char *from, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i += LINE_BYTES) {
        __builtin_prefetch(from + i, 0, 2);
    }
}

/* Values lie where they are kept. Those of a latent layout, in the keys, are copied, for a row to
 * be as long as the others. */
static void find_values(const places *p, const char **rows, const char *const *key_rows,
                        const tsr_attention_bench *b, int from, int to)
{
    const size_t bits = (size_t)tsr_kv_type_bits(p->layout->type);
    const size_t before = tsr_kv_layout_key_bytes(p->layout);
    const size_t n_bytes = ((size_t)p->layout->value_dim * bits + 7) / 8;

    for (int i = from; i < to; i++) {
        if (p->layout->latent) {
            char *copy = b->picked_values + (size_t)i * p->value_row_bytes;

            memcpy(copy, key_rows[i], n_bytes);
            rows[i] = copy;
        } else {
            rows[i] = p->blocks[i] + before + p->at[i] * p->value_row_bytes;
        }
    }
}

static uint16_t scale_at(const char *codes, size_t code_bytes, int at)
{
    uint16_t scale;

    memcpy(&scale, codes + code_bytes + (size_t)at * sizeof(scale), sizeof(scale));
    return scale;
}

/* What the codes of 16 tokens stand for. */
static void pick_scales(const places *p, const tsr_attention_bench *b, int g, const uint8_t *tokens)
{
    const tsr_kv_layout *layout = p->layout;
    const size_t key_codes = tsr_kv_layout_key_codes(layout);
    const size_t before = tsr_kv_layout_key_bytes(layout);
    const size_t value_codes = tsr_kv_layout_value_codes(layout);
    float *value_scales = b->scales + TSR_ATTENTION_RUN;
    float *centred = value_scales + TSR_ATTENTION_RUN;
    uint16_t of_keys[16];
    uint16_t of_values[16];

    for (int i = 0; i < 16; i++) {
        const char *keys = p->blocks[tokens[i]];
        const int at = p->at[tokens[i]];

        of_keys[i] = scale_at(keys, key_codes, at);
        of_values[i] = layout->latent ? of_keys[i] : scale_at(keys + before, value_codes, at);
    }
    p->c->loops->widen_scales(b->scales + g * 16, centred + g * 16, of_keys);
    p->c->loops->widen_scales(value_scales + g * 16, NULL, of_values);
}

/* The means of their groups, each turned to its token. */
static void pick_means(const places *p, const tsr_attention_bench *b, int g, const uint8_t *tokens)
{
    const tsr_kv_drift *drift = p->c->kv->drift;
    const int padded_pairs = tsr_attention_pairs(p->layout->key_dim);
    int8_t codes[2 * TSR_KV_DRIFT_MOST_PAIRS * 16];
    const char *means[16];
    float scales[16];
    uint8_t within[16];

    for (int i = 0; i < 16; i++) {
        const int at = p->at[tokens[i]];

        means[i] =
            (const char *)tsr_kv_code_mean_at(&scales[i], p->blocks[tokens[i]], p->layout, at);
        within[i] = (uint8_t)(at % TSR_KV_LAYOUT_GROUP);
    }
    p->c->loops->set_upright(codes, means, 2 * drift->n_pairs, 1);
    p->c->loops->turn_means(b->means + (int64_t)g * 2 * padded_pairs * 16, codes, scales, within,
                            drift);
}

void tsr_attention_pick(tsr_attention_run *run, const tsr_attention_call *c,
                        const tsr_attention_rows *t, const tsr_attention_span *span, int from,
                        int to, const tsr_attention_bench *b)
{
    const char **key_rows = b->rows;
    const char **value_rows = b->rows + TSR_ATTENTION_RUN;
    places p;

    prepare(&p, c, t);
    find_keys(&p, key_rows, t, span, from, to);
    find_values(&p, value_rows, key_rows, b, from, to);
    *run = (tsr_attention_run){.type = p.layout->type,
                               .key_dim = p.layout->key_dim,
                               .padded_dim = c->padded_dim,
                               .key_stride = 16,
                               .value_rows = value_rows};
    if (tsr_kv_type_is_coded(run->type)) {
        run->key_scales = b->scales;
        run->value_scales = b->scales + TSR_ATTENTION_RUN;
        run->centred = b->scales + 2 * TSR_ATTENTION_RUN;
    }
    run->means = tsr_kv_layout_is_centred(p.layout) ? b->means : NULL;
    for (int g = from / 16; g * 16 < to; g++) {
        char *keys = b->picked_keys + (size_t)g * 16 * p.key_row_bytes;
        const char *rows[16];
        uint8_t tokens[16]; // beside the ends, where nobody looks, what lies there is some token's

        for (int i = 0; i < 16; i++) {
            const int k = g * 16 + i;

            tokens[i] = (uint8_t)(k < from ? from : k < to ? k : to - 1);
            rows[i] = key_rows[tokens[i]];
            ask_for(value_rows[tokens[i]], p.value_row_bytes);
        }
        c->loops->set_upright(keys, rows, tsr_kv_layout_key_cells(p.layout), (int)p.cell_bytes);
        run->keys[g] = keys;
        if (run->key_scales != NULL) {
            pick_scales(&p, b, g, tokens);
        }
        if (run->means != NULL) {
            pick_means(&p, b, g, tokens);
        }
    }
}

void tsr_attention_pick_next(tsr_attention_run *run, const tsr_attention_call *c,
                             const tsr_attention_rows *t, const tsr_attention_span *span, int from,
                             int to, const tsr_attention_bench *b)
{
    const char **rows = b->rows + 2 * TSR_ATTENTION_RUN;
    places p;

    prepare(&p, c, t);
    memset(rows, 0, TSR_ATTENTION_RUN * sizeof(*rows));
    find_keys(&p, rows, t, span, from, to);
    *run = (tsr_attention_run){.type = p.layout->type, .key_rows = rows};
}
