#include "engine/settings.h"

#include <math.h>
#include <string.h>

#include "kv/block_table.h"

enum {
    DEFAULT_BATCH_TOKENS = 512,
    DEFAULT_SEQUENCES = 64,
    DEFAULT_BLOCK_TOKENS = 16, // as fast as 64 (bench_attention), and a fifth of the waste
    MOST_BATCH_TOKENS = 1 << 16,
    MOST_SEQUENCES = 4096,
    MOST_ITL_MS = 1000000
};

/* All ranks compute on devices of one kind. Ranks of a host share its GPUs out by their number. */
static tsr_status choose_device(tsr_device_kind *kind, int *index, tsr_world *world,
                                const char *wanted)
{
    const int n_gpus = tsr_device_gpus();
    int64_t least = n_gpus;

    TSR_TRY(tsr_world_min(world, &least));
    if (wanted == NULL || strcmp(wanted, "auto") == 0) {
        *kind = least > 0 ? TSR_DEVICE_CUDA : TSR_DEVICE_CPU;
    } else if (strcmp(wanted, "cpu") == 0) {
        *kind = TSR_DEVICE_CPU;
    } else if (strcmp(wanted, "cuda") == 0) {
        *kind = TSR_DEVICE_CUDA;
    } else {
        return tsr_fail(TSR_ERR_ARG, "device \"%s\"; known are auto, cpu and cuda", wanted);
    }
    *index = n_gpus > 0 ? tsr_world_host_rank(world) % n_gpus : 0;
    return TSR_OK;
}

tsr_status tsr_settings_place(tsr_settings *settings, tsr_world *world,
                              const tsr_engine_options *options)
{
    tsr_device_kind kind = TSR_DEVICE_CPU;
    int index = 0;

    TSR_TRY(tsr_placement_find(&settings->placement, world, options->n_threads));
    TSR_TRY(choose_device(&kind, &index, world, options->device));
    settings->device = (tsr_device_options){
        .kind = kind,
        .index = index,
        .n_threads = settings->placement.n_threads,
        .deterministic = options->deterministic,
        .cpus = settings->placement.n_cpus > 0 ? settings->placement.cpus : NULL,
    };
    return TSR_OK;
}

static tsr_status take_count(int *out, const char *name, int64_t value, int fallback, int64_t most)
{
    if (value < 0 || value > most) {
        return tsr_fail(TSR_ERR_ARG, "%s is %lld; it must lie in 1..%lld", name, (long long)value,
                        (long long)most);
    }
    *out = value == 0 ? fallback : (int)value;
    return TSR_OK;
}

tsr_status tsr_settings_weights(tsr_format *out, const char *dtype, const char *quantize)
{
    static const struct {
        const char *name;
        tsr_format format;
        bool fewer;
    } known[] = {
        {"auto", TSR_FORMAT_COUNT, false}, {"f32", TSR_FORMAT_F32, false},
        {"f16", TSR_FORMAT_F16, false},    {"bf16", TSR_FORMAT_BF16, false},
        {"int8", TSR_FORMAT_Q8, true},     {"int4", TSR_FORMAT_Q4, true},
        {"fp8", TSR_FORMAT_FP8, true},
    };
    const char *name = quantize != NULL ? quantize : dtype != NULL ? dtype : "auto";

    if (quantize != NULL && dtype != NULL && strcmp(dtype, "auto") != 0) {
        return tsr_fail(TSR_ERR_ARG, "weights cannot become both %s and %s", dtype, quantize);
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(name, known[i].name) == 0 && known[i].fewer == (quantize != NULL)) {
            *out = known[i].format;
            return TSR_OK;
        }
    }
    return tsr_fail(TSR_ERR_ARG, "weights of type \"%s\"; known are %s", name,
                    quantize != NULL ? "int8, int4 and fp8" : "auto, f32, f16 and bf16");
}

/* Blocks that this rank has room for. */
static tsr_status count_blocks(tsr_settings *s, const tsr_engine_options *options,
                               const tsr_config *config, const tsr_shard *shard, int host_size)
{
    const tsr_kv_layout layout = tsr_settings_kv_layout(s, config, shard);
    const tsr_block_groups groups = tsr_settings_groups(s, config);
    // Every sequence as long as it may become, and the rows of a step.
    const int64_t n_all =
        tsr_block_table_blocks_for(s->context, s->block_tokens) * groups.n * s->max_sequences;
    const int64_t n_seen =
        tsr_block_groups_most(&groups, s->context, 0) * s->max_sequences +
        tsr_block_table_blocks_for(s->max_batch_tokens, s->block_tokens) * groups.n;
    const int64_t n_useful = n_seen < n_all ? n_seen : n_all;

    TSR_TRY(tsr_kv_layout_check(&layout));
    s->disk_folder = options->kv_disk_folder == NULL ? "/tmp" : options->kv_disk_folder;
    return tsr_tier_room_count(&s->own, options, &s->device, tsr_kv_layout_block_bytes(&layout),
                               config->n_groups, n_useful, host_size);
}

tsr_status tsr_settings_choose(tsr_settings *s, const tsr_engine_options *options,
                               const tsr_config *config)
{
    const char *activations = options->activations == NULL ? "int8" : options->activations;
    const char *preempt = options->preempt == NULL ? "auto" : options->preempt;

    if (options->context < 0 || options->context > INT32_MAX / 2) {
        return tsr_fail(TSR_ERR_ARG, "a context of %lld positions", (long long)options->context);
    }
    s->context = options->context == 0 ? config->context : options->context;
    TSR_TRY(take_count(&s->max_batch_tokens, "max_batch_tokens", options->max_batch_tokens,
                       DEFAULT_BATCH_TOKENS, MOST_BATCH_TOKENS));
    TSR_TRY(take_count(&s->max_sequences, "max_sequences", options->max_sequences,
                       DEFAULT_SEQUENCES, MOST_SEQUENCES));
    TSR_TRY(take_count(&s->max_queue, "max_queue", options->max_queue, 0, INT32_MAX));
    if (!(options->target_itl_ms >= 0 && options->target_itl_ms <= MOST_ITL_MS)) {
        return tsr_fail(TSR_ERR_ARG, "target_itl_ms is %g; it must lie in 0..%d",
                        options->target_itl_ms, MOST_ITL_MS);
    }
    s->plans_ahead =
        options->plan_ahead > 0 || (options->plan_ahead == 0 && s->device.kind != TSR_DEVICE_CPU);
    s->target_itl_us = (int64_t)ceil(options->target_itl_ms * 1e3);
    if (s->max_sequences > s->max_batch_tokens) {
        s->max_sequences =
            s->max_batch_tokens; // every running sequence has at least one row in a step
    }
    s->block_tokens = options->block_tokens == 0 ? DEFAULT_BLOCK_TOKENS : options->block_tokens;
    if (s->block_tokens != 16 && s->block_tokens != 32 && s->block_tokens != 64) {
        return tsr_fail(TSR_ERR_ARG, "blocks of %d tokens; they may have 16, 32 or 64",
                        s->block_tokens);
    }
    s->prefix_cache = !options->no_prefix_cache;
    s->no_graphs = options->no_graphs;
    if (strcmp(preempt, "auto") == 0) {
        s->preempt = TSR_PREEMPT_AUTO;
    } else if (strcmp(preempt, "swap") == 0) {
        s->preempt = TSR_PREEMPT_SWAP;
    } else if (strcmp(preempt, "recompute") == 0) {
        s->preempt = TSR_PREEMPT_RECOMPUTE;
    } else {
        return tsr_fail(TSR_ERR_ARG, "preempt \"%s\"; known are auto, swap and recompute", preempt);
    }
    s->kv_type = TSR_KV_TYPE_F16;
    if (options->kv_dtype != NULL && !tsr_kv_type_parse(&s->kv_type, options->kv_dtype)) {
        return tsr_fail(TSR_ERR_ARG, "keys and values of type \"%s\"; known are " TSR_KV_TYPE_NAMES,
                        options->kv_dtype);
    }
    if (strcmp(activations, "int8") == 0) {
        s->activations = TSR_ACTIVATIONS_INT8;
    } else if (strcmp(activations, "f32") == 0) {
        s->activations = TSR_ACTIVATIONS_F32;
    } else {
        return tsr_fail(TSR_ERR_ARG, "activations of type \"%s\"; known are int8 and f32",
                        activations);
    }
    return tsr_settings_weights(&s->weights_as, options->dtype, options->quantize);
}

tsr_status tsr_settings_resolve(tsr_settings *s, const tsr_engine_options *options,
                                const tsr_config *config, const tsr_shard *shard, int host_size)
{
    TSR_TRY(tsr_settings_choose(s, options, config));
    return count_blocks(s, options, config, shard, host_size);
}

tsr_status tsr_settings_agree(tsr_settings *s, tsr_world *world)
{
    TSR_TRY(tsr_tier_room_agree(&s->room, &s->own, world));
    s->used = tsr_tier_room_used(&s->own, &s->room);
    s->n_blocks = tsr_tier_room_n_ids(&s->room);
    return TSR_OK;
}

tsr_step_limits tsr_settings_step_limits(const tsr_settings *s, const tsr_config *config)
{
    return (tsr_step_limits){
        .max_rows = s->max_batch_tokens,
        .max_seqs = s->max_sequences,
        .max_blocks = (int)tsr_block_table_blocks_for(s->context, s->block_tokens),
        .n_groups = config->n_groups,
        .block_tokens = s->block_tokens,
        .n_block_ids = s->n_blocks,
        .n_vocab = (int)config->shape.n_vocab,
    };
}

tsr_kv_store_options tsr_settings_store(const tsr_settings *s, const tsr_config *config,
                                        const tsr_shard *shard)
{
    return (tsr_kv_store_options){
        .layout = tsr_settings_kv_layout(s, config, shard),
        .n_ids = s->n_blocks,
        .n_device = s->used.n_device,
        .is_tiered = s->used.is_tiered,
        .n_host = s->used.n_host,
        .n_disk = s->used.n_disk,
        .folder = s->disk_folder,
        .n_lanes = s->max_sequences,
        .n_groups = config->n_groups,
        .max_blocks = (int)tsr_block_table_blocks_for(s->context, s->block_tokens),
    };
}

tsr_block_groups tsr_settings_groups(const tsr_settings *s, const tsr_config *config)
{
    tsr_block_groups groups = {.n = config->n_groups, .block_tokens = s->block_tokens};

    for (int g = 0; g < groups.n; g++) {
        groups.behind[g] = tsr_block_groups_behind(config->reach[g], s->block_tokens);
    }
    return groups;
}

tsr_kv_layout tsr_settings_kv_layout(const tsr_settings *s, const tsr_config *config,
                                     const tsr_shard *shard)
{
    return (tsr_kv_layout){
        .n_layers = config->group_layers,
        .n_kv_heads = (int)shard->kv_heads.count,
        .key_dim = tsr_config_key_dim(config),
        .value_dim = tsr_config_value_dim(config),
        .latent = config->kv_low > 0,
        .block_tokens = s->block_tokens,
        .type = s->kv_type,
    };
}
