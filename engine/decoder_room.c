#include "engine/decoder_room.h"

#include "base/alloc.h"

/* Cuts one allocation into windows; with memory NULL it only counts. */
typedef struct cutter {
    char *memory;
    size_t n_bytes;
    tsr_device_kind on;
} cutter;

static tsr_tensor cut(cutter *c, tsr_dtype dtype, int64_t n_rows, int64_t n_cols)
{
    const size_t n_bytes = (size_t)n_rows * (size_t)n_cols * tsr_dtype_bytes(dtype);
    char *at = c->memory == NULL ? NULL : c->memory + c->n_bytes;

    c->n_bytes += (n_bytes + 63) / 64 * 64;
    return tsr_tensor_of(at, dtype, c->on, n_rows, n_cols);
}

static tsr_tensor cut_f32(cutter *c, int64_t n_rows, int64_t n_cols)
{
    return cut(c, TSR_DTYPE_F32, n_rows, n_cols);
}

/* Memory of codes; the rows are those of a step that takes them. */
static tsr_codes cut_codes(cutter *c, int64_t n_rows, int64_t n_cols)
{
    const int64_t most = n_rows < TSR_FEW_ROWS ? n_rows : TSR_FEW_ROWS;
    const tsr_tensor bytes =
        cut_f32(c, 1, (int64_t)(tsr_ops_codes_bytes(most, n_cols) / sizeof(float)));

    return (tsr_codes){bytes.data, most, n_cols};
}

static bool joins_late(const tsr_config *config)
{
    return config->residual_scale != 1 || tsr_config_has(config, TSR_ROLE_ATTN_POST_NORM) ||
           tsr_config_has(config, TSR_ROLE_FF_POST_NORM);
}

static void lay_out_latent(tsr_decoder_room *room, cutter *c, const tsr_decoder_parts *p)
{
    const tsr_config *config = p->config;
    const int64_t rows = p->max_rows;
    const int64_t heads = p->shard->heads.count;

    room->q_low = cut_f32(c, rows, config->q_low);
    room->latent = cut_f32(c, rows, config->kv_low + config->n_rot);
    room->q_latent = cut_f32(c, rows, heads * (config->kv_low + config->n_rot));
    room->mixed_latent = cut_f32(c, rows, heads * config->kv_low);
}

int64_t tsr_decoder_expert_rows(const tsr_decoder_parts *p)
{
    const int64_t mixed =
        (p->max_rows < TSR_DECODER_MIXED_ROWS ? p->max_rows : TSR_DECODER_MIXED_ROWS) *
        p->config->routing.n_used;

    return p->config->shape.n_experts == 0 ? 0 : mixed > p->max_rows ? mixed : p->max_rows;
}

static void lay_out_experts(tsr_decoder_room *room, cutter *c, const tsr_decoder_parts *p)
{
    const tsr_shard_shape *shape = &p->config->shape;
    const int64_t rows = p->max_rows;
    const int64_t at_once = tsr_decoder_expert_rows(p);
    const int64_t used = p->config->routing.n_used;

    room->routes = cut_f32(c, rows, shape->n_experts);
    room->chosen = cut(c, TSR_DTYPE_I32, rows, used);
    room->chosen_weight = cut_f32(c, rows, used);
    room->chosen_place = cut(c, TSR_DTYPE_I32, rows, used);
    room->expert_start = cut(c, TSR_DTYPE_I32, 1, shape->n_experts + 1);
    room->expert_rows = cut(c, TSR_DTYPE_I32, 1, rows * used);
    room->expert_weight = cut_f32(c, 1, rows * used);
    room->expert_x = cut_f32(c, at_once, shape->dim);
    room->expert_gate = cut_f32(c, at_once, p->shard->expert_ff.count);
    room->expert_up = cut_f32(c, at_once, p->shard->expert_ff.count);
    room->expert_sum = cut(c, TSR_DTYPE_F64, at_once, shape->dim);
    room->shared_scale = cut_f32(c, rows, 1);
    room->shared_gate = cut_f32(c, rows, p->shard->shared_ff.count);
    room->shared_up = cut_f32(c, rows, p->shard->shared_ff.count);
}

static void lay_out(tsr_decoder_room *room, cutter *c, const tsr_decoder_parts *p)
{
    const tsr_config *config = p->config;
    const tsr_shard_shape *shape = &config->shape;
    const int64_t rows = p->max_rows;
    const int64_t kv_dim = p->shard->kv_heads.count * shape->head_dim;

    room->embedded =
        cut_f32(c, rows, tsr_config_has(config, TSR_ROLE_EMBED_UP) ? config->embed_dim : 0);
    room->x = cut_f32(c, rows, shape->dim);
    room->normed = cut_f32(c, rows, shape->dim);
    room->codes = cut_codes(c, rows, shape->dim);
    room->joining = cut_f32(c, rows, joins_late(config) ? shape->dim : 0);
    room->q = cut_f32(c, rows, p->shard->heads.count * shape->head_dim);
    room->k = cut_f32(c, rows, config->kv_low > 0 ? 0 : kv_dim);
    room->v = cut_f32(c, rows, config->kv_low > 0 ? 0 : kv_dim);
    room->mixed = cut_f32(c, rows, p->shard->heads.count * tsr_shard_value_dim(shape));
    room->gate = cut_f32(c, rows, p->shard->ff.count);
    room->up = cut_f32(c, rows, p->shard->ff.count);
    room->up_codes = cut_codes(c, rows, p->shard->ff.count);
    if (config->kv_low > 0) {
        lay_out_latent(room, c, p);
    }
    if (shape->n_experts > 0) {
        lay_out_experts(room, c, p);
    }
    room->wanted = cut_f32(c, TSR_DECODER_HEAD_ROWS, shape->dim);
    room->wanted_narrow =
        cut_f32(c, TSR_DECODER_HEAD_ROWS,
                tsr_config_has(config, TSR_ROLE_HEAD_DOWN) ? config->embed_dim : 0);
    room->logits = cut_f32(c, TSR_DECODER_HEAD_ROWS, p->shard->vocab.count);
    for (int i = 0; i < config->n_ropes; i++) {
        room->angles[i] = cut_f32(c, rows, config->n_rot);
        room->frequencies[i] = cut(c, TSR_DTYPE_F64, 1, config->n_rot / 2);
    }
    if (config->slopes != NULL) {
        room->slopes = cut_f32(c, 1, p->shard->heads.count);
    }
}

size_t tsr_decoder_room_bytes(const tsr_decoder_parts *p)
{
    tsr_decoder_room room;
    cutter count = {0};

    lay_out(&room, &count, p);
    return count.n_bytes + sizeof(tsr_decoder) +
           (p->config->shape.n_experts > 0
                ? ((size_t)p->config->shape.n_experts + 1) * sizeof(int32_t)
                : 0);
}

tsr_status tsr_decoder_room_make(tsr_decoder *d)
{
    const tsr_decoder_parts *p = &d->parts;
    cutter count = {.on = tsr_device_kind_of(p->dev)};
    cutter fill = {.on = tsr_device_kind_of(p->dev)};

    lay_out(&d->room, &count, p);
    d->memory = tsr_device_alloc(p->dev, count.n_bytes);
    if (d->memory == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no room for %.1f MB of activations (%d tokens a step)",
                        (double)count.n_bytes / 1e6, p->max_rows);
    }
    d->n_bytes = count.n_bytes;
    fill.memory = d->memory;
    lay_out(&d->room, &fill, p);
    d->by_token = *tsr_kv_store_view(p->kv, 0).layout;
    d->by_token.by_token = true;
    for (int i = 0; i <= TSR_CONFIG_ROPES; i++) {
        const bool turns = i < p->config->n_ropes;

        tsr_kv_drift_init(&d->drifts[i], p->config->shape.head_dim,
                          p->config->ropes[turns ? i : 0].frequencies, turns ? p->config->n_rot : 0,
                          p->config->rope_first, p->config->rope_pairs);
    }
    for (int i = 0; i < p->config->n_ropes; i++) {
        TSR_TRY(tsr_device_upload(p->dev, d->room.frequencies[i].data,
                                  p->config->ropes[i].frequencies,
                                  (size_t)(p->config->n_rot / 2) * sizeof(double)));
    }
    if (p->config->slopes != NULL) {
        TSR_TRY(tsr_device_upload(p->dev, d->room.slopes.data,
                                  p->config->slopes + p->shard->heads.first,
                                  (size_t)p->shard->heads.count * sizeof(float)));
    }
    if (p->config->shape.n_experts > 0) {
        d->expert_start = tsr_alloc((size_t)p->config->shape.n_experts + 1, sizeof(int32_t));
        if (d->expert_start == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory to sort tokens by expert");
        }
    }
    return TSR_OK;
}

void tsr_decoder_room_clear(tsr_decoder *d)
{
    tsr_device_free(d->parts.dev, d->memory, d->n_bytes);
    tsr_free(d->expert_start);
}

tsr_decoder_room tsr_decoder_room_rows(const tsr_decoder *d, int64_t n_rows)
{
    tsr_decoder_room room = d->room;
    tsr_tensor *const all[] = {
        &room.embedded,
        &room.x,
        &room.normed,
        &room.joining,
        &room.angles[0],
        &room.angles[1],
        &room.q,
        &room.k,
        &room.v,
        &room.mixed,
        &room.gate,
        &room.up,
        &room.q_low,
        &room.latent,
        &room.q_latent,
        &room.mixed_latent,
        &room.routes,
        &room.chosen,
        &room.chosen_weight,
        &room.chosen_place,
        &room.shared_scale,
        &room.shared_gate,
        &room.shared_up,
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i]->n_rows > 0) { // not there in this model
            *all[i] = tsr_tensor_rows(*all[i], n_rows);
        }
    }
    room.codes.n_rows = n_rows;
    room.up_codes.n_rows = n_rows;
    return room;
}
