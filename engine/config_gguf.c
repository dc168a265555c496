#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/config_read.h"
#include "engine/family.h"

enum {
    KEY_BYTES = 128,
    LIST_BYTES = 400,
    MOST_FACTORS = 1024
};

/* The file that is read, and what its keys begin with. */
typedef struct source {
    const tsr_gguf *gguf;
    const tsr_family *family;
} source;

static void key_of(char *key, const source *from, const char *name)
{
    (void)snprintf(key, KEY_BYTES, "%s.%s", from->family->name, name);
}

static bool has_int(const source *from, const char *name, int64_t *out)
{
    char key[KEY_BYTES];

    key_of(key, from, name);
    return tsr_gguf_int(from->gguf, key, out);
}

static bool has_float(const source *from, const char *name, double *out)
{
    char key[KEY_BYTES];

    key_of(key, from, name);
    return tsr_gguf_float(from->gguf, key, out);
}

/* A whole number in [1, most]; `fallback` when the key is missing, or a fault when that is 0. */
static tsr_status size_of(int64_t *out, const source *from, const char *name, int64_t fallback,
                          int64_t most)
{
    int64_t value = fallback;

    if (!has_int(from, name, &value) && fallback == 0) {
        return tsr_fail(TSR_ERR_FORMAT, "the model file lacks %s.%s", from->family->name, name);
    }
    if (value < 1 || value > most) {
        return tsr_fail(TSR_ERR_FORMAT, "%s.%s is %lld; it must lie in 1..%lld", from->family->name,
                        name, (long long)value, (long long)most);
    }
    *out = value;
    return TSR_OK;
}

static tsr_status find_family(const tsr_family **out, const tsr_gguf *gguf)
{
    tsr_gguf_text name;
    char known[LIST_BYTES];

    if (!tsr_gguf_string(gguf, "general.architecture", &name)) {
        return tsr_fail(TSR_ERR_FORMAT, "the model file does not say its general.architecture");
    }
    *out = tsr_family_of_gguf(name.bytes, name.n_bytes);
    if (*out == NULL) {
        tsr_family_list(true, known, sizeof(known));
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "models of the architecture \"%.*s\" are not known; known are %s",
                        (int)(name.n_bytes < 40 ? name.n_bytes : 40), name.bytes, known);
    }
    return TSR_OK;
}

static tsr_status read_eps(tsr_config *c, const source *from)
{
    const char *name = c->norm == TSR_NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                               : "attention.layer_norm_epsilon";
    double eps = 0;

    if (!has_float(from, name, &eps) || !(eps > 0 && eps < 1)) {
        return tsr_fail(TSR_ERR_FORMAT, "%s.%s is missing or not in (0, 1)", from->family->name,
                        name);
    }
    c->norm_eps = (float)eps;
    return TSR_OK;
}

static tsr_status read_sizes(tsr_config *c, const source *from)
{
    const tsr_stored_tensor *embedding = tsr_gguf_find(from->gguf, "token_embd.weight");
    tsr_shard_shape *shape = &c->shape;
    int64_t n_heads = 0;
    int64_t n_kv_heads = 0;
    int64_t head_dim = 0;
    int64_t value_dim = 0;

    TSR_TRY(size_of(&shape->dim, from, "embedding_length", 0, TSR_CONFIG_MOST_WIDTH));
    TSR_TRY(size_of(&shape->ff_dim, from, "feed_forward_length", 0, TSR_CONFIG_MOST_WIDTH));
    TSR_TRY(size_of(&c->context, from, "context_length", 0, INT32_MAX));
    TSR_TRY(size_of(&n_heads, from, "attention.head_count", 0, TSR_CONFIG_MOST_HEADS));
    TSR_TRY(size_of(&n_kv_heads, from, "attention.head_count_kv", n_heads, TSR_CONFIG_MOST_HEADS));
    if (shape->dim % n_heads == 0) {
        head_dim = shape->dim / n_heads;
    }
    TSR_TRY(size_of(&head_dim, from, "attention.key_length", head_dim, TSR_CONFIG_MOST_WIDTH));
    TSR_TRY(size_of(&value_dim, from, "attention.value_length", head_dim, TSR_CONFIG_MOST_WIDTH));
    if (value_dim != head_dim && (from->family->roles & TSR_ROLE_BIT(TSR_ROLE_KV_LOW)) == 0) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "heads of %lld key and %lld value dimensions; they must be equal",
                        (long long)head_dim, (long long)value_dim);
    }
    if (embedding == NULL || embedding->n_dims != 2 || embedding->shape[0] != shape->dim ||
        embedding->shape[1] > TSR_CONFIG_MOST_WIDTH) {
        return tsr_fail(TSR_ERR_FORMAT, "token_embd.weight is missing or not [vocabulary, %lld]",
                        (long long)shape->dim);
    }
    shape->n_heads = (int)n_heads;
    shape->n_kv_heads = (int)n_kv_heads;
    shape->head_dim = (int)head_dim;
    shape->n_vocab = embedding->shape[1];
    c->tied_head = tsr_gguf_find(from->gguf, "output.weight") == NULL;
    return read_eps(c, from);
}

/* ---- positions ------------------------------------------------------------------------------- */

static tsr_status read_scaling(tsr_config *c, const source *from)
{
    tsr_rope_turns *t = &c->ropes[0];
    char key[KEY_BYTES];
    tsr_gguf_text type = {"none", 4};
    double attention_factor = 1;
    double log_multiplier;

    key_of(key, from, "rope.scaling.type");
    if (!tsr_gguf_string(from->gguf, key, &type) &&
        has_float(from, "rope.scale_linear", &t->factor)) {
        type = (tsr_gguf_text){"linear", 6}; // how files said it before scaling had types
    }
    (void)has_float(from, "rope.scaling.factor", &t->factor);
    (void)has_float(from, "rope.scaling.attn_factor", &attention_factor);
    t->original_context = c->context;
    TSR_TRY(size_of(&t->original_context, from, "rope.scaling.original_context_length", c->context,
                    INT32_MAX));
    if (!(t->factor >= 1e-3 && t->factor <= 1e6)) {
        return tsr_fail(TSR_ERR_FORMAT, "%s.rope.scaling.factor is %g", from->family->name,
                        t->factor);
    }
    if (type.n_bytes == 4 && memcmp(type.bytes, "none", 4) == 0) {
        t->factor = 1;
    } else if (type.n_bytes == 6 && memcmp(type.bytes, "linear", 6) == 0) {
        t->scaling = TSR_ROPE_SCALING_LINEAR;
    } else if (type.n_bytes == 4 && memcmp(type.bytes, "yarn", 4) == 0) {
        t->scaling = TSR_ROPE_SCALING_YARN;
        (void)has_float(from, "rope.scaling.yarn_beta_fast", &t->fast);
        (void)has_float(from, "rope.scaling.yarn_beta_slow", &t->slow);
        // With a multiplier of its own the magnitude is of scores, not of cosines.
        t->magnitude = has_float(from, "rope.scaling.yarn_log_multiplier", &log_multiplier)
                           ? 1.0F
                           : (float)(attention_factor * (1 + 0.1 * log(t->factor)));
    } else if (type.n_bytes == 8 && memcmp(type.bytes, "longrope", 8) == 0) {
        t->factor = 1;
        t->magnitude = (float)attention_factor;
    } else {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "%s.rope.scaling.type is \"%.*s\"; known are none, linear and yarn",
                        from->family->name, (int)(type.n_bytes < 40 ? type.n_bytes : 40),
                        type.bytes);
    }
    return TSR_OK;
}

/* Factors that divide the frequencies; *out is NULL when the file has none of that name. */
static tsr_status read_factors(double factors[MOST_FACTORS], const double **out, const source *from,
                               const char *name, int n_rot)
{
    const tsr_stored_tensor *t = tsr_gguf_find(from->gguf, name);

    *out = NULL;
    if (t == NULL) {
        return TSR_OK;
    }
    if (t->encoding != TSR_ENCODING_F32 || t->n_dims != 1 || t->shape[0] < n_rot / 2 ||
        n_rot / 2 > MOST_FACTORS) {
        return tsr_fail(TSR_ERR_FORMAT, "%s must hold %d f32 factors", name, n_rot / 2);
    }
    for (int i = 0; i < n_rot / 2; i++) {
        float factor;

        memcpy(&factor, (const char *)t->data + (size_t)i * sizeof(factor), sizeof(factor));
        if (!(factor > 1e-6F && factor < 1e6F)) {
            return tsr_fail(TSR_ERR_FORMAT, "%s[%d] is %g", name, i, (double)factor);
        }
        factors[i] = (double)factor;
    }
    *out = factors;
    return TSR_OK;
}

static tsr_status read_turns(tsr_config *c, const source *from)
{
    double factors[MOST_FACTORS];
    const double *used;

    TSR_TRY(read_factors(factors, &used, from, "rope_factors_long.weight", c->n_rot));
    if (used != NULL) {
        c->ropes[1] = c->ropes[0];
        c->ropes[1].scaling = TSR_ROPE_SCALING_FACTORS;
        c->n_ropes = 2;
        c->rope_switch = c->ropes[0].original_context;
        TSR_TRY(tsr_rope_make(&c->ropes[1], c->n_rot, used));
        TSR_TRY(read_factors(factors, &used, from, "rope_factors_short.weight", c->n_rot));
        c->ropes[0].scaling = TSR_ROPE_SCALING_FACTORS;
        return tsr_rope_make(&c->ropes[0], c->n_rot, used);
    }
    TSR_TRY(read_factors(factors, &used, from, "rope_freqs.weight", c->n_rot));
    if (used != NULL && c->ropes[0].scaling == TSR_ROPE_SCALING_NONE) {
        c->ropes[0].scaling = TSR_ROPE_SCALING_FACTORS;
    }
    return tsr_rope_make(&c->ropes[0], c->n_rot, used);
}

static tsr_status read_rope(tsr_config *c, const source *from)
{
    int64_t n_rot = c->n_rot > 0 ? c->n_rot : c->shape.head_dim;

    TSR_TRY(size_of(&n_rot, from, "rope.dimension_count", n_rot, c->shape.head_dim));
    if (n_rot % 2 != 0) {
        return tsr_fail(TSR_ERR_FORMAT, "an odd number of rotary dimensions: %lld",
                        (long long)n_rot);
    }
    c->n_rot = (int)n_rot;
    c->n_ropes = 1;
    c->ropes[0].base = from->family->rope_base > 0 ? from->family->rope_base : 10000;
    (void)has_float(from, "rope.freq_base", &c->ropes[0].base);
    if (!(c->ropes[0].base > 1 && c->ropes[0].base < 1e12)) {
        return tsr_fail(TSR_ERR_FORMAT, "%s.rope.freq_base is %g", from->family->name,
                        c->ropes[0].base);
    }
    TSR_TRY(read_scaling(c, from));
    if (from->family->rope_local_base > 0) {
        c->n_ropes = 2;
        c->ropes[1].base = from->family->rope_local_base;
        (void)has_float(from, "rope.freq_base_swa", &c->ropes[1].base);
        TSR_TRY(tsr_rope_make(&c->ropes[1], c->n_rot, NULL));
        for (int i = 0; i < c->n_layers; i++) {
            c->layers[i].rope = c->layers[i].window > 0 ? 1 : 0;
        }
    }
    return read_turns(c, from);
}

static void read_windows(tsr_config *c, const source *from)
{
    const tsr_family *family = from->family;
    int64_t window = family->window_default;
    int64_t period = family->window_period;

    if (family->window == TSR_WINDOW_NONE) {
        return;
    }
    (void)has_int(from, "attention.sliding_window", &window);
    (void)has_int(from, "attention.sliding_window_pattern", &period);
    period = period > 0 ? period : 1; // every layer sees all
    for (int i = 0; i < c->n_layers && window > 0 && window <= INT32_MAX; i++) {
        if (family->window == TSR_WINDOW_ALL || (i + 1) % period != 0) {
            c->layers[i].window = window;
        }
    }
}

tsr_status tsr_config_read_gguf(tsr_config *c, const tsr_gguf *gguf)
{
    source from = {.gguf = gguf};
    int64_t n_layers = 0;
    double scale;

    TSR_TRY(find_family(&from.family, gguf));
    TSR_TRY(size_of(&n_layers, &from, "block_count", 0, TSR_CONFIG_MOST_LAYERS));
    c->n_layers = (int)n_layers;
    TSR_TRY(tsr_config_begin(c, from.family));
    c->biases_as_found = true;
    TSR_TRY(read_sizes(c, &from));
    read_windows(c, &from);
    if (from.family->read_gguf != NULL) {
        TSR_TRY(from.family->read_gguf(c, gguf));
    }
    if (has_float(&from, "attention.scale", &scale)) {
        for (int i = 0; i < c->n_layers; i++) {
            c->layers[i].scale = (float)scale;
        }
    }
    if (from.family->positions == TSR_POSITIONS_ROPE) {
        TSR_TRY(read_rope(c, &from));
    }
    return tsr_config_finish(c);
}
