#include "engine/weight_place.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/family.h"

enum {
    NAME_BYTES = TSR_WEIGHT_PLACE_NAME_BYTES
};

void tsr_weight_place_shape(const tsr_config *c, tsr_shard_role role, int64_t *n_rows,
                            int64_t *n_cols)
{
    const tsr_shard_shape *s = &c->shape;
    const int64_t q_dim = (int64_t)s->n_heads * s->head_dim;
    const int64_t kv_dim = (int64_t)s->n_kv_heads * s->head_dim;
    const int64_t o_dim = (int64_t)s->n_heads * tsr_shard_value_dim(s);
    const int64_t shapes[TSR_ROLE_COUNT][2] = {
        [TSR_ROLE_EMBED] = {s->n_vocab, c->embed_dim},
        [TSR_ROLE_POSITIONS] = {s->n_positions, s->dim},
        [TSR_ROLE_EMBED_NORM] = {1, s->dim},
        [TSR_ROLE_EMBED_UP] = {s->dim, c->embed_dim},
        [TSR_ROLE_HEAD_DOWN] = {c->embed_dim, s->dim},
        [TSR_ROLE_HEAD] = {s->n_vocab, c->embed_dim},
        [TSR_ROLE_FINAL_NORM] = {1, s->dim},
        [TSR_ROLE_ATTN_NORM] = {1, s->dim},
        [TSR_ROLE_FF_NORM] = {1, s->dim},
        [TSR_ROLE_ATTN_POST_NORM] = {1, s->dim},
        [TSR_ROLE_FF_POST_NORM] = {1, s->dim},
        [TSR_ROLE_Q] = {q_dim, c->q_low > 0 ? c->q_low : s->dim},
        [TSR_ROLE_K] = {kv_dim, s->dim},
        [TSR_ROLE_V] = {kv_dim, s->dim},
        [TSR_ROLE_O] = {s->dim, o_dim},
        [TSR_ROLE_Q_HEAD_NORM] = {1, s->head_dim},
        [TSR_ROLE_K_HEAD_NORM] = {1, s->head_dim},
        [TSR_ROLE_Q_HEADS_NORM] = {s->n_heads, s->head_dim},
        [TSR_ROLE_K_HEADS_NORM] = {s->n_kv_heads, s->head_dim},
        [TSR_ROLE_Q_WIDE_NORM] = {1, q_dim},
        [TSR_ROLE_K_WIDE_NORM] = {1, kv_dim},
        [TSR_ROLE_SINKS] = {1, s->n_heads},
        [TSR_ROLE_Q_LOW] = {c->q_low, s->dim},
        [TSR_ROLE_Q_LOW_NORM] = {1, c->q_low},
        [TSR_ROLE_KV_LOW] = {c->kv_low + c->n_rot, s->dim},
        [TSR_ROLE_KV_LOW_NORM] = {1, c->kv_low},
        [TSR_ROLE_K_UP] = {c->kv_low, c->n_nope},
        [TSR_ROLE_V_UP] = {tsr_shard_value_dim(s), c->kv_low},
        [TSR_ROLE_GATE] = {s->ff_dim, s->dim},
        [TSR_ROLE_UP] = {s->ff_dim, s->dim},
        [TSR_ROLE_DOWN] = {s->dim, s->ff_dim},
        [TSR_ROLE_ROUTER] = {s->n_experts, s->dim},
        [TSR_ROLE_EXPERT_GATE] = {s->expert_ff, s->dim},
        [TSR_ROLE_EXPERT_UP] = {s->expert_ff, s->dim},
        [TSR_ROLE_EXPERT_DOWN] = {s->dim, s->expert_ff},
        [TSR_ROLE_SHARED_SCALE] = {1, s->dim},
        [TSR_ROLE_SHARED_GATE] = {s->shared_ff, s->dim},
        [TSR_ROLE_SHARED_UP] = {s->shared_ff, s->dim},
        [TSR_ROLE_SHARED_DOWN] = {s->dim, s->shared_ff},
    };

    *n_rows = shapes[role][0];
    *n_cols = shapes[role][1];
}

bool tsr_weight_place_is_vector(tsr_shard_role role)
{
    switch (role) {
    case TSR_ROLE_EMBED_NORM:
    case TSR_ROLE_FINAL_NORM:
    case TSR_ROLE_ATTN_NORM:
    case TSR_ROLE_FF_NORM:
    case TSR_ROLE_ATTN_POST_NORM:
    case TSR_ROLE_FF_POST_NORM:
    case TSR_ROLE_Q_HEAD_NORM:
    case TSR_ROLE_K_HEAD_NORM:
    case TSR_ROLE_Q_HEADS_NORM:
    case TSR_ROLE_K_HEADS_NORM:
    case TSR_ROLE_Q_WIDE_NORM:
    case TSR_ROLE_K_WIDE_NORM:
    case TSR_ROLE_SINKS:
    case TSR_ROLE_Q_LOW_NORM:
    case TSR_ROLE_KV_LOW_NORM:
        return true;
    default:
        return false;
    }
}

/* ---- names ----------------------------------------------------------------------------------- */

/* The name with %l and %e filled in, and what belongs behind it. */
static void spell(char *name, const char *pattern, int layer, int64_t number, bool bias)
{
    size_t used = 0;

    for (const char *at = pattern; *at != '\0' && used + 24 < NAME_BYTES; at++) {
        if (at[0] == '%' && (at[1] == 'l' || at[1] == 'e')) {
            used += (size_t)snprintf(name + used, NAME_BYTES - used, "%lld",
                                     at[1] == 'l' ? (long long)layer : (long long)number);
            at++;
        } else if (*at != '=') {
            name[used++] = *at;
        }
    }
    name[used] = '\0';
    if (strchr(pattern, '=') == NULL) {
        (void)snprintf(name + used, NAME_BYTES - used, "%s", bias ? ".bias" : ".weight");
    } else if (bias) {
        (void)snprintf(name + used, NAME_BYTES - used, "_bias");
    }
}

/* The packed weight of NAME.weight, or of NAME. */
static tsr_status look_up_packed(tsr_weight_place *place, const tsr_checkpoint *checkpoint,
                                 const tsr_config *config, const char *name)
{
    static const char ending[] = ".weight";
    const size_t n = strlen(name);
    const size_t n_ending = sizeof(ending) - 1;
    const bool ends = n > n_ending && strcmp(name + n - n_ending, ending) == 0;
    char stem[NAME_BYTES];

    (void)snprintf(stem, sizeof(stem), "%.*s", (int)(ends ? n - n_ending : n), name);
    TSR_TRY(tsr_packed_find(&place->packed, &place->is_packed, &config->packing, checkpoint, stem));
    if (place->is_packed) {
        place->source = place->packed.tensors[0];
    }
    return TSR_OK;
}

/* Files of the bare model, without its head, leave out the first part of every name; in models of
 * images and text there is one more, before or behind it. */
static tsr_status look_up(tsr_weight_place *place, const tsr_checkpoint *checkpoint,
                          const tsr_config *config, const char *name)
{
    static const char *const forms[] = {"%s%s", "%.0s%s", "language_model.%s%s",
                                        "%slanguage_model.%s"};
    const bool is_folder = tsr_checkpoint_gguf(checkpoint) == NULL;
    const char *dot = strchr(name, '.');
    const char *rest = dot == NULL ? name : dot + 1;
    char first[NAME_BYTES];
    char whole[NAME_BYTES];

    (void)snprintf(first, sizeof(first), "%.*s", (int)(rest - name), name);
    for (size_t i = 0; i < (is_folder ? sizeof(forms) / sizeof(forms[0]) : 1); i++) {
        (void)snprintf(whole, sizeof(whole), forms[i], first, rest);
        place->source = tsr_checkpoint_find(checkpoint, whole);
        if (place->source == NULL || place->source->encoding == TSR_ENCODING_COUNT) {
            TSR_TRY(look_up_packed(place, checkpoint, config, whole));
        }
        if (place->source != NULL) {
            break;
        }
    }
    return TSR_OK;
}

/* The first table that lists the role is the one that counts. *at: the name that was found. */
static tsr_status find_name(tsr_weight_place *place, const tsr_tensor_name **at,
                            const tsr_checkpoint *checkpoint, const tsr_config *config,
                            tsr_shard_role role, int layer, int64_t number, bool bias, char *name)
{
    const tsr_tensor_name *first = NULL;

    *place = (tsr_weight_place){0};
    for (int t = 0; t < 3 && config->family->names[t] != NULL && first == NULL; t++) {
        for (*at = config->family->names[t]; (*at)->name != NULL; (*at)++) {
            if ((*at)->role == role) {
                spell(name, (*at)->name, layer, number, bias);
                TSR_TRY(look_up(place, checkpoint, config, name));
                if (place->source != NULL) {
                    return TSR_OK;
                }
                first = first == NULL ? *at : first;
            }
        }
    }
    if (first != NULL) {
        spell(name, first->name, layer, number, bias);
    } else {
        (void)snprintf(name, NAME_BYTES, "(role %d)", (int)role);
    }
    return TSR_OK;
}

/* ---- layouts --------------------------------------------------------------------------------- */

/* What a layout says of the tensor: its lines and their length, the stack, the place of row 0. */
typedef struct form {
    int64_t n_lines;
    int64_t length;  /* of a line */
    int64_t n_stack; /* 0: no stack */
    tsr_weight_place place;
} form;

/* In [Q; K; V], or in such a group for every KV head: where the rows of q, k or v begin. */
static int64_t before_in_qkv(tsr_shard_role role, int64_t q, int64_t kv)
{
    return role == TSR_ROLE_Q ? 0 : role == TSR_ROLE_K ? q : q + kv;
}

static form qkv_form(const tsr_config *c, tsr_shard_role role, int64_t n_rows, int64_t n_cols,
                     bool by_head)
{
    const tsr_shard_shape *s = &c->shape;
    const int64_t heads = by_head ? s->n_kv_heads : 1;
    const int64_t q = (int64_t)s->n_heads * s->head_dim / heads;
    const int64_t kv = (int64_t)s->n_kv_heads * s->head_dim / heads;

    return (form){.n_lines = (q + 2 * kv) * heads,
                  .length = n_cols,
                  .place = {.base = before_in_qkv(role, q, kv),
                            .run = n_rows / heads,
                            .pitch = q + 2 * kv,
                            .step = 1}};
}

/* Each head's rows of K without rotary dimensions, then its rows of V. */
static form latent_form(const tsr_config *c, tsr_shard_role role, int64_t number)
{
    const int64_t a_head = c->n_nope + tsr_shard_value_dim(&c->shape);
    form f = {.n_lines = a_head * c->shape.n_heads,
              .length = c->kv_low,
              .place = {.run = INT64_MAX, .step = 1}};

    if (role == TSR_ROLE_V_UP) {
        f.place.base = number * a_head + c->n_nope;
    } else { // rows of K_UP are dimensions of the latent: the tensor's columns
        f.place.skip = number * a_head;
        f.place.transposed = true;
        f.n_lines = c->kv_low;
        f.length = a_head * c->shape.n_heads;
    }
    return f;
}

static form form_of(const tsr_config *c, tsr_shard_role role, tsr_layout layout, int64_t number)
{
    const bool is_up = role == TSR_ROLE_UP || role == TSR_ROLE_EXPERT_UP;
    int64_t n_rows;
    int64_t n_cols;
    form f;

    tsr_weight_place_shape(c, role, &n_rows, &n_cols);
    f = (form){.n_lines = n_rows, .length = n_cols, .place = {.run = INT64_MAX, .step = 1}};
    switch (layout) {
    case TSR_LAYOUT_QKV:
    case TSR_LAYOUT_QKV_TRANSPOSED:
        f = qkv_form(c, role, n_rows, n_cols, false);
        f.place.transposed = layout == TSR_LAYOUT_QKV_TRANSPOSED;
        break;
    case TSR_LAYOUT_QKV_BY_HEAD:
        f = qkv_form(c, role, n_rows, n_cols, true);
        break;
    case TSR_LAYOUT_GATE_UP:
    case TSR_LAYOUT_STACK_GATE_UP:
        f.n_lines = 2 * n_rows;
        f.place.base = is_up ? n_rows : 0;
        break;
    case TSR_LAYOUT_STACK_PAIRS:
        f.n_lines = 2 * n_rows;
        f.place.base = is_up ? 1 : 0;
        f.place.step = 2;
        f.place.transposed = true;
        break;
    case TSR_LAYOUT_TRANSPOSED:
    case TSR_LAYOUT_STACK_TRANSPOSED:
        f.place.transposed = true;
        break;
    case TSR_LAYOUT_LATENT:
        f = latent_form(c, role, number);
        break;
    case TSR_LAYOUT_A_HEAD:
        f.n_lines = 1;
        f.place.is_a_head = true;
        break;
    default:
        break;
    }
    if (layout == TSR_LAYOUT_HEADS) {
        f.n_stack = c->shape.n_heads;
    } else if (layout == TSR_LAYOUT_STACK || layout == TSR_LAYOUT_STACK_TRANSPOSED ||
               layout == TSR_LAYOUT_STACK_GATE_UP || layout == TSR_LAYOUT_STACK_PAIRS) {
        f.n_stack = c->shape.n_experts;
    }
    f.place.matrix = f.n_stack > 0 ? number : 0;
    return f;
}

static tsr_status wrong_shape(const tsr_stored_tensor *t, const char *name, int n_dims,
                              const int64_t want[3])
{
    char is[96] = "";
    char wanted[96] = "";
    size_t used = 0;

    for (int d = t->n_dims - 1; d >= 0 && used < sizeof(is) - 24; d--) {
        used += (size_t)snprintf(is + used, sizeof(is) - used, "%lld%s", (long long)t->shape[d],
                                 d > 0 ? ", " : "");
    }
    used = 0;
    for (int d = n_dims - 1; d >= 0; d--) {
        used += (size_t)snprintf(wanted + used, sizeof(wanted) - used, "%lld%s", (long long)want[d],
                                 d > 0 ? ", " : "");
    }
    return tsr_fail(TSR_ERR_FORMAT, "%s is [%s]; the model's sizes want [%s]", name, is, wanted);
}

/* A matrix [lines, length], the other way round when transposed, in a stack or not; a bias has the
 * lines alone. */
static tsr_status check_matrix(const form *f, const tsr_stored_tensor *t, const char *name,
                               bool bias)
{
    const int64_t columns = f->place.transposed ? f->n_lines : f->length;
    const int64_t rows = f->place.transposed ? f->length : f->n_lines;
    const int64_t of_matrix[3] = {columns, rows, f->n_stack};
    const int64_t of_bias[3] = {f->n_lines, f->n_stack, 1};
    const int64_t *want = bias ? of_bias : of_matrix;
    const int n_dims = (bias ? 1 : 2) + (f->n_stack > 0 ? 1 : 0);

    for (int d = 0; d < n_dims; d++) {
        if (t->shape[d] != want[d] || t->n_dims != n_dims) {
            return wrong_shape(t, name, n_dims, want);
        }
    }
    return TSR_OK;
}

/* Packed weights are [outputs, inputs] whatever the layout of the plain ones; of the transposed
 * layouts only LATENT's means that rows of the role are inputs. */
static tsr_status check_packed(form *f, tsr_packed *packed, const char *name, tsr_layout layout)
{
    const bool turned = layout == TSR_LAYOUT_LATENT && f->place.transposed;
    const int64_t n_stack = f->n_stack > 0 ? f->n_stack : 1;
    const int64_t rows = turned ? f->length : f->n_lines;
    const int64_t cols = turned ? f->n_lines : f->length;

    if (packed->n_stack != n_stack) {
        return tsr_fail(TSR_ERR_FORMAT, "%s is packed as %lld matrices; the model has %lld", name,
                        (long long)packed->n_stack, (long long)n_stack);
    }
    if (packed->n_rows != rows || packed->n_cols != cols) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s is packed as [%lld, %lld]; the model's sizes want [%lld, %lld]", name,
                        (long long)packed->n_rows, (long long)packed->n_cols, (long long)rows,
                        (long long)cols);
    }
    f->place.base += f->place.matrix * rows;
    f->place.transposed = turned;
    packed->format = turned ? TSR_FORMAT_F32 : packed->format;
    return TSR_OK;
}

/* A vector may be stored with one more dimension of size 1, or a norm a head as [heads, head_dim].
 */
static tsr_status check_vector(const form *f, const tsr_stored_tensor *t, const char *name)
{
    const int64_t n = t->shape[0] * t->shape[1];
    const int64_t want[3] = {f->length, f->n_lines, 1};

    if (t->n_dims < 1 || t->n_dims > 2 || t->shape[0] > f->n_lines * f->length ||
        t->shape[1] > f->n_lines * f->length || n != f->n_lines * f->length) {
        return wrong_shape(t, name, f->n_lines > 1 ? 2 : 1, want);
    }
    return TSR_OK;
}

float tsr_weight_place_factor(const tsr_weight_place *place)
{
    float factor;

    if (place->factors == NULL) {
        return 1;
    }
    memcpy(&factor,
           (const char *)place->factors->data +
               (place->factors->shape[0] > 1 ? (size_t)place->matrix * sizeof(factor) : 0),
           sizeof(factor));
    return factor;
}

/* A GGUF's NVFP4 tensor NAME.weight may have its factors beside it, as NAME.scale. */
static tsr_status find_factors(form *f, const tsr_checkpoint *checkpoint, const char *name)
{
    const int stem = (int)(strlen(name) - strlen(".weight"));
    char beside[NAME_BYTES];
    const tsr_stored_tensor *t;

    if (f->place.source->encoding != TSR_ENCODING_NVFP4 || stem <= 0) {
        return TSR_OK;
    }
    (void)snprintf(beside, sizeof(beside), "%.*s.scale", stem, name);
    t = tsr_checkpoint_find(checkpoint, beside);
    if (t == NULL) {
        return TSR_OK;
    }
    if (t->encoding != TSR_ENCODING_F32 || t->n_dims != 1 ||
        (t->shape[0] != 1 && t->shape[0] != f->n_stack)) {
        return tsr_fail(TSR_ERR_FORMAT, "%s must be one number of f32 for each matrix of %s",
                        beside, name);
    }
    f->place.factors = t;
    return isfinite(tsr_weight_place_factor(&f->place))
               ? TSR_OK
               : tsr_fail(TSR_ERR_FORMAT, "%s has something else than numbers", beside);
}

tsr_status tsr_weight_place_find(tsr_weight_place *place, const tsr_checkpoint *checkpoint,
                                 const tsr_config *config, tsr_shard_role role, int layer,
                                 int64_t number, bool bias, char *name)
{
    const tsr_tensor_name *at = NULL;
    form f;

    TSR_TRY(find_name(place, &at, checkpoint, config, role, layer, number, bias, name));
    if (place->source == NULL) {
        return TSR_OK;
    }
    f = form_of(config, role, at->layout, number);
    f.place.source = place->source;
    f.place.is_packed = place->is_packed;
    f.place.packed = place->packed;
    if (place->is_packed && !bias && !tsr_weight_place_is_vector(role)) {
        TSR_TRY(check_packed(&f, &f.place.packed, name, at->layout));
    } else if (place->source->encoding == TSR_ENCODING_COUNT) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s is of a type that weights cannot have", name);
    } else {
        TSR_TRY(tsr_weight_place_is_vector(role) ? check_vector(&f, place->source, name)
                                                 : check_matrix(&f, place->source, name, bias));
        TSR_TRY(find_factors(&f, checkpoint, name));
    }
    *place = f.place;
    return TSR_OK;
}

static bool ends_with(const tsr_stored_tensor *t, const char *ending)
{
    const size_t n = strlen(ending);

    return t->name.n_bytes >= n && memcmp(t->name.bytes + t->name.n_bytes - n, ending, n) == 0;
}

bool tsr_weight_place_is_ignored(const tsr_stored_tensor *t, const tsr_config *config)
{
    static const char *const endings[] = {
        ".rotary_emb.inv_freq",
        ".attn.masked_bias",
        ".attention.masked_bias",
        "rope_freqs.weight",
        "rope_factors_long.weight",
        "rope_factors_short.weight",
        ".input_scale", // of activations, which stay as they are
        ".k_scale",
        ".v_scale", // of a cache in 8 bits: ours has its own
    };
    static const char *const beginnings[] = {
        // What looks at images.
        "vision_tower.",
        "multi_modal_projector.",
        "model.vision_tower.",
        "model.multi_modal_projector.",
    };
    // Old files keep the triangle of the causal mask as a bias of attention itself.
    static const char *const masks[] = {".attn.bias", ".attention.bias"};

    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        if (ends_with(t, endings[i])) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++) {
        const size_t n = strlen(beginnings[i]);

        if (t->name.n_bytes > n && memcmp(t->name.bytes, beginnings[i], n) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
        if (ends_with(t, masks[i]) && t->shape[0] == t->shape[1] && t->shape[0] > 1) {
            return true;
        }
    }
    return config->tied_head && ends_with(t, "lm_head.weight");
}
