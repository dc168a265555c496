/*
 * bench_attention - how fast attention is on this machine, for every block size. Not a test.
 *   bench_attention [threads [rows]]
 * Decoding is said in GB/s of keys and values, beside a plain read of as many bytes; prompts in
 * GFLOP/s of the products that causal attention needs; then what few rows at the end of a long
 * context take, as chunks of a prompt have them that ride along with others' tokens.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "kernels/backend.h"

enum {
    N_LAYERS = 30,
    N_HEADS = 9,
    N_KV_HEADS = 3,
    HEAD_DIM = 64,
    CONTEXT = 4096,
    REPEATS = 9
};

static const int few_rows[] = {1, 2, 3, 4, 5, 6, 8, 12, 16, 24};

typedef struct cache {
    tsr_kv_layout layout;
    tsr_kv_view view;
    tsr_kv_drift drift;
    size_t n_bytes;
    tsr_batch batch;
    int32_t slots[CONTEXT];
    int32_t row_start[2], first_pos, lane;
} cache;

static void must(tsr_status st)
{
    if (st != TSR_OK) {
        (void)printf("%s\n", tsr_status_message());
        exit(1);
    }
}

static void open_cache(cache *c, tsr_device *dev, int block_tokens, tsr_kv_type type)
{
    const int blocks = CONTEXT / block_tokens;

    c->layout =
        (tsr_kv_layout){N_LAYERS, N_KV_HEADS, HEAD_DIM, HEAD_DIM, block_tokens, type, false, false};
    tsr_kv_drift_init(&c->drift, HEAD_DIM, NULL, 0, 0, TSR_ROPE_INTERLEAVED);
    c->view = (tsr_kv_view){.block_bytes = tsr_kv_layout_block_bytes(&c->layout),
                            .layout = &c->layout,
                            .drift = &c->drift};
    c->n_bytes = c->view.block_bytes * (size_t)blocks;
    c->view.pool = tsr_device_alloc(dev, c->n_bytes);
    memset(c->view.pool, 0x11, c->n_bytes); // small numbers in all types
    for (int i = 0; i < blocks; i++) {
        c->slots[i] = i * 37 % blocks;
    }
    c->batch =
        (tsr_batch){.n_seqs = 1,
                    .row_start = tsr_tensor_of(c->row_start, TSR_DTYPE_I32, TSR_DEVICE_CPU, 1, 2),
                    .first_pos = tsr_tensor_of(&c->first_pos, TSR_DTYPE_I32, TSR_DEVICE_CPU, 1, 1),
                    .lanes = tsr_tensor_of(&c->lane, TSR_DTYPE_I32, TSR_DEVICE_CPU, 1, 1),
                    .tables = tsr_tensor_of(c->slots, TSR_DTYPE_I32, TSR_DEVICE_CPU, 1, blocks),
                    .longest = CONTEXT};
    c->lane = 0;
}

/* Seconds of all layers, the best of some. */
static double attend(tsr_device *dev, cache *c, int first_pos, int n_rows, float *q, float *out)
{
    const tsr_attention_shape shape = {
        .n_heads = N_HEADS, .group = N_HEADS / N_KV_HEADS, .scale = 0.125F};
    const tsr_tensor in =
        tsr_tensor_of(q, TSR_DTYPE_F32, TSR_DEVICE_CPU, n_rows, N_HEADS * HEAD_DIM);
    double best = 1e9;

    c->row_start[1] = n_rows;
    c->first_pos = first_pos;
    for (int i = 0; i < REPEATS; i++) {
        const int64_t start = tsr_clock_ns();
        const int n_layers = n_rows > 1 ? 2 : N_LAYERS;
        double seconds;

        for (int layer = 0; layer < n_layers; layer++) {
            tsr_tensor to = in;

            to.data = out;
            c->view.layer = layer;
            must(tsr_attention(dev, to, in, &c->view, &c->batch, &shape));
        }
        seconds = (double)(tsr_clock_ns() - start) * 1e-9 * N_LAYERS / n_layers;
        best = seconds < best ? seconds : best;
    }
    return best;
}

typedef struct reading {
    const uint64_t *words;
    int64_t n_words;
    uint64_t sums[64];
} reading;

__attribute__((target("avx2"))) static void read_words(void *ctx, int thread, int n_threads)
{
    reading *r = ctx;
    uint64_t sums[32] = {0};
    int64_t first;
    int64_t end;

    tsr_cpu_pool_split(r->n_words / 32, thread, n_threads, &first, &end);
    for (int64_t i = first; i < end; i++) {
        for (int k = 0; k < 32; k++) {
            sums[k] ^= r->words[i * 32 + k];
        }
    }
    for (int k = 0; k < 32; k++) {
        r->sums[thread] ^= sums[k];
    }
}

static double plain_read(tsr_device *dev, const cache *c)
{
    reading r = {.words = c->view.pool, .n_words = (int64_t)(c->n_bytes / sizeof(uint64_t))};
    double best = 1e9;

    for (int i = 0; i < REPEATS; i++) {
        const int64_t start = tsr_clock_ns();
        double seconds;

        tsr_cpu_pool_run(tsr_device_pool(dev), read_words, &r);
        seconds = (double)(tsr_clock_ns() - start) * 1e-9;
        best = seconds < best ? seconds : best;
    }
    return best;
}

int main(int argc, char **argv)
{
    const int n_threads = argc > 1 ? atoi(argv[1]) : 2;
    const int n_rows = argc > 2 ? atoi(argv[2]) : 512;
    const tsr_ops_limits limits = {CONTEXT, N_HEADS * HEAD_DIM, N_HEADS, HEAD_DIM, CONTEXT, 1, 0};
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = n_threads};
    float *q = tsr_alloc(CONTEXT * N_HEADS * HEAD_DIM, sizeof(float));
    float *out = tsr_alloc(CONTEXT * N_HEADS * HEAD_DIM, sizeof(float));
    tsr_device *dev;

    must(tsr_device_open(&dev, &options));
    must(
        tsr_device_reserve_scratch(dev, tsr_ops_scratch_bytes(TSR_DEVICE_CPU, n_threads, &limits)));
    (void)printf("%s\n", tsr_device_describe(dev));
    for (int block_tokens = 16; block_tokens <= 64; block_tokens *= 4) {
        for (int type = TSR_KV_TYPE_F32; type < TSR_KV_TYPE_COUNT; type++) {
            const double macs = 0.5 * n_rows * (n_rows + 1.0) * N_HEADS * HEAD_DIM * 2 * N_LAYERS;
            cache c;
            double read;
            double decode;
            double near;
            double prompt;

            open_cache(&c, dev, block_tokens, (tsr_kv_type)type);
            read = plain_read(dev, &c);
            decode = attend(dev, &c, CONTEXT - 1, 1, q, out);
            near = attend(dev, &c, 255, 1, q, out);
            prompt = attend(dev, &c, 0, n_rows, q, out);
            (void)printf(
                "blocks of %d, %s: read %.1f GB/s; decode at %d %.2f ms, %.1f GB/s (%.0f %%); "
                "at 256 %.3f ms; prompt of %d %.1f ms, %.1f GFLOP/s\n",
                block_tokens, tsr_kv_type_name((tsr_kv_type)type), (double)c.n_bytes / read * 1e-9,
                CONTEXT, decode * 1e3, (double)c.n_bytes / decode * 1e-9, read / decode * 100,
                near * 1e3, n_rows, prompt * 1e3, 2 * macs / prompt * 1e-9);
            (void)printf("  rows at %d, ms:", CONTEXT);
            for (int i = 0; i < (int)(sizeof(few_rows) / sizeof(few_rows[0])); i++) {
                (void)printf(" %d: %.2f", few_rows[i],
                             attend(dev, &c, CONTEXT - few_rows[i], few_rows[i], q, out) * 1e3);
            }
            (void)printf("\n");
            tsr_device_free(dev, c.view.pool, c.n_bytes);
        }
    }
    tsr_device_close(dev);
    tsr_free(q);
    tsr_free(out);
    return 0;
}
