#include "engine/config_read.h"
#include "engine/json_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void require(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

/* What everything behind the config trusts. */
static void look_at(const tsr_config *c)
{
    int n_kv_layers = 0;

    require(tsr_shard_check(&c->shape) == TSR_OK, "the shape can be split");
    require(c->n_rot >= 0 && c->n_rot % 2 == 0 && c->n_rot + c->rope_first <= c->shape.head_dim,
            "what turns lies in a head");
    for (int i = 0; i < c->n_layers; i++) {
        const tsr_layer_config *l = &c->layers[i];

        n_kv_layers += l->makes_kv;
        require(l->kv_layer >= 0 && l->kv_layer < c->n_kv_layers, "a layer reads what is there");
        require(l->group >= 0 && l->group < c->n_groups && l->group_layer >= 0 &&
                    l->group_layer < c->group_layers,
                "a layer has a place in a block");
        require(c->reach[l->group] == 0 || (l->window > 0 && l->window <= c->reach[l->group]),
                "what a layer sees is kept");
        require(l->rope < c->n_ropes && (l->rope < 0 || c->ropes[l->rope].frequencies != NULL),
                "a layer turns by a rope that is there");
        require(l->window >= 0 && l->stride >= 0 && l->local >= 0, "windows are not negative");
        require(l->scale > 0 && isfinite(l->scale), "scores are scaled");
    }
    require(c->n_groups >= 1 && c->n_groups <= TSR_CONFIG_GROUPS &&
                c->n_groups * c->group_layers >= c->n_kv_layers,
            "blocks have room for all layers");
    require(c->embed_dim >= 1 && c->qkv_clip >= 0, "the embedding has a width, a clip a size");
    require(n_kv_layers == c->n_kv_layers, "the cache has the layers that make keys");
    require(c->shape.n_experts == 0 ||
                (c->routing.n_used >= 1 && c->routing.n_used <= c->shape.n_experts),
            "a token takes some of the experts");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    json_t *json = NULL;
    tsr_config config = {0};

    tsr_log_set_level(TSR_LOG_ERROR);
    if (tsr_json_file_parse(&json, bytes, n_bytes, "config.json") == TSR_OK) {
        const tsr_hf_keys keys = {json, "config.json"};

        if (tsr_config_read_keys(&config, &keys) == TSR_OK) {
            look_at(&config);
        } else {
            require(strlen(tsr_status_message()) > 10, "a refusal says why");
        }
        tsr_config_clear(&config);
    }
    json_decref(json);
    return 0;
}
