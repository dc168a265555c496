/*
 * How fast are products over the shapes of a small model? Not a ctest: run it by hand.
 *   bench_matmul [int8 | f32 [rows [threads]]]
 * Prints for 30 layers of four products and a head, what one pass takes, and for one row how that
 * compares with plainly reading the same bytes. Each figure is the best of a few short runs.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "kernels/ops.h"

enum {
    LAYERS = 30,
    DIM = 576,
    FF = 1536,
    KV = 192,
    VOCABULARY = 49152,
    MOST_ROWS = 512,
    PER_LAYER = 7,
    GRAIN = 64
};

enum {
    Q,
    K,
    V,
    O,
    GATE,
    UP,
    DOWN
};

static const int64_t shapes[PER_LAYER][2] = {{DIM, DIM}, {KV, DIM}, {KV, DIM}, {DIM, DIM},
                                             {FF, DIM},  {FF, DIM}, {DIM, FF}};

typedef struct model {
    tsr_weight layers[LAYERS][PER_LAYER];
    tsr_weight head;
    uint8_t *memory;
    size_t n_bytes;
    size_t layer_bytes;
} model;

typedef struct buffers {
    float *x;   /* [MOST_ROWS, FF] */
    float *out; /* [MOST_ROWS, 2 FF] or [32, VOCABULARY] */
    double *sums;
} buffers;

static uint64_t seed = 88172645463325252U;

static uint64_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void fill_tiles(uint8_t *to, tsr_format format, size_t n_bytes)
{
    const size_t tile = tsr_weight_tile_bytes(format);

    for (size_t i = 0; i + 8 <= n_bytes; i += 8) {
        const uint64_t bits = random_bits();

        memcpy(to + i, &bits, 8);
    }
    for (size_t t = 0; t < n_bytes; t += tile) {
        for (int r = 0; r < 16; r++) {
            const uint16_t d = (uint16_t)(0x2000U + (random_bits() & 0x3FFU)); // about 0.01
            const uint16_t m = (uint16_t)(0xAC00U + (random_bits() & 0x3FFU)); // about -0.08
            const float wide[2] = {0.01F, -0.08F};

            if (format == TSR_FORMAT_Q4) {
                memcpy(to + t + 256 + 2 * r, &d, 2);
                memcpy(to + t + 288 + 2 * r, &m, 2);
            } else if (format == TSR_FORMAT_Q4_WIDE) {
                memcpy(to + t + 256 + 4 * r, &wide[0], 4);
                memcpy(to + t + 320 + 4 * r, &wide[1], 4);
            } else if (format == TSR_FORMAT_Q8) {
                memcpy(to + t + 512 + 2 * r, &d, 2);
            } else if (format == TSR_FORMAT_Q8_WIDE) {
                for (int h = 0; h < 2; h++) {
                    memcpy(to + t + 512 + 128 * h + 4 * r, &wide[0], 4);
                    memcpy(to + t + 576 + 128 * h + 4 * r, &wide[1], 4);
                }
            }
        }
    }
    if (format == TSR_FORMAT_BF16) {
        for (size_t i = 0; i < n_bytes; i += 2) {
            const uint16_t w = (uint16_t)(0x3C00U + (random_bits() & 0x80FFU));

            memcpy(to + i, &w, 2);
        }
    }
}

static bool make_model(model *m, tsr_format layers, tsr_format head)
{
    uint8_t *at;

    m->layer_bytes = 0;
    for (int i = 0; i < PER_LAYER; i++) {
        m->layer_bytes += tsr_weight_bytes(layers, shapes[i][0], shapes[i][1]);
    }
    m->n_bytes = m->layer_bytes * LAYERS + tsr_weight_bytes(head, VOCABULARY, DIM);
    m->memory = tsr_alloc_pages(m->n_bytes);
    if (m->memory == NULL) {
        return false;
    }
    at = m->memory;
    for (int l = 0; l < LAYERS; l++) {
        for (int i = 0; i < PER_LAYER; i++) {
            const size_t n = tsr_weight_bytes(layers, shapes[i][0], shapes[i][1]);

            m->layers[l][i] = (tsr_weight){.format = layers,
                                           .n_rows = shapes[i][0],
                                           .n_cols = shapes[i][1],
                                           .grain_cols = i == O || i == DOWN ? GRAIN : 0,
                                           .tiles = at};
            fill_tiles(at, layers, n);
            at += n;
        }
    }
    m->head = (tsr_weight){.format = head, .n_rows = VOCABULARY, .n_cols = DIM, .tiles = at};
    fill_tiles(at, head, tsr_weight_bytes(head, VOCABULARY, DIM));
    return true;
}

static void must(tsr_status st)
{
    if (st != TSR_OK) {
        fprintf(stderr, "%s\n", tsr_status_message());
        exit(1);
    }
}

static tsr_tensor f32(float *at, int64_t n_rows, int64_t n_cols)
{
    return tsr_tensor_of(at, TSR_DTYPE_F32, TSR_DEVICE_CPU, n_rows, n_cols);
}

/* One of a layer's four calls. */
static void call(tsr_device *dev, const model *m, const buffers *b, int l, int which, int64_t rows,
                 tsr_activations how, bool grains)
{
    static const int from[] = {Q, O, GATE, DOWN, PER_LAYER};
    const tsr_weight *w = m->layers[l];
    const int first = from[which];
    const int n = from[which + 1] - first;
    tsr_weight whole = w[first];
    tsr_product products[3];
    float *out = b->out;

    whole.grain_cols = 0;
    for (int i = 0; i < n; i++) {
        products[i] = (tsr_product){&w[first + i], f32(out, rows, w[first + i].n_rows), {0}};
        out += rows * w[first + i].n_rows;
    }
    if (w[first].grain_cols > 0) {
        products[0].out = tsr_tensor_of(b->sums, TSR_DTYPE_F64, TSR_DEVICE_CPU, rows, DIM);
        if (!grains) {
            products[0].weight = &whole;
            products[0].out = f32(b->out, rows, DIM);
        }
    }
    must(tsr_matmul(dev, products, n, f32(b->x, rows, w[first].n_cols), how));
}

static void head(tsr_device *dev, const model *m, const buffers *b, int64_t rows,
                 tsr_activations how)
{
    const tsr_product product = {&m->head, f32(b->out, rows, VOCABULARY), {0}};

    must(tsr_matmul(dev, &product, 1, f32(b->x, rows, DIM), how));
}

static double seconds_since(int64_t start)
{
    return (double)(tsr_clock_ns() - start) * 1e-9;
}

typedef struct reading {
    const uint64_t *from;
    size_t n_words;
    uint64_t sums[64];
} reading;

/* Plain loads, four streams a thread. */
static void read_share(void *ctx, int thread, int n_threads)
{
    reading *r = ctx;
    const size_t quarter = r->n_words / (size_t)n_threads / 4 / 64 * 64;
    const uint64_t *p = r->from + (size_t)thread * 4 * quarter;
    uint64_t sums[32] = {0};

    for (size_t i = 0; i < quarter; i += 8) {
        for (size_t k = 0; k < 8; k++) {
            sums[k] ^= p[i + k];
            sums[8 + k] ^= p[quarter + i + k];
            sums[16 + k] ^= p[2 * quarter + i + k];
            sums[24 + k] ^= p[3 * quarter + i + k];
        }
    }
    for (int k = 1; k < 32; k++) {
        sums[0] ^= sums[k];
    }
    r->sums[thread] = sums[0];
}

static double read_seconds(tsr_device *dev, const model *m)
{
    reading r = {(const uint64_t *)m->memory, m->n_bytes / 8, {0}};
    const int64_t start = tsr_clock_ns();

    tsr_cpu_pool_run(tsr_device_pool(dev), read_share, &r);
    return seconds_since(start);
}

static double macs_a_row(void)
{
    double macs = 0;

    for (int i = 0; i < PER_LAYER; i++) {
        macs += (double)shapes[i][0] * (double)shapes[i][1];
    }
    return macs;
}

/* All layers (fewer when there are many rows), and the head. */
static void measure(tsr_device *dev, const model *m, const buffers *b, int64_t rows,
                    tsr_activations how, bool grains)
{
    const int layers = rows >= 128 ? 2 : rows >= 16 ? 10 : LAYERS;
    const int64_t head_rows = rows < 32 ? rows : 32;
    const int tries = 12;
    double parts[4] = {1e9, 1e9, 1e9, 1e9};
    double best_layers = 1e9;
    double best_head = 1e9;
    double best_read = 1e9;

    for (int i = 0; i < tries; i++) {
        double took[4] = {0};
        double sum = 0;
        int64_t start;

        if (rows == 1) {
            const double t = read_seconds(dev, m);

            best_read = t < best_read ? t : best_read;
        }
        for (int l = 0; l < layers; l++) {
            for (int c = 0; c < 4; c++) {
                start = tsr_clock_ns();
                call(dev, m, b, l, c, rows, how, grains);
                took[c] += seconds_since(start);
            }
        }
        for (int c = 0; c < 4; c++) {
            took[c] *= (double)LAYERS / layers;
            parts[c] = took[c] < parts[c] ? took[c] : parts[c];
            sum += took[c];
        }
        best_layers = sum < best_layers ? sum : best_layers;
        if (rows <= 32) {
            start = tsr_clock_ns();
            head(dev, m, b, head_rows, how);
            sum = seconds_since(start);
            best_head = sum < best_head ? sum : best_head;
        }
    }
    if (rows == 1) {
        const double all = best_layers + best_head;

        printf("  1 row    %7.0f tok/s  %5.1f GB/s, %3.0f %% of a plain read (%.1f)", 1 / all,
               (double)m->n_bytes / all * 1e-9, 100 * best_read / all,
               (double)m->n_bytes / best_read * 1e-9);
    } else {
        printf("%3d rows   %7.0f tok/s of layers  %5.1f GMAC/s", (int)rows,
               (double)rows / best_layers,
               macs_a_row() * LAYERS * (double)rows / best_layers * 1e-9);
    }
    printf(";  us a layer: qkv %.1f, o %.1f, gate+up %.1f, down %.1f", parts[0] / LAYERS * 1e6,
           parts[1] / LAYERS * 1e6, parts[2] / LAYERS * 1e6, parts[3] / LAYERS * 1e6);
    if (rows <= 32) {
        printf(";  head %.2f ms, %.0f GMAC/s", best_head * 1e3,
               (double)VOCABULARY * DIM * (double)head_rows / best_head * 1e-9);
    }
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const int64_t rows[] = {1, 4, 8, 16, 32, 512};
    const bool f32_only = argc > 1 && strcmp(argv[1], "f32") == 0;
    const int only_rows = argc > 2 ? atoi(argv[2]) : 0;
    const int only_threads = argc > 3 ? atoi(argv[3]) : 0;
    const tsr_activations how = f32_only ? TSR_ACTIVATIONS_F32 : TSR_ACTIVATIONS_INT8;
    const tsr_format format = f32_only ? TSR_FORMAT_BF16 : TSR_FORMAT_Q4;
    model m;
    buffers b;

    b.x = tsr_alloc_pages(sizeof(float) * MOST_ROWS * FF);
    b.out = tsr_alloc_pages(sizeof(float) * MOST_ROWS * 2 * FF);
    b.sums = tsr_alloc_pages(sizeof(double) * MOST_ROWS * DIM);
    if (b.x == NULL || b.out == NULL || b.sums == NULL ||
        !make_model(&m, format, f32_only ? TSR_FORMAT_BF16 : TSR_FORMAT_Q8)) {
        return 1;
    }
    for (int i = 0; i < MOST_ROWS * FF; i++) {
        b.x[i] = (float)(random_bits() >> 40) * 0x1p-23F - 1.0F;
    }
    for (int n_threads = 1; n_threads <= 2; n_threads++) {
        const tsr_ops_limits limits = {.n_rows = MOST_ROWS, .n_cols = FF};
        const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = n_threads};
        tsr_device *dev;

        if (only_threads > 0 && only_threads != n_threads) {
            continue;
        }
        must(tsr_device_open(&dev, &options));
        must(tsr_device_reserve_scratch(dev,
                                        tsr_ops_scratch_bytes(TSR_DEVICE_CPU, n_threads, &limits)));
        printf("%s; %.1f MB of %s\n", tsr_device_describe(dev), (double)m.n_bytes * 1e-6,
               tsr_weight_format_name(format));
        for (int i = 0; i < 6; i++) {
            if (only_rows == 0 || only_rows == rows[i]) {
                measure(dev, &m, &b, rows[i], how, true);
            }
        }
        printf("without grains:\n");
        for (int i = 0; i < 6; i += 5) {
            if (only_rows == 0 || only_rows == rows[i]) {
                measure(dev, &m, &b, rows[i], how, false);
            }
        }
        tsr_device_close(dev);
    }
    return 0;
}
