#include "tests/support/oracle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/oracle_model.h"

void oracle_approximate(oracle *o, bool int8_activations, oracle_kv kv)
{
    o->int8_activations = int8_activations;
    o->kv = kv;
    oracle_forget(o);
}

int oracle_n_vocab(const oracle *o)
{
    return o->n_vocab;
}

void oracle_forget(oracle *o)
{
    o->n_fed = 0;
}

/* To the nearest number with n_bits of fraction (the leading one not counted) and no exponent below
 * least: f16 is 10 and -14, bf16 is 7 and -126. Numbers too large for f16 do not come here. */
static double rounded(double x, int n_bits, int least)
{
    int exponent;

    if (x == 0.0) {
        return x;
    }
    (void)frexp(x, &exponent);
    exponent = exponent - 1 < least ? least : exponent - 1;
    return ldexp(rint(ldexp(x, n_bits - exponent)), exponent - n_bits);
}

static double as_remembered(const oracle *o, double x)
{
    switch (o->kv) {
    case ORACLE_KV_F16:
        return rounded(x, 10, -14);
    case ORACLE_KV_BF16:
        return rounded(x, 7, -126);
    default:
        return x;
    }
}

static void to_int8(double *x, int n)
{
    for (int at = 0; at < n; at += 32) {
        double largest = 0.0;

        for (int i = 0; i < 32; i++) {
            largest = fmax(largest, fabs(x[at + i]));
        }
        for (int i = 0; i < 32 && largest > 0.0; i++) {
            x[at + i] = rint(x[at + i] / (largest / 127.0)) * (largest / 127.0);
        }
    }
}

/* Eight sums side by side: only so that a compiler can keep the machine busy. */
static double dot(const float *a, const double *b, int n)
{
    double sums[8] = {0};
    int i = 0;

    for (; i + 8 <= n; i += 8) {
        for (int j = 0; j < 8; j++) {
            sums[j] += (double)a[i + j] * b[i + j];
        }
    }
    for (; i < n; i++) {
        sums[0] += (double)a[i] * b[i];
    }
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
           ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/* out [n][n_rows] = x [n][n_columns] times the matrix transposed, plus its bias. */
static void multiply(const oracle *o, double *out, const double *x, int n, const matrix *m)
{
    const tsr_encoding encoding = m->weight->encoding;
    const int n_columns = (int)m->weight->shape[0];
    const int n_rows = (int)m->weight->shape[1];
    const size_t row_bytes = tsr_encoding_row_bytes(encoding, n_columns);
    double *input = oracle_doubles((size_t)n * (size_t)n_columns);
    float *row = calloc((size_t)n_columns, sizeof(*row));

    assert_non_null(row);
    memcpy(input, x, (size_t)n * (size_t)n_columns * sizeof(*input));
    if (o->int8_activations && tsr_encoding_describe(encoding)->group_elems > 1) {
        to_int8(input, n * n_columns); // rows are whole groups, so no group crosses rows
    }
    for (int r = 0; r < n_rows; r++) {
        tsr_encoding_decode(encoding, row, (const uint8_t *)m->weight->data + (size_t)r * row_bytes,
                            0, n_columns);
        for (int t = 0; t < n; t++) {
            out[(size_t)t * (size_t)n_rows + (size_t)r] =
                dot(row, input + (size_t)t * (size_t)n_columns, n_columns) +
                (m->bias != NULL ? m->bias[r] : 0.0);
        }
    }
    free(row);
    free(input);
}

static void normalise(const oracle *o, double *out, const double *x, int n, const double *weight)
{
    for (int t = 0; t < n; t++, x += o->dim, out += o->dim) {
        double squares = 0.0;

        for (int i = 0; i < o->dim; i++) {
            squares += x[i] * x[i];
        }
        for (int i = 0; i < o->dim; i++) {
            out[i] = x[i] / sqrt(squares / o->dim + o->eps) * weight[i];
        }
    }
}

/* x [n][n_heads][head_dim], the first at position `first`. */
static void rotate(const oracle *o, double *x, int n, int n_heads, int first)
{
    const int n_pairs = o->head_dim / 2;

    for (int t = 0; t < n; t++) {
        for (int i = 0; i < n_pairs; i++) {
            const double angle = (first + t) * o->frequencies[i];
            const double c = cos(angle) * o->rope_gain;
            const double s = sin(angle) * o->rope_gain;
            const int left = o->halves ? i : 2 * i;
            const int right = o->halves ? i + n_pairs : 2 * i + 1;

            for (int h = 0; h < n_heads; h++) {
                double *head = x + (size_t)(t * n_heads + h) * (size_t)o->head_dim;
                const double a = head[left];
                const double b = head[right];

                head[left] = a * c - b * s;
                head[right] = a * s + b * c;
            }
        }
    }
}

/* One query head over the first n_seen positions. scores [n_seen] is scratch. */
static void attend(const oracle *o, double *out, const double *query, const layer *from,
                   int kv_head, int n_seen, double *scores)
{
    const size_t stride = (size_t)o->n_kv_heads * (size_t)o->head_dim;
    const size_t offset = (size_t)kv_head * (size_t)o->head_dim;
    double largest = -INFINITY;
    double mass = 0.0;

    for (int p = 0; p < n_seen; p++) {
        const double *key = from->keys + (size_t)p * stride + offset;

        scores[p] = 0.0;
        for (int i = 0; i < o->head_dim; i++) {
            scores[p] += query[i] * key[i];
        }
        scores[p] /= sqrt(o->head_dim);
        largest = fmax(largest, scores[p]);
    }
    for (int p = 0; p < n_seen; p++) {
        scores[p] = exp(scores[p] - largest);
        mass += scores[p];
    }
    memset(out, 0, (size_t)o->head_dim * sizeof(*out));
    for (int p = 0; p < n_seen; p++) {
        const double *value = from->values + (size_t)p * stride + offset;

        for (int i = 0; i < o->head_dim; i++) {
            out[i] += scores[p] / mass * value[i];
        }
    }
}

/* x [n][dim] += attention of this layer. */
static void attention(oracle *o, double *x, int n, layer *l)
{
    const int heads_dim = o->n_heads * o->head_dim;
    const int kv_dim = o->n_kv_heads * o->head_dim;
    const size_t fed = (size_t)o->n_fed * (size_t)kv_dim;
    const size_t added = (size_t)n * (size_t)kv_dim;
    double *normed = oracle_doubles((size_t)n * (size_t)o->dim);
    double *queries = oracle_doubles((size_t)n * (size_t)heads_dim);
    double *mixed = oracle_doubles((size_t)n * (size_t)heads_dim);
    double *scores = oracle_doubles((size_t)(o->n_fed + n));

    normalise(o, normed, x, n, l->attn_norm);
    multiply(o, queries, normed, n, &l->q);
    multiply(o, l->keys + fed, normed, n, &l->k);
    multiply(o, l->values + fed, normed, n, &l->v);
    rotate(o, queries, n, o->n_heads, o->n_fed);
    rotate(o, l->keys + fed, n, o->n_kv_heads, o->n_fed);
    for (size_t i = fed; i < fed + added; i++) {
        l->keys[i] = as_remembered(o, l->keys[i]);
        l->values[i] = as_remembered(o, l->values[i]);
    }
    for (int t = 0; t < n; t++) {
        for (int h = 0; h < o->n_heads; h++) {
            const size_t at = (size_t)(t * o->n_heads + h) * (size_t)o->head_dim;

            attend(o, mixed + at, queries + at, l, h / (o->n_heads / o->n_kv_heads),
                   o->n_fed + t + 1, scores);
        }
    }
    multiply(o, normed, mixed, n, &l->output);
    for (size_t i = 0; i < (size_t)n * (size_t)o->dim; i++) {
        x[i] += normed[i];
    }
    free(scores);
    free(mixed);
    free(queries);
    free(normed);
}

/* x [n][dim] += feed-forward of this layer. */
static void feed_forward(const oracle *o, double *x, int n, const layer *l)
{
    double *normed = oracle_doubles((size_t)n * (size_t)o->dim);
    double *gate = oracle_doubles((size_t)n * (size_t)o->ff);
    double *up = oracle_doubles((size_t)n * (size_t)o->ff);

    normalise(o, normed, x, n, l->ffn_norm);
    multiply(o, gate, normed, n, &l->gate);
    multiply(o, up, normed, n, &l->up);
    for (size_t i = 0; i < (size_t)n * (size_t)o->ff; i++) {
        gate[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
    }
    multiply(o, normed, gate, n, &l->down);
    for (size_t i = 0; i < (size_t)n * (size_t)o->dim; i++) {
        x[i] += normed[i];
    }
    free(up);
    free(gate);
    free(normed);
}

static void make_room(oracle *o, int n_positions)
{
    const size_t position_bytes =
        (size_t)o->n_kv_heads * (size_t)o->head_dim * sizeof(*o->layers->keys);

    if (n_positions <= o->n_room) {
        return;
    }
    o->n_room = 2 * n_positions;
    for (int l = 0; l < o->n_layers; l++) {
        o->layers[l].keys = realloc(o->layers[l].keys, (size_t)o->n_room * position_bytes);
        o->layers[l].values = realloc(o->layers[l].values, (size_t)o->n_room * position_bytes);
        assert_non_null(o->layers[l].keys);
        assert_non_null(o->layers[l].values);
    }
}

static void embed(const oracle *o, double *x, const int32_t *ids, int n)
{
    const tsr_encoding encoding = o->embedding->encoding;
    const size_t row_bytes = tsr_encoding_row_bytes(encoding, o->dim);
    float *row = calloc((size_t)o->dim, sizeof(*row));

    assert_non_null(row);
    for (int t = 0; t < n; t++) {
        if (ids[t] < 0 || ids[t] >= o->n_vocab) {
            fail_msg("id %d of a vocabulary of %d", (int)ids[t], o->n_vocab);
        }
        tsr_encoding_decode(encoding, row,
                            (const uint8_t *)o->embedding->data + (size_t)ids[t] * row_bytes, 0,
                            o->dim);
        for (int i = 0; i < o->dim; i++) {
            x[(size_t)t * (size_t)o->dim + (size_t)i] = (double)row[i];
        }
    }
    free(row);
}

/* The last n_wanted hidden states, behind the last norm; x is what is to be freed. */
static double *feed(oracle *o, const int32_t *ids, int n, int n_wanted, double **x_out)
{
    double *x;
    double *last;

    assert_true(n > 0 && n_wanted >= 0 && n_wanted <= n);
    make_room(o, o->n_fed + n);
    x = oracle_doubles((size_t)n * (size_t)o->dim);
    embed(o, x, ids, n);
    for (int l = 0; l < o->n_layers; l++) {
        attention(o, x, n, &o->layers[l]);
        feed_forward(o, x, n, &o->layers[l]);
    }
    o->n_fed += n;
    last = x + (size_t)(n - n_wanted) * (size_t)o->dim;
    normalise(o, last, last, n_wanted, o->output_norm);
    *x_out = x;
    return last;
}

void oracle_feed(oracle *o, const int32_t *ids, int n, int n_wanted, double *logits)
{
    double *x;
    const double *last = feed(o, ids, n, n_wanted, &x);

    multiply(o, logits, last, n_wanted, &o->head);
    free(x);
}

int oracle_dim(const oracle *o)
{
    return o->dim;
}

void oracle_hidden(oracle *o, const int32_t *ids, int n, double *hidden)
{
    double *x;

    oracle_forget(o);
    memcpy(hidden, feed(o, ids, n, n, &x), (size_t)n * (size_t)o->dim * sizeof(*hidden));
    free(x);
}

void oracle_logits(oracle *o, const int32_t *ids, int n, int n_wanted, double *logits)
{
    oracle_forget(o);
    oracle_feed(o, ids, n, n_wanted, logits);
}

void oracle_greedy(oracle *o, const int32_t *prompt, int n_prompt, int n_new, int32_t *ids,
                   double *margins)
{
    double *logits = oracle_doubles((size_t)o->n_vocab);

    for (int i = 0; i < n_new; i++) {
        if (i == 0) {
            oracle_logits(o, prompt, n_prompt, 1, logits);
        } else {
            oracle_feed(o, &ids[i - 1], 1, 1, logits);
        }
        ids[i] = oracle_best(logits, o->n_vocab, margins != NULL ? &margins[i] : NULL);
    }
    free(logits);
}

int32_t oracle_best(const double *logits, int n_vocab, double *margin)
{
    int32_t best = 0;
    double second = -INFINITY;

    for (int i = 1; i < n_vocab; i++) {
        if (logits[i] > logits[best]) {
            second = logits[best];
            best = i;
        } else {
            second = fmax(second, logits[i]);
        }
    }
    if (margin != NULL) {
        *margin = logits[best] - second;
    }
    return best;
}

double oracle_log_mass(const double *logits, int n_vocab)
{
    const double largest = logits[oracle_best(logits, n_vocab, NULL)];
    double mass = 0.0;

    for (int i = 0; i < n_vocab; i++) {
        mass += exp(logits[i] - largest);
    }
    return largest + log(mass);
}
