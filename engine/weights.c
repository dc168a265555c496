#include "engine/weights.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"

enum {
    NAME_BYTES = 64,
    ALIGN_BYTES = 64,
    MESSAGE_BYTES = 256,
    PANELS_AT_ONCE = 8,
    RELEASE_BYTES = 32 << 20 // packed bytes after which the file's pages are given back
};

/* Where one role's tensor is in the file and where it goes in the structs. */
typedef struct slot {
    tsr_shard_role role;
    const char *name; /* GGUF; "blk.%d." is put before it when `layered` */
    bool layered;
    size_t offset; /* of the tsr_linear or, for norms, the tsr_tensor, in tsr_layer_weights or
                      tsr_weights */
    bool optional;
} slot;

#define LAYER(field) offsetof(tsr_layer_weights, field)
#define WHOLE(field) offsetof(tsr_weights, field)

static const slot slots[] = {
    {TSR_ROLE_EMBED, "token_embd", false, WHOLE(embed), false},
    {TSR_ROLE_HEAD, "output", false, WHOLE(head), true}, // tied: the embedding
    {TSR_ROLE_FINAL_NORM, "output_norm", false, WHOLE(final_norm), false},
    {TSR_ROLE_ATTN_NORM, "attn_norm", true, LAYER(attn_norm), false},
    {TSR_ROLE_Q, "attn_q", true, LAYER(q), false},
    {TSR_ROLE_K, "attn_k", true, LAYER(k), false},
    {TSR_ROLE_V, "attn_v", true, LAYER(v), false},
    {TSR_ROLE_O, "attn_output", true, LAYER(o), false},
    {TSR_ROLE_FF_NORM, "ffn_norm", true, LAYER(ff_norm), false},
    {TSR_ROLE_GATE, "ffn_gate", true, LAYER(gate), false},
    {TSR_ROLE_UP, "ffn_up", true, LAYER(up), false},
    {TSR_ROLE_DOWN, "ffn_down", true, LAYER(down), false},
};

/* One matrix to be packed. */
typedef struct job {
    const tsr_gguf_tensor *source;
    char *panels; /* destination */
    size_t panel_bytes;
    tsr_range rows, cols; /* of the source */
    int64_t first_panel;  /* over all jobs */
    int64_t n_panels;
} job;

/* Walks all tensors twice: first to count bytes, then, with memory there, to fill the structs and
 * list the jobs. */
typedef struct loader {
    const tsr_gguf *gguf;               /* NULL: */
    const tsr_weights_outline *outline; /* there is no file, only this */
    tsr_gguf_tensor imagined;           /* what stands in for a tensor of it */
    const tsr_config *config;
    const tsr_shard *shard;
    tsr_weights *weights; /* NULL: only measure */
    tsr_device *dev;
    size_t n_bytes; /* placed so far */
    job *jobs;
    int n_jobs;
    int64_t n_panels;
    int n_found; /* tensors that belong to the model */

    atomic_llong next_panel;
    atomic_llong done_panels;
    atomic_int failed; /* the first failing thread's status; its words are in message */
    char message[MESSAGE_BYTES];
} loader;

static char *place(loader *load, size_t n_bytes)
{
    char *at = load->weights == NULL ? NULL : (char *)load->weights->memory + load->n_bytes;

    load->n_bytes += (n_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    return at;
}

static void full_shape(const tsr_config *config, tsr_shard_role role, int64_t *n_rows,
                       int64_t *n_cols)
{
    const tsr_shard_shape *s = &config->shape;
    const int64_t q_dim = (int64_t)s->n_heads * s->head_dim;
    const int64_t kv_dim = (int64_t)s->n_kv_heads * s->head_dim;
    const int64_t shapes[TSR_ROLE_COUNT][2] = {
        [TSR_ROLE_EMBED] = {s->n_vocab, s->dim}, [TSR_ROLE_HEAD] = {s->n_vocab, s->dim},
        [TSR_ROLE_FINAL_NORM] = {1, s->dim},     [TSR_ROLE_ATTN_NORM] = {1, s->dim},
        [TSR_ROLE_FF_NORM] = {1, s->dim},        [TSR_ROLE_Q] = {q_dim, s->dim},
        [TSR_ROLE_K] = {kv_dim, s->dim},         [TSR_ROLE_V] = {kv_dim, s->dim},
        [TSR_ROLE_O] = {s->dim, q_dim},          [TSR_ROLE_GATE] = {s->ff_dim, s->dim},
        [TSR_ROLE_UP] = {s->ff_dim, s->dim},     [TSR_ROLE_DOWN] = {s->dim, s->ff_dim},
    };

    *n_rows = shapes[role][0];
    *n_cols = shapes[role][1];
}

static int64_t grain_of(const tsr_config *config, tsr_shard_role role)
{
    return role == TSR_ROLE_O      ? tsr_shard_attention_grain(&config->shape)
           : role == TSR_ROLE_DOWN ? tsr_shard_ff_grain(&config->shape)
                                   : 0;
}

/* A vector of f32, the part [part.first, + count) of it; f16 and bf16 files convert. */
static tsr_status take_vector(loader *load, tsr_tensor *out, const tsr_gguf_tensor *source,
                              int64_t n_whole, tsr_range part)
{
    float *values;

    if (source->n_dims != 1 || source->shape[0] != n_whole ||
        tsr_encoding_describe(source->encoding)->group_elems != 1) {
        return tsr_fail(TSR_ERR_FORMAT, "%.*s must be %lld plain numbers",
                        (int)source->name.n_bytes, source->name.bytes, (long long)n_whole);
    }
    values = (float *)(void *)place(load, (size_t)part.count * sizeof(float));
    if (load->weights != NULL) {
        tsr_encoding_decode(source->encoding, values, source->data, part.first, part.count);
        *out = tsr_tensor_of(values, TSR_DTYPE_F32, tsr_device_kind_of(load->dev), 1, part.count);
    }
    load->n_found++;
    return TSR_OK;
}

static tsr_status take_matrix(loader *load, tsr_weight *out, const tsr_gguf_tensor *source,
                              tsr_shard_role role)
{
    const tsr_format format = tsr_weight_format_for(source->encoding);
    int64_t n_rows;
    int64_t n_cols;
    tsr_range rows;
    tsr_range cols;
    char *panels;

    full_shape(load->config, role, &n_rows, &n_cols);
    if (source->n_dims != 2 || source->shape[0] != n_cols || source->shape[1] != n_rows) {
        return tsr_fail(TSR_ERR_FORMAT, "%.*s is [%lld, %lld]; the model's sizes want [%lld, %lld]",
                        (int)source->name.n_bytes, source->name.bytes, (long long)source->shape[1],
                        (long long)source->shape[0], (long long)n_rows, (long long)n_cols);
    }
    tsr_shard_window(&load->config->shape, load->shard, tsr_shard_rule_of(role), n_rows, n_cols,
                     &rows, &cols);
    panels = place(load, tsr_weight_bytes(format, rows.count, cols.count));
    load->n_found++;
    if (load->weights == NULL) {
        return TSR_OK;
    }
    *out = (tsr_weight){.format = format,
                        .on = tsr_device_kind_of(load->dev),
                        .n_rows = rows.count,
                        .n_cols = cols.count,
                        .grain_cols = grain_of(load->config, role),
                        .tiles = panels};
    if (rows.count > 0 && cols.count > 0) {
        job *next = &load->jobs[load->n_jobs++];

        *next = (job){.source = source,
                      .panels = panels,
                      .panel_bytes = tsr_weight_panel_bytes(format, cols.count),
                      .rows = rows,
                      .cols = cols,
                      .first_panel = load->n_panels,
                      .n_panels = (rows.count + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS};
        load->n_panels += next->n_panels;
    }
    return TSR_OK;
}

static bool is_norm(tsr_shard_role role)
{
    return role == TSR_ROLE_ATTN_NORM || role == TSR_ROLE_FF_NORM || role == TSR_ROLE_FINAL_NORM;
}

/* The tensor that a file of the outline would have. */
static const tsr_gguf_tensor *imagine(loader *load, const slot *s, bool bias)
{
    const tsr_weights_outline *outline = load->outline;
    const bool qkv = s->role == TSR_ROLE_Q || s->role == TSR_ROLE_K || s->role == TSR_ROLE_V;
    tsr_gguf_tensor *t = &load->imagined;
    int64_t n_rows;
    int64_t n_cols;

    if ((bias && !(qkv && outline->qkv_bias)) || (s->role == TSR_ROLE_GATE && !outline->gated) ||
        (s->role == TSR_ROLE_HEAD && load->config->tied_head)) {
        return NULL;
    }
    full_shape(load->config, s->role, &n_rows, &n_cols);
    *t = bias || is_norm(s->role) ? (tsr_gguf_tensor){.encoding = TSR_ENCODING_F32,
                                                      .n_dims = 1,
                                                      .shape = {bias ? n_rows : n_cols, 1, 1, 1}}
                                  : (tsr_gguf_tensor){.encoding = outline->encoding,
                                                      .n_dims = 2,
                                                      .shape = {n_cols, n_rows, 1, 1}};
    return t;
}

static const tsr_gguf_tensor *find(loader *load, const slot *s, int layer, const char *kind,
                                   char *name)
{
    if (load->gguf == NULL) {
        return imagine(load, s, strcmp(kind, "bias") == 0);
    }
    if (s->layered) {
        (void)snprintf(name, NAME_BYTES, "blk.%d.%s.%s", layer, s->name, kind);
    } else {
        (void)snprintf(name, NAME_BYTES, "%s.%s", s->name, kind);
    }
    return tsr_gguf_find(load->gguf, name);
}

/* One role: the norm, or the matrix and its bias, into `base` (the struct that holds the field). */
static tsr_status take_slot(loader *load, const slot *s, int layer, char *base)
{
    char name[NAME_BYTES];
    const tsr_gguf_tensor *source = find(load, s, layer, "weight", name);
    tsr_linear ignored = {0}; // when only measuring, there is no struct to fill
    tsr_linear *linear = base == NULL ? &ignored : (tsr_linear *)(void *)(base + s->offset);
    tsr_tensor ignored_norm = {0};
    int64_t n_rows;
    int64_t n_cols;
    tsr_range rows;
    tsr_range cols;

    if (source == NULL) {
        return s->optional || load->gguf == NULL
                   ? TSR_OK
                   : tsr_fail(TSR_ERR_FORMAT, "the model file lacks the tensor %s", name);
    }
    full_shape(load->config, s->role, &n_rows, &n_cols);
    if (is_norm(s->role)) {
        return take_vector(load,
                           base == NULL ? &ignored_norm : (tsr_tensor *)(void *)(base + s->offset),
                           source, n_cols, (tsr_range){0, n_cols});
    }
    TSR_TRY(take_matrix(load, &linear->weight, source, s->role));
    source = find(load, s, layer, "bias", name);
    if (source == NULL) {
        return TSR_OK;
    }
    tsr_shard_window(&load->config->shape, load->shard, tsr_shard_bias_rule_of(s->role), n_rows, 1,
                     &rows, &cols);
    return take_vector(load, &linear->bias, source, n_rows, rows);
}

static tsr_status walk(loader *load)
{
    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
        for (int layer = 0; layer < (slots[i].layered ? load->config->n_layers : 1); layer++) {
            char *base = load->weights == NULL ? NULL
                         : slots[i].layered    ? (char *)&load->weights->layers[layer]
                                               : (char *)load->weights;

            TSR_TRY(take_slot(load, &slots[i], layer, base));
        }
    }
    if (load->gguf == NULL) {
        return TSR_OK;
    }
    // A tensor that nobody asked for would change the result if it were understood: say so rather
    // than guess.
    if (load->n_found + (load->config->rope_has_factors ? 1 : 0) <
        tsr_gguf_tensor_count(load->gguf)) {
        return tsr_fail(
            TSR_ERR_UNSUPPORTED, "the model file has %d tensors, of which %d belong to a %s model",
            tsr_gguf_tensor_count(load->gguf), load->n_found, load->config->family->architecture);
    }
    return TSR_OK;
}

static tsr_status pack_one(const job *j, int64_t panel)
{
    const size_t row_bytes = tsr_encoding_row_bytes(j->source->encoding, j->source->shape[0]);
    const void *rows[TSR_PANEL_ROWS];

    for (int r = 0; r < TSR_PANEL_ROWS; r++) {
        const int64_t row = panel * TSR_PANEL_ROWS + r;

        rows[r] = row < j->rows.count
                      ? (const char *)j->source->data + (size_t)(j->rows.first + row) * row_bytes
                      : NULL;
    }
    return tsr_weight_pack_panel(j->source->encoding, j->panels + (size_t)panel * j->panel_bytes,
                                 rows, j->cols.first, j->cols.count);
}

static void note_failure(loader *load, tsr_status st, const job *j)
{
    int none = TSR_OK;

    if (atomic_compare_exchange_strong(&load->failed, &none, (int)st)) {
        (void)snprintf(load->message, sizeof(load->message), "%.*s: %s",
                       (int)j->source->name.n_bytes, j->source->name.bytes, tsr_status_message());
    }
}

static void pack_share(void *ctx, int thread, int n_threads)
{
    loader *load = ctx;
    size_t packed_bytes = 0;
    int at = 0; // panels are taken in rising order: the job only moves forward

    (void)n_threads;
    for (;;) {
        const int64_t first = atomic_fetch_add(&load->next_panel, PANELS_AT_ONCE);
        const int64_t end =
            first + PANELS_AT_ONCE < load->n_panels ? first + PANELS_AT_ONCE : load->n_panels;

        if (first >= load->n_panels ||
            atomic_load_explicit(&load->failed, memory_order_relaxed) != TSR_OK) {
            return;
        }
        for (int64_t panel = first; panel < end; panel++) {
            tsr_status st;

            while (panel >= load->jobs[at].first_panel + load->jobs[at].n_panels) {
                at++;
            }
            st = pack_one(&load->jobs[at], panel - load->jobs[at].first_panel);
            if (st != TSR_OK) {
                note_failure(load, st, &load->jobs[at]);
                return;
            }
            packed_bytes += load->jobs[at].panel_bytes;
        }
        atomic_fetch_add(&load->done_panels, end - first);
        if (thread == 0) {
            tsr_log_progress("packing weights", (uint64_t)atomic_load(&load->done_panels),
                             (uint64_t)load->n_panels);
            if (packed_bytes >= RELEASE_BYTES) {
                tsr_gguf_release_pages(load->gguf);
                packed_bytes = 0;
            }
        }
    }
}

tsr_status tsr_weights_measure(size_t *n_bytes, const tsr_gguf *gguf, const tsr_config *config,
                               const tsr_shard *shard)
{
    loader load = {.gguf = gguf, .config = config, .shard = shard};

    TSR_TRY(walk(&load));
    *n_bytes = load.n_bytes;
    return TSR_OK;
}

size_t tsr_weights_estimate(const tsr_weights_outline *outline, const tsr_config *config,
                            const tsr_shard *shard)
{
    loader load = {.outline = outline, .config = config, .shard = shard};
    const tsr_status st = walk(&load);

    assert(st == TSR_OK); // what is imagined has the shapes that are asked for
    (void)st;
    return load.n_bytes;
}

tsr_status tsr_weights_load(tsr_weights *weights, tsr_device *dev, const tsr_gguf *gguf,
                            const tsr_config *config, const tsr_shard *shard)
{
    tsr_weights made = {.dev = dev};
    loader load = {.gguf = gguf, .config = config, .shard = shard, .weights = &made, .dev = dev};
    tsr_status st;

    TSR_TRY(tsr_weights_measure(&made.n_bytes, gguf, config, shard));
    made.layers = tsr_alloc((size_t)config->n_layers, sizeof(*made.layers));
    load.jobs = tsr_alloc((size_t)tsr_gguf_tensor_count(gguf), sizeof(*load.jobs));
    made.memory = tsr_device_alloc(dev, made.n_bytes);
    if (made.layers == NULL || load.jobs == NULL || made.memory == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no room for %.1f MB of weights", (double)made.n_bytes / 1e6);
        goto done;
    }
    TSR_TRY_GOTO(st, done, walk(&load));
    if (config->tied_head) {
        made.head = made.embed;
    }
    tsr_cpu_pool_run(tsr_device_pool(dev), pack_share, &load);
    tsr_log_progress("packing weights", 1, 1);
    tsr_gguf_release_pages(gguf);
    st = (tsr_status)atomic_load(&load.failed);
    if (st != TSR_OK) {
        st = tsr_fail(st, "%s", load.message);
        goto done;
    }
    *weights = made;

done:
    tsr_free(load.jobs);
    if (st != TSR_OK) {
        tsr_weights_clear(&made);
    }
    return st;
}

void tsr_weights_clear(tsr_weights *weights)
{
    if (weights->memory != NULL) {
        tsr_device_free(weights->dev, weights->memory, weights->n_bytes);
    }
    tsr_free(weights->layers);
    *weights = (tsr_weights){0};
}
