#include "tests/support/oracle_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double PI = 3.14159265358979323846;

double *oracle_doubles(size_t n)
{
    double *memory = calloc(n, sizeof(*memory));

    assert_non_null(memory);
    return memory;
}

static const char *key_of(const oracle *o, char key[128], const char *what)
{
    (void)snprintf(key, 128, "%s.%s", o->arch, what);
    return key;
}

/* Fails the test when there is no such key and `fallback` is negative. */
static int whole(const oracle *o, const char *what, int fallback)
{
    char key[128];
    int64_t value = fallback;

    if (!tsr_gguf_int(o->file, key_of(o, key, what), &value) && fallback < 0) {
        fail_msg("no %s", key);
    }
    assert_in_range(value, 0, 1 << 30);
    return (int)value;
}

static double real(const oracle *o, const char *what, double fallback)
{
    char key[128];
    double value = fallback;

    (void)tsr_gguf_float(o->file, key_of(o, key, what), &value);
    return value;
}

/* All of a tensor as doubles; NULL if there is none. */
static double *vector(const oracle *o, const char *name, int n)
{
    const tsr_gguf_tensor *tensor = tsr_gguf_find(o->file, name);
    float *decoded;
    double *out;

    if (tensor == NULL) {
        return NULL;
    }
    assert_int_equal(tensor->shape[0], n);
    assert_int_equal(tensor->shape[1], 1);
    decoded = calloc((size_t)n, sizeof(*decoded));
    assert_non_null(decoded);
    tsr_encoding_decode(tensor->encoding, decoded, tensor->data, 0, n);
    out = oracle_doubles((size_t)n);
    for (int i = 0; i < n; i++) {
        out[i] = (double)decoded[i];
    }
    free(decoded);
    return out;
}

static double *norm_of(const oracle *o, int l, const char *what)
{
    char name[128];
    double *norm;

    (void)snprintf(name, sizeof(name), "blk.%d.%s.weight", l, what);
    norm = vector(o, name, o->dim);
    assert_non_null(norm);
    return norm;
}

static matrix matrix_of(const oracle *o, int l, const char *what, int n_rows, int n_columns)
{
    char name[128];
    matrix m;

    (void)snprintf(name, sizeof(name), "blk.%d.%s.weight", l, what);
    m.weight = tsr_gguf_find(o->file, name);
    assert_non_null(m.weight);
    assert_int_equal(m.weight->shape[0], n_columns);
    assert_int_equal(m.weight->shape[1], n_rows);
    (void)snprintf(name, sizeof(name), "blk.%d.%s.bias", l, what);
    m.bias = vector(o, name, n_rows);
    return m;
}

static void read_sizes(oracle *o)
{
    tsr_gguf_text arch;

    assert_true(tsr_gguf_string(o->file, "general.architecture", &arch));
    assert_true(arch.n_bytes < sizeof(o->arch));
    memcpy(o->arch, arch.bytes, arch.n_bytes);
    o->halves = strcmp(o->arch, "llama") != 0;
    o->n_layers = whole(o, "block_count", -1);
    o->dim = whole(o, "embedding_length", -1);
    o->n_heads = whole(o, "attention.head_count", -1);
    o->n_kv_heads = whole(o, "attention.head_count_kv", o->n_heads);
    o->head_dim = whole(o, "attention.key_length", o->dim / o->n_heads);
    o->ff = whole(o, "feed_forward_length", -1);
    o->eps = real(o, "attention.layer_norm_rms_epsilon", 1e-5);
    assert_int_equal(whole(o, "attention.value_length", o->head_dim), o->head_dim);
    assert_int_equal(whole(o, "rope.dimension_count", o->head_dim), o->head_dim);
    assert_int_equal(o->n_heads % o->n_kv_heads, 0);
    assert_int_equal(o->head_dim % 2, 0);
}

/*
 * YaRN (Peng et al., arXiv 2309.00071, section 3): a pair that turns more than 32 times over the
 * original context keeps its frequency, one that turns less than once is stretched by the whole
 * factor, and between the two, counted in pairs and rounded outward, it goes over linearly.
 */
static void apply_yarn(oracle *o, double base, double factor, double original)
{
    const double fast = real(o, "rope.scaling.yarn_beta_fast", 32.0);
    const double slow = real(o, "rope.scaling.yarn_beta_slow", 1.0);
    const int n_pairs = o->head_dim / 2;
    double first = floor(n_pairs * log(original / (fast * 2 * PI)) / log(base));
    double last = ceil(n_pairs * log(original / (slow * 2 * PI)) / log(base));

    first = fmax(first, 0.0);
    last = fmin(last, o->head_dim - 1.0);
    for (int i = 0; i < n_pairs; i++) {
        const double stretched = fmin(fmax((i - first) / fmax(last - first, 0.001), 0.0), 1.0);

        o->frequencies[i] *= stretched / factor + (1.0 - stretched);
    }
    o->rope_gain = 0.1 * log(factor) + 1.0;
}

static void read_rope(oracle *o)
{
    const double base = real(o, "rope.freq_base", 10000.0);
    const double factor = real(o, "rope.scaling.factor", 1.0);
    const int n_pairs = o->head_dim / 2;
    double *divisors = vector(o, "rope_freqs.weight", n_pairs);
    char key[128];
    char kind[16] = "none";
    tsr_gguf_text text;

    if (tsr_gguf_string(o->file, key_of(o, key, "rope.scaling.type"), &text)) {
        assert_true(text.n_bytes < sizeof(kind));
        memcpy(kind, text.bytes, text.n_bytes);
        kind[text.n_bytes] = '\0';
    }
    o->rope_gain = 1.0;
    o->frequencies = oracle_doubles((size_t)n_pairs);
    for (int i = 0; i < n_pairs; i++) {
        o->frequencies[i] = pow(base, -2.0 * i / o->head_dim);
        o->frequencies[i] /= divisors != NULL ? divisors[i] : 1.0;
        o->frequencies[i] /= strcmp(kind, "linear") == 0 ? factor : 1.0;
    }
    free(divisors);
    if (strcmp(kind, "yarn") == 0) {
        apply_yarn(
            o, base, factor,
            whole(o, "rope.scaling.original_context_length", whole(o, "context_length", -1)));
    } else if (strcmp(kind, "linear") != 0 && strcmp(kind, "none") != 0) {
        fail_msg("rotary scaling \"%s\" is not known", kind);
    }
}

static void read_layer(oracle *o, int l)
{
    const int heads_dim = o->n_heads * o->head_dim;
    const int kv_dim = o->n_kv_heads * o->head_dim;
    layer *to = &o->layers[l];

    to->attn_norm = norm_of(o, l, "attn_norm");
    to->ffn_norm = norm_of(o, l, "ffn_norm");
    to->q = matrix_of(o, l, "attn_q", heads_dim, o->dim);
    to->k = matrix_of(o, l, "attn_k", kv_dim, o->dim);
    to->v = matrix_of(o, l, "attn_v", kv_dim, o->dim);
    to->output = matrix_of(o, l, "attn_output", o->dim, heads_dim);
    to->gate = matrix_of(o, l, "ffn_gate", o->ff, o->dim);
    to->up = matrix_of(o, l, "ffn_up", o->ff, o->dim);
    to->down = matrix_of(o, l, "ffn_down", o->dim, o->ff);
}

oracle *oracle_open(const char *path)
{
    oracle *o = calloc(1, sizeof(*o));

    assert_non_null(o);
    if (tsr_gguf_open(&o->file, path) != TSR_OK) {
        fail_msg("%s: %s", path, tsr_status_message());
    }
    read_sizes(o);
    read_rope(o);
    o->embedding = tsr_gguf_find(o->file, "token_embd.weight");
    assert_non_null(o->embedding);
    assert_int_equal(o->embedding->shape[0], o->dim);
    o->n_vocab = (int)o->embedding->shape[1];
    o->output_norm = vector(o, "output_norm.weight", o->dim);
    assert_non_null(o->output_norm);
    o->head.weight = tsr_gguf_find(o->file, "output.weight");
    if (o->head.weight == NULL) {
        o->head.weight = o->embedding;
    }
    assert_int_equal(o->head.weight->shape[0], o->dim);
    assert_int_equal(o->head.weight->shape[1], o->n_vocab);
    o->layers = calloc((size_t)o->n_layers, sizeof(*o->layers));
    assert_non_null(o->layers);
    for (int l = 0; l < o->n_layers; l++) {
        read_layer(o, l);
    }
    return o;
}

void oracle_close(oracle *o)
{
    if (o == NULL) {
        return;
    }
    for (int l = 0; l < o->n_layers; l++) {
        layer *gone = &o->layers[l];

        free(gone->attn_norm);
        free(gone->ffn_norm);
        free(gone->q.bias);
        free(gone->k.bias);
        free(gone->v.bias);
        free(gone->output.bias);
        free(gone->gate.bias);
        free(gone->up.bias);
        free(gone->down.bias);
        free(gone->keys);
        free(gone->values);
    }
    free(o->layers);
    free(o->frequencies);
    free(o->output_norm);
    tsr_gguf_close(o->file);
    free(o);
}
