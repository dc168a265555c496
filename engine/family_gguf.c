/*
 * Families in GGUF files. All have the same names of tensors; fused ones are [Q; K; V] and
 * [gate; up], as the format's converters write them, and norms that multiply by 1 + w are stored
 * so. Which pairs turn together is the converter's choice as well: it permutes Q and K for some
 * families so that neighbours do. Source: github.com/ggml-org/llama.cpp, gguf-py/gguf/constants.py
 * and conversion scripts.
 */
#include "engine/family.h"

#include <math.h>
#include <stdio.h>

#define BLOCK "blk.%l."
#define HEAD_NORMS (TSR_ROLE_BIT(TSR_ROLE_Q_HEAD_NORM) | TSR_ROLE_BIT(TSR_ROLE_K_HEAD_NORM))
#define HEADS_NORMS (TSR_ROLE_BIT(TSR_ROLE_Q_HEADS_NORM) | TSR_ROLE_BIT(TSR_ROLE_K_HEADS_NORM))
#define POST_NORMS (TSR_ROLE_BIT(TSR_ROLE_ATTN_POST_NORM) | TSR_ROLE_BIT(TSR_ROLE_FF_POST_NORM))

static const tsr_tensor_name names[] = {
    {TSR_ROLE_EMBED, TSR_LAYOUT_PLAIN, "token_embd"},
    {TSR_ROLE_POSITIONS, TSR_LAYOUT_PLAIN, "position_embd"},
    {TSR_ROLE_EMBED_NORM, TSR_LAYOUT_PLAIN, "token_embd_norm"},
    {TSR_ROLE_HEAD, TSR_LAYOUT_PLAIN, "output"},
    {TSR_ROLE_FINAL_NORM, TSR_LAYOUT_PLAIN, "output_norm"},
    {TSR_ROLE_ATTN_NORM, TSR_LAYOUT_PLAIN, BLOCK "attn_norm"},
    {TSR_ROLE_ATTN_POST_NORM, TSR_LAYOUT_PLAIN, BLOCK "post_attention_norm"},
    {TSR_ROLE_FF_NORM, TSR_LAYOUT_PLAIN, BLOCK "ffn_norm"},
    {TSR_ROLE_FF_POST_NORM, TSR_LAYOUT_PLAIN, BLOCK "post_ffw_norm"},
    {TSR_ROLE_Q, TSR_LAYOUT_PLAIN, BLOCK "attn_q"},
    {TSR_ROLE_Q, TSR_LAYOUT_QKV, BLOCK "attn_qkv"},
    {TSR_ROLE_Q, TSR_LAYOUT_PLAIN, BLOCK "attn_q_b"},
    {TSR_ROLE_K, TSR_LAYOUT_PLAIN, BLOCK "attn_k"},
    {TSR_ROLE_K, TSR_LAYOUT_QKV, BLOCK "attn_qkv"},
    {TSR_ROLE_V, TSR_LAYOUT_PLAIN, BLOCK "attn_v"},
    {TSR_ROLE_V, TSR_LAYOUT_QKV, BLOCK "attn_qkv"},
    {TSR_ROLE_O, TSR_LAYOUT_PLAIN, BLOCK "attn_output"},
    {TSR_ROLE_Q_HEAD_NORM, TSR_LAYOUT_PLAIN, BLOCK "attn_q_norm"},
    {TSR_ROLE_K_HEAD_NORM, TSR_LAYOUT_PLAIN, BLOCK "attn_k_norm"},
    {TSR_ROLE_Q_HEADS_NORM, TSR_LAYOUT_PLAIN, BLOCK "attn_q_norm"},
    {TSR_ROLE_K_HEADS_NORM, TSR_LAYOUT_PLAIN, BLOCK "attn_k_norm"},
    {TSR_ROLE_Q_WIDE_NORM, TSR_LAYOUT_PLAIN, BLOCK "attn_q_norm"},
    {TSR_ROLE_K_WIDE_NORM, TSR_LAYOUT_PLAIN, BLOCK "attn_k_norm"},
    {TSR_ROLE_SINKS, TSR_LAYOUT_PLAIN, BLOCK "attn_sinks"},
    {TSR_ROLE_Q_LOW, TSR_LAYOUT_PLAIN, BLOCK "attn_q_a"},
    {TSR_ROLE_Q_LOW_NORM, TSR_LAYOUT_PLAIN, BLOCK "attn_q_a_norm"},
    {TSR_ROLE_KV_LOW, TSR_LAYOUT_PLAIN, BLOCK "attn_kv_a_mqa"},
    {TSR_ROLE_KV_LOW_NORM, TSR_LAYOUT_PLAIN, BLOCK "attn_kv_a_norm"},
    {TSR_ROLE_K_UP, TSR_LAYOUT_HEADS, BLOCK "attn_k_b"},
    {TSR_ROLE_K_UP, TSR_LAYOUT_LATENT, BLOCK "attn_kv_b"},
    {TSR_ROLE_V_UP, TSR_LAYOUT_HEADS, BLOCK "attn_v_b"},
    {TSR_ROLE_V_UP, TSR_LAYOUT_LATENT, BLOCK "attn_kv_b"},
    {TSR_ROLE_GATE, TSR_LAYOUT_PLAIN, BLOCK "ffn_gate"},
    {TSR_ROLE_GATE, TSR_LAYOUT_GATE_UP, BLOCK "ffn_up"},
    {TSR_ROLE_UP, TSR_LAYOUT_PLAIN, BLOCK "ffn_up"},
    {TSR_ROLE_DOWN, TSR_LAYOUT_PLAIN, BLOCK "ffn_down"},
    {TSR_ROLE_ROUTER, TSR_LAYOUT_PLAIN, BLOCK "ffn_gate_inp"},
    {TSR_ROLE_EXPERT_GATE, TSR_LAYOUT_STACK, BLOCK "ffn_gate_exps"},
    {TSR_ROLE_EXPERT_UP, TSR_LAYOUT_STACK, BLOCK "ffn_up_exps"},
    {TSR_ROLE_EXPERT_DOWN, TSR_LAYOUT_STACK, BLOCK "ffn_down_exps"},
    {TSR_ROLE_EXPERT_GATE, TSR_LAYOUT_PLAIN, BLOCK "ffn_gate.%e"},
    {TSR_ROLE_EXPERT_UP, TSR_LAYOUT_PLAIN, BLOCK "ffn_up.%e"},
    {TSR_ROLE_EXPERT_DOWN, TSR_LAYOUT_PLAIN, BLOCK "ffn_down.%e"},
    {TSR_ROLE_SHARED_SCALE, TSR_LAYOUT_PLAIN, BLOCK "ffn_gate_inp_shexp"},
    {TSR_ROLE_SHARED_GATE, TSR_LAYOUT_PLAIN, BLOCK "ffn_gate_shexp"},
    {TSR_ROLE_SHARED_UP, TSR_LAYOUT_PLAIN, BLOCK "ffn_up_shexp"},
    {TSR_ROLE_SHARED_DOWN, TSR_LAYOUT_PLAIN, BLOCK "ffn_down_shexp"},
    {0},
};

/* Gate and up lie in one tensor. */
static const tsr_tensor_name fused_up[] = {
    {TSR_ROLE_GATE, TSR_LAYOUT_GATE_UP, BLOCK "ffn_up"},
    {TSR_ROLE_UP, TSR_LAYOUT_GATE_UP, BLOCK "ffn_up"},
    {0},
};

/* gpt-oss calls the feed-forward's norm so. */
static const tsr_tensor_name late_norm[] = {
    {TSR_ROLE_FF_NORM, TSR_LAYOUT_PLAIN, BLOCK "post_attention_norm"},
    {TSR_ROLE_FF_NORM, TSR_LAYOUT_PLAIN, BLOCK "ffn_norm"},
    {0},
};

/* Falcon's second norm, where it has one, is attention's. */
static const tsr_tensor_name falcon_norms[] = {
    {TSR_ROLE_ATTN_NORM, TSR_LAYOUT_PLAIN, BLOCK "attn_norm_2"},
    {TSR_ROLE_ATTN_NORM, TSR_LAYOUT_PLAIN, BLOCK "attn_norm"},
    {TSR_ROLE_FF_NORM, TSR_LAYOUT_PLAIN, BLOCK "attn_norm"},
    {0},
};

static bool has_tensor(const tsr_gguf *gguf, const char *name)
{
    return tsr_gguf_find(gguf, name) != NULL;
}

static double number(const tsr_config *c, const tsr_gguf *gguf, const char *name, double fallback)
{
    char key[128];
    double value = fallback;

    (void)snprintf(key, sizeof(key), "%s.%s", c->family->name, name);
    (void)tsr_gguf_float(gguf, key, &value);
    return value;
}

static int whole(const tsr_config *c, const tsr_gguf *gguf, const char *name, int fallback)
{
    const double value = number(c, gguf, name, fallback);

    return value >= 0 && value < 1e9 ? (int)value : fallback;
}

static void set_scale(tsr_config *c, double scale)
{
    for (int i = 0; i < c->n_layers; i++) {
        c->layers[i].scale = (float)scale;
    }
}

/* Llama's files may have experts: Mixtral is written as one. */
static tsr_status read_llama(tsr_config *c, const tsr_gguf *gguf)
{
    c->shape.n_experts = whole(c, gguf, "expert_count", 0);
    if (c->shape.n_experts > 0) {
        c->roles |= TSR_FAMILY_EXPERTS;
        c->shape.expert_ff = c->shape.ff_dim;
        c->routing.n_used = whole(c, gguf, "expert_used_count", 2);
        for (int i = 0; i < c->n_layers; i++) {
            c->layers[i].experts = true;
        }
    }
    return TSR_OK;
}

static tsr_status read_experts(tsr_config *c, const tsr_gguf *gguf)
{
    char name[64];

    c->shape.n_experts = whole(c, gguf, "expert_count", 0);
    c->shape.expert_ff = whole(c, gguf, "expert_feed_forward_length", (int)c->shape.ff_dim);
    c->routing.n_used = whole(c, gguf, "expert_used_count", 0);
    c->routing.before = true;
    for (int i = 0; i < c->n_layers; i++) {
        (void)snprintf(name, sizeof(name), "blk.%d.ffn_gate_inp.weight", i);
        c->layers[i].experts = has_tensor(gguf, name);
    }
    return TSR_OK;
}

static tsr_status read_qwen2moe(tsr_config *c, const tsr_gguf *gguf)
{
    TSR_TRY(read_experts(c, gguf));
    c->shape.shared_ff = whole(c, gguf, "expert_shared_feed_forward_length", (int)c->shape.ff_dim);
    return TSR_OK;
}

static tsr_status read_qwen3moe(tsr_config *c, const tsr_gguf *gguf)
{
    TSR_TRY(read_experts(c, gguf));
    c->routing.normalise = true;
    return TSR_OK;
}

static tsr_status read_gpt_oss(tsr_config *c, const tsr_gguf *gguf)
{
    TSR_TRY(read_experts(c, gguf));
    c->routing.before = false;
    c->ropes[0].whole_dims = false;
    return TSR_OK;
}

static tsr_status read_deepseek2(tsr_config *c, const tsr_gguf *gguf)
{
    const int rot = whole(c, gguf, "rope.dimension_count", 64);
    // Files with one latent KV head say the heads' own sizes under other keys.
    const int head_dim =
        whole(c, gguf, "attention.key_length_mla", whole(c, gguf, "attention.key_length", 0));
    const double log_scale = number(c, gguf, "rope.scaling.yarn_log_multiplier", 0);
    const int gating = whole(c, gguf, "expert_gating_func", 1);
    double magnitude = 1;

    if (gating > 1) { // DeepSeek-V3's
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "deepseek2: expert_gating_func is %d; 1, softmax, is known", gating);
    }
    TSR_TRY(read_experts(c, gguf));
    c->kv_low = whole(c, gguf, "attention.kv_lora_rank", 0);
    c->q_low = whole(c, gguf, "attention.q_lora_rank", 0);
    if (c->kv_low < 1 || head_dim <= rot || rot < 2) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "deepseek2: a latent of %d, heads of %d of which %d turn: that cannot be",
                        c->kv_low, head_dim, rot);
    }
    c->n_rot = rot;
    c->n_nope = c->rope_first = head_dim - rot;
    c->shape.head_dim = head_dim;
    c->shape.value_dim = whole(c, gguf, "attention.value_length_mla",
                               whole(c, gguf, "attention.value_length", head_dim));
    c->shape.n_kv_heads = 1;
    tsr_family_set(&c->roles, TSR_ROLE_BIT(TSR_ROLE_Q_LOW) | TSR_ROLE_BIT(TSR_ROLE_Q_LOW_NORM),
                   c->q_low > 0);
    c->shape.shared_ff = whole(c, gguf, "expert_shared_count", 0) * c->shape.expert_ff;
    tsr_family_set(&c->roles, TSR_FAMILY_SHARED, c->shape.shared_ff > 0);
    c->routing.scale = (float)number(c, gguf, "expert_weights_scale", 1);
    (void)tsr_gguf_bool(gguf, "deepseek2.expert_weights_norm", &c->routing.normalise);
    if (log_scale > 0) { // 0.1 mscale_all_dim, as the converter writes it
        magnitude = 1 + log_scale * log(number(c, gguf, "rope.scaling.factor", 1));
    }
    set_scale(c, magnitude * magnitude / sqrt((double)head_dim));
    return TSR_OK;
}

/* ---- Gemma ----------------------------------------------------------------------------------- */

static tsr_status read_gemma(tsr_config *c, const tsr_gguf *gguf)
{
    (void)gguf;
    c->embed_scale = sqrtf((float)c->shape.dim);
    return TSR_OK;
}

/* The largest model of each generation scales queries by dim / heads instead of the head. */
static tsr_status read_gemma2(tsr_config *c, const tsr_gguf *gguf)
{
    TSR_TRY(read_gemma(c, gguf));
    c->attention_cap = (float)number(c, gguf, "attn_logit_softcapping", 50);
    c->logit_cap = (float)number(c, gguf, "final_logit_softcapping", 30);
    if (c->n_layers == 46) {
        set_scale(c, 1 / sqrt((double)c->shape.dim / c->shape.n_heads));
    }
    return TSR_OK;
}

static tsr_status read_gemma3(tsr_config *c, const tsr_gguf *gguf)
{
    TSR_TRY(read_gemma(c, gguf));
    c->logit_cap = (float)number(c, gguf, "final_logit_softcapping", 0);
    if (c->n_layers == 62) {
        set_scale(c, 1 / sqrt((double)c->shape.dim / c->shape.n_heads));
    }
    return TSR_OK;
}

/* ---- others ---------------------------------------------------------------------------------- */

static tsr_status read_falcon(tsr_config *c, const tsr_gguf *gguf)
{
    tsr_family_set(&c->roles, TSR_ROLE_BIT(TSR_ROLE_FF_NORM),
                   has_tensor(gguf, "blk.0.attn_norm_2.weight"));
    return TSR_OK;
}

static tsr_status read_neox(tsr_config *c, const tsr_gguf *gguf)
{
    (void)tsr_gguf_bool(gguf, "gptneox.use_parallel_residual", &c->parallel);
    return TSR_OK;
}

static tsr_status read_stablelm(tsr_config *c, const tsr_gguf *gguf)
{
    (void)tsr_gguf_bool(gguf, "stablelm.use_parallel_residual", &c->parallel);
    tsr_family_set(&c->roles, TSR_ROLE_BIT(TSR_ROLE_FF_NORM),
                   has_tensor(gguf, "blk.0.ffn_norm.weight"));
    c->parallel = (c->roles & TSR_ROLE_BIT(TSR_ROLE_FF_NORM)) == 0;
    tsr_family_set(&c->roles, HEADS_NORMS, has_tensor(gguf, "blk.0.attn_q_norm.weight"));
    return TSR_OK;
}

static tsr_status read_gpt2(tsr_config *c, const tsr_gguf *gguf)
{
    (void)gguf;
    c->shape.n_positions = c->context;
    return TSR_OK;
}

static tsr_status read_bloom(tsr_config *c, const tsr_gguf *gguf)
{
    (void)gguf;
    return tsr_family_alibi(c);
}

/* The format keeps the largest slope of a power of two of heads: 2^(-max / heads) and so on. */
static tsr_status read_mpt(tsr_config *c, const tsr_gguf *gguf)
{
    const double most = number(c, gguf, "attention.max_alibi_bias", 0);

    if (has_tensor(gguf, "blk.0.attn_q_norm.weight") || has_tensor(gguf, "position_embd.weight") ||
        !(most > 0)) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "mpt: normed keys, or learned positions, are not known");
    }
    c->qkv_clip = (float)number(c, gguf, "attention.clamp_kqv", 0);
    TSR_TRY(tsr_family_alibi(c));
    for (int h = 0; h < c->shape.n_heads; h++) {
        c->slopes[h] = (float)pow((double)c->slopes[h], most / 8);
    }
    return TSR_OK;
}

static tsr_status read_command_r(tsr_config *c, const tsr_gguf *gguf)
{
    c->logit_scale = (float)number(c, gguf, "logit_scale", 0.0625);
    tsr_family_set(&c->roles, HEADS_NORMS, has_tensor(gguf, "blk.0.attn_q_norm.weight"));
    return TSR_OK;
}

static tsr_status read_granite(tsr_config *c, const tsr_gguf *gguf)
{
    const double logits = number(c, gguf, "logit_scale", 1);
    c->embed_scale = (float)number(c, gguf, "embedding_scale", 1);
    c->residual_scale = (float)number(c, gguf, "residual_scale", 1);
    c->logit_scale = (float)(1 / (logits > 0 ? logits : 1));
    return TSR_OK;
}

#define GATED TSR_FAMILY_GATED
#define PLAIN TSR_FAMILY_PLAIN
#define FAMILY(id, text, ...)      \
    static const tsr_family id = { \
        .name = (text), .names = {names}, .norm_eps = -1, .tied = true, __VA_ARGS__}
#define NEIGHBOURS .rope_pairs = TSR_ROPE_INTERLEAVED
#define HALVES .rope_pairs = TSR_ROPE_HALVES
#define LAYER_NORM .norm = TSR_NORM_LAYER
#define GELU_TANH .activation = TSR_ACTIVATION_GELU_TANH
#define NO_FF_NORM &~TSR_ROLE_BIT(TSR_ROLE_FF_NORM)

FAMILY(llama, "llama", .roles = GATED, NEIGHBOURS, .window = TSR_WINDOW_ALL,
       .read_gguf = read_llama);
FAMILY(qwen2, "qwen2", .roles = GATED, HALVES);
FAMILY(qwen2moe, "qwen2moe",
       .roles = GATED | TSR_FAMILY_EXPERTS | TSR_FAMILY_SHARED |
                TSR_ROLE_BIT(TSR_ROLE_SHARED_SCALE),
       HALVES, .read_gguf = read_qwen2moe);
FAMILY(qwen3, "qwen3", .roles = GATED | HEAD_NORMS, HALVES);
FAMILY(qwen3moe, "qwen3moe", .roles = GATED | HEAD_NORMS | TSR_FAMILY_EXPERTS, HALVES,
       .read_gguf = read_qwen3moe);
FAMILY(gemma, "gemma", .roles = GATED, HALVES, GELU_TANH, .read_gguf = read_gemma);
FAMILY(gemma2, "gemma2", .roles = GATED | POST_NORMS, HALVES, GELU_TANH,
       .window = TSR_WINDOW_PATTERN, .window_period = 2, .window_default = 4096,
       .read_gguf = read_gemma2);
FAMILY(gemma3, "gemma3", .roles = GATED | POST_NORMS | HEAD_NORMS, HALVES, GELU_TANH,
       .rope_base = 1e6, .rope_local_base = 1e4, .window = TSR_WINDOW_PATTERN, .window_period = 6,
       .window_default = 4096, .read_gguf = read_gemma3);
FAMILY(phi2, "phi2", .roles = PLAIN NO_FF_NORM, HALVES, LAYER_NORM, GELU_TANH, .parallel = true);
static const tsr_family phi3 = {.name = "phi3",
                                .names = {fused_up, names},
                                .norm_eps = -1,
                                .tied = true,
                                .roles = GATED,
                                .rope_pairs = TSR_ROPE_HALVES,
                                .window = TSR_WINDOW_ALL};
static const tsr_family falcon = {.name = "falcon",
                                  .names = {falcon_norms, names},
                                  .norm_eps = -1,
                                  .tied = true,
                                  .roles = PLAIN,
                                  .rope_pairs = TSR_ROPE_HALVES,
                                  .norm = TSR_NORM_LAYER,
                                  .parallel = true,
                                  .activation = TSR_ACTIVATION_GELU,
                                  .read_gguf = read_falcon};
FAMILY(gpt2, "gpt2", .roles = PLAIN | TSR_ROLE_BIT(TSR_ROLE_POSITIONS), LAYER_NORM, GELU_TANH,
       .positions = TSR_POSITIONS_LEARNED, .read_gguf = read_gpt2);
FAMILY(gptneox, "gptneox", .roles = PLAIN, HALVES, LAYER_NORM, .parallel = true,
       .activation = TSR_ACTIVATION_GELU, .read_gguf = read_neox);
FAMILY(starcoder2, "starcoder2", .roles = PLAIN, HALVES, LAYER_NORM, GELU_TANH,
       .window = TSR_WINDOW_ALL);
FAMILY(stablelm, "stablelm", .roles = GATED, HALVES, LAYER_NORM, .read_gguf = read_stablelm);
FAMILY(olmo2, "olmo2",
       .roles = (GATED & ~(TSR_ROLE_BIT(TSR_ROLE_ATTN_NORM) | TSR_ROLE_BIT(TSR_ROLE_FF_NORM))) |
                POST_NORMS | TSR_ROLE_BIT(TSR_ROLE_Q_WIDE_NORM) |
                TSR_ROLE_BIT(TSR_ROLE_K_WIDE_NORM),
       HALVES);
FAMILY(bloom, "bloom", .roles = PLAIN | TSR_ROLE_BIT(TSR_ROLE_EMBED_NORM), LAYER_NORM, GELU_TANH,
       .positions = TSR_POSITIONS_ALIBI, .read_gguf = read_bloom);
FAMILY(mpt, "mpt", .roles = PLAIN, LAYER_NORM, .activation = TSR_ACTIVATION_GELU,
       .positions = TSR_POSITIONS_ALIBI, .read_gguf = read_mpt);
FAMILY(command_r, "command-r", .roles = GATED NO_FF_NORM, NEIGHBOURS, LAYER_NORM, .parallel = true,
       .read_gguf = read_command_r);
FAMILY(granite, "granite", .roles = GATED, NEIGHBOURS, .read_gguf = read_granite);
FAMILY(deepseek2, "deepseek2",
       .roles = TSR_FAMILY_AROUND | TSR_FAMILY_NORMS | TSR_FAMILY_UP_DOWN | TSR_FAMILY_EXPERTS |
                TSR_ROLE_BIT(TSR_ROLE_GATE) | TSR_ROLE_BIT(TSR_ROLE_Q) | TSR_ROLE_BIT(TSR_ROLE_O) |
                TSR_ROLE_BIT(TSR_ROLE_KV_LOW) | TSR_ROLE_BIT(TSR_ROLE_KV_LOW_NORM) |
                TSR_ROLE_BIT(TSR_ROLE_K_UP) | TSR_ROLE_BIT(TSR_ROLE_V_UP),
       NEIGHBOURS, .read_gguf = read_deepseek2);
static const tsr_family gpt_oss = {.name = "gpt-oss",
                                   .names = {late_norm, names},
                                   .norm_eps = -1,
                                   .tied = true,
                                   .roles =
                                       GATED | TSR_FAMILY_EXPERTS | TSR_ROLE_BIT(TSR_ROLE_SINKS),
                                   .rope_pairs = TSR_ROPE_HALVES,
                                   .activation = TSR_ACTIVATION_SWIGLU_CLAMPED,
                                   .window = TSR_WINDOW_PATTERN,
                                   .window_period = 2,
                                   .window_default = 128,
                                   .read_gguf = read_gpt_oss};

const tsr_family *const tsr_family_gguf_table[] = {
    &llama, &qwen2, &qwen2moe,  &qwen3,   &qwen3moe,  &gemma,      &gemma2,   &gemma3,
    &phi2,  &phi3,  &falcon,    &gpt2,    &gptneox,   &starcoder2, &stablelm, &olmo2,
    &bloom, &mpt,   &command_r, &granite, &deepseek2, &gpt_oss,    NULL,
};
