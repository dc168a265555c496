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

/* Rows by expert, rising within each: what to compute with each expert's weights. */
static void sort_rows(tsr_decoder_sorting *s, int64_t n_rows, const tsr_routing *routing)
{
    const int64_t n = n_rows * routing->n_used;

    for (int e = 0; e <= routing->n_experts; e++) {
        s->start[e] = 0;
    }
    for (int64_t i = 0; i < n; i++) {
        s->start[s->chosen[i] + 1]++;
    }
    for (int e = 0; e < routing->n_experts; e++) {
        s->start[e + 1] += s->start[e];
    }
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = s->start[s->chosen[i]]++;

        s->rows[at] = (int32_t)(i / routing->n_used);
        s->row_weight[at] = s->weight[i];
    }
    for (int e = routing->n_experts; e > 0; e--) { // each start has moved to the next one's
        s->start[e] = s->start[e - 1];
    }
    s->start[0] = 0;
}

/* Which experts each row takes; the same on every rank, from the same numbers. */
static tsr_status route(tsr_decoder *d, const tsr_decoder_room *room, const tsr_layer_weights *w)
{
    const tsr_routing *routing = &d->parts.config->routing;
    const tsr_product product = {&w->router.weight, room->routes, w->router.bias};
    const int64_t n_rows = room->normed.n_rows;
    const size_t n_bytes = (size_t)(n_rows * routing->n_used) * sizeof(float);
    tsr_decoder_sorting *s = &d->sorting;
    tsr_device *dev = d->parts.dev;

    TSR_TRY(tsr_matmul(dev, &product, 1, room->normed, TSR_ACTIVATIONS_F32));
    TSR_TRY(tsr_route(dev, room->chosen, room->chosen_weight, room->routes, routing));
    TSR_TRY(tsr_device_download(dev, s->chosen, room->chosen.data, n_bytes));
    TSR_TRY(tsr_device_download(dev, s->weight, room->chosen_weight.data, n_bytes));
    sort_rows(s, n_rows, routing);
    TSR_TRY(tsr_device_upload(dev, room->expert_rows.data, s->rows, n_bytes));
    return tsr_device_upload(dev, room->expert_weight.data, s->row_weight, n_bytes);
}

/*
 * sums += one expert's part for the rows that take it. How much a row takes multiplies what goes
 * into the down projection: its grained sums stay exact, so that neither the order of experts nor
 * which rank has them can show.
 */
static tsr_status add_expert(tsr_decoder *d, const tsr_decoder_room *room,
                             const tsr_layer_weights *w, int64_t own, tsr_tensor sums)
{
    const tsr_shard *shard = d->parts.shard;
    const tsr_activations act = d->parts.activations;
    const int64_t *start = &d->sorting.start[shard->experts.first + own];
    const int64_t n = start[1] - start[0];
    const tsr_tensor rows = tsr_decoder_columns(room->expert_rows, start[0], n);
    const tsr_tensor weights = tsr_decoder_columns(room->expert_weight, start[0], n);
    const tsr_tensor gate = tsr_tensor_rows(room->expert_gate, n);
    const tsr_tensor up = tsr_tensor_rows(room->expert_up, n);
    const tsr_product in[] = {{&w->expert_gate[own].weight, gate, w->expert_gate[own].bias},
                              {&w->expert_up[own].weight, up, w->expert_up[own].bias}};
    const tsr_product out = {.weight = &w->expert_down[own].weight,
                             .out = tsr_tensor_rows(room->expert_sum, n)};
    // Of the ranks that share an expert the one with its first columns adds the bias.
    const tsr_tensor bias =
        shard->expert_ff.first == 0 ? w->expert_down[own].bias : (tsr_tensor){0};
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
    return tsr_scatter_sums(d->parts.dev, sums, out.out, rows, weights, bias);
}

tsr_status tsr_decoder_mix(tsr_decoder *d, const tsr_decoder_room *room, int layer)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];
    const tsr_tensor sums =
        tsr_decoder_own_part(d, room->normed.n_rows, d->parts.config->shape.dim);

    TSR_TRY(route(d, room, w));
    TSR_TRY(share(d, room, w, sums));
    for (int64_t own = 0; own < d->parts.shard->experts.count; own++) {
        TSR_TRY(add_expert(d, room, w, own, sums));
    }
    return TSR_OK;
}
