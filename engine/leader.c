#include "engine/leader.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "engine/pool.h"
#include "engine/remote/remote.h"
#include "engine/search.h"
#include "engine/tell.h"

enum {
    FIRST_TABLE = 64
};

/* The tokens that end an answer, listed once. */
static tsr_status list_ends(tsr_leader *leader, const tsr_model *model, int n_vocab)
{
    for (int id = 0; id < n_vocab; id++) {
        leader->n_end_ids += tsr_model_is_end(model, id) ? 1 : 0;
    }
    leader->end_ids = tsr_alloc((size_t)leader->n_end_ids, sizeof(*leader->end_ids));
    if (leader->end_ids == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a list of end tokens");
    }
    for (int id = 0, n = 0; n < leader->n_end_ids; id++) {
        if (tsr_model_is_end(model, id)) {
            leader->end_ids[n++] = id;
        }
    }
    return TSR_OK;
}

/* ---- generations by id ----------------------------------------------------------------------- */

static tsr_group **bucket_of(const tsr_leader *leader, int64_t id)
{
    return &leader->table[id & (leader->table_size - 1)];
}

static void keep(tsr_leader *leader, tsr_group *g)
{
    tsr_group **bucket = bucket_of(leader, g->id);

    g->next = *bucket;
    *bucket = g;
    leader->n_groups++;
}

/* Room for one more: no chain is long. Errors: NOMEM. */
static tsr_status reserve(tsr_leader *leader)
{
    const int old_size = leader->table_size;
    tsr_group **old = leader->table;
    tsr_group **grown;

    if (leader->n_groups < old_size) {
        return TSR_OK;
    }
    grown = tsr_alloc(2 * (size_t)old_size, sizeof(tsr_group *));
    if (grown == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d generations", 2 * old_size);
    }
    leader->table = grown;
    leader->table_size = 2 * old_size;
    leader->n_groups = 0;
    for (int i = 0; i < old_size; i++) {
        while (old[i] != NULL) {
            tsr_group *g = old[i];

            old[i] = g->next;
            keep(leader, g);
        }
    }
    tsr_free(old);
    return TSR_OK;
}

static void forget(tsr_leader *leader, tsr_group *g)
{
    tsr_group **at = bucket_of(leader, g->id);

    while (*at != g) {
        at = &(*at)->next;
    }
    *at = g->next;
    leader->n_groups--;
    tsr_group_destroy(g);
}

/* ---- life ------------------------------------------------------------------------------------ */

static size_t most_units(const tsr_shard_shape *shape, int n_ranks)
{
    return (size_t)(shape->n_vocab / tsr_shard_vocab_unit(shape->n_vocab)) + (size_t)n_ranks;
}

static tsr_scheduler_options scheduler_options(const tsr_settings *s, const tsr_config *config)
{
    return (tsr_scheduler_options){
        .max_batch_tokens = s->max_batch_tokens,
        .max_seqs = s->max_sequences,
        .groups = tsr_settings_groups(s, config),
        .block_tokens = s->block_tokens,
        .n_blocks = s->n_blocks,
        .n_device_blocks = s->room.is_tiered ? s->room.n_device : 0,
        .n_host_blocks = s->room.n_host,
        .block_bytes = s->room.block_bytes,
        .preempt = s->preempt,
        // Blocks of long and of short sequences differ, with the same tokens.
        .prefix_cache = s->prefix_cache && config->rope_switch == 0,
        .context = s->context,
        .n_vocab = (int)config->shape.n_vocab,
        .max_queue = s->max_queue,
        .target_itl_us = s->target_itl_us,
        .long_from = config->rope_switch,
    };
}

size_t tsr_leader_table_bytes(const tsr_settings *settings, const tsr_config *config, int n_ranks)
{
    const tsr_scheduler_options options = scheduler_options(settings, config);
    const tsr_leader *leader = NULL;
    const tsr_engine *e = NULL;

    return (size_t)config->shape.n_vocab *
               (sizeof(*leader->candidate_ids) + sizeof(*leader->candidate_logits) +
                sizeof(*leader->changed_row) + 2 * sizeof(*leader->sort_work) +
                sizeof(*e->whole_row)) +
           2 * most_units(&config->shape, n_ranks) * sizeof(*leader->masses) +
           tsr_scheduler_table_bytes(&options);
}

tsr_status tsr_leader_create(tsr_leader **out, const tsr_engine *e)
{
    const tsr_shard_shape *shape = &tsr_model_config(e->model)->shape;
    const size_t n_vocab = (size_t)shape->n_vocab;
    const size_t n_ranks = (size_t)tsr_world_size(e->world);
    const size_t n_units = most_units(shape, tsr_world_size(e->world));
    const tsr_scheduler_options options =
        scheduler_options(&e->settings, tsr_model_config(e->model));
    tsr_leader *leader = tsr_alloc(1, sizeof(*leader));
    tsr_status st = TSR_OK;

    if (leader == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the leader");
    }
    TSR_TRY_GOTO(st, fail, tsr_scheduler_create(&leader->scheduler, &options));
    leader->candidate_ids = tsr_alloc(n_vocab, sizeof(*leader->candidate_ids));
    leader->candidate_logits = tsr_alloc(n_vocab, sizeof(*leader->candidate_logits));
    leader->changed_row = tsr_alloc(n_vocab, sizeof(*leader->changed_row));
    leader->sort_work = tsr_alloc(2 * n_vocab, sizeof(*leader->sort_work));
    leader->masses = tsr_alloc(2 * n_units, sizeof(*leader->masses));
    leader->cursor = tsr_alloc(n_ranks, sizeof(*leader->cursor));
    leader->next = tsr_alloc((size_t)e->settings.max_sequences, sizeof(*leader->next));
    leader->requests = tsr_alloc((size_t)e->settings.max_sequences, sizeof(tsr_request *));
    leader->samples = tsr_alloc((size_t)e->settings.max_sequences, sizeof(*leader->samples));
    if (leader->candidate_ids == NULL || leader->candidate_logits == NULL ||
        leader->changed_row == NULL || leader->sort_work == NULL || leader->masses == NULL ||
        leader->cursor == NULL || leader->next == NULL || leader->requests == NULL ||
        leader->samples == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for the leader's tables");
        goto fail;
    }
    leader->plans_ahead = e->settings.plans_ahead;
    if (leader->plans_ahead) {
        TSR_TRY_GOTO(st, fail, tsr_step_init(&leader->ahead, &e->step.limits));
    }
    leader->table = tsr_alloc(FIRST_TABLE, sizeof(tsr_group *));
    if (leader->table == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for a table of generations");
        goto fail;
    }
    leader->table_size = FIRST_TABLE;
    TSR_TRY_GOTO(st, fail, list_ends(leader, e->model, (int)n_vocab));
    *out = leader;
    return TSR_OK;

fail:
    tsr_leader_destroy(leader);
    return st;
}

void tsr_leader_destroy(tsr_leader *leader)
{
    if (leader == NULL) {
        return;
    }
    tsr_scheduler_destroy(leader->scheduler);
    for (int i = 0; i < leader->table_size; i++) {
        while (leader->table[i] != NULL) {
            forget(leader, leader->table[i]);
        }
    }
    tsr_free(leader->table);
    tsr_free(leader->end_ids);
    tsr_step_clear(&leader->ahead);
    tsr_free(leader->samples);
    tsr_free(leader->requests);
    tsr_free(leader->next);
    tsr_free(leader->cursor);
    tsr_free(leader->masses);
    tsr_free(leader->sort_work);
    tsr_free(leader->changed_row);
    tsr_free(leader->candidate_logits);
    tsr_free(leader->candidate_ids);
    tsr_free(leader);
}

int tsr_leader_n_free_blocks(const tsr_leader *leader)
{
    return tsr_scheduler_n_free_blocks(leader->scheduler);
}

double tsr_leader_block_fill(const tsr_leader *leader)
{
    return tsr_scheduler_fill(leader->scheduler);
}

int64_t tsr_leader_n_preempted(const tsr_leader *leader)
{
    return leader->n_preempted;
}

static void note_owner(const tsr_request *r, int n_groups, int64_t owner, int64_t *owners)
{
    for (int i = 0; r != NULL && i < r->blocks.n_columns * n_groups; i++) {
        if (r->blocks.ids[i] != TSR_BLOCK_NONE) {
            owners[r->blocks.ids[i]] = owner;
        }
    }
}

void tsr_leader_owners(const tsr_engine *e, int64_t *owners)
{
    const tsr_leader *leader = e->leader;

    for (int id = 0; id < e->settings.n_blocks; id++) {
        owners[id] = -1;
    }
    for (int i = 0; i < leader->table_size; i++) {
        for (const tsr_group *g = leader->table[i]; g != NULL; g = g->next) {
            for (int k = 0; k < g->n_members; k++) {
                note_owner(g->members[k].request, tsr_model_config(e->model)->n_groups, g->id,
                           owners);
            }
        }
    }
}

/* ---- what comes ------------------------------------------------------------------------------ */

tsr_status tsr_engine_submit(tsr_engine *e, const tsr_generation *wish, int64_t *id)
{
    tsr_leader *leader = e->leader;
    tsr_group *g = NULL;
    tsr_status st = TSR_OK;

    if (e->remote != NULL) {
        return tsr_remote_submit(e->remote, wish, id);
    }
    TSR_TRY(tsr_group_create(&g, e, wish));
    TSR_TRY_GOTO(st, fail, reserve(leader));
    TSR_TRY_GOTO(st, fail, tsr_scheduler_submit(leader->scheduler, g->members[0].request));
    if (tsr_tell_begin(e, &g->members[0])) {
        tsr_scheduler_stop(leader->scheduler, g->members[0].request);
    }
    g->n_requests = 1;
    keep(leader, g);
    *id = leader->next_id++;
    return TSR_OK;

fail:
    tsr_group_destroy(g);
    return st;
}

void tsr_engine_cancel(tsr_engine *e, int64_t id)
{
    tsr_group *g;

    if (e->remote != NULL) {
        tsr_remote_cancel(e->remote, id);
        return;
    }
    g = *bucket_of(e->leader, id);
    while (g != NULL && g->id != id) {
        g = g->next;
    }
    if (g != NULL) {
        tsr_group_cancel(e, g);
    }
}

/* ---- steps ----------------------------------------------------------------------------------- */

bool tsr_leader_token_ends(void *ctx, int32_t token)
{
    return tsr_model_is_end(ctx, token);
}

static tsr_member *member_of(const tsr_engine *e, int s)
{
    return e->leader->requests[s]->user;
}

/* What the step has brought reaches whoever asked for it. */
static void tell_all(tsr_engine *e, int64_t now_ns)
{
    tsr_request *request;

    for (int s = 0; s < e->step.n_seqs; s++) {
        if (member_of(e, s)->group->is_held) {
            tsr_group_advance(e, member_of(e, s)->group, now_ns);
        }
    }
    for (int s = 0; s < e->step.n_seqs; s++) {
        tsr_tell_tokens(e, member_of(e, s));
    }
    while ((request = tsr_scheduler_take_ended(e->leader->scheduler)) != NULL) {
        tsr_member *m = request->user;
        tsr_group *g = m->group;

        e->leader->n_preempted += request->n_preempted;
        g->n_requests--;
        if (g->search != NULL) {
            tsr_search_end(e, m);
        } else {
            tsr_tell_end(m);
        }
        if (g->n_requests == 0) {
            forget(e->leader, g);
        }
    }
}

/* The step to run is in e->step. False: there is none now and nothing that ranks should hear of. */
static bool plan(tsr_engine *e, int64_t now_ns)
{
    tsr_leader *leader = e->leader;

    if (leader->is_ahead) {
        const tsr_step used = e->step;

        e->step = leader->ahead;
        leader->ahead = used;
        leader->is_ahead = false;
    } else if (!tsr_scheduler_plan(leader->scheduler, &e->step, now_ns)) {
        e->step.n_seqs = 0;
        return false;
    }
    for (int s = 0; s < e->step.n_seqs; s++) {
        tsr_group *g;

        leader->requests[s] = tsr_scheduler_request_of(leader->scheduler, s);
        leader->samples[s] = tsr_scheduler_samples(leader->scheduler, s);
        g = member_of(e, s)->group;
        g->started_ns = g->started_ns == 0 ? now_ns : g->started_ns;
        e->step.may_ask = e->step.may_ask || g->wants_logits;
    }
    return true;
}

/* Can the next step be planned without what this one brings? */
static bool may_plan_ahead(const tsr_engine *e)
{
    bool may =
        e->leader->plans_ahead && tsr_scheduler_may_plan_ahead(e->leader->scheduler, &e->step);

    for (int s = 0; s < e->step.n_seqs && may; s++) {
        const tsr_group *g = member_of(e, s)->group;

        may = !tsr_group_holds(g) && !g->wants_logits && g->pool == NULL;
    }
    return may;
}

/* While the ranks run e->step: it counts as done, and the next is planned. */
static void plan_ahead(tsr_engine *e)
{
    tsr_leader *leader = e->leader;
    const int64_t now_ns = tsr_clock_ns();

    for (int s = 0; s < e->step.n_seqs; s++) {
        leader->next[s] = TSR_SCHEDULER_LATER;
    }
    tsr_scheduler_commit(leader->scheduler, &e->step, leader->next, tsr_leader_token_ends, e->model,
                         now_ns);
    leader->is_ahead = tsr_scheduler_plan(leader->scheduler, &leader->ahead, now_ns);
}

/* The tokens of a step behind which the next is planned already. */
static void settle(tsr_engine *e, int64_t now_ns)
{
    tsr_leader *leader = e->leader;

    for (int s = 0; s < e->step.n_seqs; s++) {
        if (leader->samples[s]) {
            tsr_scheduler_settle(leader->scheduler, leader->requests[s], leader->next[s],
                                 tsr_leader_token_ends, e->model, now_ns,
                                 leader->is_ahead ? &leader->ahead : NULL);
        }
    }
}

static tsr_status choose_all(tsr_engine *e, const tsr_findings *findings)
{
    int s = 0;

    for (int w = 0; w < e->step.n_wanted && !e->report.is_spoilt; w++) {
        while (e->step.wanted[w] >= e->step.row_start[s + 1]) {
            s++;
        }
        TSR_TRY(tsr_choose_row(e, findings, w, s));
    }
    TSR_TRY(tsr_pool_rows(e));
    return e->step.may_ask ? tsr_turn_ask(e, -1) : TSR_OK;
}

/* All ranks run e->step; leader->next is what comes of it. *ahead: the next one is planned behind
 * it, and it is committed. */
static tsr_status lead_step(tsr_engine *e, bool *ahead)
{
    tsr_findings findings = {0};

    TSR_TRY(tsr_choose_prepare(e));
    *ahead = may_plan_ahead(e);
    TSR_TRY(tsr_turn_start(e));
    if (*ahead) {
        plan_ahead(e);
    }
    TSR_TRY(tsr_turn_finish(e, &findings));
    return choose_all(e, &findings);
}

static void step_ranks(tsr_engine *e, bool *busy)
{
    tsr_scheduler *scheduler = e->leader->scheduler;
    const int64_t began = tsr_clock_ns();
    int64_t done = began;
    bool ahead = false;

    if (plan(e, began)) {
        const tsr_scheduler_load load = tsr_scheduler_load_of(scheduler);
        const tsr_status st = lead_step(e, &ahead);

        if (st != TSR_OK) {
            tsr_world_abort(e->world, st);
        }
        done = tsr_clock_ns();
        if (ahead) {
            settle(e, done);
        } else if (e->report.is_spoilt) {
            tsr_scheduler_void(scheduler, done);
        } else {
            tsr_scheduler_commit(scheduler, &e->step, e->leader->next, tsr_leader_token_ends,
                                 e->model, done);
        }
        if (!e->report.is_spoilt) {
            tsr_scheduler_note_time(scheduler, load, (done - began) / 1000);
        }
        if (e->settings.room.is_tiered) {
            tsr_scheduler_note_report(scheduler, &e->report);
        }
    }
    tell_all(e, done);
    e->step_ns += e->step.n_seqs > 0 ? tsr_clock_ns() - began : 0;
    *busy = !tsr_scheduler_is_idle(scheduler);
}

/* Has a signal asked to end, and is the time over in which what is under way could be finished? */
static bool must_end(tsr_engine *e)
{
    const int64_t now = tsr_clock_ns();

    if (e->world == NULL || !tsr_world_asked_to_end(e->world)) {
        return false;
    }
    e->asked_ns = e->asked_ns != 0 ? e->asked_ns : now;
    return now - e->asked_ns >= e->drain_ns;
}

tsr_status tsr_engine_step(tsr_engine *e, bool *busy)
{
    if (must_end(e)) {
        return tsr_fail(TSR_ERR_CANCELLED, "asked to end by a signal");
    }
    if (e->remote != NULL) {
        return tsr_remote_step(e->remote, busy);
    }
    step_ranks(e, busy);
    return TSR_OK;
}
