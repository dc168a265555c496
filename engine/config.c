#include "engine/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

enum {
    KEY_BYTES = 128,
    MAX_LAYERS = 4096,
    MAX_WIDTH = 1 << 24, // of any matrix: far above every known model, far below any overflow
    MAX_HEAD_DIM = 256
};

static const double TWO_PI = 6.283185307179586;

static const tsr_family families[] = {
    {.architecture = "llama", .rope_pairs = TSR_ROPE_INTERLEAVED},
    {.architecture = "qwen2", .rope_pairs = TSR_ROPE_HALVES},
};

static tsr_status find_family(const tsr_family **out, const tsr_gguf *gguf)
{
    tsr_gguf_text name;

    if (!tsr_gguf_string(gguf, "general.architecture", &name)) {
        return tsr_fail(TSR_ERR_FORMAT, "the model file does not say its general.architecture");
    }
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        if (strlen(families[i].architecture) == name.n_bytes &&
            memcmp(families[i].architecture, name.bytes, name.n_bytes) == 0) {
            *out = &families[i];
            return TSR_OK;
        }
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED,
                    "models of the architecture \"%.*s\" are not known; known are llama and qwen2",
                    (int)(name.n_bytes < 40 ? name.n_bytes : 40), name.bytes);
}

static void key_of(char *key, const tsr_config *config, const char *name)
{
    (void)snprintf(key, KEY_BYTES, "%s.%s", config->family->architecture, name);
}

static bool has_int(const tsr_gguf *gguf, const tsr_config *config, const char *name, int64_t *out)
{
    char key[KEY_BYTES];

    key_of(key, config, name);
    return tsr_gguf_int(gguf, key, out);
}

static bool has_float(const tsr_gguf *gguf, const tsr_config *config, const char *name, double *out)
{
    char key[KEY_BYTES];

    key_of(key, config, name);
    return tsr_gguf_float(gguf, key, out);
}

/* A whole number in [1, most]; `fallback` when the key is missing, or a fault when that is 0. */
static tsr_status size_of(int64_t *out, const tsr_gguf *gguf, const tsr_config *config,
                          const char *name, int64_t fallback, int64_t most)
{
    int64_t value = fallback;

    if (!has_int(gguf, config, name, &value) && fallback == 0) {
        return tsr_fail(TSR_ERR_FORMAT, "the model file lacks %s.%s", config->family->architecture,
                        name);
    }
    if (value < 1 || value > most) {
        return tsr_fail(TSR_ERR_FORMAT, "%s.%s is %lld; it must lie in 1..%lld",
                        config->family->architecture, name, (long long)value, (long long)most);
    }
    *out = value;
    return TSR_OK;
}

static tsr_status read_sizes(tsr_config *config, const tsr_gguf *gguf)
{
    const tsr_gguf_tensor *embedding = tsr_gguf_find(gguf, "token_embd.weight");
    tsr_shard_shape *shape = &config->shape;
    int64_t n_layers = 0;
    int64_t n_heads = 0;
    int64_t n_kv_heads = 0;
    int64_t head_dim = 0;
    int64_t value_dim = 0;
    double eps = 0;

    TSR_TRY(size_of(&n_layers, gguf, config, "block_count", 0, MAX_LAYERS));
    TSR_TRY(size_of(&shape->dim, gguf, config, "embedding_length", 0, MAX_WIDTH));
    TSR_TRY(size_of(&shape->ff_dim, gguf, config, "feed_forward_length", 0, MAX_WIDTH));
    TSR_TRY(size_of(&config->context, gguf, config, "context_length", 0, INT32_MAX));
    TSR_TRY(size_of(&n_heads, gguf, config, "attention.head_count", 0, 4096));
    TSR_TRY(size_of(&n_kv_heads, gguf, config, "attention.head_count_kv", n_heads, 4096));
    if (shape->dim % n_heads == 0) {
        head_dim = shape->dim / n_heads;
    }
    TSR_TRY(size_of(&head_dim, gguf, config, "attention.key_length", head_dim, MAX_HEAD_DIM));
    TSR_TRY(size_of(&value_dim, gguf, config, "attention.value_length", head_dim, MAX_HEAD_DIM));
    if (value_dim != head_dim || head_dim % 8 != 0) {
        return tsr_fail(
            TSR_ERR_UNSUPPORTED,
            "heads of %lld key and %lld value dimensions; they must be equal and a multiple of 8",
            (long long)head_dim, (long long)value_dim);
    }
    if (embedding == NULL || embedding->n_dims != 2 || embedding->shape[0] != shape->dim ||
        embedding->shape[1] > MAX_WIDTH) {
        return tsr_fail(TSR_ERR_FORMAT, "token_embd.weight is missing or not [vocabulary, %lld]",
                        (long long)shape->dim);
    }
    config->n_layers = (int)n_layers;
    shape->n_heads = (int)n_heads;
    shape->n_kv_heads = (int)n_kv_heads;
    shape->head_dim = (int)head_dim;
    shape->n_vocab = embedding->shape[1];
    config->tied_head = tsr_gguf_find(gguf, "output.weight") == NULL;
    config->attention_scale = (float)(1.0 / sqrt((double)head_dim));
    if (!has_float(gguf, config, "attention.layer_norm_rms_epsilon", &eps) ||
        !(eps > 0 && eps < 1)) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s.attention.layer_norm_rms_epsilon is missing or not in (0, 1)",
                        config->family->architecture);
    }
    config->norm_eps = (float)eps;
    return tsr_shard_check(shape);
}

static tsr_status read_scaling(tsr_config *config, const tsr_gguf *gguf)
{
    char key[KEY_BYTES];
    tsr_gguf_text type = {"none", 4};

    config->rope_factor = 1;
    config->rope_magnitude = 1;
    key_of(key, config, "rope.scaling.type");
    if (!tsr_gguf_string(gguf, key, &type) &&
        has_float(gguf, config, "rope.scale_linear", &config->rope_factor)) {
        type = (tsr_gguf_text){"linear", 6}; // how files said it before scaling had types
    }
    (void)has_float(gguf, config, "rope.scaling.factor", &config->rope_factor);
    if (!(config->rope_factor >= 1e-3 && config->rope_factor <= 1e6)) {
        return tsr_fail(TSR_ERR_FORMAT, "%s.rope.scaling.factor is %g",
                        config->family->architecture, config->rope_factor);
    }
    if (type.n_bytes == 4 && memcmp(type.bytes, "none", 4) == 0) {
        config->rope_scaling = TSR_ROPE_SCALING_NONE;
        config->rope_factor = 1;
    } else if (type.n_bytes == 6 && memcmp(type.bytes, "linear", 6) == 0) {
        config->rope_scaling = TSR_ROPE_SCALING_LINEAR;
    } else if (type.n_bytes == 4 && memcmp(type.bytes, "yarn", 4) == 0) {
        double attention_factor = 1;

        config->rope_scaling = TSR_ROPE_SCALING_YARN;
        TSR_TRY(size_of(&config->rope_original_context, gguf, config,
                        "rope.scaling.original_context_length", config->context, INT32_MAX));
        (void)has_float(gguf, config, "rope.scaling.attn_factor", &attention_factor);
        config->rope_magnitude = (float)(attention_factor * (1 + 0.1 * log(config->rope_factor)));
    } else {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "%s.rope.scaling.type is \"%.*s\"; known are none, linear and yarn",
                        config->family->architecture, (int)(type.n_bytes < 40 ? type.n_bytes : 40),
                        type.bytes);
    }
    return TSR_OK;
}

/* The dimension whose wave turns `turns` times over the original context. */
static double yarn_dimension(const tsr_config *config, double turns)
{
    return config->n_rot * log((double)config->rope_original_context / (turns * TWO_PI)) /
           (2 * log(config->rope_base));
}

/* How far dimension i is interpolated: 0 fast waves stay as they are, 1 slow waves are stretched by
 * the factor. */
static double yarn_ramp(const tsr_config *config, int i)
{
    const double low = fmax(floor(yarn_dimension(config, 32)), 0);
    const double high = fmin(ceil(yarn_dimension(config, 1)), config->n_rot - 1);

    return fmin(fmax((i - low) / fmax(high - low, 0.001), 0), 1);
}

static tsr_status read_rope(tsr_config *config, const tsr_gguf *gguf)
{
    const tsr_gguf_tensor *factors = tsr_gguf_find(gguf, "rope_freqs.weight");
    int64_t n_rot;

    TSR_TRY(size_of(&n_rot, gguf, config, "rope.dimension_count", config->shape.head_dim,
                    config->shape.head_dim));
    if (n_rot % 2 != 0) {
        return tsr_fail(TSR_ERR_FORMAT, "an odd number of rotary dimensions: %lld",
                        (long long)n_rot);
    }
    config->n_rot = (int)n_rot;
    config->rope_base = 10000;
    (void)has_float(gguf, config, "rope.freq_base", &config->rope_base);
    if (!(config->rope_base > 1 && config->rope_base < 1e12)) {
        return tsr_fail(TSR_ERR_FORMAT, "%s.rope.freq_base is %g", config->family->architecture,
                        config->rope_base);
    }
    TSR_TRY(read_scaling(config, gguf));
    if (factors != NULL && (factors->encoding != TSR_ENCODING_F32 || factors->n_dims != 1 ||
                            factors->shape[0] < n_rot / 2)) {
        return tsr_fail(TSR_ERR_FORMAT, "rope_freqs.weight must hold %lld f32 factors",
                        (long long)n_rot / 2);
    }
    config->rope_has_factors = factors != NULL;
    config->frequencies = tsr_alloc((size_t)n_rot / 2, sizeof(*config->frequencies));
    if (config->frequencies == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %lld rotary frequencies",
                        (long long)n_rot / 2);
    }
    for (int i = 0; i < config->n_rot / 2; i++) {
        double frequency = pow(config->rope_base, -2.0 * i / (double)n_rot);
        const double stretched = frequency / config->rope_factor;
        float factor = 1;

        if (factors != NULL) {
            memcpy(&factor, (const char *)factors->data + (size_t)i * sizeof(factor),
                   sizeof(factor));
            if (!(factor > 1e-6F && factor < 1e6F)) {
                return tsr_fail(TSR_ERR_FORMAT, "rope_freqs.weight[%d] is %g", i, (double)factor);
            }
        }
        if (config->rope_scaling == TSR_ROPE_SCALING_LINEAR) {
            frequency = stretched;
        } else if (config->rope_scaling == TSR_ROPE_SCALING_YARN) {
            const double ramp = yarn_ramp(config, i);

            frequency = stretched * ramp + frequency * (1 - ramp);
        }
        config->frequencies[i] = frequency / (double)factor;
    }
    return TSR_OK;
}

tsr_status tsr_config_read(tsr_config *config, const tsr_gguf *gguf)
{
    tsr_config read = {0};
    tsr_status st;

    TSR_TRY(find_family(&read.family, gguf));
    TSR_TRY(read_sizes(&read, gguf));
    st = read_rope(&read, gguf);
    if (st != TSR_OK) {
        tsr_config_clear(&read);
        return st;
    }
    *config = read;
    return TSR_OK;
}

void tsr_config_clear(tsr_config *config)
{
    tsr_free(config->frequencies);
    *config = (tsr_config){0};
}
