#include "tests/support/store_ranks.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "kv/kv_tiers_state.h"

/* 1 layer, 1 head of 8: cells of 48 bytes a token, of which the first and the last are used. */
static const tsr_kv_layout layout = {
    .n_layers = 1,
    .n_kv_heads = 1,
    .key_dim = 8,
    .value_dim = 8,
    .block_tokens = STORE_BLOCK_TOKENS,
    .type = TSR_KV_TYPE_BF16,
};

typedef struct cell {
    int32_t token;
    int32_t place;
} cell;

/* In whose blocks it is, and where. */
static cell cell_of(int32_t token, int group, int32_t position)
{
    return (cell){token, group << 24 | position};
}

#define CHECK(r, condition)                                                                      \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            (void)snprintf((r)->why, sizeof((r)->why), "store_ranks.c:%d: not so: %s", __LINE__, \
                           #condition);                                                          \
            return false;                                                                        \
        }                                                                                        \
    } while (0)

#define CHECK_OK(r, call)                                                                \
    do {                                                                                 \
        if ((call) != TSR_OK) {                                                          \
            (void)snprintf((r)->why, sizeof((r)->why), "store_ranks.c:%d: %s", __LINE__, \
                           tsr_status_message());                                        \
            return false;                                                                \
        }                                                                                \
    } while (0)

int32_t store_ranks_next(const int32_t *tokens, int64_t n, int n_vocab)
{
    uint32_t hash = 2166136261u;

    for (int64_t i = 0; i < n; i++) {
        hash = (hash ^ (uint32_t)tokens[i]) * 16777619u;
    }
    return (int32_t)((hash >> 8) % (uint32_t)n_vocab);
}

bool store_ranks_open(store_ranks *r, int n_ranks, const tsr_step_limits *limits,
                      const store_room *room, const char *folder)
{
    const tsr_device_options cpu = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    const bool is_tiered = room->n_host + room->n_disk > 0;

    *r = (store_ranks){.n_ranks = n_ranks, .limits = *limits};
    memcpy(r->reach, room->reach, sizeof(r->reach));
    CHECK_OK(r, tsr_step_init(&r->step, limits));
    r->next = tsr_alloc((size_t)limits->max_seqs, sizeof(*r->next));
    r->known = tsr_alloc((size_t)limits->n_block_ids, sizeof(*r->known));
    CHECK(r, r->next != NULL && r->known != NULL);
    for (int i = 0; i < n_ranks; i++) {
        const tsr_kv_store_options options = {
            .layout = layout,
            .n_ids = limits->n_block_ids,
            .n_device = room->n_device + 3 * i,
            .is_tiered = is_tiered,
            .n_host = room->n_host + (i > 1 ? i : 0),
            .n_disk = room->n_disk + (room->n_disk > 0 ? 2 * i : 0),
            .folder = folder,
            .n_lanes = limits->max_seqs,
            .n_groups = limits->n_groups,
            .max_blocks = limits->max_blocks,
        };

        r->ranks[i].n_device = options.n_device;
        r->ranks[i].n_host = options.n_host;
        CHECK_OK(r, tsr_device_open(&r->ranks[i].dev, &cpu));
        CHECK_OK(r, tsr_kv_store_create(&r->ranks[i].store, r->ranks[i].dev, &options));
    }
    return true;
}

void store_ranks_close(store_ranks *r)
{
    for (int i = 0; i < r->n_ranks; i++) {
        tsr_kv_store_destroy(r->ranks[i].store);
        tsr_device_close(r->ranks[i].dev);
    }
    tsr_free(r->known);
    tsr_free(r->next);
    tsr_free(r->message);
    tsr_step_clear(&r->step);
}

/* What the leader may tell: ids that are known are dropped once, none is written that was not told.
 */
static bool note_changes(store_ranks *r)
{
    const tsr_step *step = &r->step;

    for (int i = 0; i < step->n_dropped; i++) {
        CHECK(r, r->known[step->dropped[i]]);
        r->known[step->dropped[i]] = false;
    }
    for (int i = 0; i < step->n_appended; i++) {
        if (step->append_block[i] >= 0) {
            r->known[step->append_block[i]] = true;
        }
    }
    for (int i = 0; i < step->n_copied; i++) {
        CHECK(r, r->known[step->copy_from[i]] && r->known[step->copy_to[i]]);
    }
    r->n_rows += step->n_rows;
    r->n_appended += step->n_appended;
    r->n_dropped += step->n_dropped;
    r->n_left += step->n_left;
    r->n_copied += step->n_copied;
    return true;
}

static bool apply_changes(store_ranks *r, tsr_kv_store *store)
{
    const tsr_step *step = &r->step;
    const tsr_kv_visit visit = {.block_tokens = STORE_BLOCK_TOKENS,
                                .n_seqs = step->n_seqs,
                                .lanes = step->lanes,
                                .first_pos = step->first_pos,
                                .row_start = step->row_start,
                                .waits = step->waits != 0};

    for (int i = 0; i < step->n_dropped; i++) {
        CHECK_OK(r, tsr_kv_store_drop(store, step->dropped[i]));
    }
    for (int i = 0; i < step->n_left; i++) {
        CHECK_OK(r, tsr_kv_store_leave(store, step->left[i]));
    }
    for (int i = 0; i < step->n_appended; i++) {
        CHECK_OK(r, tsr_kv_store_append(store, step->append_lane[i], step->append_index[i],
                                        step->append_block[i]));
    }
    for (int i = 0; i < step->n_copied; i++) {
        CHECK_OK(r, tsr_kv_store_copy(store, step->copy_from[i], step->copy_to[i]));
    }
    CHECK_OK(r, tsr_kv_store_visit(store, &visit));
    return true;
}

/* Where a group's position of a lane lies; *on_device. NULL: nowhere. */
static unsigned char *place_of(const store_ranks *r, int rank, int32_t lane, int group,
                               int64_t position, bool *on_device)
{
    const tsr_kv_store *store = r->ranks[rank].store;
    const tsr_kv_view view = tsr_kv_store_view(store, 0);
    const size_t block_bytes = tsr_kv_layout_block_bytes(&layout);
    const tsr_tensor tables = tsr_kv_store_tables(store, group);
    const int32_t entry =
        ((const int32_t *)tables.data)[lane * tables.stride + position / STORE_BLOCK_TOKENS];
    const size_t at = (size_t)(position % STORE_BLOCK_TOKENS) * (block_bytes / STORE_BLOCK_TOKENS);

    *on_device = entry >= 0;
    if (entry >= r->ranks[rank].n_device ||
        ~entry >= r->ranks[rank].n_host + TSR_KV_TIERS_EXCHANGE) {
        return NULL;
    }
    return entry >= 0
               ? (unsigned char *)view.pool + (size_t)entry * block_bytes + at
               : (unsigned char *)(uintptr_t)view.host_pool + (size_t)~entry * block_bytes + at;
}

static bool write_rows(store_ranks *r, int rank)
{
    const size_t last =
        tsr_kv_layout_block_bytes(&layout) / STORE_BLOCK_TOKENS - sizeof(cell); // of a cell's bytes
    const tsr_step *step = &r->step;

    for (int s = 0; s < step->n_seqs; s++) {
        for (int row = step->row_start[s]; row < step->row_start[s + 1]; row++) {
            const int32_t position = step->first_pos[s] + row - step->row_start[s];

            for (int g = 0; g < r->limits.n_groups; g++) {
                const cell c = cell_of(step->tokens[row], g, position);
                bool on_device;
                unsigned char *at = place_of(r, rank, step->lanes[s], g, position, &on_device);

                CHECK(r, at != NULL && on_device);
                memcpy(at, &c, sizeof(c));
                memcpy(at + last, &c, sizeof(c));
            }
        }
    }
    return true;
}

/* What the rows of a request see through a group of layers. */
static bool read_group(store_ranks *r, int rank, const tsr_request *request, int group,
                       int32_t first_pos, int32_t n)
{
    const size_t last = tsr_kv_layout_block_bytes(&layout) / STORE_BLOCK_TOKENS - sizeof(cell);
    const int64_t reach = r->reach[group];
    int32_t position = reach > 0 && first_pos >= reach ? first_pos - (int32_t)reach + 1 : 0;

    for (; position < n; position++) {
        const cell c = cell_of(request->tokens[position], group, position);
        bool on_device;
        const unsigned char *at = place_of(r, rank, request->lane, group, position, &on_device);

        CHECK(r, at != NULL);
        CHECK(r, memcmp(at, &c, sizeof(c)) == 0);
        CHECK(r, memcmp(at + last, &c, sizeof(c)) == 0);
    }
    return true;
}

/* Only when all have written: nobody may have written into another's block. */
static bool read_back(store_ranks *r, int rank, const tsr_scheduler *scheduler)
{
    const tsr_kv_tiers *tiers = tsr_kv_store_tiers(r->ranks[rank].store);
    const tsr_step *step = &r->step;

    for (int s = 0; s < step->n_seqs; s++) {
        const tsr_request *request = tsr_scheduler_request_of(scheduler, s);
        const int32_t n = step->first_pos[s] + step->row_start[s + 1] - step->row_start[s];
        const bool is_spoilt = tiers != NULL && tsr_kv_tiers_is_spoilt(tiers, s);

        CHECK(r, step->lanes[s] == request->lane && step->first_pos[s] == request->n_cached);
        for (int g = 0; g < r->limits.n_groups && !is_spoilt; g++) {
            if (!read_group(r, rank, request, g, step->first_pos[s], n)) {
                return false;
            }
        }
    }
    return true;
}

static void report(store_ranks *r)
{
    r->report = (tsr_step_report){.n_tickets_done = INT64_MAX};
    for (int i = 0; i < r->n_ranks; i++) {
        const tsr_kv_tiers *tiers = tsr_kv_store_tiers(r->ranks[i].store);
        const tsr_kv_report own = tiers != NULL ? tsr_kv_tiers_report(tiers) : (tsr_kv_report){0};

        r->report.n_tickets_done = own.n_tickets_done < r->report.n_tickets_done
                                       ? own.n_tickets_done
                                       : r->report.n_tickets_done;
        r->report.is_spoilt = r->report.is_spoilt || own.n_spoilt > 0;
        for (int k = 0; k < own.n_lost && k < TSR_KV_TIERS_MOST_LOST; k++) {
            bool is_new = r->report.n_lost < TSR_STEP_MOST_LOST;

            for (int j = 0; j < r->report.n_lost; j++) {
                is_new = is_new && r->report.lost[j] != own.lost[k];
            }
            if (is_new) {
                r->report.lost[r->report.n_lost++] = own.lost[k];
            }
        }
    }
    r->n_spoilt += r->report.is_spoilt ? 1 : 0;
}

/* Does a rank have room for blocks that nobody knows of? */
static bool verify(store_ranks *r, int rank)
{
    const tsr_kv_tiers *tiers = tsr_kv_store_tiers(r->ranks[rank].store);

    CHECK(r, tsr_kv_store_verify(r->ranks[rank].store));
    for (int32_t id = 0; tiers != NULL && id < r->limits.n_block_ids; id++) {
        for (int tier = 0; tier < TSR_KV_TIER_COUNT && !r->known[id]; tier++) {
            CHECK(r, !tsr_kv_places_has(&tiers->places, id, (tsr_kv_tier)tier));
        }
    }
    return true;
}

bool store_ranks_run(store_ranks *r, const tsr_scheduler *scheduler, const tsr_step *planned)
{
    const size_t n_ints = tsr_step_n_ints(planned);

    if (n_ints > r->message_ints) {
        int32_t *grown = tsr_alloc_resize(r->message, n_ints, sizeof(*grown));

        CHECK(r, grown != NULL);
        r->message = grown;
        r->message_ints = n_ints;
    }
    CHECK_OK(r, tsr_step_unpack(&r->step, r->message, tsr_step_pack(planned, r->message)));
    if (!note_changes(r)) {
        return false;
    }
    for (int rank = 0; rank < r->n_ranks; rank++) {
        if (!apply_changes(r, r->ranks[rank].store) || !write_rows(r, rank) ||
            !read_back(r, rank, scheduler) || !verify(r, rank)) {
            return false;
        }
    }
    report(r);
    for (int s = 0; s < r->step.n_seqs; s++) {
        const tsr_request *request = tsr_scheduler_request_of(scheduler, s);

        r->next[s] = tsr_scheduler_samples(scheduler, s)
                         ? store_ranks_next(request->tokens, request->n_tokens, r->limits.n_vocab)
                         : -12345; // must not be read
    }
    return true;
}

void store_ranks_moves(const store_ranks *r, int64_t *n_down, int64_t *n_up)
{
    *n_down = *n_up = 0;
    for (int i = 0; i < r->n_ranks; i++) {
        const tsr_kv_tiers *tiers = tsr_kv_store_tiers(r->ranks[i].store);

        if (tiers != NULL) {
            const tsr_kv_report own = tsr_kv_tiers_report(tiers);

            for (int from = 0; from < TSR_KV_TIER_COUNT; from++) {
                for (int to = 0; to < TSR_KV_TIER_COUNT; to++) {
                    *n_down += to > from ? own.n_moves[from][to] : 0;
                    *n_up += to < from ? own.n_moves[from][to] : 0;
                }
            }
        }
    }
}
