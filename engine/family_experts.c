/*
 * Hugging Face folders of families with mixtures of experts.
 * Sources: the configuration and modeling code of huggingface.co/docs/transformers for each.
 */
#include "engine/family.h"

#include <math.h>
#include <string.h>

#define LAYER "model.layers.%l."
#define HEAD_NORMS (TSR_ROLE_BIT(TSR_ROLE_Q_HEAD_NORM) | TSR_ROLE_BIT(TSR_ROLE_K_HEAD_NORM))

enum {
    MOST_EXPERTS = TSR_ROUTE_MOST
};

/* How many experts, how many of them a token takes, and how wide they are. */
static tsr_status read_experts(tsr_config *c, const tsr_hf_keys *keys, int64_t n_experts,
                               int64_t n_used, int64_t width)
{
    TSR_TRY(tsr_hf_size(keys, "num_experts|num_local_experts|n_routed_experts", &n_experts, 1,
                        MOST_EXPERTS));
    TSR_TRY(tsr_hf_size(keys, "num_experts_per_tok", &n_used, 1, n_experts));
    TSR_TRY(tsr_hf_size(keys, "moe_intermediate_size", &width, 1, 1 << 24));
    c->shape.n_experts = (int)n_experts;
    c->shape.expert_ff = width;
    c->routing.n_used = (int)n_used;
    return TSR_OK;
}

static void all_layers_have_experts(tsr_config *c)
{
    for (int i = 0; i < c->n_layers; i++) {
        c->layers[i].experts = true;
    }
}

/* ---- Mixtral --------------------------------------------------------------------------------- */

static const tsr_tensor_name mixtral_names[] = {
    {TSR_ROLE_ROUTER, TSR_LAYOUT_PLAIN, LAYER "block_sparse_moe.gate"},
    {TSR_ROLE_EXPERT_GATE, TSR_LAYOUT_PLAIN, LAYER "block_sparse_moe.experts.%e.w1"},
    {TSR_ROLE_EXPERT_UP, TSR_LAYOUT_PLAIN, LAYER "block_sparse_moe.experts.%e.w3"},
    {TSR_ROLE_EXPERT_DOWN, TSR_LAYOUT_PLAIN, LAYER "block_sparse_moe.experts.%e.w2"},
    {0},
};

static tsr_status read_mixtral(tsr_config *c, const tsr_hf_keys *keys)
{
    all_layers_have_experts(c);
    return read_experts(c, keys, 8, 2, c->shape.ff_dim);
}

static const tsr_family mixtral = {
    .name = "mixtral",
    .names = {mixtral_names, tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED | TSR_FAMILY_EXPERTS,
    .norm_eps = 1e-5,
    .rope_pairs = TSR_ROPE_HALVES,
    .rope_base = 1e6,
    .window = TSR_WINDOW_ALL,
    .read_hf = read_mixtral,
};

/* ---- Qwen ------------------------------------------------------------------------------------ */

static const tsr_tensor_name qwen_names[] = {
    {TSR_ROLE_ROUTER, TSR_LAYOUT_PLAIN, LAYER "mlp.gate"},
    {TSR_ROLE_EXPERT_GATE, TSR_LAYOUT_PLAIN, LAYER "mlp.experts.%e.gate_proj"},
    {TSR_ROLE_EXPERT_GATE, TSR_LAYOUT_STACK_GATE_UP, LAYER "mlp.experts.gate_up_proj="},
    {TSR_ROLE_EXPERT_UP, TSR_LAYOUT_PLAIN, LAYER "mlp.experts.%e.up_proj"},
    {TSR_ROLE_EXPERT_UP, TSR_LAYOUT_STACK_GATE_UP, LAYER "mlp.experts.gate_up_proj="},
    {TSR_ROLE_EXPERT_DOWN, TSR_LAYOUT_PLAIN, LAYER "mlp.experts.%e.down_proj"},
    {TSR_ROLE_EXPERT_DOWN, TSR_LAYOUT_STACK, LAYER "mlp.experts.down_proj="},
    {TSR_ROLE_SHARED_SCALE, TSR_LAYOUT_PLAIN, LAYER "mlp.shared_expert_gate"},
    {TSR_ROLE_SHARED_GATE, TSR_LAYOUT_PLAIN, LAYER "mlp.shared_expert.gate_proj"},
    {TSR_ROLE_SHARED_UP, TSR_LAYOUT_PLAIN, LAYER "mlp.shared_expert.up_proj"},
    {TSR_ROLE_SHARED_DOWN, TSR_LAYOUT_PLAIN, LAYER "mlp.shared_expert.down_proj"},
    {0},
};

/* Every step-th layer has experts, but for those that are listed. */
static tsr_status read_sparse_layers(tsr_config *c, const tsr_hf_keys *keys)
{
    int64_t step = 1;
    const json_t *dense;

    TSR_TRY(tsr_hf_size(keys, "decoder_sparse_step", &step, 1, INT32_MAX));
    TSR_TRY(tsr_hf_list(keys, "mlp_only_layers", &dense));
    for (int i = 0; i < c->n_layers; i++) {
        c->layers[i].experts = (i + 1) % step == 0;
    }
    for (size_t k = 0; k < json_array_size(dense); k++) {
        const json_t *one = json_array_get(dense, k);

        if (!json_is_integer(one)) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: mlp_only_layers has something else than numbers",
                            keys->label);
        }
        if (json_integer_value(one) >= 0 && json_integer_value(one) < c->n_layers) {
            c->layers[json_integer_value(one)].experts = false;
        }
    }
    return TSR_OK;
}

static tsr_status read_qwen2_moe(tsr_config *c, const tsr_hf_keys *keys)
{
    int64_t shared = 5632;

    c->routing.before = true;
    TSR_TRY(tsr_hf_bool(keys, "norm_topk_prob", &c->routing.normalise));
    TSR_TRY(tsr_hf_size(keys, "shared_expert_intermediate_size", &shared, 1, 1 << 24));
    c->shape.shared_ff = shared;
    TSR_TRY(read_sparse_layers(c, keys));
    return read_experts(c, keys, 60, 4, 1408);
}

static tsr_status read_qwen3_moe(tsr_config *c, const tsr_hf_keys *keys)
{
    c->routing.before = true;
    TSR_TRY(tsr_hf_bool(keys, "norm_topk_prob", &c->routing.normalise));
    TSR_TRY(read_sparse_layers(c, keys));
    return read_experts(c, keys, 128, 8, 768);
}

static const tsr_family qwen2_moe = {
    .name = "qwen2_moe",
    .names = {qwen_names, tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED | TSR_FAMILY_EXPERTS | TSR_FAMILY_SHARED |
             TSR_ROLE_BIT(TSR_ROLE_SHARED_SCALE),
    .biases = TSR_FAMILY_QKV,
    .norm_eps = 1e-6,
    .rope_pairs = TSR_ROPE_HALVES,
    .window = TSR_WINDOW_SWITCH,
    .window_default = 4096,
    .read_hf = read_qwen2_moe,
};

static const tsr_family qwen3_moe = {
    .name = "qwen3_moe",
    .names = {qwen_names, tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED | TSR_FAMILY_EXPERTS | HEAD_NORMS,
    .norm_eps = 1e-6,
    .rope_pairs = TSR_ROPE_HALVES,
    .window = TSR_WINDOW_SWITCH,
    .window_default = 4096,
    .read_hf = read_qwen3_moe,
};

/* ---- gpt-oss --------------------------------------------------------------------------------- */

static const tsr_tensor_name gpt_oss_names[] = {
    {TSR_ROLE_SINKS, TSR_LAYOUT_PLAIN, LAYER "self_attn.sinks="},
    {TSR_ROLE_ROUTER, TSR_LAYOUT_PLAIN, LAYER "mlp.router"},
    {TSR_ROLE_EXPERT_GATE, TSR_LAYOUT_STACK_PAIRS, LAYER "mlp.experts.gate_up_proj="},
    {TSR_ROLE_EXPERT_UP, TSR_LAYOUT_STACK_PAIRS, LAYER "mlp.experts.gate_up_proj="},
    {TSR_ROLE_EXPERT_DOWN, TSR_LAYOUT_STACK_TRANSPOSED, LAYER "mlp.experts.down_proj="},
    {0},
};

static tsr_status read_gpt_oss(tsr_config *c, const tsr_hf_keys *keys)
{
    double limit = 7;
    double alpha = 1.702;

    TSR_TRY(tsr_hf_number(keys, "swiglu_limit", &limit));
    TSR_TRY(tsr_hf_number(keys, "swiglu_alpha", &alpha));
    if (limit != 7 || fabs(alpha - 1.702) > 1e-6) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "%s: swiglu_limit %g and swiglu_alpha %g; known are 7 "
                        "and 1.702",
                        keys->label, limit, alpha);
    }
    all_layers_have_experts(c);
    return read_experts(c, keys, 128, 4, c->shape.ff_dim);
}

static const tsr_family gpt_oss = {
    .name = "gpt_oss",
    .names = {gpt_oss_names, tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED | TSR_FAMILY_EXPERTS | TSR_ROLE_BIT(TSR_ROLE_SINKS),
    .biases = TSR_FAMILY_ATTENTION | TSR_FAMILY_EXPERTS,
    .norm_eps = 1e-5,
    .activation = TSR_ACTIVATION_SWIGLU_CLAMPED,
    .activation_key = "",
    .rope_pairs = TSR_ROPE_HALVES,
    .rope_base = 150000,
    .head_dim = 64,
    .window = TSR_WINDOW_PATTERN,
    .window_period = 2,
    .window_default = 128,
    .read_hf = read_gpt_oss,
};

/* ---- DeepSeek-V2 (arXiv 2405.04434): latent attention, shared experts --------------------------
 */

#define LATENT_ROLES                                                                       \
    (TSR_ROLE_BIT(TSR_ROLE_Q) | TSR_ROLE_BIT(TSR_ROLE_O) | TSR_ROLE_BIT(TSR_ROLE_KV_LOW) | \
     TSR_ROLE_BIT(TSR_ROLE_KV_LOW_NORM) | TSR_ROLE_BIT(TSR_ROLE_K_UP) |                    \
     TSR_ROLE_BIT(TSR_ROLE_V_UP))

static const tsr_tensor_name deepseek_names[] = {
    {TSR_ROLE_Q, TSR_LAYOUT_PLAIN, LAYER "self_attn.q_b_proj"},
    {TSR_ROLE_Q, TSR_LAYOUT_PLAIN, LAYER "self_attn.q_proj"},
    {TSR_ROLE_Q_LOW, TSR_LAYOUT_PLAIN, LAYER "self_attn.q_a_proj"},
    {TSR_ROLE_Q_LOW_NORM, TSR_LAYOUT_PLAIN, LAYER "self_attn.q_a_layernorm"},
    {TSR_ROLE_KV_LOW, TSR_LAYOUT_PLAIN, LAYER "self_attn.kv_a_proj_with_mqa"},
    {TSR_ROLE_KV_LOW_NORM, TSR_LAYOUT_PLAIN, LAYER "self_attn.kv_a_layernorm"},
    {TSR_ROLE_K_UP, TSR_LAYOUT_LATENT, LAYER "self_attn.kv_b_proj"},
    {TSR_ROLE_V_UP, TSR_LAYOUT_LATENT, LAYER "self_attn.kv_b_proj"},
    {TSR_ROLE_SHARED_GATE, TSR_LAYOUT_PLAIN, LAYER "mlp.shared_experts.gate_proj"},
    {TSR_ROLE_SHARED_UP, TSR_LAYOUT_PLAIN, LAYER "mlp.shared_experts.up_proj"},
    {TSR_ROLE_SHARED_DOWN, TSR_LAYOUT_PLAIN, LAYER "mlp.shared_experts.down_proj"},
    {0},
};

static tsr_status read_latent(tsr_config *c, const tsr_hf_keys *keys)
{
    int64_t kv_low = 512;
    int64_t q_low = tsr_hf_is_null(keys, "q_lora_rank") ? 0 : 1536;
    int64_t nope = 128;
    int64_t rot = 64;
    int64_t value = 128;
    bool biased = false;

    TSR_TRY(tsr_hf_size(keys, "kv_lora_rank", &kv_low, 1, 4096));
    TSR_TRY(tsr_hf_size(keys, "q_lora_rank", &q_low, 0, 1 << 20));
    TSR_TRY(tsr_hf_size(keys, "qk_nope_head_dim", &nope, 1, 4096));
    TSR_TRY(tsr_hf_size(keys, "qk_rope_head_dim", &rot, 2, 4096));
    TSR_TRY(tsr_hf_size(keys, "v_head_dim", &value, 1, 4096));
    TSR_TRY(tsr_hf_bool(keys, "attention_bias", &biased));
    c->kv_low = (int)kv_low;
    c->q_low = (int)q_low;
    c->n_nope = (int)nope;
    c->n_rot = (int)rot;
    c->rope_first = (int)nope;
    c->shape.head_dim = (int)(nope + rot);
    c->shape.value_dim = (int)value;
    c->shape.n_kv_heads = 1; // all heads read the one latent
    tsr_family_set(&c->roles, TSR_ROLE_BIT(TSR_ROLE_Q_LOW) | TSR_ROLE_BIT(TSR_ROLE_Q_LOW_NORM),
                   q_low > 0);
    tsr_family_set(&c->biases, TSR_FAMILY_QKV, false);
    tsr_family_set(&c->biases, TSR_ROLE_BIT(TSR_ROLE_Q_LOW), biased && q_low > 0);
    tsr_family_set(&c->biases, TSR_ROLE_BIT(TSR_ROLE_KV_LOW) | TSR_ROLE_BIT(TSR_ROLE_O), biased);
    return TSR_OK;
}

/* YaRN's second magnitude multiplies the scores, squared. */
static tsr_status read_latent_scale(tsr_config *c, const tsr_hf_keys *keys)
{
    tsr_hf_keys scaling = {NULL, keys->label};
    double factor = 1;
    double m_all = 0;
    double magnitude;

    TSR_TRY(tsr_hf_object(keys, "rope_parameters|rope_scaling", &scaling.object));
    TSR_TRY(tsr_hf_number(&scaling, "factor", &factor));
    TSR_TRY(tsr_hf_number(&scaling, "mscale_all_dim", &m_all));
    magnitude = tsr_rope_yarn_magnitude(factor, m_all);
    for (int i = 0; i < c->n_layers; i++) {
        c->layers[i].scale = (float)(magnitude * magnitude / sqrt((double)c->shape.head_dim));
    }
    return TSR_OK;
}

static tsr_status read_deepseek(tsr_config *c, const tsr_hf_keys *keys)
{
    const char *method = "greedy";
    const char *scoring = "softmax";
    int64_t first_dense = 0;
    int64_t n_shared = 0;
    int64_t n_groups = 0;
    int64_t n_groups_used = 0;
    double scale = 1;

    TSR_TRY(read_latent(c, keys));
    TSR_TRY(read_latent_scale(c, keys));
    TSR_TRY(read_experts(c, keys, 64, 6, 1407));
    TSR_TRY(tsr_hf_text(keys, "topk_method", &method));
    TSR_TRY(tsr_hf_text(keys, "scoring_func", &scoring));
    TSR_TRY(tsr_hf_size(keys, "first_k_dense_replace", &first_dense, 0, INT32_MAX));
    TSR_TRY(tsr_hf_size(keys, "n_shared_experts", &n_shared, 0, MOST_EXPERTS));
    TSR_TRY(tsr_hf_number(keys, "routed_scaling_factor", &scale));
    if (strcmp(method, "group_limited_greedy") == 0) {
        n_groups = n_groups_used = 1;
        TSR_TRY(tsr_hf_size(keys, "n_group", &n_groups, 1, MOST_EXPERTS));
        TSR_TRY(tsr_hf_size(keys, "topk_group", &n_groups_used, 1, MOST_EXPERTS));
    } else if (strcmp(method, "greedy") != 0 && strcmp(method, "gready") != 0) { // sic, in files
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: topk_method \"%.40s\" is not known", keys->label,
                        method);
    }
    if (strcmp(scoring, "softmax") != 0) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: scoring_func \"%.40s\" is not known", keys->label,
                        scoring);
    }
    c->routing.before = true;
    c->routing.scale = (float)scale;
    c->routing.n_groups = (int)n_groups;
    c->routing.n_groups_used = (int)n_groups_used;
    c->shape.shared_ff = n_shared * c->shape.expert_ff;
    tsr_family_set(&c->roles, TSR_FAMILY_SHARED, n_shared > 0);
    for (int i = 0; i < c->n_layers; i++) {
        c->layers[i].experts = i >= first_dense;
    }
    return TSR_OK;
}

static const tsr_family deepseek_v2 = {
    .name = "deepseek_v2",
    .names = {deepseek_names, qwen_names, tsr_family_llama_names},
    .roles = TSR_FAMILY_AROUND | TSR_FAMILY_NORMS | TSR_FAMILY_UP_DOWN |
             TSR_ROLE_BIT(TSR_ROLE_GATE) | LATENT_ROLES | TSR_FAMILY_EXPERTS,
    .norm_eps = 1e-6,
    .rope_pairs = TSR_ROPE_INTERLEAVED,
    .head_dim = 64,
    .read_hf = read_deepseek,
};

const tsr_family *const tsr_family_experts_table[] = {
    &mixtral, &qwen2_moe, &qwen3_moe, &gpt_oss, &deepseek_v2, NULL,
};
