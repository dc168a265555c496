#include "launch/serve_picture.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "launch/serve_metrics.h"

enum {
    MOST_CELLS = 4096 // blocks of a tier that are shown
};

static const int64_t LOOK_NS = 500000000;
static const int64_t WATCH_NS = 5000000000; // somebody watches for so long after asking

static const char *const tiers[TSR_MEMORY_TIER_COUNT] = {"device", "host", "disk"};

/* What was seen at one time. */
typedef struct seen {
    tsr_engine_stats stats; // but for its texts, which go with the engine
    char device[160];
    char comm[40];
    tsr_memory_stats *memory; // owned, [n_ranks]
    tsr_model_share *shares;  // owned, [n_ranks]
    int64_t *owners;          // owned, [n_blocks]; NULL: not looked at
    uint8_t *places;          // owned, [n_ranks * n_blocks]
} seen;

struct tsr_picture {
    pthread_mutex_t lock;
    seen now; // guarded
    bool has_looked;
    int64_t watched_ns; // guarded: when somebody asked last

    int64_t looked_ns; // the engine's thread only, as is the next
    bool is_settled;   // what is idle was looked at
};

static void clear(seen *s)
{
    tsr_free(s->memory);
    tsr_free(s->shares);
    tsr_free(s->owners);
    tsr_free(s->places);
    *s = (seen){0};
}

tsr_status tsr_picture_create(tsr_picture **out)
{
    tsr_picture *p = tsr_alloc(1, sizeof(*p));

    if (p == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a picture of the engine");
    }
    (void)pthread_mutex_init(&p->lock, NULL);
    *out = p;
    return TSR_OK;
}

void tsr_picture_destroy(tsr_picture *p)
{
    if (p != NULL) {
        clear(&p->now);
        (void)pthread_mutex_destroy(&p->lock);
        tsr_free(p);
    }
}

/* ---- looking --------------------------------------------------------------------------------- */

static tsr_status look_at_blocks(tsr_engine *engine, seen *s)
{
    const size_t n_blocks = (size_t)s->stats.n_blocks;

    s->owners = tsr_alloc(n_blocks, sizeof(*s->owners));
    s->places = tsr_alloc(n_blocks * (size_t)s->stats.n_ranks, sizeof(*s->places));
    return s->owners != NULL && s->places != NULL
               ? tsr_engine_blocks(engine, s->owners, s->places)
               : tsr_fail(TSR_ERR_NOMEM, "no memory for a map of %zu blocks", n_blocks);
}

static tsr_status look(tsr_engine *engine, bool at_blocks, seen *s)
{
    s->stats = tsr_engine_describe(engine);
    (void)snprintf(s->device, sizeof(s->device), "%s", s->stats.device);
    (void)snprintf(s->comm, sizeof(s->comm), "%s", s->stats.comm);
    s->memory = tsr_alloc((size_t)s->stats.n_ranks, sizeof(*s->memory));
    s->shares = tsr_alloc((size_t)s->stats.n_ranks, sizeof(*s->shares));
    if (s->memory == NULL || s->shares == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a picture of %d ranks", s->stats.n_ranks);
    }
    TSR_TRY(tsr_engine_memory(engine, s->memory));
    for (int rank = 0; rank < s->stats.n_ranks; rank++) {
        TSR_TRY(
            tsr_model_share_of(tsr_engine_model(engine), rank, s->stats.n_ranks, &s->shares[rank]));
    }
    return at_blocks ? look_at_blocks(engine, s) : TSR_OK;
}

void tsr_picture_look(tsr_picture *p, tsr_engine *engine, bool busy)
{
    const int64_t now_ns = tsr_clock_ns();
    seen s = {0};
    bool is_watched;
    bool is_due;

    (void)pthread_mutex_lock(&p->lock);
    is_watched = p->watched_ns > 0 && now_ns - p->watched_ns < WATCH_NS;
    is_due = !p->has_looked ||
             (now_ns - p->looked_ns > LOOK_NS && (busy || !p->is_settled || is_watched));
    (void)pthread_mutex_unlock(&p->lock);
    if (!is_due) {
        return;
    }
    p->looked_ns = now_ns;
    p->is_settled = !busy;
    if (look(engine, is_watched, &s) != TSR_OK) {
        clear(&s);
        return;
    }
    (void)pthread_mutex_lock(&p->lock);
    clear(&p->now);
    p->now = s;
    p->has_looked = true;
    (void)pthread_mutex_unlock(&p->lock);
}

/* ---- telling --------------------------------------------------------------------------------- */

static tsr_status write_ranks(const seen *s, tsr_text *out)
{
    static const struct {
        const char *name;
        const char *help;
    } of_tiers[] = {
        {"tessera_kv_rank_slots", "Blocks that a rank's tier of memory has room for."},
        {"tessera_kv_rank_blocks", "Blocks that lie in a rank's tier of memory."},
    };

    for (int which = 0; which < 2; which++) {
        TSR_TRY(tsr_metrics_say(out, "# HELP %s %s\n# TYPE %s gauge\n", of_tiers[which].name,
                                of_tiers[which].help, of_tiers[which].name));
        for (int rank = 0; rank < s->stats.n_ranks; rank++) {
            const tsr_memory_stats *m = &s->memory[rank];

            for (int tier = 0; tier < TSR_MEMORY_TIER_COUNT; tier++) {
                TSR_TRY(tsr_metrics_say(out, "%s{rank=\"%d\",tier=\"%s\"} %" PRId64 "\n",
                                        of_tiers[which].name, rank, tiers[tier],
                                        which == 0 ? m->n_slots[tier] : m->n_blocks[tier]));
            }
        }
    }
    return TSR_OK;
}

static tsr_status write_moves(const seen *s, tsr_text *out)
{
    static const char name[] = "tessera_kv_rank_moves_total";

    TSR_TRY(tsr_metrics_say(out,
                            "# HELP %s Blocks copied between tiers of memory.\n"
                            "# TYPE %s counter\n",
                            name, name));
    for (int rank = 0; rank < s->stats.n_ranks; rank++) {
        for (int from = 0; from < TSR_MEMORY_TIER_COUNT; from++) {
            for (int to = 0; to < TSR_MEMORY_TIER_COUNT; to++) {
                if (from != to) {
                    TSR_TRY(tsr_metrics_say(
                        out, "%s{rank=\"%d\",from=\"%s\",to=\"%s\"} %" PRId64 "\n", name, rank,
                        tiers[from], tiers[to], s->memory[rank].n_moves[from][to]));
                }
            }
        }
    }
    return TSR_OK;
}

static tsr_status write_all(const seen *s, tsr_text *out)
{
    const tsr_engine_stats *stats = &s->stats;

    TSR_TRY(tsr_metrics_say_value(out, "tessera_ranks", "Ranks of the engine.", "gauge",
                                  stats->n_ranks));
    TSR_TRY(tsr_metrics_say_value(out, "tessera_steps_total", "Steps of the engine.", "counter",
                                  stats->n_steps));
    TSR_TRY(tsr_metrics_say_value(out, "tessera_preemptions_total",
                                  "Sequences put back for want of memory.", "counter",
                                  stats->n_preempted));
    TSR_TRY(tsr_metrics_say_value(out, "tessera_kv_blocks", "Blocks of the cache.", "gauge",
                                  stats->n_blocks));
    TSR_TRY(tsr_metrics_say_value(out, "tessera_kv_blocks_free",
                                  "Blocks of the cache that nobody needs.", "gauge",
                                  stats->n_blocks_free));
    TSR_TRY(write_ranks(s, out));
    return write_moves(s, out);
}

tsr_status tsr_picture_write(tsr_picture *p, tsr_text *out)
{
    tsr_status st;

    (void)pthread_mutex_lock(&p->lock);
    st = p->has_looked ? write_all(&p->now, out) : TSR_OK;
    (void)pthread_mutex_unlock(&p->lock);
    return st;
}

/* The blocks of one tier as runs of owners. */
static json_t *owners_object(const seen *s, int rank, int tier)
{
    const uint8_t *places = s->places + (size_t)rank * (size_t)s->stats.n_blocks;
    json_t *runs = json_array();
    int64_t owner = 0;
    int n = 0;
    int n_shown = 0;

    for (int id = 0; id < s->stats.n_blocks && n_shown < MOST_CELLS; id++) {
        if ((places[id] >> tier & 1) == 0) {
            continue;
        }
        if (n > 0 && s->owners[id] != owner) {
            (void)!json_array_append_new(runs, json_integer((json_int_t)owner));
            (void)!json_array_append_new(runs, json_integer(n));
            n = 0;
        }
        owner = s->owners[id];
        n++;
        n_shown++;
    }
    if (n > 0) {
        (void)!json_array_append_new(runs, json_integer((json_int_t)owner));
        (void)!json_array_append_new(runs, json_integer(n));
    }
    return runs;
}

static json_t *rank_object(const seen *s, int rank)
{
    const tsr_model_share *share = &s->shares[rank];
    const tsr_memory_stats *m = &s->memory[rank];
    json_t *list = json_array();

    for (int tier = 0; tier < TSR_MEMORY_TIER_COUNT; tier++) {
        json_t *one;

        if (m->n_slots[tier] == 0) {
            continue;
        }
        one = json_pack("{s:s, s:I, s:I}", "name", tiers[tier], "slots",
                        (json_int_t)m->n_slots[tier], "blocks", (json_int_t)m->n_blocks[tier]);
        if (s->owners != NULL) {
            (void)!json_object_set_new(one, "owners", owners_object(s, rank, tier));
        }
        (void)!json_array_append_new(list, one);
    }
    return json_pack("{s:i, s:[I, I], s:[I, I], s:I, s:I, s:o}", "rank", rank, "heads",
                     (json_int_t)share->first_head, (json_int_t)share->n_heads, "kv_heads",
                     (json_int_t)share->first_kv_head, (json_int_t)share->n_kv_heads,
                     "weight_bytes", (json_int_t)share->weight_bytes, "block_bytes",
                     (json_int_t)m->block_bytes, "tiers", list);
}

static json_t *all_object(const seen *s)
{
    const tsr_engine_stats *stats = &s->stats;
    json_t *ranks = json_array();

    for (int rank = 0; rank < stats->n_ranks; rank++) {
        (void)!json_array_append_new(ranks, rank_object(s, rank));
    }
    return json_pack("{s:{s:i, s:s, s:s, s:i, s:I, s:i, s:i, s:i, s:I, s:I}, s:o}", "engine",
                     "ranks", stats->n_ranks, "device", s->device, "comm", s->comm, "threads",
                     stats->n_threads, "context", (json_int_t)stats->context, "block_tokens",
                     stats->block_tokens, "blocks", stats->n_blocks, "blocks_free",
                     stats->n_blocks_free, "steps", (json_int_t)stats->n_steps, "preemptions",
                     (json_int_t)stats->n_preempted, "ranks", ranks);
}

json_t *tsr_picture_object(tsr_picture *p)
{
    json_t *object;

    (void)pthread_mutex_lock(&p->lock);
    p->watched_ns = tsr_clock_ns();
    object = p->has_looked ? all_object(&p->now) : json_object();
    (void)pthread_mutex_unlock(&p->lock);
    return object;
}
