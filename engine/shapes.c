#include "engine/shapes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    LIST_BYTES = 512
};

typedef struct known {
    const char *name;
    int n_layers;
    tsr_shard_shape shape;
    int context;
    bool tied_head;
    bool qkv_bias;
    bool ungated;
} known;

static const tsr_family family = {.architecture = "shape", .rope_pairs = TSR_ROPE_HALVES};

// name, layers, {heads, KV heads, head dim, dim, feed-forward, vocabulary}, context
static const known shapes[] = {
    {"llama-2-7b", 32, {32, 32, 128, 4096, 11008, 32000}, 4096, .tied_head = false},
    {"llama-2-13b", 40, {40, 40, 128, 5120, 13824, 32000}, 4096, .tied_head = false},
    {"llama-2-70b", 80, {64, 8, 128, 8192, 28672, 32000}, 4096, .tied_head = false},
    {"llama-3-8b", 32, {32, 8, 128, 4096, 14336, 128256}, 8192, .tied_head = false},
    {"llama-3-70b", 80, {64, 8, 128, 8192, 28672, 128256}, 8192, .tied_head = false},
    {"llama-3.1-8b", 32, {32, 8, 128, 4096, 14336, 128256}, 131072, .tied_head = false},
    {"llama-3.1-70b", 80, {64, 8, 128, 8192, 28672, 128256}, 131072, .tied_head = false},
    {"llama-3.1-405b", 126, {128, 8, 128, 16384, 53248, 128256}, 131072, .tied_head = false},
    {"llama-3.2-1b", 16, {32, 8, 64, 2048, 8192, 128256}, 131072, .tied_head = true},
    {"llama-3.2-3b", 28, {24, 8, 128, 3072, 8192, 128256}, 131072, .tied_head = true},
    {"falcon-7b", 32, {71, 1, 64, 4544, 18176, 65024}, 2048, .tied_head = true, .ungated = true},
    {"mistral-7b", 32, {32, 8, 128, 4096, 14336, 32000}, 32768, .tied_head = false},
    {"qwen2.5-0.5b", 24, {14, 2, 64, 896, 4864, 151936}, 32768, true, .qkv_bias = true},
    {"qwen2.5-1.5b", 28, {12, 2, 128, 1536, 8960, 151936}, 32768, true, .qkv_bias = true},
    {"qwen2.5-3b", 36, {16, 2, 128, 2048, 11008, 151936}, 32768, true, .qkv_bias = true},
    {"qwen2.5-7b", 28, {28, 4, 128, 3584, 18944, 152064}, 32768, .qkv_bias = true},
    {"qwen2.5-14b", 48, {40, 8, 128, 5120, 13824, 152064}, 32768, .qkv_bias = true},
    {"qwen2.5-32b", 64, {40, 8, 128, 5120, 27648, 152064}, 32768, .qkv_bias = true},
    {"qwen2.5-72b", 80, {64, 8, 128, 8192, 29568, 152064}, 32768, .qkv_bias = true},
    {"smollm2-135m", 30, {9, 3, 64, 576, 1536, 49152}, 8192, .tied_head = true},
    {"smollm2-1.7b", 24, {32, 32, 64, 2048, 8192, 49152}, 8192, .tied_head = true},
};

enum {
    N_SHAPES = sizeof(shapes) / sizeof(shapes[0])
};

static tsr_status complain(const char *name)
{
    char list[LIST_BYTES] = "";
    size_t used = 0;

    for (int i = 0; i < N_SHAPES && used < sizeof(list); i++) {
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "",
                                 shapes[i].name);
    }
    return tsr_fail(TSR_ERR_ARG, "no shape is called '%.60s'; known are %s", name, list);
}

tsr_status tsr_shapes_find(tsr_config *config, tsr_weights_outline *outline, const char *name)
{
    for (int i = 0; i < N_SHAPES; i++) {
        const known *k = &shapes[i];

        if (strcmp(k->name, name) == 0) {
            *config = (tsr_config){
                .family = &family,
                .n_layers = k->n_layers,
                .shape = k->shape,
                .context = k->context,
                .norm_eps = 1e-5F,
                .n_rot = k->shape.head_dim,
                .rope_base = 10000,
                .rope_factor = 1,
                .rope_magnitude = 1,
                .attention_scale = (float)(1 / sqrt((double)k->shape.head_dim)),
                .tied_head = k->tied_head,
            };
            outline->qkv_bias = k->qkv_bias;
            outline->gated = !k->ungated;
            return TSR_OK;
        }
    }
    return complain(name);
}

const char *tsr_shapes_name(int i)
{
    return i >= 0 && i < N_SHAPES ? shapes[i].name : NULL;
}
