#include "engine/decoder.h"

#include "base/alloc.h"
#include "engine/decoder_room.h"

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* The widest input of any product here. */
static int64_t widest(const tsr_decoder_parts *p)
{
    const tsr_config *config = p->config;
    int64_t n_cols = larger(config->shape.dim, p->shard->ff.count);

    n_cols = larger(n_cols, p->shard->heads.count * tsr_shard_value_dim(&config->shape));
    n_cols = larger(n_cols, larger(p->shard->expert_ff.count, p->shard->shared_ff.count));
    return larger(n_cols, larger(config->q_low, config->kv_low));
}

static size_t scratch_bytes(const tsr_decoder_parts *parts, tsr_device_kind kind, int n_threads)
{
    const tsr_ops_limits limits = {
        .n_rows = larger(parts->max_rows, TSR_DECODER_HEAD_ROWS),
        .n_cols = widest(parts),
        .n_heads = (int)parts->shard->heads.count,
        .head_dim =
            (int)larger(tsr_config_key_dim(parts->config), tsr_config_value_dim(parts->config)),
        .context = parts->context,
        .n_seqs = parts->max_seqs,
        .n_expert_rows = tsr_decoder_expert_rows(parts),
    };

    return tsr_ops_scratch_bytes(kind, n_threads, &limits);
}

size_t tsr_decoder_measure(const tsr_decoder_parts *parts, tsr_device_kind kind, int n_threads)
{
    return tsr_decoder_room_bytes(parts) + scratch_bytes(parts, kind, n_threads);
}

tsr_status tsr_decoder_create(tsr_decoder **out, const tsr_decoder_parts *parts)
{
    const int n_threads = tsr_cpu_pool_n_threads(tsr_device_pool(parts->dev));
    tsr_decoder *decoder = tsr_alloc(1, sizeof(*decoder));
    tsr_status st = TSR_OK;

    if (decoder == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the decoder");
    }
    decoder->parts = *parts;
    decoder->experts_are_alike = tsr_decoder_experts_are_alike(parts);
    TSR_TRY_GOTO(st, fail, tsr_decoder_room_make(decoder));
    TSR_TRY_GOTO(st, fail,
                 tsr_device_reserve_scratch(
                     parts->dev, scratch_bytes(parts, tsr_device_kind_of(parts->dev), n_threads)));
    *out = decoder;
    return TSR_OK;

fail:
    tsr_decoder_destroy(decoder);
    return st;
}

void tsr_decoder_destroy(tsr_decoder *decoder)
{
    if (decoder != NULL) {
        tsr_decoder_room_clear(decoder);
        tsr_free(decoder);
    }
}

_Static_assert((int)TSR_COMM_MOST_PARTS <= (int)TSR_MAX_PARTS,
               "what a comm hands out, ops can add");

tsr_tensor tsr_decoder_own_part(const tsr_decoder *d, int64_t n_rows, int64_t n_cols)
{
    return tsr_tensor_of(tsr_comm_part(d->parts.comm), TSR_DTYPE_F64,
                         tsr_device_kind_of(d->parts.dev), n_rows, n_cols);
}

tsr_status tsr_decoder_meet(const tsr_decoder *d, int64_t n_rows, int64_t n_cols,
                            tsr_decoder_sum *sum)
{
    const double *parts[TSR_COMM_MOST_PARTS];

    TSR_TRY(tsr_comm_meet(d->parts.comm, (size_t)(n_rows * n_cols), parts, &sum->n_parts));
    for (int p = 0; p < sum->n_parts; p++) {
        sum->parts[p] = tsr_tensor_of((void *)(uintptr_t)parts[p], TSR_DTYPE_F64,
                                      tsr_device_kind_of(d->parts.dev), n_rows, n_cols);
    }
    return TSR_OK;
}

tsr_status tsr_decoder_norm(const tsr_decoder *d, tsr_tensor out, tsr_tensor x,
                            const tsr_norm *norm)
{
    const float eps = d->parts.config->norm_eps;

    return d->parts.config->norm == TSR_NORM_RMS
               ? tsr_rmsnorm(d->parts.dev, out, x, norm->weight, eps)
               : tsr_layernorm(d->parts.dev, out, x, norm->weight, norm->bias, eps);
}

/* out = norm(x), or x itself where the model has no such norm. */
static tsr_status norm_or_copy(const tsr_decoder *d, tsr_tensor out, tsr_tensor x,
                               const tsr_norm *norm)
{
    const int n_cols = (int)x.n_cols;

    if (norm->weight.data != NULL) {
        return tsr_decoder_norm(d, out, x, norm);
    }
    return out.data == x.data ? TSR_OK
                              : tsr_copy_heads(d->parts.dev, out, n_cols, 0, x, n_cols, 0, n_cols);
}

bool tsr_decoder_is_queued(const tsr_decoder *d, int64_t n_rows)
{
    const tsr_config *config = d->parts.config;

    return config->rope_switch == 0 && (config->shape.n_experts == 0 ||
                                        (d->experts_are_alike && n_rows <= TSR_DECODER_MIXED_ROWS));
}

tsr_codes tsr_decoder_codes(const tsr_decoder *d, tsr_codes codes, const tsr_product *products,
                            int n_products)
{
    return n_products > 0 && tsr_matmul_takes_codes(d->parts.dev, products, n_products,
                                                    codes.n_rows, d->parts.activations)
               ? codes
               : (tsr_codes){0};
}

tsr_status tsr_decoder_multiply(const tsr_decoder *d, const tsr_product *products, int n_products,
                                tsr_tensor x, tsr_codes codes)
{
    return tsr_decoder_codes(d, codes, products, n_products).data != NULL
               ? tsr_matmul_codes(d->parts.dev, products, n_products, codes)
               : tsr_matmul(d->parts.dev, products, n_products, x, d->parts.activations);
}

/* What is read next of x, as room->normed. */
typedef struct reading {
    const tsr_norm *norm; /* NULL: nothing is */
    tsr_codes codes;      /* absent: as it is */
} reading;

/* x += scale * norm(sum + bias), and then what is read next. */
static tsr_status join_plain(const tsr_decoder *d, const tsr_decoder_room *room,
                             const tsr_decoder_sum *sum, tsr_tensor bias, const tsr_norm *post,
                             reading next)
{
    const bool is_layernorm = d->parts.config->norm != TSR_NORM_RMS;
    const tsr_joining j = {
        .parts = sum->parts,
        .n_parts = sum->n_parts,
        .bias = bias,
        .post_weight = post->weight,
        .post_bias = post->bias,
        .scale = d->parts.config->residual_scale,
        .next_weight = next.norm != NULL ? next.norm->weight : (tsr_tensor){0},
        .next_bias = next.norm != NULL ? next.norm->bias : (tsr_tensor){0},
        .is_layernorm = is_layernorm,
        .eps = d->parts.config->norm_eps,
        .out = next.norm != NULL ? room->normed : (tsr_tensor){0},
        .codes = next.codes,
        .spare = room->joining,
    };

    return tsr_join(d->parts.dev, room->x, &j);
}

/* The ranks' parts have met: x += scale * norm(their sum + bias), or where norms stay
 * x = norm(x + scale * (their sum + bias)); then what is read next. */
static tsr_status join(const tsr_decoder *d, const tsr_decoder_room *room,
                       const tsr_decoder_sum *sum, tsr_tensor bias, const tsr_norm *post,
                       reading next)
{
    static const tsr_decoder_sum nothing;
    static const tsr_norm none;

    if (!d->parts.config->norms_stay) {
        return join_plain(d, room, sum, bias, post, next);
    }
    TSR_TRY(join_plain(d, room, sum, bias, &none, (reading){0}));
    TSR_TRY(norm_or_copy(d, room->x, room->x, post));
    if (next.norm == NULL) {
        return TSR_OK;
    }
    TSR_TRY(norm_or_copy(d, room->x, room->x, next.norm));
    return join_plain(d, room, &nothing, (tsr_tensor){0}, &none, (reading){&none, next.codes});
}

static tsr_status read_next(const tsr_decoder *d, const tsr_decoder_room *room, reading next)
{
    const tsr_decoder_sum nothing = {.n_parts = 0};
    const tsr_norm none = {0};

    return join(d, room, &nothing, (tsr_tensor){0}, &none, next);
}

/* The products that the feed-forward begins with, of [2]: 0 where there are experts. */
static int feed_first(const tsr_decoder *d, const tsr_decoder_room *room, int layer,
                      tsr_product *products)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];

    products[0] = (tsr_product){&w->up.weight, room->up, w->up.bias};
    products[1] = (tsr_product){&w->gate.weight, room->gate, w->gate.bias};
    return d->parts.config->layers[layer].experts           ? 0
           : tsr_config_has(d->parts.config, TSR_ROLE_GATE) ? 2
                                                            : 1;
}

static reading feed_forward_of(const tsr_decoder *d, const tsr_decoder_room *room, int layer)
{
    tsr_product products[2];

    return (reading){
        &d->parts.weights->layers[layer].ff_norm,
        tsr_decoder_codes(d, room->codes, products, feed_first(d, room, layer, products))};
}

/* What a layer reads first; of the layer behind the last one nothing. In parallel the feed-forward
 * may read the same. */
static reading attention_of(const tsr_decoder *d, const tsr_decoder_room *room, int layer)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];
    tsr_product products[3];
    reading r;

    if (layer == d->parts.config->n_layers) {
        return (reading){0};
    }
    r.norm = &w->attn_norm;
    r.codes = tsr_decoder_codes(d, room->codes, products,
                                tsr_decoder_attend_first(d, room, layer, products));
    if (r.codes.data == NULL && d->parts.config->parallel && w->ff_norm.weight.data == NULL) {
        r.codes = feed_forward_of(d, room, layer).codes;
    }
    return r;
}

/* This rank's part of what the feed-forward gives for room->normed. */
static tsr_status feed_forward(tsr_decoder *d, const tsr_decoder_room *room, int layer)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];
    const tsr_config *config = d->parts.config;
    tsr_product in[2];
    const int n_in = feed_first(d, room, layer, in);
    const tsr_product out = {.weight = &w->down.weight,
                             .out = tsr_decoder_own_part(d, room->x.n_rows, config->shape.dim)};
    const tsr_codes codes = tsr_decoder_codes(d, room->up_codes, &out, 1);
    const tsr_tensor gate = n_in == 2 ? room->gate : room->up;
    const tsr_tensor up = n_in == 2 ? room->up : (tsr_tensor){0};

    TSR_TRY(tsr_decoder_multiply(d, in, n_in, room->normed, room->codes));
    TSR_TRY(
        codes.data != NULL
            ? tsr_activate_codes(d->parts.dev, codes, room->up, gate, up, config->activation)
            : tsr_activate(d->parts.dev, room->up, gate, up, (tsr_tensor){0}, config->activation));
    return tsr_decoder_multiply(d, &out, 1, room->up, room->up_codes);
}

/*
 * One layer, in place on room->x [n_rows, dim], of which room->normed is what it reads first. Every
 * rank runs it, each with its own heads and its own columns of the feed-forward, or its own
 * experts; the two calls of tsr_decoder_meet() are where they meet.
 */
static tsr_status run_layer(tsr_decoder *d, const tsr_decoder_room *room, int layer,
                            const tsr_batch *batch)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];
    const tsr_config *config = d->parts.config;
    const int64_t n_rows = room->x.n_rows;
    const int64_t dim = config->shape.dim;
    const reading feed = feed_forward_of(d, room, layer);
    tsr_decoder_sum sum;

    TSR_TRY(tsr_decoder_attend(d, room, layer, batch));
    TSR_TRY(tsr_decoder_meet(d, n_rows, dim, &sum));
    // In parallel: the feed-forward's input is taken before attention has changed x.
    if (config->parallel && w->ff_norm.weight.data != NULL) {
        TSR_TRY(read_next(d, room, feed));
    }
    TSR_TRY(
        join(d, room, &sum, w->o.bias, &w->attn_post_norm, config->parallel ? (reading){0} : feed));
    TSR_TRY(config->layers[layer].experts ? tsr_decoder_mix(d, room, layer)
                                          : feed_forward(d, room, layer));
    TSR_TRY(tsr_decoder_meet(d, n_rows, dim, &sum));
    return join(d, room, &sum, w->down.bias, &w->ff_post_norm, attention_of(d, room, layer + 1));
}

/* The rows of the learned positions, put into this rank's part or added to it. */
static tsr_status embed_positions(const tsr_decoder *d, tsr_tensor own, tsr_tensor positions,
                                  bool add)
{
    const tsr_decoder_parts *p = &d->parts;

    return tsr_embed(p->dev, own, positions, &p->weights->positions.weight,
                     p->shard->positions.first - p->config->position_offset, add);
}

/* From the embedding's width to the layers'; positions, where they are learned, have the latter. */
static tsr_status widen(tsr_decoder *d, const tsr_decoder_room *room, tsr_tensor positions)
{
    const tsr_decoder_parts *p = &d->parts;
    const tsr_tensor own = tsr_decoder_own_part(d, room->x.n_rows, p->config->shape.dim);
    const tsr_product up = {&p->weights->embed_up.weight, room->x, p->weights->embed_up.bias};
    tsr_decoder_sum sum;

    TSR_TRY(tsr_matmul(p->dev, &up, 1, room->embedded, p->activations));
    if (!tsr_config_has(p->config, TSR_ROLE_POSITIONS)) {
        return TSR_OK;
    }
    TSR_TRY(embed_positions(d, own, positions, false));
    TSR_TRY(tsr_decoder_meet(d, own.n_rows, own.n_cols, &sum));
    return tsr_add_sums(p->dev, room->x, sum.parts, sum.n_parts, (tsr_tensor){0});
}

/* Each rank puts in the rows of its part of the tables and zeros for the rest. */
static tsr_status embed(tsr_decoder *d, const tsr_decoder_room *room, tsr_tensor tokens,
                        tsr_tensor positions)
{
    const tsr_decoder_parts *p = &d->parts;
    const tsr_config *config = p->config;
    const tsr_weights *w = p->weights;
    const bool narrow = tsr_config_has(config, TSR_ROLE_EMBED_UP);
    const tsr_tensor own = tsr_decoder_own_part(d, tokens.n_cols, config->embed_dim);
    tsr_decoder_sum sum;

    TSR_TRY(tsr_embed(p->dev, own, tokens, &w->embed.weight, p->shard->vocab.first, false));
    if (tsr_config_has(config, TSR_ROLE_POSITIONS) && !narrow) {
        TSR_TRY(embed_positions(d, own, positions, true));
    }
    TSR_TRY(tsr_decoder_meet(d, own.n_rows, own.n_cols, &sum));
    TSR_TRY(tsr_narrow(p->dev, narrow ? room->embedded : room->x, sum.parts, sum.n_parts,
                       (tsr_tensor){0}));
    TSR_TRY(narrow ? widen(d, room, positions) : TSR_OK);
    if (config->embed_scale != 1) {
        TSR_TRY(tsr_scale(p->dev, room->x, config->embed_scale, 0));
    }
    return norm_or_copy(d, room->x, room->x, &w->embed_norm);
}

/* The turns of every row, for each rope. Where long sequences turn otherwise than short ones, their
 * rows are taken by themselves. */
static tsr_status turn(const tsr_decoder *d, const tsr_decoder_room *room, tsr_tensor positions,
                       const tsr_decoder_spans *spans)
{
    const tsr_config *config = d->parts.config;

    for (int i = 0; i < (config->rope_switch > 0 ? 1 : config->n_ropes); i++) {
        TSR_TRY(tsr_rope_angles(d->parts.dev, room->angles[i], positions, room->frequencies[i],
                                config->ropes[i].magnitude));
    }
    for (int s = 0; config->rope_switch > 0 && s < spans->n_seqs; s++) {
        const int32_t first = spans->row_start[s];
        const int64_t n = spans->row_start[s + 1] - first;
        tsr_tensor rows = tsr_tensor_rows(room->angles[0], n);

        if (spans->is_long[s]) {
            rows.data = (float *)rows.data + first * rows.stride;
            TSR_TRY(tsr_rope_angles(d->parts.dev, rows, tsr_decoder_columns(positions, first, n),
                                    room->frequencies[1], config->ropes[1].magnitude));
        }
    }
    return TSR_OK;
}

tsr_status tsr_decoder_forward(tsr_decoder *d, tsr_tensor tokens, tsr_tensor positions,
                               const tsr_batch *batch, const tsr_decoder_spans *spans)
{
    const tsr_decoder_room room = tsr_decoder_room_rows(d, tokens.n_cols);

    TSR_TRY(embed(d, &room, tokens, positions));
    TSR_TRY(turn(d, &room, positions, spans));
    TSR_TRY(read_next(d, &room, attention_of(d, &room, 0)));
    for (int layer = 0; layer < d->parts.config->n_layers; layer++) {
        TSR_TRY(run_layer(d, &room, layer, batch));
    }
    return TSR_OK;
}

tsr_status tsr_decoder_logits(tsr_decoder *d, tsr_tensor *logits, tsr_tensor rows)
{
    const tsr_decoder_parts *p = &d->parts;
    const tsr_config *config = p->config;
    const tsr_tensor wanted = tsr_tensor_rows(d->room.wanted, rows.n_cols);
    const tsr_tensor narrow = tsr_tensor_rows(d->room.wanted_narrow, rows.n_cols);
    const bool narrows = tsr_config_has(config, TSR_ROLE_HEAD_DOWN);
    const tsr_product down = {&p->weights->head_down.weight, narrow, p->weights->head_down.bias};
    const tsr_product head = {.weight = &p->weights->head.weight,
                              .out = tsr_tensor_rows(d->room.logits, rows.n_cols),
                              .bias = p->weights->head.bias};

    // The final norm is taken of the wanted rows only, the residual stream stays as it is.
    TSR_TRY(tsr_gather_rows(p->dev, wanted, d->room.x, rows));
    TSR_TRY(norm_or_copy(d, wanted, wanted, &p->weights->final_norm));
    TSR_TRY(narrows ? tsr_matmul(p->dev, &down, 1, wanted, p->activations) : TSR_OK);
    TSR_TRY(tsr_matmul(p->dev, &head, 1, narrows ? narrow : wanted, p->activations));
    if (config->logit_scale != 1 || config->logit_cap > 0) {
        TSR_TRY(tsr_scale(p->dev, head.out, config->logit_scale, config->logit_cap));
    }
    *logits = head.out;
    return TSR_OK;
}

tsr_status tsr_decoder_hidden(tsr_decoder *d, tsr_tensor *hidden, int64_t first, int64_t n)
{
    const tsr_tensor normed = tsr_tensor_rows(d->room.wanted, n);
    tsr_tensor rows = tsr_tensor_rows(d->room.x, n);

    rows.data = (float *)rows.data + first * rows.stride;
    TSR_TRY(norm_or_copy(d, normed, rows, &d->parts.weights->final_norm));
    *hidden = normed;
    return TSR_OK;
}
