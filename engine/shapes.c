#include "engine/shapes.h"

#include <stdio.h>
#include <string.h>

#include "engine/config_read.h"
#include "engine/family.h"

enum {
    LIST_BYTES = 512
};

typedef struct known {
    const char *name;
    int n_layers;
    int n_heads;
    int n_kv_heads;
    int head_dim;
    int64_t dim;
    int64_t ff_dim; /* or of an expert */
    int64_t n_vocab;
    int context;
    bool tied_head;
    const char *family; /* as config.json calls it; NULL: "llama" */
    int n_experts;
    int n_used; /* experts that a token takes */
    int window; /* positions that layers see, but for each window_period-th, which sees all */
    int window_period;
} known;

// name, layers, heads, KV heads, head dim, dim, feed-forward, vocabulary, context
static const known shapes[] = {
    {"llama-2-7b", 32, 32, 32, 128, 4096, 11008, 32000, 4096, .tied_head = false},
    {"llama-2-13b", 40, 40, 40, 128, 5120, 13824, 32000, 4096, .tied_head = false},
    {"llama-2-70b", 80, 64, 8, 128, 8192, 28672, 32000, 4096, .tied_head = false},
    {"llama-3-8b", 32, 32, 8, 128, 4096, 14336, 128256, 8192, .tied_head = false},
    {"llama-3-70b", 80, 64, 8, 128, 8192, 28672, 128256, 8192, .tied_head = false},
    {"llama-3.1-8b", 32, 32, 8, 128, 4096, 14336, 128256, 131072, .tied_head = false},
    {"llama-3.1-70b", 80, 64, 8, 128, 8192, 28672, 128256, 131072, .tied_head = false},
    {"llama-3.1-405b", 126, 128, 8, 128, 16384, 53248, 128256, 131072, .tied_head = false},
    {"llama-3.2-1b", 16, 32, 8, 64, 2048, 8192, 128256, 131072, .tied_head = true},
    {"llama-3.2-3b", 28, 24, 8, 128, 3072, 8192, 128256, 131072, .tied_head = true},
    {"falcon-7b", 32, 71, 1, 64, 4544, 18176, 65024, 2048, .tied_head = true, .family = "falcon"},
    {"gemma-2-9b", 42, 16, 8, 256, 3584, 14336, 256000, 8192, true, .family = "gemma2",
     .window = 4096, .window_period = 2},
    {"gemma-3-27b", 62, 32, 16, 128, 5376, 21504, 262208, 131072, true, .family = "gemma3_text",
     .window = 1024, .window_period = 6},
    {"mistral-7b", 32, 32, 8, 128, 4096, 14336, 32000, 32768, .tied_head = false},
    {"mixtral-8x7b", 32, 32, 8, 128, 4096, 14336, 32000, 32768, .family = "mixtral", .n_experts = 8,
     .n_used = 2},
    {"qwen2.5-0.5b", 24, 14, 2, 64, 896, 4864, 151936, 32768, true, .family = "qwen2"},
    {"qwen2.5-1.5b", 28, 12, 2, 128, 1536, 8960, 151936, 32768, true, .family = "qwen2"},
    {"qwen2.5-3b", 36, 16, 2, 128, 2048, 11008, 151936, 32768, true, .family = "qwen2"},
    {"qwen2.5-7b", 28, 28, 4, 128, 3584, 18944, 152064, 32768, .family = "qwen2"},
    {"qwen2.5-14b", 48, 40, 8, 128, 5120, 13824, 152064, 32768, .family = "qwen2"},
    {"qwen2.5-32b", 64, 40, 8, 128, 5120, 27648, 152064, 32768, .family = "qwen2"},
    {"qwen2.5-72b", 80, 64, 8, 128, 8192, 29568, 152064, 32768, .family = "qwen2"},
    {"smollm2-135m", 30, 9, 3, 64, 576, 1536, 49152, 8192, .tied_head = true},
    {"smollm2-1.7b", 24, 32, 32, 64, 2048, 8192, 49152, 8192, .tied_head = true},
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

static tsr_status fill(tsr_config *config, const known *k)
{
    const char *name = k->family == NULL ? "llama" : k->family;
    const tsr_family *family = tsr_family_of_hf(name, strlen(name));

    config->n_layers = k->n_layers;
    TSR_TRY(tsr_config_begin(config, family));
    config->shape = (tsr_shard_shape){
        .n_heads = k->n_heads,
        .n_kv_heads = k->n_kv_heads,
        .head_dim = k->head_dim,
        .dim = k->dim,
        .ff_dim = k->ff_dim,
        .n_vocab = k->n_vocab,
        .n_experts = k->n_experts,
        .expert_ff = k->n_experts > 0 ? k->ff_dim : 0,
    };
    config->context = k->context;
    config->norm_eps = 1e-5F;
    config->n_rot = k->head_dim;
    config->n_ropes = 1;
    config->tied_head = k->tied_head;
    config->routing.n_used = k->n_used;
    if (config->parallel) {
        config->roles &= ~TSR_ROLE_BIT(TSR_ROLE_FF_NORM); // attention's serves both
    }
    for (int layer = 0; layer < k->n_layers; layer++) {
        config->layers[layer].experts = k->n_experts > 0;
        if (k->window > 0 && (layer + 1) % k->window_period != 0) {
            config->layers[layer].window = k->window;
        }
    }
    return tsr_config_finish(config);
}

tsr_status tsr_shapes_find(tsr_config *config, const char *name)
{
    for (int i = 0; i < N_SHAPES; i++) {
        if (strcmp(shapes[i].name, name) == 0) {
            tsr_config made = {0};
            const tsr_status st = fill(&made, &shapes[i]);

            if (st != TSR_OK) {
                tsr_config_clear(&made);
                return st;
            }
            *config = made;
            return TSR_OK;
        }
    }
    return complain(name);
}

const char *tsr_shapes_name(int i)
{
    return i >= 0 && i < N_SHAPES ? shapes[i].name : NULL;
}
