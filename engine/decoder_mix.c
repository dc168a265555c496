#include "engine/decoder_room.h"

/* The shared expert's part, or zeros: what the others are added to. */
static tsr_status share(tsr_decoder *d, const tsr_decoder_room *room, const tsr_layer_weights *w,
                        tsr_tensor sums)
{
    const tsr_config *config = d->parts.config;
    const tsr_activations act = d->parts.activations;
    const tsr_product in[] = {{&w->shared_gate.weight, room->shared_gate, w->shared_gate.bias},
                              {&w->shared_up.weight, room->shared_up, w->shared_up.bias},
                              {&w->shared_scale.weight, room->shared_scale, w->shared_scale.bias}};
    const tsr_product out = {.weight = &w->shared_down.weight, .out = sums};
    const bool scaled = tsr_config_has(config, TSR_ROLE_SHARED_SCALE);
    tsr_tensor scales = {0};

    if (config->shape.shared_ff == 0) {
        return tsr_clear(d->parts.dev, sums);
    }
    TSR_TRY(tsr_matmul(d->parts.dev, in, scaled ? 3 : 2, room->normed, act));
    if (scaled) {
        TSR_TRY(tsr_sigmoid(d->parts.dev, room->shared_scale));
        scales = tsr_tensor_of(room->shared_scale.data, TSR_DTYPE_F32, room->shared_scale.on, 1,
                               room->shared_scale.n_rows);
    }
    TSR_TRY(tsr_activate(d->parts.dev, room->shared_gate, room->shared_gate, room->shared_up,
                         scales, config->activation));
    return tsr_matmul(d->parts.dev, &out, 1, room->shared_gate, act);
}

/* Which experts each row takes, and rows by expert; the same on every rank, from the same numbers.
 */
static tsr_status route(tsr_decoder *d, const tsr_decoder_room *room, const tsr_layer_weights *w)
{
    const tsr_product product = {&w->router.weight, room->routes, w->router.bias};
    const int64_t n = room->chosen.n_rows * room->chosen.n_cols;
    tsr_device *dev = d->parts.dev;

    TSR_TRY(tsr_matmul(dev, &product, 1, room->normed, TSR_ACTIVATIONS_F32));
    TSR_TRY(
        tsr_route(dev, room->chosen, room->chosen_weight, room->routes, &d->parts.config->routing));
    return tsr_sort_experts(dev, room->expert_start, tsr_decoder_columns(room->expert_rows, 0, n),
                            tsr_decoder_columns(room->expert_weight, 0, n), room->chosen_place,
                            room->chosen, room->chosen_weight);
}

/*
 * How much a row takes of an expert multiplies what goes into the down projection: its grained sums
 * stay exact, so that neither the order of experts nor which rank has them can show. Of the ranks
 * that share an expert the one with its first columns adds the bias.
 */
static tsr_tensor down_bias(const tsr_decoder *d, tsr_tensor bias)
{
    return d->parts.shard->expert_ff.first == 0 ? bias : (tsr_tensor){0};
}

/* ---- an expert after another ----------------------------------------------------------------- */

/* sums += one expert's part for the rows that take it. */
static tsr_status add_expert(tsr_decoder *d, const tsr_decoder_room *room,
                             const tsr_layer_weights *w, int64_t own, tsr_tensor sums)
{
    const tsr_activations act = d->parts.activations;
    const int32_t *start = &d->expert_start[d->parts.shard->experts.first + own];
    const int64_t n = start[1] - start[0];
    const tsr_tensor rows = tsr_decoder_columns(room->expert_rows, start[0], n);
    const tsr_tensor weights = tsr_decoder_columns(room->expert_weight, start[0], n);
    const tsr_tensor gate = tsr_tensor_rows(room->expert_gate, n);
    const tsr_tensor up = tsr_tensor_rows(room->expert_up, n);
    const tsr_product in[] = {{&w->expert_gate[own].weight, gate, w->expert_gate[own].bias},
                              {&w->expert_up[own].weight, up, w->expert_up[own].bias}};
    const tsr_product out = {.weight = &w->expert_down[own].weight,
                             .out = tsr_tensor_rows(room->expert_sum, n)};
    tsr_tensor x = room->normed;

    if (n == 0) {
        return TSR_OK;
    }
    if (n < room->normed.n_rows) {
        x = tsr_tensor_rows(room->expert_x, n);
        TSR_TRY(tsr_gather_rows(d->parts.dev, x, room->normed, rows));
    }
    TSR_TRY(tsr_matmul(d->parts.dev, in, 2, x, act));
    TSR_TRY(tsr_activate(d->parts.dev, gate, gate, up, weights, d->parts.config->activation));
    TSR_TRY(tsr_matmul(d->parts.dev, &out, 1, gate, act));
    return tsr_scatter_sums(d->parts.dev, sums, out.out, rows, weights,
                            down_bias(d, w->expert_down[own].bias));
}

static tsr_status add_each(tsr_decoder *d, const tsr_decoder_room *room, const tsr_layer_weights *w,
                           tsr_tensor sums)
{
    TSR_TRY(tsr_device_download(d->parts.dev, d->expert_start, room->expert_start.data,
                                (size_t)room->expert_start.n_cols * sizeof(int32_t)));
    for (int64_t own = 0; own < d->parts.shard->experts.count; own++) {
        TSR_TRY(add_expert(d, room, w, own, sums));
    }
    return TSR_OK;
}

/* ---- all at once ----------------------------------------------------------------------------- */

static int64_t bytes_apart(const void *from, const void *to)
{
    return from == NULL ? 0 : (int64_t)((const char *)to - (const char *)from);
}

static tsr_expert_weights all_of(const tsr_linear *list, int64_t n)
{
    tsr_expert_weights all = {0};

    if (n > 0) {
        all = (tsr_expert_weights){list[0].weight, 0, list[0].bias};
    }
    if (n > 1) {
        all.apart_bytes = bytes_apart(list[0].weight.tiles, list[1].weight.tiles);
        all.bias.stride =
            bytes_apart(list[0].bias.data, list[1].bias.data) / (int64_t)sizeof(float);
    }
    all.bias.n_rows = n;
    return all;
}

static bool are_alike(const tsr_linear *list, int64_t n)
{
    const tsr_expert_weights all = all_of(list, n);

    for (int64_t i = 1; i < n; i++) {
        if (list[i].weight.format != all.first.format ||
            bytes_apart(list[0].weight.tiles, list[i].weight.tiles) != i * all.apart_bytes ||
            (list[i].bias.data == NULL) != (all.bias.data == NULL) ||
            bytes_apart(list[0].bias.data, list[i].bias.data) !=
                i * all.bias.stride * (int64_t)sizeof(float)) {
            return false;
        }
    }
    return n == 0 || !tsr_weight_is_mixed(all.first.format);
}

bool tsr_decoder_experts_are_alike(const tsr_decoder_parts *parts)
{
    const int64_t n = parts->shard->experts.count;

    for (int layer = 0; layer < parts->config->n_layers; layer++) {
        const tsr_layer_weights *w = &parts->weights->layers[layer];

        if (parts->config->layers[layer].experts &&
            (!are_alike(w->expert_gate, n) || !are_alike(w->expert_up, n) ||
             !are_alike(w->expert_down, n))) {
            return false;
        }
    }
    return true;
}

static tsr_status add_all(tsr_decoder *d, const tsr_decoder_room *room, const tsr_layer_weights *w,
                          tsr_tensor sums)
{
    const tsr_activations act = d->parts.activations;
    const tsr_range experts = d->parts.shard->experts;
    const tsr_tensor start =
        tsr_decoder_columns(room->expert_start, experts.first, experts.count + 1);
    const int64_t n = room->chosen.n_rows * room->chosen.n_cols;
    const tsr_tensor weights = tsr_decoder_columns(room->expert_weight, 0, n);
    const tsr_tensor x = tsr_tensor_rows(room->expert_x, n);
    const tsr_tensor gate = tsr_tensor_rows(room->expert_gate, n);
    const tsr_tensor up = tsr_tensor_rows(room->expert_up, n);
    const tsr_tensor parts = tsr_tensor_rows(room->expert_sum, n);
    const tsr_expert_weights gates = all_of(w->expert_gate, experts.count);
    const tsr_expert_weights ups = all_of(w->expert_up, experts.count);
    const tsr_expert_weights downs = all_of(w->expert_down, experts.count);
    const tsr_expert_weights unbiased = {downs.first, downs.apart_bytes, {0}};
    const tsr_expert_product in[] = {{&gates, gate}, {&ups, up}};
    const tsr_expert_product out = {&unbiased, parts};

    if (experts.count == 0) {
        return TSR_OK;
    }
    TSR_TRY(tsr_gather_rows(d->parts.dev, x, room->normed,
                            tsr_decoder_columns(room->expert_rows, 0, n)));
    TSR_TRY(tsr_matmul_experts(d->parts.dev, in, 2, x, start, room->chosen.n_rows, act));
    TSR_TRY(tsr_activate(d->parts.dev, gate, gate, up, weights, d->parts.config->activation));
    TSR_TRY(tsr_matmul_experts(d->parts.dev, &out, 1, gate, start, room->chosen.n_rows, act));
    return tsr_add_experts(d->parts.dev, sums, parts, room->chosen, room->chosen_place, weights,
                           down_bias(d, downs.bias), experts.first, experts.count);
}

tsr_status tsr_decoder_mix(tsr_decoder *d, const tsr_decoder_room *room, int layer)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];
    const int64_t n_rows = room->normed.n_rows;
    const tsr_tensor sums = tsr_decoder_own_part(d, n_rows, d->parts.config->shape.dim);

    TSR_TRY(route(d, room, w));
    TSR_TRY(share(d, room, w, sums));
    return d->experts_are_alike && n_rows <= TSR_DECODER_MIXED_ROWS ? add_all(d, room, w, sums)
                                                                    : add_each(d, room, w, sums);
}
