#include "engine/engine.h"

#include <stdio.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/remote/remote.h"

/* ---- making ------------------------------------------------------------------------------------
 */

/* Everything that this rank can do or fail to do on its own. */
static tsr_status load_alone(tsr_engine *e, const tsr_engine_options *options)
{
    const tsr_config *config;

    tsr_world_note(e->world, "opening the model", -1);
    TSR_TRY(tsr_world_is_leader(e->world) ? tsr_model_open(&e->model, options->model_path)
                                          : tsr_model_open_mute(&e->model, options->model_path));
    config = tsr_model_config(e->model);
    e->shard = tsr_shard_of(&config->shape, tsr_world_rank(e->world), tsr_world_size(e->world));
    TSR_TRY(tsr_device_open(&e->dev, &e->settings.device));
    TSR_TRY(tsr_settings_resolve(&e->settings, options, config, &e->shard,
                                 tsr_world_host_size(e->world)));
    tsr_world_note(e->world, "loading weights", -1);
    return tsr_weights_load(&e->weights, e->dev, tsr_model_checkpoint(e->model), config, &e->shard,
                            e->settings.weights_as);
}

/* The cache, and all that is sized by it: after the ranks have agreed how many blocks there are. */
static tsr_status make_cache(tsr_engine *e)
{
    const tsr_config *config = tsr_model_config(e->model);
    const tsr_settings *s = &e->settings;
    const tsr_kv_store_options store = tsr_settings_store(s, config, &e->shard);
    const tsr_step_limits limits = tsr_settings_step_limits(s, config);
    tsr_decoder_parts parts;

    TSR_TRY(tsr_kv_store_create(&e->store, e->dev, &store));
    parts = (tsr_decoder_parts){
        .dev = e->dev,
        .comm = e->comm,
        .config = config,
        .shard = &e->shard,
        .weights = &e->weights,
        .kv = e->store,
        .activations = s->activations,
        .max_rows = s->max_batch_tokens,
        .max_seqs = s->max_sequences,
        .context = s->context,
        .no_graphs = s->no_graphs,
    };
    TSR_TRY(tsr_runner_create(&e->runner, &parts, e->store, &limits, tsr_world_size(e->world)));
    TSR_TRY(tsr_step_init(&e->step, &limits));
    TSR_TRY(tsr_turn_prepare(e));
    return tsr_world_is_leader(e->world) ? tsr_leader_create(&e->leader, e) : TSR_OK;
}

/* Weight bytes that one token's matrices read on all ranks. The embedding gives one row and does
 * not count, unless it is the head too. */
static uint64_t token_bytes(const tsr_engine *e)
{
    const tsr_config *config = tsr_model_config(e->model);
    const tsr_checkpoint *checkpoint = tsr_model_checkpoint(e->model);
    const int n_ranks = tsr_world_size(e->world);
    uint64_t n_bytes = 0;

    for (int rank = 0; rank < n_ranks; rank++) {
        const tsr_shard shard = tsr_shard_of(&config->shape, rank, n_ranks);
        size_t rank_bytes = 0;

        if (tsr_weights_measure(&rank_bytes, checkpoint, config, &shard, e->settings.weights_as,
                                tsr_device_kind_of(e->dev)) == TSR_OK) {
            n_bytes += rank_bytes;
        }
    }
    return config->tied_head ? n_bytes
                             : n_bytes - tsr_weight_bytes(e->weights.embed.weight.format,
                                                          config->shape.n_vocab, config->shape.dim);
}

tsr_status tsr_engine_create(tsr_engine **out, tsr_world *world, const tsr_engine_options *options)
{
    const int64_t began = tsr_clock_ns();
    tsr_engine *e = tsr_alloc(1, sizeof(*e));
    tsr_status st = TSR_OK;

    if (e == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for an engine");
    }
    e->world = world;
    e->drain_ns = (int64_t)(options->drain_s * 1e9);
    if (world == NULL) {
        TSR_TRY_GOTO(st, fail, tsr_world_open(&e->world));
        e->owns_world = true;
    }
    TSR_TRY_GOTO(st, fail, tsr_settings_place(&e->settings, e->world, options));
    TSR_TRY_GOTO(st, fail, tsr_world_agree(e->world, load_alone(e, options)));
    // The rank with the least room decides for all; what decides is the same on every rank from
    // here on.
    TSR_TRY_GOTO(st, fail, tsr_settings_agree(&e->settings, e->world));
    TSR_TRY_GOTO(st, fail,
                 tsr_comm_create(&e->comm, e->world, e->dev,
                                 (size_t)e->settings.max_batch_tokens *
                                     (size_t)tsr_model_config(e->model)->shape.dim));
    TSR_TRY_GOTO(st, fail, tsr_world_agree(e->world, make_cache(e)));
    e->token_bytes = token_bytes(e);
    e->load_s = (double)(tsr_clock_ns() - began) / 1e9;
    e->stopped = tsr_world_size(e->world) == 1;
    tsr_world_note(e->world, "waiting for work", -1);
    *out = e;
    return TSR_OK;

fail:
    e->stopped = true; // nobody follows yet
    tsr_engine_destroy(e);
    return st;
}

void tsr_engine_destroy(tsr_engine *e)
{
    if (e == NULL) {
        return;
    }
    if (e->remote != NULL) {
        tsr_remote_destroy(e->remote);
        tsr_model_close(e->model);
        tsr_free(e);
        return;
    }
    if (!e->stopped && tsr_world_is_leader(e->world) && tsr_engine_stop(e) != TSR_OK) {
        tsr_log_error("the followers could not be told to end: %s", tsr_status_message());
    }
    tsr_leader_destroy(e->leader);
    tsr_turn_forget(e);
    tsr_step_clear(&e->step);
    tsr_runner_destroy(e->runner);
    tsr_kv_store_destroy(e->store);
    tsr_comm_destroy(e->comm);
    tsr_weights_clear(&e->weights);
    tsr_device_close(e->dev);
    tsr_model_close(e->model);
    if (e->owns_world) {
        tsr_world_close(e->world);
    }
    tsr_free(e);
}

bool tsr_engine_is_leader(const tsr_engine *e)
{
    return e->remote != NULL || tsr_world_is_leader(e->world);
}

bool tsr_engine_is_serving(const tsr_engine *e)
{
    return e->remote == NULL || tsr_remote_is_serving(e->remote);
}

void tsr_engine_wake(tsr_engine *e)
{
    if (e->remote != NULL) {
        tsr_remote_wake(e->remote);
    }
}

const tsr_model *tsr_engine_model(const tsr_engine *e)
{
    return e->model;
}

/* ---- what it is and can do ---------------------------------------------------------------------
 */

static tsr_engine_stats describe_rank(const tsr_engine *e)
{
    const tsr_config *config = tsr_model_config(e->model);
    const tsr_shard_shape *shape = &config->shape;
    const tsr_kv_layout layout = tsr_settings_kv_layout(&e->settings, config, &e->shard);
    const tsr_block_groups groups = tsr_settings_groups(&e->settings, config);
    const int64_t q_dim = (int64_t)shape->n_heads * shape->head_dim;
    const int64_t kv_dim = (int64_t)shape->n_kv_heads * shape->head_dim;
    tsr_kv_layout whole = layout;
    const int64_t layer_macs = shape->dim * (2 * q_dim + 2 * kv_dim + 3 * shape->ff_dim);

    whole.n_kv_heads = (int)shape->n_kv_heads;
    return (tsr_engine_stats){
        .n_ranks = tsr_world_size(e->world),
        .n_threads = e->settings.device.n_threads,
        .device = tsr_device_describe(e->dev),
        .on_gpu = !tsr_device_is_host(e->dev),
        .comm = tsr_comm_describe(e->comm),
        .load_s = e->load_s,
        .weight_bytes = e->weights.n_bytes,
        .kv_block_bytes = tsr_kv_layout_block_bytes(&layout),
        .block_tokens = e->settings.block_tokens,
        .n_blocks = e->settings.n_blocks,
        .n_lower_blocks = e->settings.room.n_host + e->settings.room.n_disk,
        .n_blocks_free = e->leader == NULL ? 0 : tsr_leader_n_free_blocks(e->leader),
        .context = e->settings.context,
        .longest = tsr_block_groups_longest(
            &groups, e->settings.room.n_device + e->settings.room.n_host, e->settings.context),
        .token_bytes = e->token_bytes,
        .token_macs = (uint64_t)(config->n_layers * layer_macs),
        .head_macs = (uint64_t)(shape->n_vocab * shape->dim),
        .kv_token_bytes = tsr_kv_layout_block_bytes(&whole) * (uint64_t)config->n_groups /
                          (uint64_t)whole.block_tokens,
        .n_steps = e->n_steps,
        .n_preempted = e->leader == NULL ? 0 : tsr_leader_n_preempted(e->leader),
        .block_fill = e->leader == NULL ? 0 : tsr_leader_block_fill(e->leader),
        .step_s = (double)e->step_ns / 1e9,
        .host_s = (double)(e->step_ns - e->ranks_ns) / 1e9,
    };
}

tsr_engine_stats tsr_engine_describe(const tsr_engine *e)
{
    return e->remote != NULL ? tsr_remote_describe(e->remote) : describe_rank(e);
}

tsr_status tsr_engine_device_at(int i, tsr_engine_device *out)
{
    const tsr_device_options options = {.kind = i == 0 ? TSR_DEVICE_CPU : TSR_DEVICE_CUDA,
                                        .index = i == 0 ? 0 : i - 1,
                                        .n_threads = 1};
    tsr_device *device = NULL;

    if (i < 0 || i > tsr_device_gpus()) {
        return tsr_fail(TSR_ERR_ARG, "device %d; there are %d", i, 1 + tsr_device_gpus());
    }
    TSR_TRY(tsr_device_open(&device, &options));
    (void)snprintf(out->name, sizeof(out->name), "%s", tsr_device_describe(device));
    tsr_device_close(device);
    out->free_bytes = tsr_device_free_bytes(options.kind, options.index);
    return TSR_OK;
}

const char *tsr_tessera_version(void)
{
    return TSR_TESSERA_VERSION;
}

int tsr_tessera_abi(void)
{
    return TSR_TESSERA_ABI;
}

const char *tsr_tessera_message(void)
{
    return tsr_status_message();
}

void tsr_tessera_free(void *memory)
{
    tsr_free(memory);
}
