/*
 * Llama and those that kept its names: Hugging Face folders with one dense feed-forward a layer.
 * Sources: the configuration and modeling code of huggingface.co/docs/transformers for each.
 */
#include "engine/family.h"

#include <math.h>

#define LAYER "model.layers.%l."

const tsr_tensor_name tsr_family_llama_names[] = {
    {TSR_ROLE_EMBED, TSR_LAYOUT_PLAIN, "model.embed_tokens"},
    {TSR_ROLE_HEAD, TSR_LAYOUT_PLAIN, "lm_head"},
    {TSR_ROLE_FINAL_NORM, TSR_LAYOUT_PLAIN, "model.norm"},
    {TSR_ROLE_ATTN_NORM, TSR_LAYOUT_PLAIN, LAYER "input_layernorm"},
    {TSR_ROLE_FF_NORM, TSR_LAYOUT_PLAIN, LAYER "post_attention_layernorm"},
    {TSR_ROLE_Q, TSR_LAYOUT_PLAIN, LAYER "self_attn.q_proj"},
    {TSR_ROLE_K, TSR_LAYOUT_PLAIN, LAYER "self_attn.k_proj"},
    {TSR_ROLE_V, TSR_LAYOUT_PLAIN, LAYER "self_attn.v_proj"},
    {TSR_ROLE_O, TSR_LAYOUT_PLAIN, LAYER "self_attn.o_proj"},
    {TSR_ROLE_Q_HEAD_NORM, TSR_LAYOUT_PLAIN, LAYER "self_attn.q_norm"},
    {TSR_ROLE_K_HEAD_NORM, TSR_LAYOUT_PLAIN, LAYER "self_attn.k_norm"},
    {TSR_ROLE_Q_HEADS_NORM, TSR_LAYOUT_PLAIN, LAYER "self_attn.q_norm"},
    {TSR_ROLE_K_HEADS_NORM, TSR_LAYOUT_PLAIN, LAYER "self_attn.k_norm"},
    {TSR_ROLE_Q_WIDE_NORM, TSR_LAYOUT_PLAIN, LAYER "self_attn.q_norm"},
    {TSR_ROLE_K_WIDE_NORM, TSR_LAYOUT_PLAIN, LAYER "self_attn.k_norm"},
    {TSR_ROLE_GATE, TSR_LAYOUT_PLAIN, LAYER "mlp.gate_proj"},
    {TSR_ROLE_UP, TSR_LAYOUT_PLAIN, LAYER "mlp.up_proj"},
    {TSR_ROLE_DOWN, TSR_LAYOUT_PLAIN, LAYER "mlp.down_proj"},
    {0},
};

/* Norms before and behind attention and feed-forward: Gemma 2 and 3. */
static const tsr_tensor_name both_norms[] = {
    {TSR_ROLE_ATTN_POST_NORM, TSR_LAYOUT_PLAIN, LAYER "post_attention_layernorm"},
    {TSR_ROLE_FF_NORM, TSR_LAYOUT_PLAIN, LAYER "pre_feedforward_layernorm"},
    {TSR_ROLE_FF_POST_NORM, TSR_LAYOUT_PLAIN, LAYER "post_feedforward_layernorm"},
    {0},
};

static const tsr_tensor_name fused[] = {
    {TSR_ROLE_Q, TSR_LAYOUT_QKV, LAYER "self_attn.qkv_proj"},
    {TSR_ROLE_K, TSR_LAYOUT_QKV, LAYER "self_attn.qkv_proj"},
    {TSR_ROLE_V, TSR_LAYOUT_QKV, LAYER "self_attn.qkv_proj"},
    {TSR_ROLE_GATE, TSR_LAYOUT_GATE_UP, LAYER "mlp.gate_up_proj"},
    {TSR_ROLE_UP, TSR_LAYOUT_GATE_UP, LAYER "mlp.gate_up_proj"},
    {0},
};

static const tsr_tensor_name starcoder_names[] = {
    {TSR_ROLE_UP, TSR_LAYOUT_PLAIN, LAYER "mlp.c_fc"},
    {TSR_ROLE_DOWN, TSR_LAYOUT_PLAIN, LAYER "mlp.c_proj"},
    {0},
};

static const tsr_tensor_name phi_names[] = {
    {TSR_ROLE_O, TSR_LAYOUT_PLAIN, LAYER "self_attn.dense"},
    {TSR_ROLE_UP, TSR_LAYOUT_PLAIN, LAYER "mlp.fc1"},
    {TSR_ROLE_DOWN, TSR_LAYOUT_PLAIN, LAYER "mlp.fc2"},
    {TSR_ROLE_Q_HEAD_NORM, TSR_LAYOUT_PLAIN, LAYER "self_attn.q_layernorm"},
    {TSR_ROLE_K_HEAD_NORM, TSR_LAYOUT_PLAIN, LAYER "self_attn.k_layernorm"},
    {TSR_ROLE_FINAL_NORM, TSR_LAYOUT_PLAIN, "model.final_layernorm"},
    {0},
};

static const tsr_tensor_name stablelm_names[] = {
    {TSR_ROLE_Q_HEADS_NORM, TSR_LAYOUT_A_HEAD, LAYER "self_attn.q_layernorm.norms.%e"},
    {TSR_ROLE_K_HEADS_NORM, TSR_LAYOUT_A_HEAD, LAYER "self_attn.k_layernorm.norms.%e"},
    {0},
};

#define HEADS_NORMS (TSR_ROLE_BIT(TSR_ROLE_Q_HEADS_NORM) | TSR_ROLE_BIT(TSR_ROLE_K_HEADS_NORM))
#define HEAD_NORMS (TSR_ROLE_BIT(TSR_ROLE_Q_HEAD_NORM) | TSR_ROLE_BIT(TSR_ROLE_K_HEAD_NORM))
#define POST_NORMS (TSR_ROLE_BIT(TSR_ROLE_ATTN_POST_NORM) | TSR_ROLE_BIT(TSR_ROLE_FF_POST_NORM))

/* ---- Gemma ----------------------------------------------------------------------------------- */

static tsr_status read_gemma(tsr_config *c, const tsr_hf_keys *keys)
{
    (void)keys;
    c->embed_scale = sqrtf((float)c->shape.dim);
    return TSR_OK;
}

/* Gemma 2 and 3: soft caps, and queries scaled by a number of the file. */
static tsr_status read_gemma2(tsr_config *c, const tsr_hf_keys *keys)
{
    const bool capped = (c->roles & HEAD_NORMS) == 0; // Gemma 3 has norms of Q and K instead
    double attention_cap = capped && !tsr_hf_is_null(keys, "attn_logit_softcapping") ? 50 : 0;
    double logit_cap = capped && !tsr_hf_is_null(keys, "final_logit_softcapping") ? 30 : 0;
    double scalar = 256;

    TSR_TRY(read_gemma(c, keys));
    if (capped) { // of its scores Gemma 3 has none, though its files may speak of one
        TSR_TRY(tsr_hf_number(keys, "attn_logit_softcapping", &attention_cap));
    }
    TSR_TRY(tsr_hf_number(keys, "final_logit_softcapping", &logit_cap));
    TSR_TRY(tsr_hf_number(keys, "query_pre_attn_scalar", &scalar));
    c->attention_cap = (float)attention_cap;
    c->logit_cap = (float)logit_cap;
    for (int i = 0; i < c->n_layers; i++) {
        c->layers[i].scale = (float)(1 / sqrt(scalar));
    }
    return TSR_OK;
}

static const tsr_family gemma = {
    .name = "gemma",
    .names = {tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED,
    .norm_plus_one = true,
    .norm_eps = 1e-6,
    .activation = TSR_ACTIVATION_GELU_TANH,
    .activation_key = "", // old files say "gelu" and mean this one
    .tied = true,
    .rope_pairs = TSR_ROPE_HALVES,
    .head_dim = 256,
    .read_hf = read_gemma,
};

static const tsr_family gemma2 = {
    .name = "gemma2",
    .names = {both_norms, tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED | POST_NORMS,
    .norm_plus_one = true,
    .norm_eps = 1e-6,
    .activation = TSR_ACTIVATION_GELU_TANH,
    .activation_key = "hidden_activation",
    .tied = true,
    .rope_pairs = TSR_ROPE_HALVES,
    .head_dim = 256,
    .window = TSR_WINDOW_PATTERN,
    .window_period = 2,
    .window_default = 4096,
    .read_hf = read_gemma2,
};

static const tsr_family gemma3 = {
    .name = "gemma3_text",
    .names = {both_norms, tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED | POST_NORMS | HEAD_NORMS,
    .norm_plus_one = true,
    .norm_eps = 1e-6,
    .activation = TSR_ACTIVATION_GELU_TANH,
    .activation_key = "hidden_activation",
    .tied = true,
    .rope_pairs = TSR_ROPE_HALVES,
    .rope_base = 1e6,
    .rope_local_base = 1e4,
    .head_dim = 256,
    .n_heads = 8, // files of models with images leave out what is as here
    .n_kv_heads = 4,
    .n_vocab = 262208,
    .context = 131072,
    .window = TSR_WINDOW_PATTERN,
    .window_period = 6,
    .window_default = 4096,
    .read_hf = read_gemma2,
};

/* ---- others with keys of their own ----------------------------------------------------------- */

static tsr_status read_granite(tsr_config *c, const tsr_hf_keys *keys)
{
    double embedding = 1;
    double residual = 1;
    double attention = 1;
    double logits = 1;

    TSR_TRY(tsr_hf_number(keys, "embedding_multiplier", &embedding));
    TSR_TRY(tsr_hf_number(keys, "residual_multiplier", &residual));
    TSR_TRY(tsr_hf_number(keys, "attention_multiplier", &attention));
    TSR_TRY(tsr_hf_number(keys, "logits_scaling", &logits));
    if (!(logits > 0)) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: logits_scaling is %g", keys->label, logits);
    }
    c->embed_scale = (float)embedding;
    c->residual_scale = (float)residual;
    c->logit_scale = (float)(1 / logits);
    for (int i = 0; i < c->n_layers; i++) {
        c->layers[i].scale = (float)attention;
    }
    return TSR_OK;
}

static tsr_status read_cohere(tsr_config *c, const tsr_hf_keys *keys)
{
    double scale = 0.0625;
    bool qk_norm = false;

    TSR_TRY(tsr_hf_number(keys, "logit_scale", &scale));
    TSR_TRY(tsr_hf_bool(keys, "use_qk_norm", &qk_norm));
    c->logit_scale = (float)scale;
    tsr_family_set(&c->roles, HEADS_NORMS, qk_norm);
    return TSR_OK;
}

static tsr_status read_stablelm(tsr_config *c, const tsr_hf_keys *keys)
{
    bool qk_norm = false;

    TSR_TRY(tsr_hf_bool(keys, "use_parallel_residual", &c->parallel));
    TSR_TRY(tsr_hf_bool(keys, "qk_layernorm", &qk_norm));
    tsr_family_set(&c->roles, HEADS_NORMS, qk_norm);
    tsr_family_set(&c->roles, TSR_ROLE_BIT(TSR_ROLE_FF_NORM), !c->parallel);
    return TSR_OK;
}

static tsr_status read_starcoder2(tsr_config *c, const tsr_hf_keys *keys)
{
    bool biased = true;

    TSR_TRY(tsr_hf_bool(keys, "use_bias", &biased));
    tsr_family_set(&c->biases, TSR_FAMILY_ATTENTION | TSR_FAMILY_UP_DOWN, biased);
    return TSR_OK;
}

static tsr_status read_phi(tsr_config *c, const tsr_hf_keys *keys)
{
    bool qk_norm = false;

    TSR_TRY(tsr_hf_bool(keys, "qk_layernorm", &qk_norm));
    tsr_family_set(&c->roles, HEAD_NORMS, qk_norm);
    tsr_family_set(&c->biases, HEAD_NORMS, qk_norm);
    return TSR_OK;
}

static tsr_status read_phi3(tsr_config *c, const tsr_hf_keys *keys)
{
    c->ropes[0].original_context = 4096;
    (void)keys;
    return TSR_OK;
}

static const tsr_family granite = {
    .name = "granite",
    .names = {tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED,
    .norm_eps = 1e-6,
    .rope_pairs = TSR_ROPE_HALVES,
    .read_hf = read_granite,
};

static const tsr_family cohere = {
    .name = "cohere",
    .names = {tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED & ~TSR_ROLE_BIT(TSR_ROLE_FF_NORM),
    .norm = TSR_NORM_LAYER,
    .norm_eps = 1e-5,
    .parallel = true,
    .tied = true,
    .rope_pairs = TSR_ROPE_INTERLEAVED,
    .read_hf = read_cohere,
};

static const tsr_family stablelm = {
    .name = "stablelm",
    .names = {stablelm_names, tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED,
    .biases = TSR_FAMILY_NORMS,
    .norm = TSR_NORM_LAYER,
    .norm_eps = 1e-5,
    .rope_pairs = TSR_ROPE_HALVES,
    .rope_partial = 0.25,
    .read_hf = read_stablelm,
};

static const tsr_family starcoder2 = {
    .name = "starcoder2",
    .names = {starcoder_names, tsr_family_llama_names},
    .roles = TSR_FAMILY_PLAIN,
    .biases = TSR_FAMILY_NORMS,
    .norm = TSR_NORM_LAYER,
    .norm_eps = 1e-5,
    .activation = TSR_ACTIVATION_GELU_TANH,
    .tied = true,
    .rope_pairs = TSR_ROPE_HALVES,
    .window = TSR_WINDOW_ALL,
    .read_hf = read_starcoder2,
};

static const tsr_family phi = {
    .name = "phi",
    .names = {phi_names, tsr_family_llama_names},
    .roles = TSR_FAMILY_PLAIN & ~TSR_ROLE_BIT(TSR_ROLE_FF_NORM),
    .biases =
        TSR_FAMILY_ATTENTION | TSR_FAMILY_UP_DOWN | TSR_FAMILY_NORMS | TSR_ROLE_BIT(TSR_ROLE_HEAD),
    .norm = TSR_NORM_LAYER,
    .norm_eps = 1e-5,
    .parallel = true,
    .activation = TSR_ACTIVATION_GELU_TANH,
    .rope_pairs = TSR_ROPE_HALVES,
    .rope_partial = 0.5,
    .read_hf = read_phi,
};

static const tsr_family phi3 = {
    .name = "phi3",
    .names = {fused, tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED,
    .norm_eps = 1e-5,
    .rope_pairs = TSR_ROPE_HALVES,
    .window = TSR_WINDOW_ALL,
    .read_hf = read_phi3,
};

static tsr_status read_olmo(tsr_config *c, const tsr_hf_keys *keys)
{
    double clip = 0;

    TSR_TRY(tsr_hf_number(keys, "clip_qkv", &clip));
    c->qkv_clip = (float)clip;
    c->plain_norms = TSR_FAMILY_NORMS;
    return TSR_OK;
}

static const tsr_family olmo = {
    .name = "olmo",
    .names = {tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED,
    .norm = TSR_NORM_LAYER,
    .norm_eps = 1e-5,
    .rope_pairs = TSR_ROPE_HALVES,
    .read_hf = read_olmo,
};

/* ---- data alone ------------------------------------------------------------------------------ */

static const tsr_family llama = {
    .name = "llama",
    .names = {tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED,
    .norm_eps = 1e-6,
    .rope_pairs = TSR_ROPE_HALVES,
};

static const tsr_family mistral = {
    .name = "mistral",
    .names = {tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED,
    .norm_eps = 1e-6,
    .rope_pairs = TSR_ROPE_HALVES,
    .window = TSR_WINDOW_ALL,
    .window_default = 4096,
};

static const tsr_family qwen2 = {
    .name = "qwen2",
    .names = {tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED,
    .biases = TSR_FAMILY_QKV,
    .norm_eps = 1e-6,
    .rope_pairs = TSR_ROPE_HALVES,
    .window = TSR_WINDOW_SWITCH,
    .window_default = 4096,
};

static const tsr_family qwen3 = {
    .name = "qwen3",
    .names = {tsr_family_llama_names},
    .roles = TSR_FAMILY_GATED | HEAD_NORMS,
    .norm_eps = 1e-6,
    .rope_pairs = TSR_ROPE_HALVES,
    .head_dim = 128,
    .window = TSR_WINDOW_SWITCH,
    .window_default = 4096,
};

/* Norms behind attention and feed-forward only. */
static const tsr_family olmo2 = {
    .name = "olmo2",
    .names = {both_norms, tsr_family_llama_names},
    .roles =
        (TSR_FAMILY_GATED & ~(TSR_ROLE_BIT(TSR_ROLE_ATTN_NORM) | TSR_ROLE_BIT(TSR_ROLE_FF_NORM))) |
        POST_NORMS | TSR_ROLE_BIT(TSR_ROLE_Q_WIDE_NORM) | TSR_ROLE_BIT(TSR_ROLE_K_WIDE_NORM),
    .norm_eps = 1e-5,
    .rope_pairs = TSR_ROPE_HALVES,
};

const tsr_family *const tsr_family_llama_table[] = {
    &llama, &mistral, &qwen2,    &qwen3,      &gemma, &gemma2, &gemma3, &phi,
    &phi3,  &granite, &stablelm, &starcoder2, &olmo,  &olmo2,  &cohere, NULL,
};
