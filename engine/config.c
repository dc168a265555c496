#include "engine/config.h"

#include <math.h>

#include "base/alloc.h"
#include "engine/checkpoint.h"
#include "engine/config_read.h"
#include "engine/family.h"

enum {
    MOST_HEAD_DIM = 576
};

tsr_status tsr_config_begin(tsr_config *config, const tsr_family *family)
{
    config->family = family;
    config->norm = family->norm;
    config->norm_plus_one = family->norm_plus_one;
    config->parallel = family->parallel;
    config->activation = family->activation;
    config->tied_head = family->tied;
    config->rope_pairs = family->rope_pairs;
    config->roles = family->roles;
    config->biases = family->biases;
    config->embed_scale = 1;
    config->residual_scale = 1;
    config->logit_scale = 1;
    config->routing.scale = 1;
    for (int i = 0; i < TSR_CONFIG_ROPES; i++) {
        config->ropes[i] = (tsr_rope_turns){
            .base = 10000, .factor = 1, .fast = 32, .slow = 1, .whole_dims = true, .magnitude = 1};
    }
    config->layers = tsr_alloc((size_t)config->n_layers, sizeof(*config->layers));
    if (config->layers == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d layers", config->n_layers);
    }
    for (int i = 0; i < config->n_layers; i++) {
        config->layers[i] =
            (tsr_layer_config){.makes_kv = true,
                               .kv_layer = i,
                               .rope = family->positions == TSR_POSITIONS_ROPE ? 0 : -1};
    }
    config->n_kv_layers = config->n_layers;
    return TSR_OK;
}

static tsr_status check_routing(const tsr_config *c)
{
    const tsr_routing *r = &c->routing;

    if (c->shape.n_experts == 0) {
        return TSR_OK;
    }
    if (r->n_used < 1 || r->n_used > r->n_experts || r->n_experts > TSR_ROUTE_MOST ||
        (r->n_groups > 0 && (r->n_experts % r->n_groups != 0 || r->n_groups_used < 1 ||
                             r->n_groups_used > r->n_groups))) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "a token takes %d of %d experts, from %d of %d groups: that cannot be",
                        r->n_used, r->n_experts, r->n_groups_used, r->n_groups);
    }
    return TSR_OK;
}

/* Which layers have experts in the place of a feed-forward decides which roles the model has. */
static void settle_roles(tsr_config *c)
{
    const uint64_t dense =
        TSR_ROLE_BIT(TSR_ROLE_GATE) | TSR_ROLE_BIT(TSR_ROLE_UP) | TSR_ROLE_BIT(TSR_ROLE_DOWN);
    bool any_dense = false;

    for (int i = 0; i < c->n_layers; i++) {
        any_dense = any_dense || !c->layers[i].experts;
    }
    if (!any_dense) {
        c->roles &= ~dense;
        c->shape.ff_dim = 0;
    }
    tsr_family_set(&c->roles, TSR_ROLE_BIT(TSR_ROLE_HEAD), !c->tied_head);
}

tsr_status tsr_config_finish(tsr_config *c)
{
    const tsr_shard_shape *s = &c->shape;
    const int key_dim = tsr_config_key_dim(c);
    const int value_dim = tsr_config_value_dim(c);

    settle_roles(c);
    c->embed_dim = c->embed_dim > 0 ? c->embed_dim : s->dim;
    c->routing.n_experts = s->n_experts;
    TSR_TRY(check_routing(c));
    if (key_dim < 4 || value_dim < 4 || key_dim > MOST_HEAD_DIM || value_dim > MOST_HEAD_DIM ||
        s->head_dim > MOST_HEAD_DIM) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "heads of %d key and %d value dimensions; 4 to %d are possible", key_dim,
                        value_dim, MOST_HEAD_DIM);
    }
    if (c->n_rot % 2 != 0 || c->n_rot < 0 || c->n_rot + c->rope_first > s->head_dim) {
        return tsr_fail(TSR_ERR_FORMAT, "%d rotary dimensions in heads of %d; %s", c->n_rot,
                        s->head_dim, c->n_rot % 2 != 0 ? "an odd number" : "too many");
    }
    if (!(c->norm_eps >= 0 && c->norm_eps < 1)) {
        return tsr_fail(TSR_ERR_FORMAT, "the norms' epsilon is %g", (double)c->norm_eps);
    }
    if (!(c->qkv_clip >= 0)) {
        return tsr_fail(TSR_ERR_FORMAT, "queries, keys and values are cut to %g",
                        (double)c->qkv_clip);
    }
    if (!(c->attention_cap >= 0 && c->logit_cap >= 0)) {
        return tsr_fail(TSR_ERR_FORMAT, "soft caps of %g and %g", (double)c->attention_cap,
                        (double)c->logit_cap);
    }
    for (int i = 0; i < c->n_layers; i++) {
        tsr_layer_config *layer = &c->layers[i];

        layer->scale = layer->scale == 0 ? (float)(1.0 / sqrt((double)s->head_dim)) : layer->scale;
        if (!(layer->scale > 0 && layer->scale < 1e6F)) {
            return tsr_fail(TSR_ERR_FORMAT, "scores of layer %d are multiplied by %g", i,
                            (double)layer->scale);
        }
    }
    TSR_TRY(tsr_config_groups_find(c));
    return tsr_shard_check(s);
}

int tsr_config_key_dim(const tsr_config *config)
{
    return config->kv_low > 0 ? config->kv_low + config->n_rot : config->shape.head_dim;
}

int tsr_config_value_dim(const tsr_config *config)
{
    return config->kv_low > 0 ? config->kv_low : tsr_shard_value_dim(&config->shape);
}

tsr_status tsr_config_read(tsr_config *config, const tsr_checkpoint *checkpoint)
{
    tsr_config read = {0};
    const tsr_status st = tsr_checkpoint_gguf(checkpoint) != NULL
                              ? tsr_config_read_gguf(&read, tsr_checkpoint_gguf(checkpoint))
                              : tsr_config_read_hf(&read, checkpoint);

    if (st != TSR_OK) {
        tsr_config_clear(&read);
        return st;
    }
    *config = read;
    return TSR_OK;
}

void tsr_config_clear(tsr_config *config)
{
    for (int i = 0; i < TSR_CONFIG_ROPES; i++) {
        tsr_rope_clear(&config->ropes[i]);
    }
    tsr_free(config->slopes);
    tsr_free(config->layers);
    *config = (tsr_config){0};
}
