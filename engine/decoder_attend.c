#include "engine/decoder_room.h"

/* Heads of a tensor [n, heads * head_dim] as rows of their own. */
static tsr_tensor heads_as_rows(tsr_tensor t, int head_dim)
{
    return tsr_tensor_of(t.data, t.dtype, t.on, t.n_rows * (t.n_cols / head_dim), head_dim);
}

static tsr_status norm_heads(const tsr_decoder *d, tsr_tensor x, const tsr_norm *norm)
{
    const tsr_tensor rows = heads_as_rows(x, d->parts.config->shape.head_dim);

    return norm->weight.data == NULL || x.n_cols == 0 ? TSR_OK
                                                      : tsr_decoder_norm(d, rows, rows, norm);
}

/* One of two columns of sums, as a tensor of one. */
static tsr_tensor column(tsr_tensor sums, int i)
{
    return tsr_decoder_columns(sums, i, 1);
}

/*
 * Norms over all heads of all ranks: the ranks' sums of squares meet. A KV head that several ranks
 * keep is counted by one of them; on a rank those that it counts are the last of its own.
 */
static tsr_status norm_wide(const tsr_decoder *d, const tsr_decoder_room *room,
                            const tsr_layer_weights *w, bool with_keys)
{
    const tsr_config *config = d->parts.config;
    const tsr_shard *shard = d->parts.shard;
    const tsr_shard_shape *shape = &config->shape;
    const int64_t n_rows = room->q.n_rows;
    const tsr_tensor own = tsr_decoder_own_part(d, n_rows, 2);
    tsr_tensor keys = room->k;
    int64_t skipped = 0;
    tsr_decoder_sum sum;
    tsr_tensor of_keys[TSR_MAX_PARTS];

    while (skipped < shard->kv_heads.count &&
           !tsr_shard_counts_kv_head(shape, shard, shard->kv_heads.first + skipped)) {
        skipped++;
    }
    keys = tsr_decoder_columns(keys, skipped * shape->head_dim,
                               (shard->kv_heads.count - skipped) * shape->head_dim);
    TSR_TRY(tsr_square_sums(d->parts.dev, column(own, 0), room->q, shape->head_dim));
    TSR_TRY(with_keys ? tsr_square_sums(d->parts.dev, column(own, 1), keys, shape->head_dim)
                      : tsr_clear(d->parts.dev, column(own, 1)));
    TSR_TRY(tsr_decoder_meet(d, n_rows, 2, &sum));
    for (int p = 0; p < sum.n_parts; p++) {
        of_keys[p] = column(sum.parts[p], 1);
        sum.parts[p] = column(sum.parts[p], 0);
    }
    TSR_TRY(tsr_rmsnorm_shared(d->parts.dev, room->q, sum.parts, sum.n_parts, w->q_wide_norm.weight,
                               (int64_t)shape->n_heads * shape->head_dim, config->norm_eps));
    return with_keys
               ? tsr_rmsnorm_shared(d->parts.dev, room->k, of_keys, sum.n_parts,
                                    w->k_wide_norm.weight,
                                    (int64_t)shape->n_kv_heads * shape->head_dim, config->norm_eps)
               : TSR_OK;
}

int tsr_decoder_attend_first(const tsr_decoder *d, const tsr_decoder_room *room, int layer,
                             tsr_product *products)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];

    products[0] = (tsr_product){&w->q.weight, room->q, w->q.bias};
    products[1] = (tsr_product){&w->k.weight, room->k, w->k.bias};
    products[2] = (tsr_product){&w->v.weight, room->v, w->v.bias};
    return d->parts.config->kv_low > 0 ? 0 : d->parts.config->layers[layer].makes_kv ? 3 : 1;
}

/* Queries, keys and values of the own heads; keys and values go into the cache. */
static tsr_status project(tsr_decoder *d, const tsr_decoder_room *room, int layer,
                          const tsr_kv_view *kv, const tsr_batch *batch)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];
    const tsr_config *config = d->parts.config;
    const tsr_layer_config *l = &config->layers[layer];
    const int head_dim = config->shape.head_dim;
    tsr_device *dev = d->parts.dev;
    tsr_product products[3];
    const int n_products = tsr_decoder_attend_first(d, room, layer, products);

    TSR_TRY(tsr_decoder_multiply(d, products, n_products, room->normed, room->codes));
    for (int i = 0; config->qkv_clip > 0 && i < n_products; i++) {
        TSR_TRY(tsr_clip(dev, products[i].out, config->qkv_clip));
    }
    if (tsr_config_has(config, TSR_ROLE_Q_WIDE_NORM)) {
        TSR_TRY(norm_wide(d, room, w, l->makes_kv));
    }
    TSR_TRY(norm_heads(d, room->q, &w->q_head_norm));
    if (l->rope >= 0 && l->makes_kv) {
        TSR_TRY(norm_heads(d, room->k, &w->k_head_norm));
        return tsr_rope_write(dev, kv, room->q, room->k, room->v, room->angles[l->rope],
                              config->rope_first, config->rope_pairs, batch);
    }
    if (l->rope >= 0) {
        TSR_TRY(tsr_rope(dev, room->q, room->angles[l->rope], head_dim, config->rope_first,
                         config->rope_pairs));
    }
    if (!l->makes_kv) {
        return TSR_OK;
    }
    TSR_TRY(norm_heads(d, room->k, &w->k_head_norm));
    return tsr_kv_write(dev, kv, room->k, room->v, batch);
}

/*
 * Latent attention (DeepSeek-V2, arXiv 2405.04434): the cache keeps one latent for all heads, and
 * the rotary part of the key. A query is brought to the latent's side instead of each key to the
 * head's: q (Wk c) = (Wk^T q) c.
 */
static tsr_status project_latent(tsr_decoder *d, const tsr_decoder_room *room, int layer,
                                 const tsr_kv_view *kv, const tsr_batch *batch)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];
    const tsr_config *c = d->parts.config;
    const tsr_activations act = d->parts.activations;
    const int key_dim = c->kv_low + c->n_rot;
    const int head_dim = c->shape.head_dim;
    const int64_t n_kv = d->parts.shard->kv_heads.count;
    const tsr_tensor angles = room->angles[0];
    const tsr_tensor low = tsr_decoder_columns(room->latent, 0, c->kv_low);
    const tsr_tensor turning = tsr_decoder_columns(room->latent, c->kv_low, c->n_rot);
    tsr_device *dev = d->parts.dev;
    const tsr_product down[] = {{&w->kv_low.weight, room->latent, w->kv_low.bias},
                                {&w->q_low.weight, room->q_low, w->q_low.bias}};
    const tsr_product q = {&w->q.weight, room->q, w->q.bias};

    TSR_TRY(tsr_matmul(dev, down, c->q_low > 0 ? 2 : 1, room->normed, act));
    TSR_TRY(tsr_decoder_norm(d, low, low, &w->kv_low_norm));
    TSR_TRY(tsr_rope(dev, turning, angles, c->n_rot, 0, c->rope_pairs));
    TSR_TRY(tsr_kv_write(dev, kv, n_kv > 0 ? room->latent : tsr_decoder_columns(room->latent, 0, 0),
                         (tsr_tensor){0}, batch));
    if (c->q_low > 0) {
        TSR_TRY(tsr_decoder_norm(d, room->q_low, room->q_low, &w->q_low_norm));
    }
    TSR_TRY(tsr_matmul(dev, &q, 1, c->q_low > 0 ? room->q_low : room->normed, act));
    TSR_TRY(tsr_rope(dev, room->q, angles, head_dim, c->rope_first, c->rope_pairs));
    for (int64_t h = 0; h < d->parts.shard->heads.count; h++) {
        const tsr_product up = {.weight = &w->k_up[h].weight,
                                .out = tsr_decoder_columns(room->q_latent, h * key_dim, c->kv_low)};

        TSR_TRY(
            tsr_matmul(dev, &up, 1, tsr_decoder_columns(room->q, h * head_dim, c->n_nope), act));
    }
    return tsr_copy_heads(dev, room->q_latent, key_dim, c->kv_low, room->q, head_dim, c->n_nope,
                          c->n_rot);
}

/* From the latent's side back to each head's values. */
static tsr_status raise_values(tsr_decoder *d, const tsr_decoder_room *room, int layer)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];
    const int low = d->parts.config->kv_low;
    const int value_dim = tsr_shard_value_dim(&d->parts.config->shape);

    for (int64_t h = 0; h < d->parts.shard->heads.count; h++) {
        const tsr_product up = {.weight = &w->v_up[h].weight,
                                .out = tsr_decoder_columns(room->mixed, h * value_dim, value_dim)};

        TSR_TRY(tsr_matmul(d->parts.dev, &up, 1,
                           tsr_decoder_columns(room->mixed_latent, h * low, low),
                           d->parts.activations));
    }
    return TSR_OK;
}

static tsr_attention_shape shape_of(const tsr_decoder *d, const tsr_decoder_room *room, int layer)
{
    const tsr_config *config = d->parts.config;
    const tsr_shard *shard = d->parts.shard;
    const tsr_layer_config *l = &config->layers[layer];
    const int group = config->shape.n_heads / config->shape.n_kv_heads;

    return (tsr_attention_shape){
        .n_heads = (int)shard->heads.count,
        .group = group,
        .first_head = (int)(shard->heads.first - shard->kv_heads.first * group),
        .scale = l->scale,
        .softcap = config->attention_cap,
        .window = l->window,
        .stride = l->stride,
        .local = l->local,
        .slopes = room->slopes,
        .slopes_scale = config->slopes_scale * l->scale,
        .sinks = d->parts.weights->layers[layer].sinks,
    };
}

/* The layer's part of the cache. */
static tsr_kv_view view_of(const tsr_decoder *d, int layer)
{
    const tsr_layer_config *layers = d->parts.config->layers;
    tsr_kv_view kv = tsr_kv_store_view(d->parts.kv, layers[layer].group_layer);
    int made_by = layer;

    while (!layers[made_by].makes_kv || layers[made_by].kv_layer != layers[layer].kv_layer) {
        made_by--;
    }
    kv.layout = layers[layer].by_token ? &d->by_token : kv.layout;
    kv.drift = &d->drifts[layers[made_by].rope >= 0 ? layers[made_by].rope : TSR_CONFIG_ROPES];
    return kv;
}

tsr_status tsr_decoder_attend(tsr_decoder *d, const tsr_decoder_room *room, int layer,
                              const tsr_batch *batch)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];
    const tsr_config *config = d->parts.config;
    const tsr_layer_config *l = &config->layers[layer];
    const tsr_kv_view kv = view_of(d, layer);
    const tsr_attention_shape shape = shape_of(d, room, layer);
    const bool latent = config->kv_low > 0;
    tsr_product out = {.weight = &w->o.weight};
    tsr_batch own = *batch; // through the tables of the layer's group

    own.tables = tsr_kv_store_tables(d->parts.kv, l->group);
    TSR_TRY(latent ? project_latent(d, room, layer, &kv, &own)
                   : project(d, room, layer, &kv, &own));
    TSR_TRY(tsr_attention(d->parts.dev, latent ? room->mixed_latent : room->mixed,
                          latent ? room->q_latent : room->q, &kv, &own, &shape));
    if (latent) {
        TSR_TRY(raise_values(d, room, layer));
    }
    out.out = tsr_decoder_own_part(d, room->x.n_rows, config->shape.dim); // no sum in between
    return tsr_matmul(d->parts.dev, &out, 1, room->mixed, d->parts.activations);
}
