/*
 * Hugging Face folders of families older than Llama, each with names of its own.
 * Sources: the configuration and modeling code of huggingface.co/docs/transformers for each.
 */
#include "engine/family.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

#define BIASED (TSR_FAMILY_ATTENTION | TSR_FAMILY_UP_DOWN | TSR_FAMILY_NORMS)

/* ---- learned positions: GPT-2, OPT ------------------------------------------------------------
 */

static const tsr_tensor_name gpt2_names[] = {
    {TSR_ROLE_EMBED, TSR_LAYOUT_PLAIN, "transformer.wte"},
    {TSR_ROLE_POSITIONS, TSR_LAYOUT_PLAIN, "transformer.wpe"},
    {TSR_ROLE_HEAD, TSR_LAYOUT_PLAIN, "lm_head"},
    {TSR_ROLE_FINAL_NORM, TSR_LAYOUT_PLAIN, "transformer.ln_f"},
    {TSR_ROLE_ATTN_NORM, TSR_LAYOUT_PLAIN, "transformer.h.%l.ln_1"},
    {TSR_ROLE_FF_NORM, TSR_LAYOUT_PLAIN, "transformer.h.%l.ln_2"},
    {TSR_ROLE_Q, TSR_LAYOUT_QKV_TRANSPOSED, "transformer.h.%l.attn.c_attn"},
    {TSR_ROLE_K, TSR_LAYOUT_QKV_TRANSPOSED, "transformer.h.%l.attn.c_attn"},
    {TSR_ROLE_V, TSR_LAYOUT_QKV_TRANSPOSED, "transformer.h.%l.attn.c_attn"},
    {TSR_ROLE_O, TSR_LAYOUT_TRANSPOSED, "transformer.h.%l.attn.c_proj"},
    {TSR_ROLE_UP, TSR_LAYOUT_TRANSPOSED, "transformer.h.%l.mlp.c_fc"},
    {TSR_ROLE_DOWN, TSR_LAYOUT_TRANSPOSED, "transformer.h.%l.mlp.c_proj"},
    {0},
};

static tsr_status read_gpt2(tsr_config *c, const tsr_hf_keys *keys)
{
    bool scaled = true;
    bool by_layer = false;

    TSR_TRY(tsr_hf_bool(keys, "scale_attn_weights", &scaled));
    TSR_TRY(tsr_hf_bool(keys, "scale_attn_by_inverse_layer_idx", &by_layer));
    c->context = tsr_hf_has(keys, "n_positions|max_position_embeddings") ? c->context : 1024;
    c->shape.n_positions = c->context;
    for (int i = 0; i < c->n_layers; i++) {
        const double scale = scaled ? 1 / sqrt((double)c->shape.head_dim) : 1;

        c->layers[i].scale = (float)(by_layer ? scale / (i + 1) : scale);
    }
    return TSR_OK;
}

static const tsr_family gpt2 = {
    .name = "gpt2",
    .names = {gpt2_names},
    .roles = TSR_FAMILY_PLAIN | TSR_ROLE_BIT(TSR_ROLE_POSITIONS),
    .biases = BIASED,
    .norm = TSR_NORM_LAYER,
    .norm_eps = 1e-5,
    .activation = TSR_ACTIVATION_GELU_TANH,
    .tied = true,
    .positions = TSR_POSITIONS_LEARNED,
    .read_hf = read_gpt2,
};

static const tsr_tensor_name opt_names[] = {
    {TSR_ROLE_EMBED, TSR_LAYOUT_PLAIN, "model.decoder.embed_tokens"},
    {TSR_ROLE_POSITIONS, TSR_LAYOUT_PLAIN, "model.decoder.embed_positions"},
    {TSR_ROLE_HEAD, TSR_LAYOUT_PLAIN, "lm_head"},
    {TSR_ROLE_FINAL_NORM, TSR_LAYOUT_PLAIN, "model.decoder.final_layer_norm"},
    {TSR_ROLE_EMBED_UP, TSR_LAYOUT_PLAIN, "model.decoder.project_in"},
    {TSR_ROLE_HEAD_DOWN, TSR_LAYOUT_PLAIN, "model.decoder.project_out"},
    {TSR_ROLE_ATTN_NORM, TSR_LAYOUT_PLAIN, "model.decoder.layers.%l.self_attn_layer_norm"},
    {TSR_ROLE_ATTN_POST_NORM, TSR_LAYOUT_PLAIN, "model.decoder.layers.%l.self_attn_layer_norm"},
    {TSR_ROLE_FF_NORM, TSR_LAYOUT_PLAIN, "model.decoder.layers.%l.final_layer_norm"},
    {TSR_ROLE_FF_POST_NORM, TSR_LAYOUT_PLAIN, "model.decoder.layers.%l.final_layer_norm"},
    {TSR_ROLE_Q, TSR_LAYOUT_PLAIN, "model.decoder.layers.%l.self_attn.q_proj"},
    {TSR_ROLE_K, TSR_LAYOUT_PLAIN, "model.decoder.layers.%l.self_attn.k_proj"},
    {TSR_ROLE_V, TSR_LAYOUT_PLAIN, "model.decoder.layers.%l.self_attn.v_proj"},
    {TSR_ROLE_O, TSR_LAYOUT_PLAIN, "model.decoder.layers.%l.self_attn.out_proj"},
    {TSR_ROLE_UP, TSR_LAYOUT_PLAIN, "model.decoder.layers.%l.fc1"},
    {TSR_ROLE_DOWN, TSR_LAYOUT_PLAIN, "model.decoder.layers.%l.fc2"},
    {0},
};

/* The norms of one of them, OPT-350m, stand behind what they once stood in front of. */
static tsr_status read_opt(tsr_config *c, const tsr_hf_keys *keys)
{
    const uint64_t before = TSR_ROLE_BIT(TSR_ROLE_ATTN_NORM) | TSR_ROLE_BIT(TSR_ROLE_FF_NORM);
    const uint64_t behind =
        TSR_ROLE_BIT(TSR_ROLE_ATTN_POST_NORM) | TSR_ROLE_BIT(TSR_ROLE_FF_POST_NORM);
    int64_t width = c->shape.dim;
    bool norm_before = true;
    bool no_last_norm = false;
    bool biased = true;
    bool weighted = true;

    TSR_TRY(tsr_hf_size(keys, "word_embed_proj_dim", &width, 1, c->shape.dim));
    TSR_TRY(tsr_hf_bool(keys, "do_layer_norm_before", &norm_before));
    TSR_TRY(tsr_hf_bool(keys, "_remove_final_layer_norm", &no_last_norm));
    TSR_TRY(tsr_hf_bool(keys, "enable_bias", &biased));
    TSR_TRY(tsr_hf_bool(keys, "layer_norm_elementwise_affine", &weighted));
    c->embed_dim = width;
    c->norms_stay = !norm_before;
    tsr_family_set(&c->roles, TSR_ROLE_BIT(TSR_ROLE_EMBED_UP) | TSR_ROLE_BIT(TSR_ROLE_HEAD_DOWN),
                   width != c->shape.dim);
    tsr_family_set(&c->roles, before, norm_before);
    tsr_family_set(&c->roles, behind, !norm_before);
    tsr_family_set(&c->roles, TSR_ROLE_BIT(TSR_ROLE_FINAL_NORM), norm_before && !no_last_norm);
    c->plain_norms = weighted ? 0 : before | behind | TSR_ROLE_BIT(TSR_ROLE_FINAL_NORM);
    tsr_family_set(&c->biases, TSR_FAMILY_ATTENTION | TSR_FAMILY_UP_DOWN, biased);
    c->position_offset = 2;
    c->shape.n_positions = c->context + c->position_offset;
    return TSR_OK;
}

static const tsr_family opt = {
    .name = "opt",
    .names = {opt_names},
    .roles = TSR_FAMILY_PLAIN | TSR_ROLE_BIT(TSR_ROLE_POSITIONS),
    .biases = BIASED | TSR_ROLE_BIT(TSR_ROLE_ATTN_POST_NORM) | TSR_ROLE_BIT(TSR_ROLE_FF_POST_NORM),
    .norm = TSR_NORM_LAYER,
    .norm_eps = 1e-5,
    .activation = TSR_ACTIVATION_RELU,
    .tied = true,
    .positions = TSR_POSITIONS_LEARNED,
    .read_hf = read_opt,
};

/* ---- rotary, attention and feed-forward in parallel: GPT-J, GPT-NeoX ----------------------------
 */

static const tsr_tensor_name gptj_names[] = {
    {TSR_ROLE_EMBED, TSR_LAYOUT_PLAIN, "transformer.wte"},
    {TSR_ROLE_HEAD, TSR_LAYOUT_PLAIN, "lm_head"},
    {TSR_ROLE_FINAL_NORM, TSR_LAYOUT_PLAIN, "transformer.ln_f"},
    {TSR_ROLE_ATTN_NORM, TSR_LAYOUT_PLAIN, "transformer.h.%l.ln_1"},
    {TSR_ROLE_Q, TSR_LAYOUT_PLAIN, "transformer.h.%l.attn.q_proj"},
    {TSR_ROLE_K, TSR_LAYOUT_PLAIN, "transformer.h.%l.attn.k_proj"},
    {TSR_ROLE_V, TSR_LAYOUT_PLAIN, "transformer.h.%l.attn.v_proj"},
    {TSR_ROLE_O, TSR_LAYOUT_PLAIN, "transformer.h.%l.attn.out_proj"},
    {TSR_ROLE_UP, TSR_LAYOUT_PLAIN, "transformer.h.%l.mlp.fc_in"},
    {TSR_ROLE_DOWN, TSR_LAYOUT_PLAIN, "transformer.h.%l.mlp.fc_out"},
    {0},
};

static tsr_status read_gptj(tsr_config *c, const tsr_hf_keys *keys)
{
    // Without the key 64 dimensions turn; null: all.
    c->n_rot = tsr_hf_is_null(keys, "rotary_dim") ? c->shape.head_dim
               : c->shape.head_dim < 64           ? c->shape.head_dim
                                                  : 64;
    return TSR_OK;
}

static const tsr_family gptj = {
    .name = "gptj",
    .names = {gptj_names},
    .roles = TSR_FAMILY_PLAIN & ~TSR_ROLE_BIT(TSR_ROLE_FF_NORM),
    .biases = TSR_FAMILY_UP_DOWN | TSR_FAMILY_NORMS | TSR_ROLE_BIT(TSR_ROLE_HEAD),
    .norm = TSR_NORM_LAYER,
    .norm_eps = 1e-5,
    .parallel = true,
    .activation = TSR_ACTIVATION_GELU_TANH,
    .rope_pairs = TSR_ROPE_INTERLEAVED,
    .read_hf = read_gptj,
};

static const tsr_tensor_name neox_names[] = {
    {TSR_ROLE_EMBED, TSR_LAYOUT_PLAIN, "gpt_neox.embed_in"},
    {TSR_ROLE_HEAD, TSR_LAYOUT_PLAIN, "embed_out"},
    {TSR_ROLE_FINAL_NORM, TSR_LAYOUT_PLAIN, "gpt_neox.final_layer_norm"},
    {TSR_ROLE_ATTN_NORM, TSR_LAYOUT_PLAIN, "gpt_neox.layers.%l.input_layernorm"},
    {TSR_ROLE_FF_NORM, TSR_LAYOUT_PLAIN, "gpt_neox.layers.%l.post_attention_layernorm"},
    {TSR_ROLE_Q, TSR_LAYOUT_QKV_BY_HEAD, "gpt_neox.layers.%l.attention.query_key_value"},
    {TSR_ROLE_K, TSR_LAYOUT_QKV_BY_HEAD, "gpt_neox.layers.%l.attention.query_key_value"},
    {TSR_ROLE_V, TSR_LAYOUT_QKV_BY_HEAD, "gpt_neox.layers.%l.attention.query_key_value"},
    {TSR_ROLE_O, TSR_LAYOUT_PLAIN, "gpt_neox.layers.%l.attention.dense"},
    {TSR_ROLE_UP, TSR_LAYOUT_PLAIN, "gpt_neox.layers.%l.mlp.dense_h_to_4h"},
    {TSR_ROLE_DOWN, TSR_LAYOUT_PLAIN, "gpt_neox.layers.%l.mlp.dense_4h_to_h"},
    {0},
};

static tsr_status read_neox(tsr_config *c, const tsr_hf_keys *keys)
{
    return tsr_hf_bool(keys, "use_parallel_residual", &c->parallel);
}

static const tsr_family gpt_neox = {
    .name = "gpt_neox",
    .names = {neox_names},
    .roles = TSR_FAMILY_PLAIN,
    .biases = BIASED,
    .norm = TSR_NORM_LAYER,
    .norm_eps = 1e-5,
    .parallel = true,
    .activation = TSR_ACTIVATION_GELU,
    .rope_pairs = TSR_ROPE_HALVES,
    .rope_partial = 0.25,
    .read_hf = read_neox,
};

/* ---- ALiBi: BLOOM, MPT, some Falcons ------------------------------------------------------------
 */

static const tsr_tensor_name bloom_names[] = {
    {TSR_ROLE_EMBED, TSR_LAYOUT_PLAIN, "transformer.word_embeddings"},
    {TSR_ROLE_EMBED_NORM, TSR_LAYOUT_PLAIN, "transformer.word_embeddings_layernorm"},
    {TSR_ROLE_HEAD, TSR_LAYOUT_PLAIN, "lm_head"},
    {TSR_ROLE_FINAL_NORM, TSR_LAYOUT_PLAIN, "transformer.ln_f"},
    {TSR_ROLE_ATTN_NORM, TSR_LAYOUT_PLAIN, "transformer.h.%l.ln_attn"},
    {TSR_ROLE_ATTN_NORM, TSR_LAYOUT_PLAIN, "transformer.h.%l.input_layernorm"},
    {TSR_ROLE_FF_NORM, TSR_LAYOUT_PLAIN, "transformer.h.%l.ln_mlp"},
    {TSR_ROLE_FF_NORM, TSR_LAYOUT_PLAIN, "transformer.h.%l.post_attention_layernorm"},
    {TSR_ROLE_Q, TSR_LAYOUT_QKV_BY_HEAD, "transformer.h.%l.self_attention.query_key_value"},
    {TSR_ROLE_K, TSR_LAYOUT_QKV_BY_HEAD, "transformer.h.%l.self_attention.query_key_value"},
    {TSR_ROLE_V, TSR_LAYOUT_QKV_BY_HEAD, "transformer.h.%l.self_attention.query_key_value"},
    {TSR_ROLE_O, TSR_LAYOUT_PLAIN, "transformer.h.%l.self_attention.dense"},
    {TSR_ROLE_UP, TSR_LAYOUT_PLAIN, "transformer.h.%l.mlp.dense_h_to_4h"},
    {TSR_ROLE_DOWN, TSR_LAYOUT_PLAIN, "transformer.h.%l.mlp.dense_4h_to_h"},
    {0},
};

static tsr_status read_bloom(tsr_config *c, const tsr_hf_keys *keys)
{
    TSR_TRY(tsr_hf_bool(keys, "apply_residual_connection_post_layernorm", &c->norms_stay));
    return tsr_family_alibi(c);
}

static const tsr_family bloom = {
    .name = "bloom",
    .names = {bloom_names},
    .roles = TSR_FAMILY_PLAIN | TSR_ROLE_BIT(TSR_ROLE_EMBED_NORM),
    .biases = BIASED | TSR_ROLE_BIT(TSR_ROLE_EMBED_NORM),
    .norm = TSR_NORM_LAYER,
    .norm_eps = 1e-5,
    .activation = TSR_ACTIVATION_GELU_TANH,
    .activation_key = "",
    .tied = true,
    .positions = TSR_POSITIONS_ALIBI,
    .read_hf = read_bloom,
};

static float to_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000U;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* Its slopes, and what they give at each position, are rounded to bf16, and that is scaled like the
 * scores; the reference implementation adds it to them twice (docs/models.md). */
static tsr_status falcon_alibi(tsr_config *c)
{
    TSR_TRY(tsr_family_alibi(c));
    for (int h = 0; h < c->shape.n_heads; h++) {
        c->slopes[h] = to_bf16(c->slopes[h]);
    }
    c->slopes_scale = 2;
    for (int i = 0; i < c->n_layers; i++) {
        c->layers[i].rope = -1;
    }
    return TSR_OK;
}

/*
 * Three kinds: one KV head and one norm, attention and feed-forward parallel (7B); KV groups with
 * two norms (40B and later); a KV head a query head, one after the other (rw).
 */
static tsr_status read_falcon(tsr_config *c, const tsr_hf_keys *keys)
{
    bool grouped = false;
    bool one_kv = true;
    bool biased = false;
    bool alibi = false;
    int64_t n_kv = c->shape.n_heads;
    int64_t n_norms = 2;

    TSR_TRY(tsr_hf_bool(keys, "new_decoder_architecture", &grouped));
    TSR_TRY(tsr_hf_bool(keys, "multi_query", &one_kv));
    TSR_TRY(tsr_hf_bool(keys, "parallel_attn", &c->parallel));
    TSR_TRY(tsr_hf_bool(keys, "bias", &biased));
    TSR_TRY(tsr_hf_bool(keys, "alibi", &alibi));
    TSR_TRY(tsr_hf_size(keys, "num_kv_heads|n_head_kv", &n_kv, 1, c->shape.n_heads));
    TSR_TRY(tsr_hf_size(keys, "num_ln_in_parallel_attn", &n_norms, 1, 2));
    c->shape.n_kv_heads = grouped ? (int)n_kv : one_kv ? 1 : c->shape.n_heads;
    tsr_family_set(&c->roles, TSR_ROLE_BIT(TSR_ROLE_FF_NORM),
                   grouped ? n_norms == 2 : !c->parallel);
    c->parallel = c->parallel || grouped;
    tsr_family_set(&c->biases, TSR_FAMILY_ATTENTION | TSR_FAMILY_UP_DOWN, biased);
    return alibi ? falcon_alibi(c) : TSR_OK;
}

static const tsr_family falcon = {
    .name = "falcon",
    .names = {bloom_names},
    .roles = TSR_FAMILY_PLAIN,
    .biases = TSR_FAMILY_NORMS,
    .norm = TSR_NORM_LAYER,
    .norm_eps = 1e-5,
    .parallel = true,
    .activation = TSR_ACTIVATION_GELU,
    .tied = true,
    .rope_pairs = TSR_ROPE_HALVES,
    .read_hf = read_falcon,
};

static const tsr_tensor_name mpt_names[] = {
    {TSR_ROLE_EMBED, TSR_LAYOUT_PLAIN, "transformer.wte"},
    {TSR_ROLE_HEAD, TSR_LAYOUT_PLAIN, "lm_head"},
    {TSR_ROLE_FINAL_NORM, TSR_LAYOUT_PLAIN, "transformer.norm_f"},
    {TSR_ROLE_ATTN_NORM, TSR_LAYOUT_PLAIN, "transformer.blocks.%l.norm_1"},
    {TSR_ROLE_FF_NORM, TSR_LAYOUT_PLAIN, "transformer.blocks.%l.norm_2"},
    {TSR_ROLE_Q, TSR_LAYOUT_QKV, "transformer.blocks.%l.attn.Wqkv"},
    {TSR_ROLE_K, TSR_LAYOUT_QKV, "transformer.blocks.%l.attn.Wqkv"},
    {TSR_ROLE_V, TSR_LAYOUT_QKV, "transformer.blocks.%l.attn.Wqkv"},
    {TSR_ROLE_O, TSR_LAYOUT_PLAIN, "transformer.blocks.%l.attn.out_proj"},
    {TSR_ROLE_UP, TSR_LAYOUT_PLAIN, "transformer.blocks.%l.ffn.up_proj"},
    {TSR_ROLE_DOWN, TSR_LAYOUT_PLAIN, "transformer.blocks.%l.ffn.down_proj"},
    {0},
};

/* Slopes for a power of two of heads, the odd ones first, cut to what is needed. */
static tsr_status mpt_slopes(tsr_config *c, double most)
{
    const int n_heads = c->shape.n_heads;
    int whole = 1;

    c->slopes = tsr_alloc((size_t)n_heads, sizeof(*c->slopes));
    if (c->slopes == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d slopes", n_heads);
    }
    while (whole < n_heads) {
        whole *= 2;
    }
    for (int h = 0; h < n_heads; h++) {
        const int odd = 2 * h + 2; // the second, the fourth ... of them all; then the first, ...
        const int i = whole == n_heads ? h + 1 : odd <= whole ? odd : 2 * (h - whole / 2) + 1;

        c->slopes[h] = (float)exp2(-most * i / whole);
    }
    return TSR_OK;
}

static tsr_status read_mpt(tsr_config *c, const tsr_hf_keys *keys)
{
    tsr_hf_keys attention = {NULL, keys->label};
    double most = 8;
    double scale = 0;
    double ratio = 4;
    double clip = 0;
    bool qk_norm = false;
    bool turned = false;

    TSR_TRY(tsr_hf_object(keys, "attn_config", &attention.object));
    TSR_TRY(tsr_hf_number(keys, "expansion_ratio", &ratio));
    TSR_TRY(tsr_hf_number(&attention, "alibi_bias_max", &most));
    TSR_TRY(tsr_hf_number(&attention, "softmax_scale", &scale));
    TSR_TRY(tsr_hf_number(&attention, "clip_qkv", &clip));
    TSR_TRY(tsr_hf_bool(&attention, "qk_ln", &qk_norm));
    TSR_TRY(tsr_hf_bool(&attention, "rope", &turned));
    if (qk_norm || turned) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: attn_config has %s, which is not known",
                        keys->label, qk_norm ? "qk_ln" : "rope");
    }
    c->qkv_clip = (float)clip;
    if (!(ratio > 0 && ratio < 1000)) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: expansion_ratio is %g", keys->label, ratio);
    }
    c->shape.ff_dim = (int64_t)(ratio * (double)c->shape.dim);
    for (int i = 0; i < c->n_layers; i++) {
        c->layers[i].scale = (float)scale;
    }
    return mpt_slopes(c, most);
}

static const tsr_family mpt = {
    .name = "mpt",
    .names = {mpt_names},
    .roles = TSR_FAMILY_PLAIN,
    .norm = TSR_NORM_LAYER,
    .norm_eps = 1e-5,
    .activation = TSR_ACTIVATION_GELU,
    .activation_key = "",
    .tied = true,
    .positions = TSR_POSITIONS_ALIBI,
    .read_hf = read_mpt,
};

const tsr_family *const tsr_family_classic_table[] = {
    &gpt2, &gptj, &gpt_neox, &opt, &bloom, &mpt, &falcon, NULL,
};
