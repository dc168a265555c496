#include "engine/settings.h"

#include <math.h>
#include <string.h>

#include "kv/block_table.h"

enum {
    DEFAULT_BATCH_TOKENS = 512,
    DEFAULT_SEQUENCES = 64,
    DEFAULT_BLOCK_TOKENS = 64,
    MOST_BATCH_TOKENS = 1 << 16,
    MOST_SEQUENCES = 4096,
    MOST_BLOCKS = 1 << 22,
    MOST_ITL_MS = 1000000
};

tsr_status tsr_settings_place(tsr_settings *settings, tsr_world *world,
                              const tsr_engine_options *options)
{
    TSR_TRY(tsr_placement_find(&settings->placement, world, options->n_threads));
    settings->device = (tsr_device_options){
        .kind = TSR_DEVICE_CPU,
        .n_threads = settings->placement.n_threads,
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

int64_t tsr_settings_blocks_in(uint64_t n_bytes, size_t block_bytes)
{
    const uint64_t n_blocks = block_bytes > 0 ? n_bytes / block_bytes : MOST_BLOCKS;

    return n_blocks < MOST_BLOCKS ? (int64_t)n_blocks : MOST_BLOCKS;
}

/* Blocks that this rank has room for. */
static tsr_status count_blocks(tsr_settings *s, const tsr_engine_options *options,
                               const tsr_config *config, const tsr_shard *shard,
                               const tsr_device_options *device, int host_size)
{
    const tsr_kv_layout layout = tsr_settings_kv_layout(s, config, shard);
    const size_t block_bytes = tsr_kv_layout_block_bytes(&layout);
    const int64_t a_sequence = tsr_block_table_blocks_for(s->context, s->block_tokens);
    int64_t n_blocks = a_sequence * s->max_sequences; // every sequence as long as it may become

    TSR_TRY(tsr_kv_layout_check(&layout));
    if (block_bytes > 0) { // a rank without KV heads has room for any number
        // By itself the cache takes at most half of what is free, shared among the host's ranks.
        const uint64_t room = options->kv_memory_bytes > 0
                                  ? options->kv_memory_bytes
                                  : tsr_device_free_bytes(device->kind) / 2 / (uint64_t)host_size;
        const int64_t fitting = tsr_settings_blocks_in(room, block_bytes);

        if (fitting == 0) {
            return tsr_fail(TSR_ERR_ARG,
                            "the cache may take %llu bytes a rank and one block of %d tokens takes "
                            "%zu: give --kv-memory "
                            "more or --block-tokens less",
                            (unsigned long long)room, s->block_tokens, block_bytes);
        }
        n_blocks = fitting < n_blocks || options->kv_memory_bytes > 0 ? fitting : n_blocks;
    }
    s->n_blocks = (int)(n_blocks < MOST_BLOCKS ? n_blocks : MOST_BLOCKS);
    return TSR_OK;
}

tsr_status tsr_settings_choose(tsr_settings *s, const tsr_engine_options *options,
                               const tsr_config *config)
{
    const char *activations = options->activations == NULL ? "int8" : options->activations;

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
    s->kv_dtype = TSR_DTYPE_F16;
    if (options->kv_dtype != NULL &&
        (!tsr_dtype_parse(&s->kv_dtype, options->kv_dtype) || s->kv_dtype == TSR_DTYPE_F64 ||
         s->kv_dtype == TSR_DTYPE_I32)) {
        return tsr_fail(TSR_ERR_ARG, "keys and values of type \"%s\"; known are f32, f16 and bf16",
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
    return TSR_OK;
}

tsr_status tsr_settings_resolve(tsr_settings *s, const tsr_engine_options *options,
                                const tsr_config *config, const tsr_shard *shard, int host_size)
{
    TSR_TRY(tsr_settings_choose(s, options, config));
    return count_blocks(s, options, config, shard, &s->device, host_size);
}

tsr_status tsr_settings_fix_blocks(tsr_settings *s, int64_t n_blocks)
{
    if (n_blocks < 1) {
        return tsr_fail(TSR_ERR_ARG, "a rank has no room for even one block of the cache");
    }
    s->n_blocks = (int)n_blocks;
    return TSR_OK;
}

tsr_step_limits tsr_settings_step_limits(const tsr_settings *s, const tsr_config *config)
{
    return (tsr_step_limits){
        .max_rows = s->max_batch_tokens,
        .max_seqs = s->max_sequences,
        .max_blocks = (int)tsr_block_table_blocks_for(s->context, s->block_tokens),
        .block_tokens = s->block_tokens,
        .n_block_ids = s->n_blocks,
        .n_vocab = (int)config->shape.n_vocab,
    };
}

tsr_kv_layout tsr_settings_kv_layout(const tsr_settings *s, const tsr_config *config,
                                     const tsr_shard *shard)
{
    return (tsr_kv_layout){
        .n_layers = config->n_layers,
        .n_kv_heads = (int)shard->kv_heads.count,
        .head_dim = config->shape.head_dim,
        .block_tokens = s->block_tokens,
        .dtype = s->kv_dtype,
    };
}
