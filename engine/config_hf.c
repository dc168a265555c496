#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/checkpoint.h"
#include "engine/config_read.h"
#include "engine/family.h"

enum {
    LIST_BYTES = 400,
    MOST_FACTORS = 1024
};

/* ---- sizes ----------------------------------------------------------------------------------- */

static tsr_status read_sizes(tsr_config *config, const tsr_hf_keys *keys, const tsr_family *family)
{
    tsr_shard_shape *shape = &config->shape;
    int64_t n_heads = family->n_heads > 0 ? family->n_heads : -1;
    int64_t n_kv_heads;
    int64_t head_dim;
    int64_t ff_dim;

    shape->dim = -1;
    shape->n_vocab = family->n_vocab > 0 ? family->n_vocab : -1;
    TSR_TRY(tsr_hf_size(keys, "hidden_size|n_embd|d_model|n_embed", &shape->dim, 1,
                        TSR_CONFIG_MOST_WIDTH));
    TSR_TRY(tsr_hf_size(keys, "num_attention_heads|n_head|n_heads", &n_heads, 1,
                        TSR_CONFIG_MOST_HEADS));
    TSR_TRY(tsr_hf_size(keys, "vocab_size", &shape->n_vocab, 1, TSR_CONFIG_MOST_WIDTH));
    n_kv_heads = family->n_kv_heads > 0 ? family->n_kv_heads : n_heads;
    TSR_TRY(tsr_hf_size(keys, "num_key_value_heads", &n_kv_heads, 1, TSR_CONFIG_MOST_HEADS));
    head_dim = family->head_dim > 0 ? family->head_dim : shape->dim / n_heads;
    if (family->head_dim == 0 && shape->dim % n_heads != 0 && !tsr_hf_has(keys, "head_dim")) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: %lld heads do not divide hidden_size %lld",
                        keys->label, (long long)n_heads, (long long)shape->dim);
    }
    TSR_TRY(tsr_hf_size(keys, "head_dim", &head_dim, 1, TSR_CONFIG_MOST_WIDTH));
    ff_dim = 4 * shape->dim;
    TSR_TRY(tsr_hf_size(keys, "intermediate_size|n_inner|ffn_dim|ffn_hidden_size", &ff_dim, 1,
                        TSR_CONFIG_MOST_WIDTH));
    config->context = family->context > 0 ? family->context : 2048;
    TSR_TRY(tsr_hf_size(keys, "max_position_embeddings|n_positions|max_seq_len|seq_length|n_ctx",
                        &config->context, 1, INT32_MAX));
    shape->n_heads = (int)n_heads;
    shape->n_kv_heads = (int)n_kv_heads;
    shape->head_dim = (int)head_dim;
    shape->ff_dim = ff_dim;
    return TSR_OK;
}

static tsr_status read_activation(tsr_config *config, const tsr_hf_keys *keys,
                                  const tsr_family *family)
{
    static const struct {
        const char *name;
        tsr_activation activation;
    } known[] = {
        {"silu", TSR_ACTIVATION_SILU},           {"swish", TSR_ACTIVATION_SILU},
        {"gelu", TSR_ACTIVATION_GELU},           {"gelu_new", TSR_ACTIVATION_GELU_TANH},
        {"gelu_fast", TSR_ACTIVATION_GELU_TANH}, {"gelu_pytorch_tanh", TSR_ACTIVATION_GELU_TANH},
        {"relu", TSR_ACTIVATION_RELU},
    };
    const char *names = family->activation_key;
    const char *name = NULL;

    if (names == NULL) {
        names = "hidden_act|activation_function|activation";
    }
    if (names[0] == '\0') {
        return TSR_OK;
    }
    TSR_TRY(tsr_hf_text(keys, names, &name));
    if (name == NULL) {
        return TSR_OK;
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(known[i].name, name) == 0) {
            config->activation = known[i].activation;
            return TSR_OK;
        }
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: the activation \"%.40s\" is not known", keys->label,
                    name);
}

/* ---- positions ------------------------------------------------------------------------------- */

static bool is_one_of(const char *name, const char *names)
{
    const size_t n = strlen(name);

    for (const char *at = names; *at != '\0';) {
        const size_t length = strcspn(at, "|");

        if (length == n && memcmp(at, name, n) == 0) {
            return true;
        }
        at += length + (at[length] == '|' ? 1 : 0);
    }
    return false;
}

static tsr_status read_yarn(tsr_rope_turns *t, const tsr_hf_keys *s)
{
    double m = 0;
    double m_all = 0;
    double magnitude = tsr_rope_yarn_magnitude(t->factor, 1);

    t->scaling = TSR_ROPE_SCALING_YARN;
    TSR_TRY(tsr_hf_number(s, "beta_fast", &t->fast));
    TSR_TRY(tsr_hf_number(s, "beta_slow", &t->slow));
    TSR_TRY(tsr_hf_bool(s, "truncate", &t->whole_dims));
    TSR_TRY(tsr_hf_number(s, "mscale", &m));
    TSR_TRY(tsr_hf_number(s, "mscale_all_dim", &m_all));
    if (m != 0 && m_all != 0) {
        magnitude =
            tsr_rope_yarn_magnitude(t->factor, m) / tsr_rope_yarn_magnitude(t->factor, m_all);
    }
    TSR_TRY(tsr_hf_number(s, "attention_factor", &magnitude));
    t->magnitude = (float)magnitude;
    return TSR_OK;
}

/* One list of LongRoPE's factors (Ding et al., arXiv 2402.13753), as a rope. */
static tsr_status make_long(tsr_rope_turns *t, const tsr_hf_keys *s, const char *name, int n_rot)
{
    const json_t *list;
    double factors[MOST_FACTORS];

    TSR_TRY(tsr_hf_list(s, name, &list));
    if (json_array_size(list) != (size_t)n_rot / 2 || n_rot / 2 > MOST_FACTORS) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: %s has %zu numbers; %d rotary dimensions need %d",
                        s->label, name, json_array_size(list), n_rot, n_rot / 2);
    }
    for (int i = 0; i < n_rot / 2; i++) {
        const json_t *factor = json_array_get(list, (size_t)i);

        if (!json_is_number(factor)) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: %s has something else than numbers", s->label,
                            name);
        }
        factors[i] = json_number_value(factor);
    }
    t->scaling = TSR_ROPE_SCALING_FACTORS;
    return tsr_rope_make(t, n_rot, factors);
}

/* Short sequences turn by one list of factors, long ones by the other. */
static tsr_status read_long(tsr_config *c, tsr_rope_turns *t, const tsr_hf_keys *s)
{
    const double ratio = (double)c->context / (double)t->original_context;
    const double stretch = ratio > 1 ? ratio : t->factor;
    double magnitude = stretch > 1 && t->original_context > 1
                           ? sqrt(1 + log(stretch) / log((double)t->original_context))
                           : 1;

    TSR_TRY(tsr_hf_number(s, "attention_factor", &magnitude));
    t->magnitude = (float)magnitude;
    t->factor = 1;
    c->ropes[1] = *t;
    c->n_ropes = 2;
    c->rope_switch = t->original_context;
    TSR_TRY(make_long(t, s, "short_factor", c->n_rot));
    return make_long(&c->ropes[1], s, "long_factor", c->n_rot);
}

/* The scaling that `s` describes; an object of NULL: none. */
static tsr_status read_turns(tsr_config *c, tsr_rope_turns *t, const tsr_hf_keys *s)
{
    const char *type = "default";

    t->original_context = t->original_context > 0 ? t->original_context : c->context;
    TSR_TRY(tsr_hf_text(s, "rope_type|type", &type));
    TSR_TRY(tsr_hf_number(s, "rope_theta", &t->base));
    TSR_TRY(tsr_hf_number(s, "factor", &t->factor));
    TSR_TRY(tsr_hf_size(s, "original_max_position_embeddings", &t->original_context, 1, INT32_MAX));
    if (is_one_of(type, "longrope|su")) {
        return read_long(c, t, s);
    }
    if (is_one_of(type, "default|dynamic")) { // dynamic: as it is up to the model's own context
        t->factor = 1;
    } else if (strcmp(type, "linear") == 0) {
        t->scaling = TSR_ROPE_SCALING_LINEAR;
    } else if (strcmp(type, "yarn") == 0) {
        TSR_TRY(read_yarn(t, s));
    } else if (strcmp(type, "llama3") == 0) {
        t->scaling = TSR_ROPE_SCALING_LLAMA3;
        t->fast = 4;
        t->slow = 1;
        TSR_TRY(tsr_hf_number(s, "high_freq_factor", &t->fast));
        TSR_TRY(tsr_hf_number(s, "low_freq_factor", &t->slow));
    } else {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: rotary scaling \"%.40s\" is not known", s->label,
                        type);
    }
    return tsr_rope_make(t, c->n_rot, NULL);
}

/*
 * Old files: rope_theta and rope_scaling (null or an object), and for local layers
 * rope_local_base_freq. New files: rope_parameters, one object or one for each type of layer.
 */
static tsr_status read_rope(tsr_config *c, const tsr_hf_keys *keys, const tsr_family *family)
{
    double part = family->rope_partial > 0 ? family->rope_partial : 1;
    double local_base = family->rope_local_base;
    const json_t *scaling;
    const json_t *local = NULL;
    tsr_hf_keys whole = {NULL, keys->label};
    int64_t n_rot;

    TSR_TRY(tsr_hf_object(keys, "rope_parameters|rope_scaling", &scaling));
    whole.object = scaling;
    if (scaling != NULL && json_object_get(scaling, "full_attention") != NULL) {
        const tsr_hf_keys types = whole;

        TSR_TRY(tsr_hf_object(&types, "full_attention", &whole.object));
        TSR_TRY(tsr_hf_object(&types, "sliding_attention", &local));
    }
    c->ropes[0].base = family->rope_base > 0 ? family->rope_base : 10000;
    TSR_TRY(tsr_hf_number(keys, "rotary_emb_base|rope_theta", &c->ropes[0].base));
    TSR_TRY(tsr_hf_number(keys, "rotary_pct|partial_rotary_factor", &part));
    TSR_TRY(tsr_hf_number(&whole, "partial_rotary_factor", &part));
    if (!(part > 0 && part <= 1)) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: %g of each head is rotary", keys->label, part);
    }
    n_rot = c->n_rot > 0 ? c->n_rot : (int64_t)(c->shape.head_dim * part);
    TSR_TRY(tsr_hf_size(keys, "rotary_dim", &n_rot, 0, c->shape.head_dim));
    c->n_rot = (int)n_rot;
    if (n_rot % 2 != 0) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: an odd number of rotary dimensions: %lld", keys->label,
                        (long long)n_rot);
    }
    TSR_TRY(tsr_hf_number(keys, "rope_local_base_freq", &local_base));
    TSR_TRY(tsr_hf_size(keys, "original_max_position_embeddings", &c->ropes[0].original_context, 0,
                        INT32_MAX));
    c->n_ropes = 1;
    TSR_TRY(read_turns(c, &c->ropes[0], &whole));
    if (local != NULL || local_base > 0) {
        const tsr_hf_keys of_local = {local, keys->label};

        c->n_ropes = 2;
        c->ropes[1].base = local_base;
        return read_turns(c, &c->ropes[1], &of_local);
    }
    return TSR_OK;
}

/* ---- which layers see how far ------------------------------------------------------------------
 */

static tsr_status read_layer_types(tsr_config *c, const tsr_hf_keys *keys, const json_t *types,
                                   int64_t window)
{
    if (json_array_size(types) != (size_t)c->n_layers) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: layer_types has %zu entries for %d layers",
                        keys->label, json_array_size(types), c->n_layers);
    }
    for (int i = 0; i < c->n_layers; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));

        if (type == NULL || !is_one_of(type, "full_attention|sliding_attention")) {
            return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: a layer of type \"%.40s\" is not known",
                            keys->label, type == NULL ? "(none)" : type);
        }
        if (strcmp(type, "sliding_attention") == 0) {
            if (window == 0) {
                return tsr_fail(TSR_ERR_FORMAT,
                                "%s: layer %d is local and sliding_window is "
                                "missing",
                                keys->label, i);
            }
            c->layers[i].window = window;
        }
    }
    return TSR_OK;
}

static tsr_status read_windows(tsr_config *c, const tsr_hf_keys *keys, const tsr_family *family)
{
    int64_t window = family->window_default;
    int64_t first = 28; // use_sliding_window: the layers before it see everything
    int64_t period = family->window_period;
    bool on = false;
    const json_t *types;

    if (family->window == TSR_WINDOW_NONE) {
        return TSR_OK;
    }
    TSR_TRY(tsr_hf_size(keys, "sliding_window", &window, 0, INT32_MAX));
    window = tsr_hf_is_null(keys, "sliding_window") ? 0 : window;
    TSR_TRY(tsr_hf_list(keys, "layer_types", &types));
    TSR_TRY(tsr_hf_size(keys, "sliding_window_pattern|_sliding_window_pattern", &period, 0,
                        TSR_CONFIG_MOST_LAYERS));
    TSR_TRY(tsr_hf_bool(keys, "use_sliding_window", &on));
    TSR_TRY(tsr_hf_size(keys, "max_window_layers", &first, 0, INT32_MAX));
    if (family->window == TSR_WINDOW_SWITCH && !on) {
        return TSR_OK;
    }
    if (types != NULL) {
        return read_layer_types(c, keys, types, window);
    }
    for (int i = 0; i < c->n_layers; i++) {
        const bool local =
            family->window == TSR_WINDOW_ALL ||
            (family->window == TSR_WINDOW_SWITCH && i >= first) ||
            (family->window == TSR_WINDOW_PATTERN && period > 0 && (i + 1) % period != 0);

        c->layers[i].window = local ? window : 0;
    }
    return TSR_OK;
}

/* Switches that mean the same in all families that have them. */
static tsr_status read_biases(tsr_config *c, const tsr_hf_keys *keys)
{
    static const struct {
        const char *key;
        uint64_t roles;
    } switches[] = {
        {"attention_bias", TSR_FAMILY_QKV | TSR_ROLE_BIT(TSR_ROLE_O)},
        {"qkv_bias|use_qkv_bias", TSR_FAMILY_QKV},
        {"mlp_bias", TSR_ROLE_BIT(TSR_ROLE_GATE) | TSR_FAMILY_UP_DOWN},
    };

    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
        if (tsr_hf_has(keys, switches[i].key)) {
            bool on = false;

            TSR_TRY(tsr_hf_bool(keys, switches[i].key, &on));
            tsr_family_set(&c->biases, switches[i].roles, on);
        }
    }
    return TSR_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static tsr_status find_family(const tsr_family **out, const tsr_hf_keys *keys)
{
    const char *type = NULL;
    char known[LIST_BYTES];

    TSR_TRY(tsr_hf_text(keys, "model_type", &type));
    if (type == NULL) {
        return tsr_fail(TSR_ERR_FORMAT, "%s does not say its model_type", keys->label);
    }
    *out = tsr_family_of_hf(type, strlen(type));
    if (*out == NULL) {
        tsr_family_list(false, known, sizeof(known));
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "models of the type \"%.40s\" are not known; known are %s", type, known);
    }
    return TSR_OK;
}

/* Models of images and text keep the keys of the latter's model by themselves. */
static tsr_status find_text_model(tsr_hf_keys *text, const tsr_hf_keys *keys)
{
    const char *type = NULL;

    *text = *keys;
    TSR_TRY(tsr_hf_text(keys, "model_type", &type));
    if (type == NULL || strcmp(type, "gemma3") != 0) {
        return TSR_OK;
    }
    text->label = "text_config of config.json";
    TSR_TRY(tsr_hf_object(keys, "text_config", &text->object));
    return text->object != NULL ? TSR_OK
                                : tsr_fail(TSR_ERR_FORMAT, "%s has no text_config", keys->label);
}

/* Embedding models may have the weights of a family and look at all of a text from each token. */
static tsr_status check_causal(const tsr_hf_keys *keys)
{
    bool ahead = false;
    bool causal = true;

    TSR_TRY(tsr_hf_bool(keys, "use_bidirectional_attention", &ahead));
    TSR_TRY(tsr_hf_bool(keys, "is_causal", &causal));
    return causal && !ahead
               ? TSR_OK
               : tsr_fail(TSR_ERR_UNSUPPORTED,
                          "%s: the model's tokens look at later ones (%s), which is "
                          "not known",
                          keys->label, ahead ? "use_bidirectional_attention" : "is_causal");
}

tsr_status tsr_config_read_keys(tsr_config *c, const tsr_hf_keys *whole)
{
    const tsr_family *family;
    tsr_hf_keys text;
    const tsr_hf_keys *const keys = &text;
    int64_t n_layers = -1;
    double eps;

    TSR_TRY(find_text_model(&text, whole));
    TSR_TRY(find_family(&family, keys));
    TSR_TRY(check_causal(keys));
    TSR_TRY(tsr_hf_size(keys, "num_hidden_layers|n_layer|n_layers", &n_layers, 1,
                        TSR_CONFIG_MOST_LAYERS));
    c->n_layers = (int)n_layers;
    TSR_TRY(tsr_config_begin(c, family));
    TSR_TRY(read_sizes(c, keys, family));
    TSR_TRY(read_activation(c, keys, family));
    TSR_TRY(tsr_hf_bool(keys, "tie_word_embeddings", &c->tied_head));
    eps = family->norm_eps;
    TSR_TRY(tsr_hf_number(
        keys, "rms_norm_eps|layer_norm_epsilon|layer_norm_eps|norm_epsilon|norm_eps", &eps));
    c->norm_eps = (float)eps;
    TSR_TRY(read_biases(c, keys));
    TSR_TRY(tsr_packing_read(&c->packing, whole));
    // Some packers of GPTQ give every linear a bias, of zeros where the model has none.
    c->biases_as_found = c->packing.kind == TSR_PACKING_GPTQ;
    if (family->read_hf != NULL) {
        TSR_TRY(family->read_hf(c, keys));
    }
    TSR_TRY(read_windows(c, keys, family));
    if (family->positions == TSR_POSITIONS_ROPE && c->slopes == NULL) {
        TSR_TRY(read_rope(c, keys, family));
    }
    // Local layers turn by the second rope where there is one for them.
    for (int i = 0; c->n_ropes == 2 && c->rope_switch == 0 && i < c->n_layers; i++) {
        c->layers[i].rope = c->layers[i].window > 0 ? 1 : 0;
    }
    return tsr_config_finish(c);
}

tsr_status tsr_config_read_hf(tsr_config *config, const tsr_checkpoint *checkpoint)
{
    const tsr_hf_keys keys = tsr_checkpoint_config(checkpoint);

    return tsr_config_read_keys(config, &keys);
}
