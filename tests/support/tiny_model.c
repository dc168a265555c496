#include "tests/support/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/encoder.h"
#include "tests/support/tiny_tokens.h"

#define SCALED(kind, factor, original) \
    .scaling = (kind), .scaling_factor = (factor), .original_context = (original)
#define ENCODED(all, head) .encoding = (all), .down_encoding = (all), .head_encoding = (head)

static const tiny_model presets[] = {
    {.name = "9/3",
     .arch = "llama",
     .n_layers = 3,
     .dim = 288,
     .n_heads = 9,
     .n_kv_heads = 3,
     .head_dim = 32,
     .ff = 416,
     .vocab = 331,
     .context = 512,
     .tied = true,
     .rope_base = 1e5F,
     .norm_eps = 1e-5F,
     ENCODED(TSR_ENCODING_Q4_1, TSR_ENCODING_Q8_0)},
    {.name = "8/8",
     .arch = "llama",
     .n_layers = 2,
     .dim = 128,
     .n_heads = 8,
     .n_kv_heads = 8,
     .head_dim = 16,
     .ff = 352,
     .vocab = 320,
     .context = 512,
     .rope_base = 1e4F,
     .norm_eps = 1e-6F,
     ENCODED(TSR_ENCODING_Q8_0, TSR_ENCODING_Q8_0)},
    {.name = "7/1",
     .arch = "llama",
     .n_layers = 2,
     .dim = 224,
     .n_heads = 7,
     .n_kv_heads = 1,
     .head_dim = 32,
     .ff = 480,
     .vocab = 307,
     .context = 512,
     .tied = true,
     .rope_base = 1e4F,
     .norm_eps = 1e-5F,
     ENCODED(TSR_ENCODING_Q4_0, TSR_ENCODING_Q8_0)},
    {.name = "2/1",
     .arch = "llama",
     .n_layers = 1,
     .dim = 64,
     .n_heads = 2,
     .n_kv_heads = 1,
     .head_dim = 32,
     .ff = 64,
     .vocab = 288,
     .context = 512,
     .tied = true,
     .rope_base = 1e4F,
     .norm_eps = 1e-5F,
     ENCODED(TSR_ENCODING_F32, TSR_ENCODING_F32)},
    {.name = "biases",
     .arch = "llama",
     .n_layers = 2,
     .dim = 96,
     .n_heads = 6,
     .n_kv_heads = 2,
     .head_dim = 16,
     .ff = 288,
     .vocab = 300,
     .context = 512,
     .qkv_bias = true,
     .other_bias = true,
     .rope_base = 1e4F,
     .norm_eps = 1e-5F,
     ENCODED(TSR_ENCODING_F16, TSR_ENCODING_F16)},
    {.name = "qwen2",
     .arch = "qwen2",
     .n_layers = 2,
     .dim = 224,
     .n_heads = 14,
     .n_kv_heads = 2,
     .head_dim = 16,
     .ff = 608,
     .vocab = 317,
     .context = 512,
     .qkv_bias = true,
     .tied = true,
     .rope_base = 1e6F,
     .norm_eps = 1e-6F,
     ENCODED(TSR_ENCODING_Q5_1, TSR_ENCODING_Q8_0)},
    {.name = "wide",
     .arch = "llama",
     .n_layers = 2,
     .dim = 160,
     .n_heads = 4,
     .n_kv_heads = 2,
     .head_dim = 80,
     .ff = 224,
     .vocab = 290,
     .context = 512,
     .rope_base = 1e4F,
     .norm_eps = 1e-5F,
     ENCODED(TSR_ENCODING_Q5_0, TSR_ENCODING_Q5_0)},
    {.name = "odd",
     .arch = "llama",
     .n_layers = 2,
     .dim = 200,
     .n_heads = 5,
     .n_kv_heads = 5,
     .head_dim = 24,
     .ff = 330,
     .vocab = 293,
     .context = 512,
     .tied = true,
     .rope_base = 1e4F,
     .norm_eps = 1e-5F,
     ENCODED(TSR_ENCODING_BF16, TSR_ENCODING_BF16)},
    {.name = "linear",
     .arch = "llama",
     .n_layers = 2,
     .dim = 96,
     .n_heads = 4,
     .n_kv_heads = 2,
     .head_dim = 24,
     .ff = 192,
     .vocab = 300,
     .context = 256,
     .tied = true,
     .rope_base = 1e4F,
     .norm_eps = 1e-5F,
     SCALED(TINY_SCALING_LINEAR, 4.0F, 64),
     ENCODED(TSR_ENCODING_F32, TSR_ENCODING_F32)},
    {.name = "yarn",
     .arch = "qwen2",
     .n_layers = 2,
     .dim = 128,
     .n_heads = 4,
     .n_kv_heads = 2,
     .head_dim = 32,
     .ff = 192,
     .vocab = 300,
     .context = 2048,
     .qkv_bias = true,
     .tied = true,
     .rope_base = 1e3F,
     .norm_eps = 1e-6F,
     SCALED(TINY_SCALING_YARN, 4.0F, 512),
     ENCODED(TSR_ENCODING_F32, TSR_ENCODING_F32)},
    {.name = "llama3",
     .arch = "llama",
     .n_layers = 2,
     .dim = 128,
     .n_heads = 4,
     .n_kv_heads = 2,
     .head_dim = 32,
     .ff = 192,
     .vocab = 300,
     .context = 512,
     .tied = true,
     .rope_base = 5e5F,
     .norm_eps = 1e-5F,
     SCALED(TINY_SCALING_FACTORS, 8.0F, 64),
     ENCODED(TSR_ENCODING_F32, TSR_ENCODING_F32)},
    {.name = "k-quants",
     .arch = "llama",
     .n_layers = 2,
     .dim = 256,
     .n_heads = 4,
     .n_kv_heads = 2,
     .head_dim = 64,
     .ff = 512,
     .vocab = 301,
     .context = 512,
     .rope_base = 1e4F,
     .norm_eps = 1e-5F,
     .encoding = TSR_ENCODING_Q4_K,
     .down_encoding = TSR_ENCODING_Q6_K,
     .head_encoding = TSR_ENCODING_Q6_K},
};

const tiny_model *tiny_model_presets(int *n_presets)
{
    *n_presets = (int)(sizeof(presets) / sizeof(presets[0]));
    return presets;
}

const tiny_model *tiny_model_preset(const char *name)
{
    for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
        if (strcmp(presets[i].name, name) == 0) {
            return &presets[i];
        }
    }
    return NULL;
}

/* A generator of its own for each tensor, so that leaving one out does not change the others. */
static test_random random_of(uint64_t seed, const char *name)
{
    test_random random = {seed};

    for (const char *c = name; *c != '\0'; c++) {
        random.state = test_random_bits(&random) ^ (uint64_t)(unsigned char)*c;
    }
    return random;
}

static tsr_encoding fitting(tsr_encoding encoding, int64_t n_columns)
{
    if (n_columns % tsr_encoding_describe(encoding)->group_elems == 0) {
        return encoding;
    }
    return encoder_takes_values(encoding) || n_columns % 32 != 0 ? TSR_ENCODING_F16
                                                                 : TSR_ENCODING_Q8_0;
}

static void write_matrix(gguf_writer *w, uint64_t seed, const char *name, tsr_encoding wanted,
                         int n_rows, int n_columns, double spread)
{
    const tsr_encoding encoding = fitting(wanted, n_columns);
    const size_t row_bytes = tsr_encoding_row_bytes(encoding, n_columns);
    const int64_t shape[2] = {n_columns, n_rows};
    test_random random = random_of(seed, name);
    uint8_t *bytes = calloc((size_t)n_rows, row_bytes);
    float *row = calloc((size_t)n_columns, sizeof(*row));

    assert_non_null(bytes);
    assert_non_null(row);
    for (int r = 0; r < n_rows; r++) {
        uint8_t *to = bytes + (size_t)r * row_bytes;

        if (!encoder_takes_values(encoding)) {
            encoder_random_row(encoding, to, spread, n_columns, &random);
            continue;
        }
        for (int c = 0; c < n_columns; c++) {
            row[c] = (float)(spread * test_random_normal(&random));
        }
        encoder_row(encoding, to, row, n_columns);
    }
    gguf_writer_tensor(w, name, encoding, 2, shape, bytes, (size_t)n_rows * row_bytes);
    free(row);
    free(bytes);
}

/* What a vector is for. */
typedef enum purpose {
    NORM, /* around 1 */
    NORM_OF_HEAD,
    BIAS
} purpose;

static void write_vector(gguf_writer *w, uint64_t seed, const char *name, int n, purpose what)
{
    const int64_t shape[1] = {n};
    test_random random = random_of(seed, name);
    float *values = calloc((size_t)n, sizeof(*values));

    assert_non_null(values);
    for (int i = 0; i < n; i++) {
        if (what == BIAS) {
            values[i] = (float)(0.3 * test_random_normal(&random));
        } else {
            values[i] = (float)test_random_between(&random, 0.7, 1.3);
        }
        // Half of the signs turned: otherwise a tied head sees the embedding of the last token in
        // its input and tends to repeat it.
        if (what == NORM_OF_HEAD && test_random_bits(&random) % 2 == 0) {
            values[i] = -values[i];
        }
    }
    gguf_writer_tensor_f32(w, name, 1, shape, values);
    free(values);
}

/*
 * Llama 3's scaling: wavelengths above the original context are stretched by the whole factor,
 * those below a quarter of it not at all, those between by something between. The file stores what
 * each frequency is divided by.
 */
static void write_factors(gguf_writer *w, const tiny_model *m)
{
    const double low = 1.0;
    const double high = 4.0;
    const int64_t shape[1] = {m->head_dim / 2};
    float factors[256];

    assert_true(m->head_dim / 2 <= 256);
    for (int i = 0; i < m->head_dim / 2; i++) {
        const double wavelength =
            6.283185307179586 * pow((double)m->rope_base, 2.0 * i / m->head_dim);
        const double turns = m->original_context / wavelength;
        const double keep = fmin(fmax((turns - low) / (high - low), 0.0), 1.0);

        factors[i] = (float)(1.0 / ((1.0 - keep) / (double)m->scaling_factor + keep));
    }
    gguf_writer_tensor_f32(w, "rope_freqs.weight", 1, shape, factors);
}

static void write_keys(gguf_writer *w, const tiny_model *m)
{
    char key[128];

#define KEY(text) ((void)snprintf(key, sizeof(key), "%s." text, m->arch), key)
    gguf_writer_string(w, "general.architecture", m->arch);
    gguf_writer_string(w, "general.name", m->name);
    gguf_writer_u32(w, KEY("block_count"), (uint32_t)m->n_layers);
    gguf_writer_u32(w, KEY("context_length"), (uint32_t)m->context);
    gguf_writer_u32(w, KEY("embedding_length"), (uint32_t)m->dim);
    gguf_writer_u32(w, KEY("feed_forward_length"), (uint32_t)m->ff);
    gguf_writer_u32(w, KEY("attention.head_count"), (uint32_t)m->n_heads);
    gguf_writer_u32(w, KEY("attention.head_count_kv"), (uint32_t)m->n_kv_heads);
    if (m->head_dim * m->n_heads != m->dim) { // otherwise a reader works it out
        gguf_writer_u32(w, KEY("attention.key_length"), (uint32_t)m->head_dim);
        gguf_writer_u32(w, KEY("attention.value_length"), (uint32_t)m->head_dim);
    }
    gguf_writer_f32(w, KEY("attention.layer_norm_rms_epsilon"), m->norm_eps);
    gguf_writer_u32(w, KEY("rope.dimension_count"), (uint32_t)m->head_dim);
    gguf_writer_f32(w, KEY("rope.freq_base"), m->rope_base);
    gguf_writer_u32(w, KEY("vocab_size"), (uint32_t)m->vocab);
    if (m->scaling == TINY_SCALING_LINEAR || m->scaling == TINY_SCALING_YARN) {
        gguf_writer_string(w, KEY("rope.scaling.type"),
                           m->scaling == TINY_SCALING_YARN ? "yarn" : "linear");
        gguf_writer_f32(w, KEY("rope.scaling.factor"), m->scaling_factor);
        gguf_writer_u32(w, KEY("rope.scaling.original_context_length"),
                        (uint32_t)m->original_context);
    }
#undef KEY
}

static void write_layer(gguf_writer *w, const tiny_model *m, uint64_t seed, int layer)
{
    const int heads_dim = m->n_heads * m->head_dim;
    const int kv_dim = m->n_kv_heads * m->head_dim;
    // A norm's output has entries of about 1, so a spread of g / sqrt(columns) gives products of
    // about g. Scores then spread by about 1.4. An average of values is smaller than a value, and
    // silu(gate) * up is about 0.6: the two matrices behind them make up for it.
    const double in = 1.0 / sqrt(m->dim);
    const struct {
        const char *name;
        tsr_encoding encoding;
        int n_rows;
        int n_columns;
        double spread;
        bool bias;
    } matrices[] = {
        {"attn_q", m->encoding, heads_dim, m->dim, 1.2 * in, m->qkv_bias},
        {"attn_k", m->encoding, kv_dim, m->dim, 1.2 * in, m->qkv_bias},
        {"attn_v", m->down_encoding, kv_dim, m->dim, in, m->qkv_bias},
        {"attn_output", m->encoding, m->dim, heads_dim, 1.2 / sqrt(heads_dim), m->other_bias},
        {"ffn_gate", m->encoding, m->ff, m->dim, 1.2 * in, m->other_bias},
        {"ffn_up", m->encoding, m->ff, m->dim, 1.2 * in, m->other_bias},
        {"ffn_down", m->down_encoding, m->dim, m->ff, 1.0 / sqrt(m->ff), m->other_bias},
    };
    char name[128];

#define NAME(what, kind) ((void)snprintf(name, sizeof(name), "blk.%d.%s." kind, layer, what), name)
    write_vector(w, seed, NAME("attn_norm", "weight"), m->dim, NORM);
    write_vector(w, seed, NAME("ffn_norm", "weight"), m->dim, NORM);
    for (size_t i = 0; i < sizeof(matrices) / sizeof(matrices[0]); i++) {
        write_matrix(w, seed, NAME(matrices[i].name, "weight"), matrices[i].encoding,
                     matrices[i].n_rows, matrices[i].n_columns, matrices[i].spread);
        if (matrices[i].bias) {
            write_vector(w, seed, NAME(matrices[i].name, "bias"), matrices[i].n_rows, BIAS);
        }
    }
#undef NAME
}

void tiny_model_write(const tiny_model *m, uint64_t seed, gguf_writer *w)
{
    const double head_spread = 3.0 / sqrt(m->dim); // logits spread by 3

    write_keys(w, m);
    tiny_tokens_write(w, strcmp(m->arch, "qwen2") == 0 ? "qwen2" : "smollm", m->vocab);
    write_matrix(w, seed, "token_embd.weight", m->head_encoding, m->vocab, m->dim, head_spread);
    for (int layer = 0; layer < m->n_layers; layer++) {
        write_layer(w, m, seed, layer);
    }
    write_vector(w, seed, "output_norm.weight", m->dim, NORM_OF_HEAD);
    if (!m->tied) {
        write_matrix(w, seed, "output.weight", m->head_encoding, m->vocab, m->dim, head_spread);
    }
    if (m->scaling == TINY_SCALING_FACTORS) {
        write_factors(w, m);
    }
}

void tiny_model_save(const tiny_model *m, uint64_t seed, const char *path)
{
    gguf_writer w;

    gguf_writer_init(&w);
    tiny_model_write(m, seed, &w);
    gguf_writer_save(&w, path);
    gguf_writer_clear(&w);
}
