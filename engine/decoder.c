#include "engine/decoder.h"

#include "base/alloc.h"

/* What the rows of a forward pass are held in. R is max_rows. */
typedef struct workspace {
    tsr_tensor x;      /* f32 [R, dim] the residual stream, whole on every rank */
    tsr_tensor normed; /* f32 [R, dim] */
    tsr_tensor angles; /* f32 [R, n_rot] */
    tsr_tensor q;      /* f32 [R, own heads * head_dim] */
    tsr_tensor k;      /* f32 [R, own KV heads * head_dim] */
    tsr_tensor v;
    tsr_tensor mixed; /* f32 [R, own heads * head_dim] what attention gives */
    tsr_tensor gate;  /* f32 [R, own ff] */
    tsr_tensor up;
    tsr_tensor wanted;      /* f32 [HEAD_ROWS, dim] */
    tsr_tensor logits;      /* f32 [HEAD_ROWS, own vocabulary] */
    tsr_tensor frequencies; /* f64 [1, n_rot / 2] */
} workspace;

struct tsr_decoder {
    tsr_decoder_parts parts;
    workspace ws;
    tsr_attention_shape attention;
    void *memory; /* owned: the workspace lies in it */
    size_t n_bytes;
};

/* Cuts one allocation into windows; with memory NULL it only counts. */
typedef struct cutter {
    char *memory;
    size_t n_bytes;
} cutter;

static tsr_tensor cut(cutter *c, tsr_dtype dtype, int64_t n_rows, int64_t n_cols)
{
    const size_t n_bytes = (size_t)n_rows * (size_t)n_cols * tsr_dtype_bytes(dtype);
    char *at = c->memory == NULL ? NULL : c->memory + c->n_bytes;

    c->n_bytes += (n_bytes + 63) / 64 * 64;
    return tsr_tensor_of(at, dtype, TSR_DEVICE_CPU, n_rows, n_cols);
}

static void lay_out(workspace *ws, cutter *c, const tsr_decoder_parts *p)
{
    const tsr_shard_shape *shape = &p->config->shape;
    const int64_t rows = p->max_rows;
    const int64_t q_dim = p->shard->heads.count * shape->head_dim;
    const int64_t kv_dim = p->shard->kv_heads.count * shape->head_dim;

    ws->x = cut(c, TSR_DTYPE_F32, rows, shape->dim);
    ws->normed = cut(c, TSR_DTYPE_F32, rows, shape->dim);
    ws->angles = cut(c, TSR_DTYPE_F32, rows, p->config->n_rot);
    ws->q = cut(c, TSR_DTYPE_F32, rows, q_dim);
    ws->k = cut(c, TSR_DTYPE_F32, rows, kv_dim);
    ws->v = cut(c, TSR_DTYPE_F32, rows, kv_dim);
    ws->mixed = cut(c, TSR_DTYPE_F32, rows, q_dim);
    ws->gate = cut(c, TSR_DTYPE_F32, rows, p->shard->ff.count);
    ws->up = cut(c, TSR_DTYPE_F32, rows, p->shard->ff.count);
    ws->wanted = cut(c, TSR_DTYPE_F32, TSR_DECODER_HEAD_ROWS, shape->dim);
    ws->logits = cut(c, TSR_DTYPE_F32, TSR_DECODER_HEAD_ROWS, p->shard->vocab.count);
    ws->frequencies = cut(c, TSR_DTYPE_F64, 1, p->config->n_rot / 2);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static tsr_ops_limits limits_of(const tsr_decoder_parts *parts)
{
    const tsr_shard_shape *shape = &parts->config->shape;

    return (tsr_ops_limits){
        .n_rows = larger(parts->max_rows, TSR_DECODER_HEAD_ROWS),
        .n_cols = larger(larger(shape->dim, parts->shard->ff.count),
                         parts->shard->heads.count * shape->head_dim),
        .n_heads = (int)parts->shard->heads.count,
        .head_dim = shape->head_dim,
        .context = parts->context,
        .n_seqs = parts->max_seqs,
    };
}

static size_t scratch_bytes(const tsr_decoder_parts *parts, tsr_device_kind kind, int n_threads)
{
    const tsr_ops_limits limits = limits_of(parts);

    return tsr_ops_scratch_bytes(kind, n_threads, &limits);
}

static size_t workspace_bytes(const tsr_decoder_parts *parts)
{
    workspace none;
    cutter count = {0};

    lay_out(&none, &count, parts);
    return count.n_bytes;
}

size_t tsr_decoder_measure(const tsr_decoder_parts *parts, tsr_device_kind kind, int n_threads)
{
    return workspace_bytes(parts) + scratch_bytes(parts, kind, n_threads);
}

tsr_status tsr_decoder_create(tsr_decoder **out, const tsr_decoder_parts *parts)
{
    const tsr_shard_shape *shape = &parts->config->shape;
    const int group = shape->n_heads / shape->n_kv_heads;
    const int n_threads = tsr_cpu_pool_n_threads(tsr_device_pool(parts->dev));
    cutter fill = {0};
    tsr_decoder *decoder = tsr_alloc(1, sizeof(*decoder));
    tsr_status st = TSR_OK;

    if (decoder == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the decoder");
    }
    decoder->parts = *parts;
    decoder->attention = (tsr_attention_shape){
        .n_heads = (int)parts->shard->heads.count,
        .head_dim = shape->head_dim,
        .group = group,
        .first_head = (int)(parts->shard->heads.first - parts->shard->kv_heads.first * group),
        .scale = parts->config->attention_scale,
    };
    decoder->n_bytes = workspace_bytes(parts);
    decoder->memory = tsr_device_alloc(parts->dev, decoder->n_bytes);
    if (decoder->memory == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no room for %.1f MB of activations (%d tokens a step)",
                      (double)decoder->n_bytes / 1e6, parts->max_rows);
        goto fail;
    }
    fill.memory = decoder->memory;
    lay_out(&decoder->ws, &fill, parts);
    TSR_TRY_GOTO(st, fail,
                 tsr_device_upload(parts->dev, decoder->ws.frequencies.data,
                                   parts->config->frequencies,
                                   (size_t)(parts->config->n_rot / 2) * sizeof(double)));
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
        tsr_device_free(decoder->parts.dev, decoder->memory, decoder->n_bytes);
        tsr_free(decoder);
    }
}

/* A sum over ranks, [rows, dim], as the parts that are still to be added. */
typedef struct sum_over_ranks {
    tsr_tensor parts[TSR_MAX_PARTS];
    int n_parts;
} sum_over_ranks;

_Static_assert((int)TSR_COMM_MOST_PARTS <= (int)TSR_MAX_PARTS,
               "what a comm hands out, ops can add");

/* Where this rank's part of the next sum goes: f64 [n_rows, dim]. */
static tsr_tensor own_part(const tsr_decoder *d, int64_t n_rows)
{
    return tsr_tensor_of(tsr_comm_part(d->parts.comm), TSR_DTYPE_F64,
                         tsr_device_kind_of(d->parts.dev), n_rows, d->parts.config->shape.dim);
}

/* Every rank has written its part; now all may read them. */
static tsr_status meet(const tsr_decoder *d, int64_t n_rows, sum_over_ranks *sum)
{
    const int64_t dim = d->parts.config->shape.dim;
    const double *parts[TSR_COMM_MOST_PARTS];

    TSR_TRY(tsr_device_sync(d->parts.dev));
    TSR_TRY(tsr_comm_meet(d->parts.comm, (size_t)(n_rows * dim), parts, &sum->n_parts));
    for (int p = 0; p < sum->n_parts; p++) {
        sum->parts[p] = tsr_tensor_of((void *)(uintptr_t)parts[p], TSR_DTYPE_F64,
                                      tsr_device_kind_of(d->parts.dev), n_rows, dim);
    }
    return TSR_OK;
}

/* The workspace as a batch of n_rows sees it. */
static workspace rows_of(const workspace *all, int64_t n_rows)
{
    workspace ws = *all;

    ws.x = tsr_tensor_rows(ws.x, n_rows);
    ws.normed = tsr_tensor_rows(ws.normed, n_rows);
    ws.angles = tsr_tensor_rows(ws.angles, n_rows);
    ws.q = tsr_tensor_rows(ws.q, n_rows);
    ws.k = tsr_tensor_rows(ws.k, n_rows);
    ws.v = tsr_tensor_rows(ws.v, n_rows);
    ws.mixed = tsr_tensor_rows(ws.mixed, n_rows);
    ws.gate = tsr_tensor_rows(ws.gate, n_rows);
    ws.up = tsr_tensor_rows(ws.up, n_rows);
    return ws;
}

/*
 * One layer, in place on ws->x [n_rows, dim]. Every rank runs it, each with its own heads and its
 * own columns of the feed-forward; the two calls of meet() are where they meet.
 */
static tsr_status run_layer(tsr_decoder *d, const workspace *ws, int layer, const tsr_batch *batch)
{
    const tsr_layer_weights *w = &d->parts.weights->layers[layer];
    const tsr_kv_view kv = tsr_kv_store_view(d->parts.kv, layer);
    const tsr_rope_pairs pairs = d->parts.config->family->rope_pairs;
    const int head_dim = d->parts.config->shape.head_dim;
    const float eps = d->parts.config->norm_eps;
    const tsr_activations act = d->parts.activations;
    tsr_device *dev = d->parts.dev;
    const tsr_product qkv[] = {{&w->q.weight, ws->q, w->q.bias},
                               {&w->k.weight, ws->k, w->k.bias},
                               {&w->v.weight, ws->v, w->v.bias}};
    const int64_t n_rows = ws->x.n_rows;
    sum_over_ranks sum;
    tsr_product to_sum;
    const tsr_product gate_up[] = {{&w->gate.weight, ws->gate, w->gate.bias},
                                   {&w->up.weight, ws->up, w->up.bias}};

    // x += sum over ranks of attend(norm(x) Wq, Wk, Wv) Wo
    TSR_TRY(tsr_rmsnorm(dev, ws->normed, ws->x, w->attn_norm, eps));
    TSR_TRY(tsr_matmul(dev, qkv, 3, ws->normed, act));
    TSR_TRY(tsr_rope(dev, ws->q, ws->angles, head_dim, pairs));
    TSR_TRY(tsr_rope(dev, ws->k, ws->angles, head_dim, pairs));
    TSR_TRY(tsr_kv_write(dev, &kv, ws->k, ws->v, batch));
    TSR_TRY(tsr_attention(dev, ws->mixed, ws->q, &kv, batch, &d->attention));
    to_sum = (tsr_product){.weight = &w->o.weight, .out = own_part(d, n_rows)};
    TSR_TRY(tsr_matmul(dev, &to_sum, 1, ws->mixed, act)); // a part of the sum on each rank
    TSR_TRY(meet(d, n_rows, &sum));                       // all parts, for each rank to see
    TSR_TRY(tsr_add_sums(dev, ws->x, sum.parts, sum.n_parts, w->o.bias));

    // x += sum over ranks of swiglu(norm(x) Wgate, norm(x) Wup) Wdown
    TSR_TRY(tsr_rmsnorm(dev, ws->normed, ws->x, w->ff_norm, eps));
    TSR_TRY(tsr_matmul(dev, gate_up, 2, ws->normed, act));
    TSR_TRY(tsr_swiglu(dev, ws->gate, ws->gate, ws->up));
    to_sum = (tsr_product){.weight = &w->down.weight, .out = own_part(d, n_rows)};
    TSR_TRY(tsr_matmul(dev, &to_sum, 1, ws->gate, act));
    TSR_TRY(meet(d, n_rows, &sum));
    return tsr_add_sums(dev, ws->x, sum.parts, sum.n_parts, w->down.bias);
}

tsr_status tsr_decoder_forward(tsr_decoder *d, tsr_tensor tokens, tsr_tensor positions,
                               const tsr_batch *batch)
{
    const tsr_decoder_parts *p = &d->parts;
    const workspace ws = rows_of(&d->ws, tokens.n_cols);
    sum_over_ranks sum;

    // Each rank puts in the rows of its part of the vocabulary and zeros for the rest.
    TSR_TRY(tsr_embed(p->dev, own_part(d, tokens.n_cols), tokens, &p->weights->embed.weight,
                      p->shard->vocab.first));
    TSR_TRY(meet(d, tokens.n_cols, &sum));
    TSR_TRY(tsr_narrow(p->dev, ws.x, sum.parts, sum.n_parts));
    TSR_TRY(
        tsr_rope_angles(p->dev, ws.angles, positions, ws.frequencies, p->config->rope_magnitude));
    for (int layer = 0; layer < p->config->n_layers; layer++) {
        TSR_TRY(run_layer(d, &ws, layer, batch));
    }
    return TSR_OK;
}

tsr_status tsr_decoder_logits(tsr_decoder *d, tsr_tensor *logits, tsr_tensor rows)
{
    const tsr_decoder_parts *p = &d->parts;
    const tsr_tensor wanted = tsr_tensor_rows(d->ws.wanted, rows.n_cols);
    const tsr_product head = {.weight = &p->weights->head.weight,
                              .out = tsr_tensor_rows(d->ws.logits, rows.n_cols),
                              .bias = p->weights->head.bias};

    // The final norm is taken of the wanted rows only, the residual stream stays as it is.
    TSR_TRY(tsr_gather_rows(p->dev, wanted, d->ws.x, rows));
    TSR_TRY(tsr_rmsnorm(p->dev, wanted, wanted, p->weights->final_norm, p->config->norm_eps));
    TSR_TRY(tsr_matmul(p->dev, &head, 1, wanted, p->activations));
    *logits = head.out;
    return TSR_OK;
}
