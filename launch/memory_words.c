#include "launch/memory_words.h"

#include <math.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/log.h"
#include "launch/out.h"

enum {
    CELL_BYTES = 40
};

static const char *const tier_names[TSR_MEMORY_TIER_COUNT] = {"device", "host", "disk"};

typedef struct cell {
    char text[CELL_BYTES];
} cell;

/* "120 (45.3 MB)" */
static cell blocks(int64_t n, uint64_t block_bytes)
{
    const double n_bytes = (double)n * (double)block_bytes;
    const bool giga = n_bytes >= 1e10;
    cell c;

    (void)snprintf(c.text, sizeof(c.text), "%lld (%.1f %s)", (long long)n,
                   n_bytes / (giga ? 1e9 : 1e6), giga ? "GB" : "MB");
    return c;
}

static tsr_status ask(tsr_engine *engine, tsr_memory_stats **ranks, int *n_ranks)
{
    tsr_status st;

    *n_ranks = tsr_engine_describe(engine).n_ranks;
    *ranks = tsr_alloc((size_t)*n_ranks, sizeof(**ranks));
    if (*ranks == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for what %d ranks say", *n_ranks);
    }
    st = tsr_engine_memory(engine, *ranks);
    if (st != TSR_OK) {
        tsr_free(*ranks);
    }
    return st;
}

/* Blocks copied from a tier to those below it, or above. */
static int64_t n_moved(const tsr_memory_stats *m, int tier, bool down)
{
    int64_t n = 0;

    for (int to = down ? tier + 1 : 0; to < (down ? (int)TSR_MEMORY_TIER_COUNT : tier); to++) {
        n += m->n_moves[tier][to];
    }
    return n;
}

static bool is_tiered(const tsr_memory_stats *m)
{
    return m->n_slots[TSR_MEMORY_HOST] + m->n_slots[TSR_MEMORY_DISK] > 0;
}

static double percent(int64_t n, int64_t of)
{
    return of > 0 ? 100.0 * (double)n / (double)of : 0;
}

static long long in_us(double seconds)
{
    return llround(seconds * 1e6);
}

static void say_rank(int rank, const tsr_memory_stats *m)
{
    int64_t n_asked = 0;

    for (int tier = 0; tier < TSR_MEMORY_TIER_COUNT; tier++) {
        n_asked += m->n_asked[tier];
        if (tier == TSR_MEMORY_DEVICE || m->n_slots[tier] > 0) {
            tsr_log_say("%4d  %-6s %20s %20s %20s %20s", rank, tier_names[tier],
                        blocks(m->n_slots[tier], m->block_bytes).text,
                        blocks(m->most_blocks[tier], m->block_bytes).text,
                        blocks(n_moved(m, tier, true), m->block_bytes).text,
                        blocks(n_moved(m, tier, false), m->block_bytes).text);
        }
    }
    if (!is_tiered(m)) {
        return;
    }
    tsr_log_say(
        "      copies took %lld us beside the steps; %lld steps waited for one, %lld us in all",
        in_us(m->busy_s), (long long)m->n_stalls, in_us(m->stall_s));
    tsr_log_say(
        "      %lld blocks were asked for again: %.0f %% lay on the device, %.0f %% in host "
        "memory, %.0f %% on disk; %lld were late, %lld lost",
        (long long)n_asked, percent(m->n_asked[TSR_MEMORY_DEVICE], n_asked),
        percent(m->n_asked[TSR_MEMORY_HOST], n_asked),
        percent(m->n_asked[TSR_MEMORY_DISK], n_asked), (long long)m->n_late, (long long)m->n_lost);
}

tsr_status tsr_memory_words_say(tsr_engine *engine)
{
    tsr_memory_stats *ranks;
    int n_ranks;

    TSR_TRY(ask(engine, &ranks, &n_ranks));
    tsr_log_say("memory for keys and values, in blocks of %d tokens",
                tsr_engine_describe(engine).block_tokens);
    tsr_log_say("%4s  %-6s %20s %20s %20s %20s", "rank", "tier", "room", "most at once",
                "copied down", "copied up");
    for (int rank = 0; rank < n_ranks; rank++) {
        say_rank(rank, &ranks[rank]);
    }
    tsr_free(ranks);
    return TSR_OK;
}

static json_t *tier_json(const tsr_memory_stats *m, int tier)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "tier", tier_names[tier], "room",
                     (json_int_t)m->n_slots[tier], "blocks", (json_int_t)m->n_blocks[tier], "most",
                     (json_int_t)m->most_blocks[tier], "copied_down",
                     (json_int_t)n_moved(m, tier, true), "copied_up",
                     (json_int_t)n_moved(m, tier, false), "asked", (json_int_t)m->n_asked[tier]);
}

static json_t *rank_json(const tsr_memory_stats *m)
{
    json_t *tiers = json_array();

    for (int tier = 0; tier < TSR_MEMORY_TIER_COUNT; tier++) {
        (void)json_array_append_new(tiers, tier_json(m, tier)); // what is missing, json_pack sees
    }
    return json_pack("{s:I, s:o, s:I, s:I, s:I, s:I, s:I}", "block_bytes",
                     (json_int_t)m->block_bytes, "tiers", tiers, "copy_us", in_us(m->busy_s),
                     "stalls", (json_int_t)m->n_stalls, "stall_us", in_us(m->stall_s), "late",
                     (json_int_t)m->n_late, "lost", (json_int_t)m->n_lost);
}

tsr_status tsr_memory_words_json(tsr_engine *engine, json_t **out)
{
    json_t *list = json_array();
    tsr_memory_stats *ranks;
    int n_ranks;
    tsr_status st = ask(engine, &ranks, &n_ranks);
    bool is_whole = list != NULL;

    for (int rank = 0; st == TSR_OK && rank < n_ranks; rank++) {
        is_whole = is_whole && json_array_append_new(list, rank_json(&ranks[rank])) == 0;
    }
    if (st == TSR_OK) {
        tsr_free(ranks);
        st = is_whole ? TSR_OK : tsr_fail(TSR_ERR_NOMEM, "no memory for what ranks say");
    }
    if (st != TSR_OK) {
        json_decref(list);
        return st;
    }
    *out = list;
    return TSR_OK;
}

bool tsr_memory_words_has_tiers(const tsr_engine *engine)
{
    return tsr_engine_describe(engine).n_lower_blocks > 0;
}
