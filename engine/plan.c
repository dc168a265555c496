/*
 * What a model takes on each rank, before anything is loaded. Every size comes from the function
 * that the code which allocates uses itself; only the looking for what still fits is done here.
 */
#include <string.h>

#include "base/alloc.h"
#include "engine/engine.h"
#include "engine/shapes.h"

/* What is being planned. */
typedef struct draft {
    const tsr_plan_request *request;
    const tsr_config *config; /* the model's, or: */
    tsr_config shape_config;
    tsr_encoding encoding; /* of that one's matrices */
    tsr_tier_room lower;   /* below the device: what all ranks have, n_device being 0 */
    tsr_settings settings;
    int n_ranks;
} draft;

/* One rank of it. */
typedef struct place {
    int rank;
    tsr_shard shard;
    uint64_t weight_bytes;
    tsr_tier_room own; /* n_device being 0 */
} place;

static tsr_status find_encoding(tsr_encoding *out, const char *name)
{
    static const struct {
        const char *name;
        tsr_encoding encoding;
    } known[] = {{"q4", TSR_ENCODING_Q4_1},
                 {"q8", TSR_ENCODING_Q8_0},
                 {"f16", TSR_ENCODING_F16},
                 {"bf16", TSR_ENCODING_BF16}};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(name, known[i].name) == 0) {
            *out = known[i].encoding;
            return TSR_OK;
        }
    }
    return tsr_fail(TSR_ERR_ARG, "weights of the format '%.40s'; known are q4, q8, f16 and bf16",
                    name);
}

static tsr_status begin(draft *d, const tsr_plan_request *request, int n_ranks)
{
    if (n_ranks < 1) {
        return tsr_fail(TSR_ERR_ARG, "a plan for %d ranks", n_ranks);
    }
    if (request->model != NULL) {
        d->config = tsr_model_config(request->model);
    } else if (request->shape != NULL) {
        TSR_TRY(find_encoding(&d->encoding, request->weights != NULL ? request->weights : "bf16"));
        TSR_TRY(tsr_shapes_find(&d->shape_config, request->shape));
        d->config = &d->shape_config;
    } else {
        return tsr_fail(TSR_ERR_ARG, "a plan needs a model or a shape");
    }
    if (request->device_bytes == 0 && request->options.kv_memory_bytes == 0) {
        return tsr_fail(TSR_ERR_ARG, "a plan needs to know how much memory a rank has");
    }
    d->settings.device.n_threads = request->options.n_threads > 0 ? request->options.n_threads : 1;
    return tsr_settings_choose(&d->settings, &request->options, d->config);
}

static tsr_status find_place(place *p, const draft *d, int rank)
{
    const tsr_settings *s = &d->settings;
    size_t weight_bytes;
    tsr_kv_layout layout;

    p->rank = rank;
    p->shard = tsr_shard_of(&d->config->shape, rank, d->n_ranks);
    layout = tsr_settings_kv_layout(s, d->config, &p->shard);
    TSR_TRY(tsr_kv_layout_check(&layout));
    p->own.block_bytes = tsr_kv_layout_block_bytes(&layout);
    p->own.n_groups = d->config->n_groups;
    TSR_TRY(tsr_tier_room_count_lower(&p->own, &d->request->options));
    if (d->request->model == NULL) {
        weight_bytes = tsr_weights_estimate(d->encoding, d->config, &p->shard);
    } else {
        TSR_TRY(tsr_weights_measure(&weight_bytes, tsr_model_checkpoint(d->request->model),
                                    d->config, &p->shard, s->weights_as, TSR_DEVICE_CPU));
    }
    p->weight_bytes = weight_bytes;
    return TSR_OK;
}

/* The settings of a rank that has room for `own` blocks on its device, where all have for `all`. */
static tsr_settings settings_for(const draft *d, const place *p, int64_t context, int64_t own,
                                 int64_t all)
{
    tsr_settings s = d->settings;
    tsr_tier_room room = p->own;

    room.n_device = (int)own;
    s.context = context;
    s.room = d->lower;
    s.room.n_device = (int)all;
    tsr_tier_room_cap(&s.room);
    s.used = tsr_tier_room_used(&room, &s.room);
    s.n_blocks = tsr_tier_room_n_ids(&s.room);
    return s;
}

/* All that the rank holds with these settings. */
static tsr_plan_share measure(const draft *d, const place *p, const tsr_settings *s)
{
    const tsr_step_limits limits = tsr_settings_step_limits(s, d->config);
    const tsr_kv_store_options store = tsr_settings_store(s, d->config, &p->shard);
    const tsr_block_groups groups = tsr_settings_groups(s, d->config);
    const tsr_decoder_parts parts = {
        .config = d->config,
        .shard = &p->shard,
        .max_rows = s->max_batch_tokens,
        .max_seqs = s->max_sequences,
        .context = s->context,
    };

    return (tsr_plan_share){
        .weight_bytes = p->weight_bytes,
        .workspace_bytes = tsr_decoder_measure(&parts, TSR_DEVICE_CPU, s->device.n_threads) +
                           tsr_comm_rank_bytes(d->n_ranks, (size_t)s->max_batch_tokens *
                                                               (size_t)d->config->shape.dim),
        .table_bytes = tsr_weights_table_bytes(d->config, &p->shard) +
                       tsr_kv_store_map_bytes(&store) + tsr_runner_table_bytes(&limits, &p->shard) +
                       tsr_step_table_bytes(&limits) +
                       (p->rank == 0 ? tsr_leader_table_bytes(s, d->config, d->n_ranks) : 0),
        .kv_token_bytes =
            p->own.block_bytes * (uint64_t)d->config->n_groups / (uint64_t)s->block_tokens,
        .kv_sequence_bytes =
            p->own.block_bytes * (uint64_t)tsr_block_groups_most(&groups, d->settings.context, 0),
        .kv_bytes = (uint64_t)s->used.n_device * p->own.block_bytes,
        .host_bytes = tsr_kv_tiers_host_bytes(p->own.block_bytes, s->used.n_host),
    };
}

static uint64_t total(const tsr_plan_share *share)
{
    return share->weight_bytes + share->workspace_bytes + share->table_bytes + share->kv_bytes;
}

/* The most blocks of the device that the rank has room for; 0 when not those that it must have. */
static int64_t most_blocks(const draft *d, const place *p, int64_t context)
{
    const uint64_t device_bytes = d->request->device_bytes;
    const uint64_t kv_bytes = d->request->options.kv_memory_bytes;
    const int64_t least = tsr_tier_room_least(&p->own);
    int64_t low = 0;
    int64_t high = tsr_tier_room_fitting(&p->own, kv_bytes > 0 ? kv_bytes : device_bytes);

    while (low < high && device_bytes > 0) {
        const int64_t middle = low + (high - low + 1) / 2;
        const tsr_settings s = settings_for(d, p, context, middle, middle);
        const tsr_plan_share share = measure(d, p, &s);

        if (total(&share) <= device_bytes) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return high < least ? 0 : high;
}

/* What the rank would hold with the fewest blocks. */
static tsr_plan_share measure_least(const draft *d, const place *p, int64_t context)
{
    const int64_t least = tsr_tier_room_least(&p->own);
    const tsr_settings s = settings_for(d, p, context, least, least);

    return measure(d, p, &s);
}

/* most_blocks() over all ranks; *busiest is the one that has the least room. */
static int64_t least_blocks(const draft *d, const place *places, int64_t context, int *busiest)
{
    int64_t least = INT64_MAX;
    uint64_t most_bytes = 0;

    for (int rank = 0; rank < d->n_ranks; rank++) {
        const int64_t n_blocks = most_blocks(d, &places[rank], context);
        const tsr_plan_share share = measure_least(d, &places[rank], context);

        if (n_blocks < least || (n_blocks == least && total(&share) > most_bytes)) {
            least = n_blocks;
            most_bytes = total(&share);
            *busiest = rank;
        }
    }
    return least;
}

/* The longest sequence that may have the cache for itself, which is attended in host memory as
 * well: longer ones need larger tables and leave less for it. */
static int64_t longest_context(const draft *d, const place *places)
{
    const tsr_block_groups groups = tsr_settings_groups(&d->settings, d->config);
    const int64_t block_tokens = d->settings.block_tokens;
    int64_t low = 0; // in columns
    int64_t high = INT32_MAX / 2 / block_tokens;

    while (low < high) {
        const int64_t middle = low + (high - low + 1) / 2;
        int busiest = 0;
        const int64_t n_device = least_blocks(d, places, middle * block_tokens, &busiest);

        if (n_device > 0 && n_device + d->lower.n_host >=
                                tsr_block_groups_most(&groups, middle * block_tokens, 0)) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low * block_tokens;
}

/* What all ranks have below their devices. */
static void find_lower(draft *d, const place *places)
{
    d->lower = places[0].own;
    for (int rank = 1; rank < d->n_ranks; rank++) {
        const tsr_tier_room *own = &places[rank].own;

        d->lower.n_host = own->n_host < d->lower.n_host ? own->n_host : d->lower.n_host;
        d->lower.n_disk = own->n_disk < d->lower.n_disk ? own->n_disk : d->lower.n_disk;
    }
}

/* What the rank holds in the end. */
static tsr_plan_share share_of(const draft *d, const place *p, const tsr_plan *plan)
{
    const tsr_settings s =
        settings_for(d, p, plan->context, most_blocks(d, p, plan->context), plan->n_blocks);

    return measure(d, p, &s);
}

static void lay_down(tsr_plan *plan, tsr_plan_share *shares, const draft *d, const place *places)
{
    const tsr_block_groups groups = tsr_settings_groups(&d->settings, d->config);
    const int64_t a_sequence = tsr_block_groups_most(&groups, d->settings.context, 0);

    plan->n_ranks = d->n_ranks;
    plan->context = d->settings.context;
    plan->model_context = d->config->context;
    plan->block_tokens = d->settings.block_tokens;
    plan->n_blocks = least_blocks(d, places, plan->context, &plan->busiest);
    plan->fits = plan->n_blocks > 0;
    plan->share = share_of(d, &places[plan->busiest], plan);
    if (!plan->fits) {
        const tsr_plan_share needed = measure_least(d, &places[plan->busiest], plan->context);

        // What is short is either all of the memory or what the cache may have of it.
        plan->lacking_bytes =
            d->request->device_bytes > 0 && total(&needed) > d->request->device_bytes
                ? total(&needed) - d->request->device_bytes
                : needed.kv_bytes - d->request->options.kv_memory_bytes;
    }
    plan->longest_context = longest_context(d, places);
    plan->n_sequences = plan->n_blocks / a_sequence;
    plan->n_in_flight =
        plan->fits ? (plan->n_blocks + d->lower.n_host + d->lower.n_disk) / a_sequence : 0;
    for (int rank = 0; shares != NULL && rank < d->n_ranks; rank++) {
        shares[rank] = share_of(d, &places[rank], plan);
    }
}

tsr_status tsr_plan_of(tsr_plan *out, tsr_plan_share *shares, const tsr_plan_request *request,
                       int n_ranks)
{
    draft d = {.request = request, .n_ranks = n_ranks};
    tsr_plan plan = {0};
    place *places = NULL;
    tsr_status st;

    TSR_TRY_GOTO(st, done, begin(&d, request, n_ranks));
    places = tsr_alloc((size_t)n_ranks, sizeof(*places));
    if (places == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for a plan of %d ranks", n_ranks);
        goto done;
    }
    for (int rank = 0; rank < n_ranks; rank++) {
        TSR_TRY_GOTO(st, done, find_place(&places[rank], &d, rank));
    }
    find_lower(&d, places);
    lay_down(&plan, shares, &d, places);
    *out = plan;
    st = TSR_OK;

done:
    tsr_free(places);
    tsr_config_clear(&d.shape_config);
    return st;
}

const char *tsr_plan_shape_at(int i)
{
    return tsr_shapes_name(i);
}

uint64_t tsr_plan_machine_bytes(void)
{
    return tsr_device_free_bytes(TSR_DEVICE_CPU, 0);
}
