#include "engine/weights.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/family.h"
#include "engine/weight_pack.h"
#include "engine/weight_place.h"

enum {
    ALIGN_BYTES = 64,
    MESSAGE_BYTES = 320,
    PANELS_AT_ONCE = 8,
    RELEASE_BYTES = 32 << 20 // packed bytes after which the file's pages are given back
};

/* How many of a role there are, and of what kind. */
typedef enum slot_kind {
    ONE_LINEAR,
    ONE_NORM,
    ONE_VECTOR,
    A_HEAD,   /* tsr_linear *, one for each own head */
    AN_EXPERT /* likewise */
} slot_kind;

/* Where a role goes in the structs. */
typedef struct slot {
    tsr_shard_role role;
    slot_kind kind;
    bool layered;
    size_t offset; /* in tsr_layer_weights or tsr_weights */
} slot;

#define LAYER(role, kind, field)                                        \
    {                                                                   \
        TSR_ROLE_##role, kind, true, offsetof(tsr_layer_weights, field) \
    }
#define WHOLE(role, kind, field)                                   \
    {                                                              \
        TSR_ROLE_##role, kind, false, offsetof(tsr_weights, field) \
    }

static const slot slots[] = {
    WHOLE(EMBED, ONE_LINEAR, embed),
    WHOLE(POSITIONS, ONE_LINEAR, positions),
    WHOLE(EMBED_NORM, ONE_NORM, embed_norm),
    WHOLE(HEAD, ONE_LINEAR, head), // tied: the embedding
    WHOLE(FINAL_NORM, ONE_NORM, final_norm),
    LAYER(ATTN_NORM, ONE_NORM, attn_norm),
    LAYER(Q_LOW, ONE_LINEAR, q_low),
    LAYER(Q_LOW_NORM, ONE_NORM, q_low_norm),
    LAYER(Q, ONE_LINEAR, q),
    LAYER(K, ONE_LINEAR, k),
    LAYER(V, ONE_LINEAR, v),
    LAYER(KV_LOW, ONE_LINEAR, kv_low),
    LAYER(KV_LOW_NORM, ONE_NORM, kv_low_norm),
    LAYER(K_UP, A_HEAD, k_up),
    LAYER(V_UP, A_HEAD, v_up),
    LAYER(O, ONE_LINEAR, o),
    LAYER(Q_HEAD_NORM, ONE_NORM, q_head_norm),
    LAYER(K_HEAD_NORM, ONE_NORM, k_head_norm),
    LAYER(Q_HEADS_NORM, ONE_NORM, q_head_norm),
    LAYER(K_HEADS_NORM, ONE_NORM, k_head_norm),
    LAYER(Q_WIDE_NORM, ONE_NORM, q_wide_norm),
    LAYER(K_WIDE_NORM, ONE_NORM, k_wide_norm),
    LAYER(SINKS, ONE_VECTOR, sinks),
    LAYER(ATTN_POST_NORM, ONE_NORM, attn_post_norm),
    LAYER(FF_NORM, ONE_NORM, ff_norm),
    LAYER(GATE, ONE_LINEAR, gate),
    LAYER(UP, ONE_LINEAR, up),
    LAYER(DOWN, ONE_LINEAR, down),
    LAYER(ROUTER, ONE_LINEAR, router),
    LAYER(EXPERT_GATE, AN_EXPERT, expert_gate),
    LAYER(EXPERT_UP, AN_EXPERT, expert_up),
    LAYER(EXPERT_DOWN, AN_EXPERT, expert_down),
    LAYER(SHARED_SCALE, ONE_LINEAR, shared_scale),
    LAYER(SHARED_GATE, ONE_LINEAR, shared_gate),
    LAYER(SHARED_UP, ONE_LINEAR, shared_up),
    LAYER(SHARED_DOWN, ONE_LINEAR, shared_down),
    LAYER(FF_POST_NORM, ONE_NORM, ff_post_norm),
};

/* One matrix to be packed. */
typedef struct job {
    tsr_weight_pack pack;
    int64_t first_panel; /* over all jobs */
    int64_t n_panels;
} job;

/* Walks all tensors twice: first to count, then, with memory there, to fill the structs and list
 * the jobs. */
typedef struct loader {
    const tsr_checkpoint *checkpoint; /* NULL: there is none, ... */
    tsr_stored_tensor imagined;       /* and this stands in for each of its tensors */
    const tsr_config *config;
    const tsr_shard *shard;
    tsr_encoding imagined_as; /* its encoding where it is a matrix */
    tsr_format as;
    tsr_device_kind on;
    tsr_weights *weights; /* NULL: only count */
    tsr_device *dev;
    bool *used;     /* [tensors] */
    char *packed;   /* what the host packs into: the device's memory if it may, else as much of its
                       own */
    size_t n_bytes; /* placed so far */
    uint64_t file_bytes;
    job *jobs;
    int64_t n_jobs;
    int64_t n_numbered;
    int64_t n_panels;

    atomic_llong next_panel;
    atomic_llong done_panels;
    atomic_int failed; /* the first failing thread's status; its words are in message */
    char message[MESSAGE_BYTES];
} loader;

/* Where the next n_bytes are packed; where they will lie is as far from the device's memory. */
static char *place_bytes(loader *load, size_t n_bytes)
{
    char *at = load->weights == NULL ? NULL : load->packed + load->n_bytes;

    load->n_bytes += (n_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    return at;
}

static void *on_device(const loader *load, const void *packed)
{
    return (char *)load->weights->memory + ((const char *)packed - load->packed);
}

static int64_t grain_of(const tsr_shard_shape *shape, tsr_shard_role role)
{
    switch (role) {
    case TSR_ROLE_O:
        return tsr_shard_attention_grain(shape);
    case TSR_ROLE_DOWN:
        return tsr_shard_ff_grain(shape);
    case TSR_ROLE_EXPERT_DOWN:
        return tsr_shard_grain_of(shape->expert_ff);
    case TSR_ROLE_SHARED_DOWN:
        return tsr_shard_grain_of(shape->shared_ff);
    default:
        return 0;
    }
}

/* Finds a tensor that must be there, or that may. */
static tsr_status locate(loader *load, tsr_weight_place *place, tsr_shard_role role, int layer,
                         int64_t number, bool bias, bool optional)
{
    char name[TSR_WEIGHT_PLACE_NAME_BYTES];

    if (load->checkpoint == NULL) {
        load->imagined.encoding =
            bias || tsr_weight_place_is_vector(role) ? TSR_ENCODING_F32 : load->imagined_as;
        *place = (tsr_weight_place){.source = &load->imagined, .run = INT64_MAX, .step = 1};
        return TSR_OK;
    }
    TSR_TRY(tsr_weight_place_find(place, load->checkpoint, load->config, role, layer, number, bias,
                                  name));
    if (place->source == NULL) {
        return optional ? TSR_OK : tsr_fail(TSR_ERR_FORMAT, "the model lacks the tensor %s", name);
    }
    load->used[place->source - tsr_checkpoint_at(load->checkpoint, 0)] = true;
    for (int i = 0; i < place->packed.n_tensors; i++) {
        load->used[place->packed.tensors[i] - tsr_checkpoint_at(load->checkpoint, 0)] = true;
    }
    return TSR_OK;
}

/* The elements `part` of a vector, as f32, unless only counting. */
static tsr_status read_vector(loader *load, float *values, const tsr_weight_place *place,
                              tsr_range part, bool plus_one)
{
    const tsr_stored_tensor *source = place->source;
    const tsr_encoding_traits *traits = tsr_encoding_describe(source->encoding);

    if (traits->group_elems != 1) {
        return tsr_fail(TSR_ERR_FORMAT, "%.*s must hold plain numbers, not %s",
                        (int)source->name.n_bytes, source->name.bytes, traits->name);
    }
    load->file_bytes += (uint64_t)part.count * (uint64_t)traits->group_bytes;
    for (int64_t i = 0; i < part.count && load->weights != NULL; i++) {
        const int64_t at =
            place->matrix * source->shape[0] + tsr_weight_place_line(place, part.first + i);

        tsr_encoding_decode(source->encoding, &values[i], source->data, at, 1);
        values[i] += plus_one ? 1.0F : 0.0F;
    }
    return TSR_OK;
}

/* Room for a vector of f32; NULL when only counting. */
static float *make_vector(loader *load, tsr_tensor *out, int64_t n)
{
    float *values = (float *)(void *)place_bytes(load, (size_t)n * sizeof(float));

    if (values != NULL) {
        *out = tsr_tensor_of(on_device(load, values), TSR_DTYPE_F32, tsr_device_kind_of(load->dev),
                             1, n);
    }
    return values;
}

/* A vector of f32, its elements `part`; f16 and bf16 convert. */
static tsr_status take_vector(loader *load, tsr_tensor *out, const tsr_weight_place *place,
                              tsr_range part, bool plus_one)
{
    return read_vector(load, make_vector(load, out, part.count), place, part, plus_one);
}

/* What plain weights of a role become. */
static tsr_format wish_for(const loader *load, tsr_shard_role role, int64_t n_cols)
{
    const uint64_t rounded = TSR_FAMILY_ATTENTION | TSR_FAMILY_UP_DOWN |
                             TSR_ROLE_BIT(TSR_ROLE_GATE) | TSR_ROLE_BIT(TSR_ROLE_Q_LOW) |
                             TSR_ROLE_BIT(TSR_ROLE_KV_LOW) | TSR_FAMILY_SHARED |
                             (TSR_FAMILY_EXPERTS & ~TSR_ROLE_BIT(TSR_ROLE_ROUTER));

    if (load->as != TSR_FORMAT_Q8 && load->as != TSR_FORMAT_Q4 && load->as != TSR_FORMAT_FP8) {
        return load->as;
    }
    return (rounded & TSR_ROLE_BIT(role)) != 0 && n_cols % TSR_TILE_COLS == 0 ? load->as
                                                                              : TSR_FORMAT_COUNT;
}

static tsr_status take_matrix(loader *load, tsr_weight *out, const tsr_weight_place *place,
                              tsr_shard_role role)
{
    tsr_format as;
    tsr_format format;
    int64_t n_rows;
    int64_t n_cols;
    tsr_range rows;
    tsr_range cols;
    char *panels;
    float *groups = NULL;
    int64_t n_groups = 0;

    tsr_weight_place_shape(load->config, role, &n_rows, &n_cols);
    tsr_shard_window(&load->config->shape, load->shard, tsr_shard_rule_of(role), n_rows, n_cols,
                     &rows, &cols);
    as = wish_for(load, role, n_cols);
    format = tsr_weight_pack_format(place, as, load->on);
    panels = place_bytes(load, tsr_weight_bytes(format, rows.count, cols.count));
    if (tsr_weight_is_mixed(format) && cols.count > 0) {
        const int64_t n_panels = (rows.count + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS;

        n_groups = place->packed.n_groups;
        groups = (float *)(void *)place_bytes(
            load, (size_t)(n_panels * tsr_weight_table_floats(n_groups)) * sizeof(*groups));
    }
    load->file_bytes += tsr_weight_pack_file_bytes(place, rows, cols);
    load->n_jobs++;
    if (load->weights == NULL) {
        return TSR_OK;
    }
    *out = (tsr_weight){.format = format,
                        .on = tsr_device_kind_of(load->dev),
                        .n_rows = rows.count,
                        .n_cols = cols.count,
                        .grain_cols = grain_of(&load->config->shape, role),
                        .tiles = on_device(load, panels),
                        .groups = groups,
                        .n_groups = n_groups};
    if (rows.count > 0 && cols.count > 0) {
        job *next = &load->jobs[load->n_jobs - 1];

        *next = (job){.pack = {.place = *place,
                               .as = as,
                               .format = format,
                               .groups = groups,
                               .panels = panels,
                               .panel_bytes = tsr_weight_panel_bytes(format, cols.count),
                               .rows = rows,
                               .cols = cols},
                      .first_panel = load->n_panels,
                      .n_panels = (rows.count + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS};
        load->n_panels += next->n_panels;
    } else {
        load->n_jobs--;
    }
    return TSR_OK;
}

/* The file need not have this bias, whether or not the family has one. */
static bool may_lack_bias(const loader *load, tsr_shard_role role)
{
    return load->config->biases_as_found && (load->config->packing.kind == TSR_PACKING_NONE ||
                                             (load->config->biases & TSR_ROLE_BIT(role)) == 0);
}

/* The bias of a matrix, where the model has one. */
static tsr_status take_bias(loader *load, tsr_tensor *out, tsr_shard_role role, int layer,
                            int64_t number)
{
    const bool has_bias = (load->config->biases & TSR_ROLE_BIT(role)) != 0;
    tsr_weight_place place;
    int64_t n_rows;
    int64_t n_cols;
    tsr_range rows;
    tsr_range cols;

    if (!has_bias && !load->config->biases_as_found) {
        return TSR_OK;
    }
    TSR_TRY(locate(load, &place, role, layer, number, true, may_lack_bias(load, role)));
    if (place.source == NULL) {
        return TSR_OK;
    }
    tsr_weight_place_shape(load->config, role, &n_rows, &n_cols);
    tsr_shard_window(&load->config->shape, load->shard, tsr_shard_bias_rule_of(role), n_rows, 1,
                     &rows, &cols);
    return take_vector(load, out, &place, rows, false);
}

static tsr_status take_linear(loader *load, tsr_linear *out, tsr_shard_role role, int layer,
                              int64_t number)
{
    tsr_weight_place place;

    TSR_TRY(locate(load, &place, role, layer, number, false, false));
    TSR_TRY(take_matrix(load, &out->weight, &place, role));
    return take_bias(load, &out->bias, role, layer, number);
}

/* The elements of a vector role that are this rank's: `each` rows of the rule are one element, or
 * head_dim. */
static tsr_range vector_part(const loader *load, tsr_shard_role role)
{
    int64_t n_rows;
    int64_t n_cols;
    tsr_range rows;
    tsr_range cols;

    tsr_weight_place_shape(load->config, role, &n_rows, &n_cols);
    tsr_shard_window(&load->config->shape, load->shard, tsr_shard_rule_of(role), n_rows * n_cols, 1,
                     &rows, &cols);
    return rows;
}

/* The own part of a vector that is stored as a tensor a head; those of other ranks must be there as
 * well. */
static tsr_status take_heads(loader *load, tsr_tensor *out, tsr_shard_role role, int layer,
                             tsr_range part)
{
    float *values = make_vector(load, out, part.count);
    tsr_weight_place place;
    int64_t n_heads;
    int64_t head_dim;

    tsr_weight_place_shape(load->config, role, &n_heads, &head_dim);
    for (int64_t h = 0; h < n_heads; h++) {
        const int64_t own = h - part.first / head_dim;

        TSR_TRY(locate(load, &place, role, layer, h, false, false));
        if (own >= 0 && own < part.count / head_dim) {
            TSR_TRY(read_vector(load, values == NULL ? NULL : values + own * head_dim, &place,
                                (tsr_range){0, head_dim}, load->config->norm_plus_one));
        }
    }
    return TSR_OK;
}

static tsr_status take_norm(loader *load, tsr_norm *out, tsr_shard_role role, int layer)
{
    const bool a_head = role == TSR_ROLE_Q_HEADS_NORM || role == TSR_ROLE_K_HEADS_NORM;
    const tsr_range part = vector_part(load, role);
    tsr_weight_place place;

    TSR_TRY(locate(load, &place, role, layer, 0, false, false));
    TSR_TRY(place.is_a_head
                ? take_heads(load, &out->weight, role, layer, part)
                : take_vector(load, &out->weight, &place, part, load->config->norm_plus_one));
    if ((load->config->biases & TSR_ROLE_BIT(role)) != 0 || load->config->biases_as_found) {
        TSR_TRY(locate(load, &place, role, layer, 0, true, may_lack_bias(load, role)));
        if (place.source != NULL) {
            TSR_TRY(take_vector(load, &out->bias, &place, part, false));
        }
    }
    if (a_head && out->weight.data != NULL) {
        const int64_t head_dim = load->config->shape.head_dim;

        out->weight = tsr_tensor_of(out->weight.data, TSR_DTYPE_F32, out->weight.on,
                                    part.count / head_dim, head_dim);
    }
    return TSR_OK;
}

static tsr_status take_numbered(loader *load, tsr_linear **out, const slot *s, int layer)
{
    const tsr_range which = s->kind == A_HEAD ? load->shard->heads : load->shard->experts;
    tsr_linear *list = load->weights == NULL ? NULL : load->weights->numbered + load->n_numbered;
    tsr_linear ignored = {0};

    load->n_numbered += which.count;
    for (int64_t i = 0; i < which.count; i++) {
        TSR_TRY(
            take_linear(load, list == NULL ? &ignored : &list[i], s->role, layer, which.first + i));
    }
    *out = list;
    return TSR_OK;
}

static tsr_status take_slot(loader *load, const slot *s, int layer, char *base)
{
    union {
        tsr_linear linear;
        tsr_norm norm;
        tsr_tensor vector;
        tsr_linear *list;
    } ignored = {0}; // when only counting, there is no struct to fill
    void *out = base == NULL ? (void *)&ignored : (void *)(base + s->offset);
    tsr_weight_place place;

    switch (s->kind) {
    case ONE_LINEAR:
        return take_linear(load, out, s->role, layer, 0);
    case ONE_NORM:
        return take_norm(load, out, s->role, layer);
    case ONE_VECTOR:
        TSR_TRY(locate(load, &place, s->role, layer, 0, false, false));
        return take_vector(load, out, &place, vector_part(load, s->role), false);
    default:
        return take_numbered(load, out, s, layer);
    }
}

/* Whether a layer has what its model has. */
static bool layer_has(const tsr_layer_config *layer, tsr_shard_role role)
{
    switch (role) {
    case TSR_ROLE_K:
    case TSR_ROLE_V:
    case TSR_ROLE_K_HEAD_NORM:
    case TSR_ROLE_K_HEADS_NORM:
    case TSR_ROLE_K_WIDE_NORM:
        return layer->makes_kv;
    case TSR_ROLE_GATE:
    case TSR_ROLE_UP:
    case TSR_ROLE_DOWN:
        return !layer->experts;
    case TSR_ROLE_ROUTER:
    case TSR_ROLE_EXPERT_GATE:
    case TSR_ROLE_EXPERT_UP:
    case TSR_ROLE_EXPERT_DOWN:
    case TSR_ROLE_SHARED_SCALE:
    case TSR_ROLE_SHARED_GATE:
    case TSR_ROLE_SHARED_UP:
    case TSR_ROLE_SHARED_DOWN:
        return layer->experts;
    default:
        return true;
    }
}

/* A tensor that nobody asked for would change the result if it were understood: say so rather than
 * guess. */
static tsr_status check_all_used(const loader *load)
{
    for (int i = 0; i < tsr_checkpoint_count(load->checkpoint); i++) {
        const tsr_stored_tensor *t = tsr_checkpoint_at(load->checkpoint, i);

        // An expert of another rank is known by its role, not by being taken here.
        if (!load->used[i] && !tsr_weight_place_is_ignored(t, load->config)) {
            return tsr_fail(TSR_ERR_UNSUPPORTED,
                            "the tensor %.*s has no place in a model of the family %s",
                            t->name.n_bytes < 120 ? (int)t->name.n_bytes : 120, t->name.bytes,
                            load->config->family->name);
        }
    }
    return TSR_OK;
}

/* Experts and heads of other ranks: they must be sound there as well, and are not superfluous. */
static tsr_status look_at_others(loader *load, const slot *s, int layer)
{
    const bool heads = s->kind == A_HEAD;
    const tsr_range own = heads ? load->shard->heads : load->shard->experts;
    const int64_t n = heads ? load->config->shape.n_heads : load->config->shape.n_experts;
    const bool has_bias = (load->config->biases & TSR_ROLE_BIT(s->role)) != 0;
    tsr_weight_place place;

    for (int64_t i = 0; i < n; i++) {
        if (i >= own.first && i < own.first + own.count) {
            continue;
        }
        TSR_TRY(locate(load, &place, s->role, layer, i, false, false));
        if (has_bias || load->config->biases_as_found) {
            TSR_TRY(locate(load, &place, s->role, layer, i, true, may_lack_bias(load, s->role)));
        }
    }
    return TSR_OK;
}

static tsr_status walk(loader *load)
{
    tsr_tensor ignored;

    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
        const slot *s = &slots[i];

        if (!tsr_config_has(load->config, s->role)) {
            continue;
        }
        for (int layer = 0; layer < (s->layered ? load->config->n_layers : 1); layer++) {
            char *base = load->weights == NULL ? NULL
                         : s->layered          ? (char *)&load->weights->layers[layer]
                                               : (char *)load->weights;

            if (s->layered && !layer_has(&load->config->layers[layer], s->role)) {
                continue;
            }
            TSR_TRY(take_slot(load, s, layer, base));
            if (s->kind == A_HEAD || s->kind == AN_EXPERT) {
                TSR_TRY(look_at_others(load, s, layer));
            }
        }
    }
    if (load->config->tied_head) { // its weight is the embedding's, its bias is its own
        TSR_TRY(take_bias(load, load->weights == NULL ? &ignored : &load->weights->head.bias,
                          TSR_ROLE_HEAD, 0, 0));
    }
    return load->checkpoint == NULL ? TSR_OK : check_all_used(load);
}

/* ---- packing --------------------------------------------------------------------------------- */

static void note_failure(loader *load, tsr_status st, const job *j)
{
    int none = TSR_OK;

    if (atomic_compare_exchange_strong(&load->failed, &none, (int)st)) {
        (void)snprintf(load->message, sizeof(load->message), "%.*s: %s",
                       (int)j->pack.place.source->name.n_bytes, j->pack.place.source->name.bytes,
                       tsr_status_message());
    }
}

static void pack_share(void *ctx, int thread, int n_threads)
{
    loader *load = ctx;
    tsr_weight_pack_bench bench = {0};
    size_t packed_bytes = 0;
    int64_t at = 0; // panels are taken in rising order: the job only moves forward

    (void)n_threads;
    for (;;) {
        const int64_t first = atomic_fetch_add(&load->next_panel, PANELS_AT_ONCE);
        const int64_t end =
            first + PANELS_AT_ONCE < load->n_panels ? first + PANELS_AT_ONCE : load->n_panels;

        if (first >= load->n_panels ||
            atomic_load_explicit(&load->failed, memory_order_relaxed) != TSR_OK) {
            break;
        }
        for (int64_t panel = first; panel < end; panel++) {
            const job *j;
            tsr_status st;

            while (panel >= load->jobs[at].first_panel + load->jobs[at].n_panels) {
                at++;
            }
            j = &load->jobs[at];
            st = tsr_weight_pack_one(&j->pack, &bench, panel - j->first_panel);
            if (st != TSR_OK) {
                note_failure(load, st, j);
                break;
            }
            packed_bytes += j->pack.panel_bytes;
        }
        atomic_fetch_add(&load->done_panels, end - first);
        if (thread == 0) {
            tsr_log_progress("packing weights", (uint64_t)atomic_load(&load->done_panels),
                             (uint64_t)load->n_panels);
            if (packed_bytes >= RELEASE_BYTES) {
                tsr_checkpoint_release_pages(load->checkpoint);
                packed_bytes = 0;
            }
        }
    }
    tsr_weight_pack_clear(&bench);
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* The first walk: what there is, and how much. */
static tsr_status count(loader *load)
{
    tsr_status st;

    load->used = tsr_alloc((size_t)tsr_checkpoint_count(load->checkpoint), sizeof(*load->used));
    if (load->used == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to look at a model's tensors");
    }
    st = walk(load);
    if (st != TSR_OK) {
        tsr_free(load->used);
        load->used = NULL;
    }
    return st;
}

tsr_status tsr_weights_measure(size_t *n_bytes, const tsr_checkpoint *checkpoint,
                               const tsr_config *config, const tsr_shard *shard, tsr_format as,
                               tsr_device_kind on)
{
    loader load = {.checkpoint = checkpoint, .config = config, .shard = shard, .as = as, .on = on};

    TSR_TRY(count(&load));
    tsr_free(load.used);
    *n_bytes = load.n_bytes;
    return TSR_OK;
}

size_t tsr_weights_estimate(tsr_encoding encoding, const tsr_config *config, const tsr_shard *shard)
{
    loader load = {.config = config,
                   .shard = shard,
                   .imagined_as = encoding,
                   .as = TSR_FORMAT_COUNT,
                   .on = TSR_DEVICE_CPU};
    const tsr_status st = walk(&load);

    assert(st == TSR_OK); // what is imagined is there and plain
    (void)st;
    return load.n_bytes;
}

size_t tsr_weights_table_bytes(const tsr_config *config, const tsr_shard *shard)
{
    int64_t n_numbered = 0;

    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
        const slot *s = &slots[i];
        const bool numbered = s->kind == A_HEAD || s->kind == AN_EXPERT;

        for (int layer = 0; numbered && tsr_config_has(config, s->role) && layer < config->n_layers;
             layer++) {
            if (layer_has(&config->layers[layer], s->role)) {
                n_numbered += s->kind == A_HEAD ? shard->heads.count : shard->experts.count;
            }
        }
    }
    return (size_t)config->n_layers * sizeof(tsr_layer_weights) +
           (size_t)n_numbered * sizeof(tsr_linear);
}

tsr_status tsr_weights_load(tsr_weights *weights, tsr_device *dev, const tsr_checkpoint *checkpoint,
                            const tsr_config *config, const tsr_shard *shard, tsr_format as)
{
    tsr_weights made = {.dev = dev};
    loader load = {.checkpoint = checkpoint,
                   .config = config,
                   .shard = shard,
                   .as = as,
                   .on = tsr_device_kind_of(dev),
                   .dev = dev};
    tsr_status st;

    TSR_TRY(count(&load));
    made.n_bytes = load.n_bytes;
    made.file_bytes = load.file_bytes;
    made.layers = tsr_alloc((size_t)config->n_layers, sizeof(*made.layers));
    made.numbered = tsr_alloc((size_t)load.n_numbered, sizeof(*made.numbered));
    load.jobs = tsr_alloc((size_t)load.n_jobs, sizeof(*load.jobs));
    made.memory = tsr_device_alloc(dev, made.n_bytes);
    if (made.layers == NULL || made.numbered == NULL || load.jobs == NULL || made.memory == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no room for %.1f MB of weights", (double)made.n_bytes / 1e6);
        goto done;
    }
    load.packed = tsr_device_is_host(dev) ? made.memory : tsr_alloc_pages(made.n_bytes);
    if (load.packed == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no room to pack %.1f MB of weights on the host",
                      (double)made.n_bytes / 1e6);
        goto done;
    }
    load.weights = &made;
    load.n_bytes = 0;
    load.n_jobs = load.n_numbered = 0;
    TSR_TRY_GOTO(st, done, walk(&load));
    if (config->tied_head) {
        made.head.weight = made.embed.weight;
    }
    tsr_cpu_pool_run(tsr_device_pool(dev), pack_share, &load);
    tsr_log_progress("packing weights", 1, 1);
    tsr_checkpoint_release_pages(checkpoint);
    st = (tsr_status)atomic_load(&load.failed);
    if (st != TSR_OK) {
        st = tsr_fail(st, "%s", load.message);
        goto done;
    }
    if (load.packed != (char *)made.memory) {
        TSR_TRY_GOTO(st, done, tsr_device_upload(dev, made.memory, load.packed, made.n_bytes));
    }
    *weights = made;

done:
    if (load.packed != (char *)made.memory) {
        tsr_free_pages(load.packed, made.n_bytes);
    }
    tsr_free(load.jobs);
    tsr_free(load.used);
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
    tsr_free(weights->numbered);
    tsr_free(weights->layers);
    *weights = (tsr_weights){0};
}
