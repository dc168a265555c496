/*
 * Llamas in which layers share keys and values, or look at some positions only: our own fields of
 * config.json.
 *   kv_share            [s_0 ... s_(L-1)]: layer i reads what layer s_i <= i made, after rotation;
 *                       s_(s_i) = s_i. Layers that make none have no k_proj and v_proj.
 *   attention_pattern   for all layers, or attention_patterns, one a layer: {"type": "full"},
 *                       {"type": "local", "window": w}, {"type": "atrous", "stride": k},
 *                       {"type": "local_atrous", "window": w, "stride": k}
 * Cross-layer attention: Brandon et al., arXiv 2405.12981; YOCO: Sun et al., arXiv 2405.05254;
 * atrous patterns: Child et al., arXiv 1904.10509.
 */
#include "engine/family.h"

#include <string.h>

static tsr_status read_share(tsr_config *c, const tsr_hf_keys *keys)
{
    const json_t *share;

    TSR_TRY(tsr_hf_list(keys, "kv_share", &share));
    if (share == NULL) {
        return TSR_OK;
    }
    if (json_array_size(share) != (size_t)c->n_layers) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: kv_share has %zu entries for %d layers", keys->label,
                        json_array_size(share), c->n_layers);
    }
    c->n_kv_layers = 0;
    for (int i = 0; i < c->n_layers; i++) {
        const json_t *source = json_array_get(share, (size_t)i);
        const json_int_t s = json_is_integer(source) ? json_integer_value(source) : -1;

        if (s < 0 || s > i || (s < i && !c->layers[s].makes_kv)) {
            return tsr_fail(TSR_ERR_FORMAT,
                            "%s: kv_share says that layer %d reads the keys of layer %lld, which "
                            "makes none before it",
                            keys->label, i, (long long)s);
        }
        c->layers[i].makes_kv = s == i;
        c->layers[i].kv_layer = s == i ? c->n_kv_layers++ : c->layers[s].kv_layer;
    }
    return TSR_OK;
}

static tsr_status read_pattern(tsr_layer_config *layer, const json_t *pattern, const char *label)
{
    const tsr_hf_keys keys = {pattern, label};
    const char *type = "full";
    int64_t window = -1;
    int64_t stride = -1;

    if (!json_is_object(pattern)) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: an attention pattern is no object", label);
    }
    TSR_TRY(tsr_hf_text(&keys, "type", &type));
    if (strcmp(type, "full") == 0) {
        return TSR_OK;
    }
    if (strcmp(type, "local") == 0) {
        return tsr_hf_size(&keys, "window", &layer->window, 1, INT32_MAX);
    }
    if (strcmp(type, "local_atrous") == 0) {
        TSR_TRY(tsr_hf_size(&keys, "window", &window, 1, INT32_MAX));
        layer->local = window;
    } else if (strcmp(type, "atrous") != 0) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: the attention pattern \"%.40s\" is not known",
                        label, type);
    }
    TSR_TRY(tsr_hf_size(&keys, "stride", &stride, 1, INT32_MAX));
    layer->stride = stride;
    return TSR_OK;
}

static tsr_status read_patterns(tsr_config *c, const tsr_hf_keys *keys)
{
    const json_t *one;
    const json_t *each;

    TSR_TRY(tsr_hf_object(keys, "attention_pattern", &one));
    TSR_TRY(tsr_hf_list(keys, "attention_patterns", &each));
    if (each != NULL && json_array_size(each) != (size_t)c->n_layers) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: attention_patterns has %zu entries for %d layers",
                        keys->label, json_array_size(each), c->n_layers);
    }
    for (int i = 0; i < c->n_layers && (one != NULL || each != NULL); i++) {
        TSR_TRY(read_pattern(&c->layers[i], each != NULL ? json_array_get(each, (size_t)i) : one,
                             keys->label));
    }
    return TSR_OK;
}

static tsr_status read_kvshare(tsr_config *c, const tsr_hf_keys *keys)
{
    TSR_TRY(read_share(c, keys));
    return read_patterns(c, keys);
}

static const tsr_family llama_kvshare = {
    .name = "llama_kvshare",
    .names = {tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED,
    .norm_eps = 1e-6,
    .rope_pairs = TSR_ROPE_HALVES,
    .read_hf = read_kvshare,
};

const tsr_family *const tsr_family_share_table[] = {&llama_kvshare, NULL};
