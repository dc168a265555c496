#include "engine/weight_walk.h"

#include <stddef.h>

#include "engine/family.h"

enum {
    ALIGN_BYTES = 64
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
    WHOLE(EMBED_UP, ONE_LINEAR, embed_up),
    WHOLE(HEAD_DOWN, ONE_LINEAR, head_down),
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

/* Where the next n_bytes are packed; where they will lie is as far from the device's memory. */
static char *place_bytes(tsr_weight_walk *w, size_t n_bytes)
{
    char *at = w->weights == NULL ? NULL : w->packed + w->n_bytes;

    w->n_bytes += (n_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    return at;
}

static void *on_device(const tsr_weight_walk *w, const void *packed)
{
    return (char *)w->weights->memory + ((const char *)packed - w->packed);
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
static tsr_status locate(tsr_weight_walk *w, tsr_weight_place *place, tsr_shard_role role,
                         int layer, int64_t number, bool bias, bool optional)
{
    char name[TSR_WEIGHT_PLACE_NAME_BYTES];

    if (w->checkpoint == NULL) {
        w->imagined.encoding =
            bias || tsr_weight_place_is_vector(role) ? TSR_ENCODING_F32 : w->imagined_as;
        *place = (tsr_weight_place){.source = &w->imagined, .run = INT64_MAX, .step = 1};
        return TSR_OK;
    }
    TSR_TRY(
        tsr_weight_place_find(place, w->checkpoint, w->config, role, layer, number, bias, name));
    if (place->source == NULL) {
        return optional ? TSR_OK : tsr_fail(TSR_ERR_FORMAT, "the model lacks the tensor %s", name);
    }
    w->used[place->source - tsr_checkpoint_at(w->checkpoint, 0)] = true;
    if (place->factors != NULL) {
        w->used[place->factors - tsr_checkpoint_at(w->checkpoint, 0)] = true;
    }
    for (int i = 0; i < place->packed.n_tensors; i++) {
        w->used[place->packed.tensors[i] - tsr_checkpoint_at(w->checkpoint, 0)] = true;
    }
    return TSR_OK;
}

/* The elements `part` of a vector, as f32, unless only counting. */
static tsr_status read_vector(tsr_weight_walk *w, float *values, const tsr_weight_place *place,
                              tsr_range part, bool plus_one)
{
    const tsr_stored_tensor *source = place->source;
    const tsr_encoding_traits *traits = tsr_encoding_describe(source->encoding);

    if (traits->group_elems != 1) {
        return tsr_fail(TSR_ERR_FORMAT, "%.*s must hold plain numbers, not %s",
                        (int)source->name.n_bytes, source->name.bytes, traits->name);
    }
    w->file_bytes += (uint64_t)part.count * (uint64_t)traits->group_bytes;
    for (int64_t i = 0; i < part.count && w->weights != NULL; i++) {
        const int64_t at =
            place->matrix * source->shape[0] + tsr_weight_place_line(place, part.first + i);

        tsr_encoding_decode(source->encoding, &values[i], source->data, at, 1);
        values[i] += plus_one ? 1.0F : 0.0F;
    }
    return TSR_OK;
}

/* Room for a vector of f32; NULL when only counting. */
static float *make_vector(tsr_weight_walk *w, tsr_tensor *out, int64_t n)
{
    float *values = (float *)(void *)place_bytes(w, (size_t)n * sizeof(float));

    if (values != NULL) {
        *out = tsr_tensor_of(on_device(w, values), TSR_DTYPE_F32, w->on, 1, n);
    }
    return values;
}

/* A vector of f32, its elements `part`; f16 and bf16 convert. */
static tsr_status take_vector(tsr_weight_walk *w, tsr_tensor *out, const tsr_weight_place *place,
                              tsr_range part, bool plus_one)
{
    return read_vector(w, make_vector(w, out, part.count), place, part, plus_one);
}

tsr_format tsr_weight_walk_wish(tsr_format as, tsr_shard_role role, int64_t n_cols)
{
    const uint64_t rounded = TSR_FAMILY_ATTENTION | TSR_FAMILY_UP_DOWN |
                             TSR_ROLE_BIT(TSR_ROLE_GATE) | TSR_ROLE_BIT(TSR_ROLE_Q_LOW) |
                             TSR_ROLE_BIT(TSR_ROLE_KV_LOW) | TSR_FAMILY_SHARED |
                             (TSR_FAMILY_EXPERTS & ~TSR_ROLE_BIT(TSR_ROLE_ROUTER));

    if (as != TSR_FORMAT_Q8 && as != TSR_FORMAT_Q4 && as != TSR_FORMAT_FP8) {
        return as;
    }
    return (rounded & TSR_ROLE_BIT(role)) != 0 && n_cols % TSR_TILE_COLS == 0 ? as
                                                                              : TSR_FORMAT_COUNT;
}

static tsr_status take_matrix(tsr_weight_walk *w, tsr_weight *out, const tsr_weight_place *place,
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

    tsr_weight_place_shape(w->config, role, &n_rows, &n_cols);
    tsr_shard_window(&w->config->shape, w->shard, tsr_shard_rule_of(role), n_rows, n_cols, &rows,
                     &cols);
    as = tsr_weight_walk_wish(w->as, role, n_cols);
    format = tsr_weight_pack_format(place, as, w->on);
    panels = place_bytes(w, tsr_weight_bytes(format, rows.count, cols.count));
    if (tsr_weight_is_mixed(format) && cols.count > 0) {
        const int64_t n_panels = (rows.count + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS;

        n_groups = place->packed.n_groups;
        groups = (float *)(void *)place_bytes(
            w, (size_t)(n_panels * tsr_weight_table_floats(n_groups)) * sizeof(*groups));
    }
    w->file_bytes += tsr_weight_pack_file_bytes(place, rows, cols);
    w->n_jobs++;
    if (w->weights == NULL) {
        return TSR_OK;
    }
    *out = (tsr_weight){.format = format,
                        .on = w->on,
                        .n_rows = rows.count,
                        .n_cols = cols.count,
                        .grain_cols = grain_of(&w->config->shape, role),
                        .tiles = on_device(w, panels),
                        .groups = groups,
                        .n_groups = n_groups};
    if (rows.count > 0 && cols.count > 0) {
        tsr_weight_job *next = &w->jobs[w->n_jobs - 1];

        *next = (tsr_weight_job){.pack = {.place = *place,
                                          .as = as,
                                          .format = format,
                                          .groups = groups,
                                          .panels = panels,
                                          .panel_bytes = tsr_weight_panel_bytes(format, cols.count),
                                          .rows = rows,
                                          .cols = cols},
                                 .first_panel = w->n_panels,
                                 .n_panels = (rows.count + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS};
        w->n_panels += next->n_panels;
    } else {
        w->n_jobs--;
    }
    return TSR_OK;
}

/* The file need not have this bias, whether or not the family has one. */
static bool may_lack_bias(const tsr_weight_walk *w, tsr_shard_role role)
{
    return w->config->biases_as_found && (w->config->packing.kind == TSR_PACKING_NONE ||
                                          (w->config->biases & TSR_ROLE_BIT(role)) == 0);
}

/* The bias of a matrix, where the model has one. */
static tsr_status take_bias(tsr_weight_walk *w, tsr_tensor *out, tsr_shard_role role, int layer,
                            int64_t number)
{
    const bool has_bias = (w->config->biases & TSR_ROLE_BIT(role)) != 0;
    tsr_weight_place place;
    int64_t n_rows;
    int64_t n_cols;
    tsr_range rows;
    tsr_range cols;

    if (!has_bias && !w->config->biases_as_found) {
        return TSR_OK;
    }
    TSR_TRY(locate(w, &place, role, layer, number, true, may_lack_bias(w, role)));
    if (place.source == NULL) {
        return TSR_OK;
    }
    tsr_weight_place_shape(w->config, role, &n_rows, &n_cols);
    tsr_shard_window(&w->config->shape, w->shard, tsr_shard_bias_rule_of(role), n_rows, 1, &rows,
                     &cols);
    return take_vector(w, out, &place, rows, false);
}

static tsr_status take_linear(tsr_weight_walk *w, tsr_linear *out, tsr_shard_role role, int layer,
                              int64_t number)
{
    tsr_weight_place place;

    TSR_TRY(locate(w, &place, role, layer, number, false, false));
    TSR_TRY(take_matrix(w, &out->weight, &place, role));
    return take_bias(w, &out->bias, role, layer, number);
}

/* The elements of a vector role that are this rank's: `each` rows of the rule are one element, or
 * head_dim. */
static tsr_range vector_part(const tsr_weight_walk *w, tsr_shard_role role)
{
    int64_t n_rows;
    int64_t n_cols;
    tsr_range rows;
    tsr_range cols;

    tsr_weight_place_shape(w->config, role, &n_rows, &n_cols);
    tsr_shard_window(&w->config->shape, w->shard, tsr_shard_rule_of(role), n_rows * n_cols, 1,
                     &rows, &cols);
    return rows;
}

/* The own part of a vector that is stored as a tensor a head; those of other ranks must be there as
 * well. */
static tsr_status take_heads(tsr_weight_walk *w, tsr_tensor *out, tsr_shard_role role, int layer,
                             tsr_range part)
{
    float *values = make_vector(w, out, part.count);
    tsr_weight_place place;
    int64_t n_heads;
    int64_t head_dim;

    tsr_weight_place_shape(w->config, role, &n_heads, &head_dim);
    for (int64_t h = 0; h < n_heads; h++) {
        const int64_t own = h - part.first / head_dim;

        TSR_TRY(locate(w, &place, role, layer, h, false, false));
        if (own >= 0 && own < part.count / head_dim) {
            TSR_TRY(read_vector(w, values == NULL ? NULL : values + own * head_dim, &place,
                                (tsr_range){0, head_dim}, w->config->norm_plus_one));
        }
    }
    return TSR_OK;
}

/* The weight of a norm that only normalises. */
static void make_ones(tsr_weight_walk *w, tsr_norm *out, int64_t n)
{
    float *values = make_vector(w, &out->weight, n);

    for (int64_t i = 0; i < n && values != NULL; i++) {
        values[i] = 1;
    }
}

static tsr_status take_norm(tsr_weight_walk *w, tsr_norm *out, tsr_shard_role role, int layer)
{
    const bool a_head = role == TSR_ROLE_Q_HEADS_NORM || role == TSR_ROLE_K_HEADS_NORM;
    const tsr_range part = vector_part(w, role);
    tsr_weight_place place;

    if ((w->config->plain_norms & TSR_ROLE_BIT(role)) != 0) {
        make_ones(w, out, part.count);
        return TSR_OK;
    }
    TSR_TRY(locate(w, &place, role, layer, 0, false, false));
    TSR_TRY(place.is_a_head ? take_heads(w, &out->weight, role, layer, part)
                            : take_vector(w, &out->weight, &place, part, w->config->norm_plus_one));
    if ((w->config->biases & TSR_ROLE_BIT(role)) != 0 || w->config->biases_as_found) {
        TSR_TRY(locate(w, &place, role, layer, 0, true, may_lack_bias(w, role)));
        if (place.source != NULL) {
            TSR_TRY(take_vector(w, &out->bias, &place, part, false));
        }
    }
    if (a_head && out->weight.data != NULL) {
        const int64_t head_dim = w->config->shape.head_dim;

        out->weight = tsr_tensor_of(out->weight.data, TSR_DTYPE_F32, out->weight.on,
                                    part.count / head_dim, head_dim);
    }
    return TSR_OK;
}

static tsr_status take_numbered(tsr_weight_walk *w, tsr_linear **out, const slot *s, int layer)
{
    const tsr_range which = s->kind == A_HEAD ? w->shard->heads : w->shard->experts;
    tsr_linear *list = w->weights == NULL ? NULL : w->weights->numbered + w->n_numbered;
    tsr_linear ignored = {0};

    w->n_numbered += which.count;
    for (int64_t i = 0; i < which.count; i++) {
        TSR_TRY(
            take_linear(w, list == NULL ? &ignored : &list[i], s->role, layer, which.first + i));
    }
    *out = list;
    return TSR_OK;
}

static tsr_status take_slot(tsr_weight_walk *w, const slot *s, int layer, char *base)
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
        return take_linear(w, out, s->role, layer, 0);
    case ONE_NORM:
        return take_norm(w, out, s->role, layer);
    case ONE_VECTOR:
        TSR_TRY(locate(w, &place, s->role, layer, 0, false, false));
        return take_vector(w, out, &place, vector_part(w, s->role), false);
    default:
        return take_numbered(w, out, s, layer);
    }
}

bool tsr_weight_walk_layer_has(const tsr_layer_config *layer, tsr_shard_role role)
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
static tsr_status check_all_used(const tsr_weight_walk *w)
{
    for (int i = 0; i < tsr_checkpoint_count(w->checkpoint); i++) {
        const tsr_stored_tensor *t = tsr_checkpoint_at(w->checkpoint, i);

        // An expert of another rank is known by its role, not by being taken here.
        if (!w->used[i] && !tsr_weight_place_is_ignored(t, w->config)) {
            return tsr_fail(TSR_ERR_UNSUPPORTED,
                            "the tensor %.*s has no place in a model of the family %s",
                            t->name.n_bytes < 120 ? (int)t->name.n_bytes : 120, t->name.bytes,
                            w->config->family->name);
        }
    }
    return TSR_OK;
}

/* Experts and heads of other ranks: they must be sound there as well, and are not superfluous. */
static tsr_status look_at_others(tsr_weight_walk *w, const slot *s, int layer)
{
    const bool heads = s->kind == A_HEAD;
    const tsr_range own = heads ? w->shard->heads : w->shard->experts;
    const int64_t n = heads ? w->config->shape.n_heads : w->config->shape.n_experts;
    const bool has_bias = (w->config->biases & TSR_ROLE_BIT(s->role)) != 0;
    tsr_weight_place place;

    for (int64_t i = 0; i < n; i++) {
        if (i >= own.first && i < own.first + own.count) {
            continue;
        }
        TSR_TRY(locate(w, &place, s->role, layer, i, false, false));
        if (has_bias || w->config->biases_as_found) {
            TSR_TRY(locate(w, &place, s->role, layer, i, true, may_lack_bias(w, s->role)));
        }
    }
    return TSR_OK;
}

tsr_status tsr_weight_walk_run(tsr_weight_walk *w)
{
    tsr_tensor ignored;

    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
        const slot *s = &slots[i];

        if (!tsr_config_has(w->config, s->role)) {
            continue;
        }
        for (int layer = 0; layer < (s->layered ? w->config->n_layers : 1); layer++) {
            char *base = w->weights == NULL ? NULL
                         : s->layered       ? (char *)&w->weights->layers[layer]
                                            : (char *)w->weights;

            if (s->layered && !tsr_weight_walk_layer_has(&w->config->layers[layer], s->role)) {
                continue;
            }
            TSR_TRY(take_slot(w, s, layer, base));
            if (s->kind == A_HEAD || s->kind == AN_EXPERT) {
                TSR_TRY(look_at_others(w, s, layer));
            }
        }
    }
    if (w->config->tied_head) { // its weight is the embedding's, its bias is its own
        TSR_TRY(take_bias(w, w->weights == NULL ? &ignored : &w->weights->head.bias, TSR_ROLE_HEAD,
                          0, 0));
    }
    return w->checkpoint == NULL ? TSR_OK : check_all_used(w);
}

int64_t tsr_weight_walk_numbered(const tsr_config *config, const tsr_shard *shard)
{
    int64_t n = 0;

    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
        const slot *s = &slots[i];
        const bool numbered = s->kind == A_HEAD || s->kind == AN_EXPERT;

        for (int layer = 0; numbered && tsr_config_has(config, s->role) && layer < config->n_layers;
             layer++) {
            if (tsr_weight_walk_layer_has(&config->layers[layer], s->role)) {
                n += s->kind == A_HEAD ? shard->heads.count : shard->experts.count;
            }
        }
    }
    return n;
}
