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
    TSR_TRY_GOTO(st, fail, tsr_decoder_room_make(decoder));
    TSR_TRY_GOTO(st, fail,
                 tsr_device_reserve_scratch(
                     parts->dev, scratch_bytes(parts, tsr_device_kind_of(parts->dev), n_threads)));
    TSR_TRY_GOTO(st, fail, tsr_decoder_beside_create(&decoder->beside, parts));
    *out = decoder;
    return TSR_OK;

fail:
    tsr_decoder_destroy(decoder);
    return st;
}

void tsr_decoder_destroy(tsr_decoder *decoder)
{
    if (decoder != NULL) {
        tsr_decoder_beside_destroy(decoder->beside);
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

/* room->normed = norm(x), or x itself where the layer has no such norm. */
static tsr_status norm_input(const tsr_decoder *d, const tsr_decoder_room *room,
                             const tsr_norm *norm)
{
    return norm->weight.data != NULL
               ? tsr_decoder_norm(d, room->normed, room->x, norm)
               : tsr_copy_heads(d->parts.dev, room->normed, (int)room->x.n_cols, 0, room->x,
                                (int)room->x.n_cols, 0, (int)room->x.n_cols);
}

/* The ranks' parts have met: x += scale * norm(their sum + bias). */
static tsr_status join(const tsr_decoder *d, const tsr_decoder_room *room,
                       const tsr_decoder_sum *sum, tsr_tensor bias, const tsr_norm *norm)
{
    const float scale = d->parts.config->residual_scale;
    tsr_device *dev = d->parts.dev;

    if (norm->weight.data == NULL && scale == 1) {
        return tsr_add_sums(dev, room->x, sum->parts, sum->n_parts, bias);
    }
    TSR_TRY(tsr_narrow(dev, room->joining, sum->parts, sum->n_parts, bias));
    if (norm->weight.data != NULL) {
        TSR_TRY(tsr_decoder_norm(d, room->joining, room->joining, norm));
    }
    return tsr_add_scaled(dev, room->x, room->joining, scale);
}

/* This rank's part of what the feed-forward gives for room->normed. */
static tsr_status feed_forward(tsr_decoder *d, const tsr_decoder_room *room, int layer)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];
    const tsr_config *config = d->parts.config;
    const bool gated = tsr_config_has(config, TSR_ROLE_GATE);
    const tsr_product in[] = {{&w->up.weight, room->up, w->up.bias},
                              {&w->gate.weight, room->gate, w->gate.bias}};
    const tsr_product out = {.weight = &w->down.weight,
                             .out = tsr_decoder_own_part(d, room->x.n_rows, config->shape.dim)};

    TSR_TRY(tsr_matmul(d->parts.dev, in, gated ? 2 : 1, room->normed, d->parts.activations));
    TSR_TRY(tsr_activate(d->parts.dev, room->up, gated ? room->gate : room->up,
                         gated ? room->up : (tsr_tensor){0}, (tsr_tensor){0}, config->activation));
    return tsr_matmul(d->parts.dev, &out, 1, room->up, d->parts.activations);
}

/*
 * One layer, in place on room->x [n_rows, dim]. Every rank runs it, each with its own heads and its
 * own columns of the feed-forward, or its own experts; the two calls of tsr_decoder_meet() are
 * where they meet.
 */
static tsr_status run_layer(tsr_decoder *d, const tsr_decoder_room *room, int layer,
                            const tsr_batch *batch)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];
    const tsr_config *config = d->parts.config;
    const int64_t n_rows = room->x.n_rows;
    const int64_t dim = config->shape.dim;
    tsr_decoder_sum sum;

    TSR_TRY(norm_input(d, room, &w->attn_norm));
    TSR_TRY(tsr_decoder_attend(d, room, layer, batch));
    TSR_TRY(tsr_decoder_meet(d, n_rows, dim, &sum));
    // In parallel: the feed-forward's input is taken before attention has changed x.
    if (config->parallel && w->ff_norm.weight.data != NULL) {
        TSR_TRY(norm_input(d, room, &w->ff_norm));
    }
    TSR_TRY(join(d, room, &sum, w->o.bias, &w->attn_post_norm));
    if (!config->parallel) {
        TSR_TRY(norm_input(d, room, &w->ff_norm));
    }
    TSR_TRY(config->layers[layer].experts ? tsr_decoder_mix(d, room, layer)
                                          : feed_forward(d, room, layer));
    TSR_TRY(tsr_decoder_meet(d, n_rows, dim, &sum));
    return join(d, room, &sum, w->down.bias, &w->ff_post_norm);
}

/* Each rank puts in the rows of its part of the tables and zeros for the rest. */
static tsr_status embed(tsr_decoder *d, const tsr_decoder_room *room, tsr_tensor tokens,
                        tsr_tensor positions)
{
    const tsr_decoder_parts *p = &d->parts;
    const tsr_config *config = p->config;
    const tsr_weights *w = p->weights;
    const int64_t n_rows = tokens.n_cols;
    const tsr_tensor own = tsr_decoder_own_part(d, n_rows, config->shape.dim);
    tsr_decoder_sum sum;

    TSR_TRY(tsr_embed(p->dev, own, tokens, &w->embed.weight, p->shard->vocab.first, false));
    if (tsr_config_has(config, TSR_ROLE_POSITIONS)) {
        TSR_TRY(tsr_embed(p->dev, own, positions, &w->positions.weight,
                          p->shard->positions.first - config->position_offset, true));
    }
    TSR_TRY(tsr_decoder_meet(d, n_rows, config->shape.dim, &sum));
    TSR_TRY(tsr_narrow(p->dev, room->x, sum.parts, sum.n_parts, (tsr_tensor){0}));
    if (config->embed_scale != 1) {
        TSR_TRY(tsr_scale(p->dev, room->x, config->embed_scale, 0));
    }
    return w->embed_norm.weight.data != NULL ? tsr_decoder_norm(d, room->x, room->x, &w->embed_norm)
                                             : TSR_OK;
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

tsr_status tsr_decoder_look(tsr_decoder *d, const tsr_decoder_spans *spans)
{
    return d->beside == NULL ? TSR_OK : tsr_decoder_beside_look(d->beside, spans);
}

bool tsr_decoder_is_shared(const tsr_decoder *d)
{
    return d->beside != NULL && tsr_decoder_beside_is_needed(d->beside);
}

tsr_status tsr_decoder_forward(tsr_decoder *d, tsr_tensor tokens, tsr_tensor positions,
                               const tsr_batch *batch, const tsr_decoder_spans *spans)
{
    const tsr_decoder_room room = tsr_decoder_room_rows(d, tokens.n_cols);

    TSR_TRY(embed(d, &room, tokens, positions));
    TSR_TRY(turn(d, &room, positions, spans));
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
    const tsr_product head = {.weight = &p->weights->head.weight,
                              .out = tsr_tensor_rows(d->room.logits, rows.n_cols),
                              .bias = p->weights->head.bias};

    // The final norm is taken of the wanted rows only, the residual stream stays as it is.
    TSR_TRY(tsr_gather_rows(p->dev, wanted, d->room.x, rows));
    TSR_TRY(tsr_decoder_norm(d, wanted, wanted, &p->weights->final_norm));
    TSR_TRY(tsr_matmul(p->dev, &head, 1, wanted, p->activations));
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
    TSR_TRY(tsr_decoder_norm(d, normed, rows, &d->parts.weights->final_norm));
    *hidden = normed;
    return TSR_OK;
}
