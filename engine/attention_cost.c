#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "engine/engine.h"

enum {
    MOST_CONTEXT = 8192,
    N_PARTS = 5,
    PART_NS = 5000000
};

/* A cache of one layer, one sequence in it, and one row that looks at it. */
typedef struct scene {
    tsr_kv_layout layout;
    tsr_kv_view kv;
    tsr_batch batch;
    int32_t ints[4]; // row_start [2], first_pos, lane
    int32_t *slots;
    float *q;
    float *out;
    size_t n_bytes;
} scene;

static void clear_scene(scene *s)
{
    tsr_free_pages(s->kv.pool, s->n_bytes);
    tsr_free(s->slots);
    tsr_free(s->q);
    tsr_free(s->out);
}

static tsr_status make_scene(scene *s, const tsr_engine *e, int64_t context)
{
    const tsr_config *config = tsr_model_config(e->model);
    const int64_t n_heads = e->shard.heads.count;
    int64_t n_blocks;

    *s = (scene){.layout = tsr_settings_kv_layout(&e->settings, config, &e->shard)};
    s->layout.n_layers = 1;
    n_blocks = (context + s->layout.block_tokens - 1) / s->layout.block_tokens;
    s->kv =
        (tsr_kv_view){.block_bytes = tsr_kv_layout_block_bytes(&s->layout), .layout = &s->layout};
    s->n_bytes = (size_t)n_blocks * s->kv.block_bytes;
    s->kv.pool = tsr_alloc_pages(s->n_bytes);
    s->slots = tsr_alloc((size_t)n_blocks, sizeof(*s->slots));
    s->q = tsr_alloc((size_t)(n_heads * tsr_config_key_dim(config)), sizeof(*s->q));
    s->out = tsr_alloc((size_t)(n_heads * tsr_config_value_dim(config)), sizeof(*s->out));
    if (s->kv.pool == NULL || s->slots == NULL || s->q == NULL || s->out == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to measure attention over %lld positions",
                        (long long)context);
    }
    memset(s->kv.pool, 0x11, s->n_bytes); // small numbers in all types
    for (int64_t b = 0; b < n_blocks; b++) {
        s->slots[b] = (int32_t)b;
    }
    s->ints[1] = 1;
    s->ints[2] = (int32_t)(context - 1);
    s->batch = (tsr_batch){
        .n_seqs = 1,
        .row_start = tsr_tensor_of(&s->ints[0], TSR_DTYPE_I32, TSR_DEVICE_CPU, 1, 2),
        .first_pos = tsr_tensor_of(&s->ints[2], TSR_DTYPE_I32, TSR_DEVICE_CPU, 1, 1),
        .lanes = tsr_tensor_of(&s->ints[3], TSR_DTYPE_I32, TSR_DEVICE_CPU, 1, 1),
        .tables = tsr_tensor_of(s->slots, TSR_DTYPE_I32, TSR_DEVICE_CPU, 1, n_blocks),
        .longest = context,
    };
    return TSR_OK;
}

/* Seconds of one call, the best of some. */
static tsr_status time_attention(double *seconds, const tsr_engine *e, const scene *s,
                                 const tsr_attention_shape *shape)
{
    const tsr_config *config = tsr_model_config(e->model);
    const tsr_tensor q = tsr_tensor_of(s->q, TSR_DTYPE_F32, TSR_DEVICE_CPU, 1,
                                       shape->n_heads * (int64_t)tsr_config_key_dim(config));
    const tsr_tensor out = tsr_tensor_of(s->out, TSR_DTYPE_F32, TSR_DEVICE_CPU, 1,
                                         shape->n_heads * (int64_t)tsr_config_value_dim(config));

    *seconds = 0;
    for (int part = 0; part < N_PARTS; part++) {
        const int64_t start = tsr_clock_ns();
        int64_t passed = 0;
        int n = 0;

        while (passed < PART_NS || n < 2) {
            TSR_TRY(tsr_attention(e->dev, out, q, &s->kv, &s->batch, shape));
            passed = tsr_clock_ns() - start;
            n++;
        }
        if (part == 0 || (double)passed * 1e-9 / n < *seconds) {
            *seconds = (double)passed * 1e-9 / n;
        }
    }
    return TSR_OK;
}

static bool alike(const tsr_layer_config *a, const tsr_layer_config *b)
{
    return a->window == b->window && a->stride == b->stride && a->local == b->local;
}

/* The first layer that sees in the i-th way, and how many do; -1: there are not so many ways. */
static int find_way(const tsr_config *config, int i, int *n_layers)
{
    for (int layer = 0; layer < config->n_layers; layer++) {
        bool first = true;

        for (int before = 0; before < layer; before++) {
            first = first && !alike(&config->layers[before], &config->layers[layer]);
        }
        if (!first || i-- > 0) {
            continue;
        }
        *n_layers = 0;
        for (int other = layer; other < config->n_layers; other++) {
            *n_layers += alike(&config->layers[other], &config->layers[layer]);
        }
        return layer;
    }
    return -1;
}

static int64_t count_seen(const tsr_layer_config *l, int64_t context)
{
    int64_t n = 0;

    for (int64_t distance = 0; distance < context; distance++) {
        n += (l->window == 0 || distance < l->window) &&
             (l->stride == 0 || distance % l->stride == 0 || distance < l->local);
    }
    return n;
}

tsr_status tsr_engine_attention_cost(tsr_engine *e, int i, tsr_attention_cost *out)
{
    const tsr_config *config = tsr_model_config(e->model);
    const int group = config->shape.n_heads / config->shape.n_kv_heads;
    const int64_t context = e->settings.context < MOST_CONTEXT ? e->settings.context : MOST_CONTEXT;
    tsr_attention_cost cost = {.context = context};
    const int layer = find_way(config, i, &cost.n_layers);
    tsr_attention_shape shape;
    tsr_status st;
    scene s;

    if (e->remote != NULL) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "ranks measure themselves where they are no servers");
    }
    if (layer < 0) {
        return tsr_fail(TSR_ERR_ARG, "the model has not so many ways to see");
    }
    if (e->remote != NULL || !tsr_device_is_host(e->dev)) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "what attention costs is measured on CPUs only");
    }
    TSR_TRY_GOTO(st, done, make_scene(&s, e, context));
    shape = (tsr_attention_shape){.n_heads = (int)e->shard.heads.count,
                                  .group = group,
                                  .first_head =
                                      (int)(e->shard.heads.first - e->shard.kv_heads.first * group),
                                  .scale = config->layers[layer].scale,
                                  .softcap = config->attention_cap};
    TSR_TRY_GOTO(st, done, time_attention(&cost.full_s, e, &s, &shape));
    cost.window = shape.window = config->layers[layer].window;
    cost.stride = shape.stride = config->layers[layer].stride;
    cost.local = shape.local = config->layers[layer].local;
    s.layout.by_token = config->layers[layer].by_token; // what lies there are small numbers as well
    TSR_TRY_GOTO(st, done, time_attention(&cost.seen_s, e, &s, &shape));
    cost.seen = count_seen(&config->layers[layer], context);
    cost.seen_bytes = (uint64_t)cost.seen * s.kv.block_bytes / (uint64_t)s.layout.block_tokens;
    *out = cost;

done:
    clear_scene(&s);
    return st;
}
