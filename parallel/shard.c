#include "parallel/shard.h"

enum {
    GRAIN_COLUMNS = 64, // one load of int8 for the widest vectors; two quantisation groups
    VOCAB_UNIT_LEAST = 16,
    POSITION_UNIT = 16,
    VOCAB_UNITS_LEAST = 96 // three for every two ranks of the largest world that is swept
};

/* The one table of how each weight is cut. */
static const struct {
    tsr_shard_rule weight;
    tsr_shard_rule bias;
} rules[TSR_ROLE_COUNT] = {
    [TSR_ROLE_EMBED] = {TSR_SHARD_VOCAB_ROWS, TSR_SHARD_VOCAB_ROWS},
    [TSR_ROLE_POSITIONS] = {TSR_SHARD_POSITION_ROWS, TSR_SHARD_POSITION_ROWS},
    [TSR_ROLE_HEAD] = {TSR_SHARD_VOCAB_ROWS, TSR_SHARD_VOCAB_ROWS},
    [TSR_ROLE_Q] = {TSR_SHARD_HEAD_ROWS, TSR_SHARD_HEAD_ROWS},
    [TSR_ROLE_K] = {TSR_SHARD_KV_ROWS, TSR_SHARD_KV_ROWS},
    [TSR_ROLE_V] = {TSR_SHARD_KV_ROWS, TSR_SHARD_KV_ROWS},
    [TSR_ROLE_O] = {TSR_SHARD_HEAD_COLS, TSR_SHARD_WHOLE},
    [TSR_ROLE_Q_HEADS_NORM] = {TSR_SHARD_HEAD_ROWS, TSR_SHARD_HEAD_ROWS},
    [TSR_ROLE_K_HEADS_NORM] = {TSR_SHARD_KV_ROWS, TSR_SHARD_KV_ROWS},
    [TSR_ROLE_Q_WIDE_NORM] = {TSR_SHARD_HEAD_ROWS, TSR_SHARD_HEAD_ROWS},
    [TSR_ROLE_K_WIDE_NORM] = {TSR_SHARD_KV_ROWS, TSR_SHARD_KV_ROWS},
    [TSR_ROLE_SINKS] = {TSR_SHARD_HEADS, TSR_SHARD_HEADS},
    [TSR_ROLE_GATE] = {TSR_SHARD_FF_ROWS, TSR_SHARD_FF_ROWS},
    [TSR_ROLE_UP] = {TSR_SHARD_FF_ROWS, TSR_SHARD_FF_ROWS},
    [TSR_ROLE_DOWN] = {TSR_SHARD_FF_COLS, TSR_SHARD_WHOLE},
    [TSR_ROLE_EXPERT_GATE] = {TSR_SHARD_EXPERT_ROWS, TSR_SHARD_EXPERT_ROWS},
    [TSR_ROLE_EXPERT_UP] = {TSR_SHARD_EXPERT_ROWS, TSR_SHARD_EXPERT_ROWS},
    [TSR_ROLE_EXPERT_DOWN] = {TSR_SHARD_EXPERT_COLS, TSR_SHARD_WHOLE},
    [TSR_ROLE_SHARED_GATE] = {TSR_SHARD_SHARED_ROWS, TSR_SHARD_SHARED_ROWS},
    [TSR_ROLE_SHARED_UP] = {TSR_SHARD_SHARED_ROWS, TSR_SHARD_SHARED_ROWS},
    [TSR_ROLE_SHARED_DOWN] = {TSR_SHARD_SHARED_COLS, TSR_SHARD_WHOLE},
    // All others are whole on every rank: TSR_SHARD_WHOLE is 0.
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b != 0) {
        const int64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

static int64_t units_in(int64_t n_items, int64_t unit)
{
    return (n_items + unit - 1) / unit;
}

int tsr_shard_value_dim(const tsr_shard_shape *shape)
{
    return shape->value_dim > 0 ? shape->value_dim : shape->head_dim;
}

/* The fewest query heads whose columns are whole quantisation groups. */
static int64_t smallest_bundle(const tsr_shard_shape *shape)
{
    return TSR_SHARD_GROUP / common_divisor(TSR_SHARD_GROUP, tsr_shard_value_dim(shape));
}

/* The KV heads that a run of query heads reads. */
static tsr_range kv_heads_of(const tsr_shard_shape *shape, tsr_range heads)
{
    const int64_t group = shape->n_heads / shape->n_kv_heads;
    const int64_t first = heads.first / group;
    const int64_t last = (heads.first + heads.count - 1) / group;

    return (tsr_range){.first = first, .count = heads.count > 0 ? last - first + 1 : 0};
}

/* The most query heads, and the most KV heads, that any rank has when units of so many are dealt
 * out. */
static void most_heads(const tsr_shard_shape *shape, int64_t unit, int n_ranks, int64_t *query,
                       int64_t *kv)
{
    *query = 0;
    *kv = 0;
    for (int rank = 0; rank < n_ranks; rank++) {
        const tsr_range heads = tsr_shard_deal(shape->n_heads, unit, rank, n_ranks);
        const int64_t n_kv = kv_heads_of(shape, heads).count;

        *query = heads.count > *query ? heads.count : *query;
        *kv = n_kv > *kv ? n_kv : *kv;
    }
}

/* Query heads that are dealt out together. */
static int64_t heads_a_unit(const tsr_shard_shape *shape, int n_ranks)
{
    const int64_t smallest = smallest_bundle(shape);
    const int64_t group = shape->n_heads / shape->n_kv_heads;
    const int64_t whole_groups = smallest / common_divisor(smallest, group) * group;
    int64_t query_by_groups;
    int64_t kv_by_groups;
    int64_t query_by_bundles;
    int64_t kv_by_bundles;

    // A KV head kept by two ranks is a smaller loss than a rank with nothing to do.
    if (units_in(shape->n_heads, whole_groups) < n_ranks) {
        return smallest;
    }
    // Else whole KV groups, so that no KV head is kept twice; unless cutting them takes query heads
    // from the busiest rank and gives no rank more KV heads: ranks wait for the slowest twice a
    // layer.
    most_heads(shape, whole_groups, n_ranks, &query_by_groups, &kv_by_groups);
    most_heads(shape, smallest, n_ranks, &query_by_bundles, &kv_by_bundles);
    return query_by_bundles < query_by_groups && kv_by_bundles <= kv_by_groups ? smallest
                                                                               : whole_groups;
}

tsr_range tsr_shard_deal(int64_t n_items, int64_t unit, int rank, int n_ranks)
{
    const int64_t n_units = units_in(n_items, unit);
    const int64_t each = n_units / n_ranks;
    const int64_t left_over = n_units % n_ranks;
    const int64_t first_unit = rank * each + least(rank, left_over);
    const int64_t end_unit = first_unit + each + (rank < left_over ? 1 : 0);
    const int64_t first = least(first_unit * unit, n_items);

    return (tsr_range){.first = first, .count = least(end_unit * unit, n_items) - first};
}

tsr_status tsr_shard_check(const tsr_shard_shape *shape)
{
    if (shape->n_heads <= 0 || shape->n_kv_heads <= 0 || shape->head_dim <= 0 || shape->dim <= 0 ||
        shape->ff_dim < 0 || (shape->ff_dim == 0 && shape->n_experts == 0) ||
        shape->n_experts < 0 || (shape->n_experts > 0 && shape->expert_ff <= 0) ||
        shape->shared_ff < 0 || shape->n_positions < 0 || shape->value_dim < 0 ||
        shape->n_vocab <= 0) {
        return tsr_fail(
            TSR_ERR_ARG,
            "shard: every size must be positive: %d heads, %d KV heads of %d, dim %lld, "
            "feed-forward %lld, vocabulary %lld",
            shape->n_heads, shape->n_kv_heads, shape->head_dim, (long long)shape->dim,
            (long long)shape->ff_dim, (long long)shape->n_vocab);
    }
    if (shape->n_heads % shape->n_kv_heads != 0) {
        return tsr_fail(TSR_ERR_ARG, "shard: %d KV heads do not divide %d query heads",
                        shape->n_kv_heads, shape->n_heads);
    }
    return TSR_OK;
}

/* Experts whole, or all of each by columns. */
static void deal_experts(tsr_shard *shard, const tsr_shard_shape *shape, int rank, int n_ranks)
{
    const int64_t grain = tsr_shard_grain_of(shape->expert_ff);
    const int64_t most_whole = units_in(shape->n_experts, n_ranks) * shape->expert_ff;
    const int64_t most_cut =
        least(units_in(units_in(shape->expert_ff, grain), n_ranks) * grain, shape->expert_ff) *
        shape->n_experts;

    if (most_whole <= most_cut) {
        shard->experts = tsr_shard_deal(shape->n_experts, 1, rank, n_ranks);
        shard->expert_ff = (tsr_range){0, shape->expert_ff};
    } else {
        shard->expert_ff = tsr_shard_deal(shape->expert_ff, grain, rank, n_ranks);
        shard->experts = (tsr_range){0, shard->expert_ff.count > 0 ? shape->n_experts : 0};
    }
}

tsr_shard tsr_shard_of(const tsr_shard_shape *shape, int rank, int n_ranks)
{
    tsr_shard shard = {0};

    shard.heads = tsr_shard_deal(shape->n_heads, heads_a_unit(shape, n_ranks), rank, n_ranks);
    shard.kv_heads = kv_heads_of(shape, shard.heads);
    if (shape->ff_dim > 0) {
        shard.ff = tsr_shard_deal(shape->ff_dim, tsr_shard_ff_grain(shape), rank, n_ranks);
    }
    if (shape->n_experts > 0) {
        deal_experts(&shard, shape, rank, n_ranks);
    }
    if (shape->shared_ff > 0) {
        shard.shared_ff =
            tsr_shard_deal(shape->shared_ff, tsr_shard_grain_of(shape->shared_ff), rank, n_ranks);
    }
    shard.positions = tsr_shard_deal(shape->n_positions, POSITION_UNIT, rank, n_ranks);
    shard.vocab =
        tsr_shard_deal(shape->n_vocab, tsr_shard_vocab_unit(shape->n_vocab), rank, n_ranks);
    return shard;
}

int64_t tsr_shard_attention_grain(const tsr_shard_shape *shape)
{
    // Every cut of any n_ranks is a multiple of the smallest bundle, and so of a grain that divides
    // it.
    const int64_t bundle = smallest_bundle(shape) * tsr_shard_value_dim(shape);
    const int64_t grain = bundle % GRAIN_COLUMNS == 0 ? GRAIN_COLUMNS : bundle;

    return least(grain, (int64_t)shape->n_heads * tsr_shard_value_dim(shape));
}

int64_t tsr_shard_ff_grain(const tsr_shard_shape *shape)
{
    return tsr_shard_grain_of(shape->ff_dim);
}

int64_t tsr_shard_grain_of(int64_t ff_dim)
{
    return least(GRAIN_COLUMNS, ff_dim);
}

bool tsr_shard_counts_kv_head(const tsr_shard_shape *shape, const tsr_shard *shard, int64_t kv_head)
{
    const int64_t head = kv_head * (shape->n_heads / shape->n_kv_heads);

    return head >= shard->heads.first && head < shard->heads.first + shard->heads.count;
}

int64_t tsr_shard_vocab_unit(int64_t n_vocab)
{
    int64_t unit = VOCAB_UNIT_LEAST;

    while (n_vocab / (unit * 2) >= VOCAB_UNITS_LEAST) {
        unit *= 2;
    }
    return unit;
}

tsr_shard_rule tsr_shard_rule_of(tsr_shard_role role)
{
    return rules[role].weight;
}

tsr_shard_rule tsr_shard_bias_rule_of(tsr_shard_role role)
{
    return rules[role].bias;
}

static tsr_range columns_of_heads(tsr_range heads, int head_dim)
{
    return (tsr_range){.first = heads.first * head_dim, .count = heads.count * head_dim};
}

void tsr_shard_window(const tsr_shard_shape *shape, const tsr_shard *shard, tsr_shard_rule rule,
                      int64_t n_rows, int64_t n_cols, tsr_range *rows, tsr_range *cols)
{
    *rows = (tsr_range){.first = 0, .count = n_rows};
    *cols = (tsr_range){.first = 0, .count = n_cols};
    switch (rule) {
    case TSR_SHARD_HEAD_ROWS:
        *rows = columns_of_heads(shard->heads, shape->head_dim);
        break;
    case TSR_SHARD_KV_ROWS:
        *rows = columns_of_heads(shard->kv_heads, shape->head_dim);
        break;
    case TSR_SHARD_HEAD_COLS:
        *cols = columns_of_heads(shard->heads, tsr_shard_value_dim(shape));
        break;
    case TSR_SHARD_FF_ROWS:
        *rows = shard->ff;
        break;
    case TSR_SHARD_FF_COLS:
        *cols = shard->ff;
        break;
    case TSR_SHARD_VOCAB_ROWS:
        *rows = shard->vocab;
        break;
    case TSR_SHARD_EXPERT_ROWS:
        *rows = shard->expert_ff;
        break;
    case TSR_SHARD_EXPERT_COLS:
        *cols = shard->expert_ff;
        break;
    case TSR_SHARD_SHARED_ROWS:
        *rows = shard->shared_ff;
        break;
    case TSR_SHARD_SHARED_COLS:
        *cols = shard->shared_ff;
        break;
    case TSR_SHARD_POSITION_ROWS:
        *rows = shard->positions;
        break;
    case TSR_SHARD_HEADS:
        *rows = shard->heads;
        break;
    case TSR_SHARD_WHOLE:
    case TSR_SHARD_RULE_COUNT:
        break;
    }
}
