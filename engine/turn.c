#include "engine/engine.h"

#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "engine/remote/remote.h"
#include "engine/memory_report.h"
#include "kernels/machine.h"
#include "parallel/fault.h"

enum {
    HEAD_INTS = 1024, // of a step's message: what the first broadcast carries
    MEASURE_MS = 200
};

static tsr_status make_message_room(tsr_engine *e, size_t n_ints)
{
    int32_t *grown;

    if (n_ints <= e->message_ints) {
        return TSR_OK;
    }
    grown = tsr_alloc_resize(e->message, n_ints, sizeof(*grown));
    if (grown == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a step of %zu words", n_ints);
    }
    memset(grown + e->message_ints, 0, (n_ints - e->message_ints) * sizeof(*grown));
    e->message = grown;
    e->message_ints = n_ints;
    return TSR_OK;
}

tsr_status tsr_turn_prepare(tsr_engine *e)
{
    const tsr_shard_shape *shape = &tsr_model_config(e->model)->shape;
    const int n_ranks = tsr_world_size(e->world);

    TSR_TRY(make_message_room(e, HEAD_INTS));
    if (!tsr_world_is_leader(e->world)) {
        return TSR_OK;
    }
    e->whole_row = tsr_alloc((size_t)shape->n_vocab, sizeof(*e->whole_row));
    e->row_parts = tsr_alloc((size_t)n_ranks, sizeof(*e->row_parts));
    if (e->whole_row == NULL || e->row_parts == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a row of %lld logits",
                        (long long)shape->n_vocab);
    }
    for (int rank = 0; rank < n_ranks; rank++) {
        e->row_parts[rank] = (size_t)tsr_shard_of(shape, rank, n_ranks).vocab.count * sizeof(float);
    }
    return TSR_OK;
}

void tsr_turn_forget(tsr_engine *e)
{
    tsr_free(e->row_parts);
    tsr_free(e->whole_row);
    tsr_free(e->gathered);
    tsr_free(e->message);
}

/* The leader's step reaches every rank: a first message of fixed size, which most steps fit, and
 * the rest. */
static tsr_status share_step(tsr_engine *e)
{
    size_t n_ints = 0;

    if (tsr_world_is_leader(e->world)) {
        TSR_TRY(make_message_room(e, tsr_step_n_ints(&e->step)));
        n_ints = tsr_step_pack(&e->step, e->message);
        e->sent_ns = tsr_clock_ns();
    }
    TSR_TRY(tsr_world_broadcast(e->world, e->message, HEAD_INTS * sizeof(*e->message)));
    if (!tsr_world_is_leader(e->world)) {
        n_ints = (size_t)e->message[0];
        if (e->message[0] < 0 || n_ints > tsr_step_max_ints(&e->step.limits)) {
            return tsr_fail(TSR_ERR_FORMAT, "a step of %d words", e->message[0]);
        }
        TSR_TRY(make_message_room(e, n_ints));
    }
    if (n_ints > HEAD_INTS) {
        TSR_TRY(tsr_world_broadcast(e->world, e->message + HEAD_INTS,
                                    (n_ints - HEAD_INTS) * sizeof(*e->message)));
    }
    return tsr_world_is_leader(e->world) ? TSR_OK : tsr_step_unpack(&e->step, e->message, n_ints);
}

/* Everybody's findings come to the leader. */
static tsr_status gather_findings(tsr_engine *e, const tsr_findings *findings)
{
    const size_t n_words = findings->n_words * (size_t)tsr_world_size(e->world);

    if (tsr_world_is_leader(e->world) && n_words > e->gathered_words) {
        int32_t *grown = tsr_alloc_resize(e->gathered, n_words, sizeof(*grown));

        if (grown == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for the candidates of all ranks");
        }
        e->gathered = grown;
        e->gathered_words = n_words;
    }
    TSR_TRY(tsr_world_gather(e->world, e->gathered, findings->words,
                             findings->n_words * sizeof(*findings->words)));
    if (tsr_kv_store_tiers(e->store) != NULL && tsr_world_is_leader(e->world)) {
        tsr_memory_report_merge(&e->report, e->gathered + findings->report_at, findings->n_words,
                                tsr_world_size(e->world));
    }
    return TSR_OK;
}

static tsr_status gather_row(tsr_engine *e, int wanted)
{
    const float *own;

    TSR_TRY(tsr_runner_row(e->runner, wanted, &own));
    return tsr_world_gather_parts(e->world, e->whole_row, e->row_parts, own,
                                  (size_t)e->shard.vocab.count * sizeof(*own));
}

tsr_status tsr_turn_ask(tsr_engine *e, int32_t wanted)
{
    const int64_t began = tsr_clock_ns();

    TSR_TRY(tsr_world_broadcast(e->world, &wanted, sizeof(wanted)));
    if (wanted >= 0) {
        TSR_TRY(gather_row(e, wanted));
    }
    e->ranks_ns += tsr_clock_ns() - began;
    return TSR_OK;
}

static tsr_status answer_questions(tsr_engine *e)
{
    for (;;) {
        int32_t wanted = -1;

        TSR_TRY(tsr_world_broadcast(e->world, &wanted, sizeof(wanted)));
        if (wanted < 0) {
            return TSR_OK;
        }
        if (wanted >= e->step.n_wanted) {
            return tsr_fail(TSR_ERR_FORMAT, "row %d of %d was asked for", wanted, e->step.n_wanted);
        }
        TSR_TRY(gather_row(e, wanted));
    }
}

static tsr_status measure(tsr_engine *e, double *read_bytes_per_s, double *macs_per_s)
{
    double mine[2];
    double all[2 * TSR_SHARD_MAX_RANKS] = {0};
    const int n_ranks = tsr_world_size(e->world);

    if (n_ranks > TSR_SHARD_MAX_RANKS) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "measuring more than %d ranks", TSR_SHARD_MAX_RANKS);
    }
    TSR_TRY(tsr_machine_measure(e->dev, e->settings.activations, MEASURE_MS, &mine[0], &mine[1]));
    TSR_TRY(tsr_world_gather(e->world, all, mine, sizeof(mine)));
    *read_bytes_per_s = 0;
    *macs_per_s = 0;
    for (int rank = 0; rank < n_ranks; rank++) {
        *read_bytes_per_s += all[2 * rank];
        *macs_per_s += all[2 * rank + 1];
    }
    return TSR_OK;
}

static tsr_status gather_memory(tsr_engine *e, tsr_memory_stats *ranks)
{
    const tsr_memory_stats own = tsr_memory_report_stats(e->store);

    return tsr_world_gather(e->world, ranks, &own, sizeof(own));
}

/* places [n_ranks * n_blocks]: NULL on followers. */
static tsr_status gather_places(tsr_engine *e, uint8_t *places)
{
    const size_t n_blocks = (size_t)e->settings.n_blocks;
    uint8_t *own = tsr_alloc(n_blocks, sizeof(*own));
    tsr_status st;

    if (own == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the places of %zu blocks", n_blocks);
    }
    tsr_kv_store_places(e->store, own);
    st = tsr_world_gather(e->world, places, own, n_blocks * sizeof(*own));
    tsr_free(own);
    return st;
}

tsr_status tsr_turn_start(tsr_engine *e)
{
    TSR_TRY(share_step(e));
    if (e->step.kind != TSR_STEP_RUN) {
        return TSR_OK;
    }
    tsr_world_note(e->world, "running step", e->n_steps);
    tsr_fault_maybe(e->world, e->n_steps);
    e->n_steps++;
    return tsr_runner_start(e->runner, &e->step);
}

tsr_status tsr_turn_finish(tsr_engine *e, tsr_findings *findings)
{
    TSR_TRY(tsr_runner_finish(e->runner, &e->step, findings));
    if (findings->n_words > 0) {
        TSR_TRY(gather_findings(e, findings));
    }
    e->ranks_ns += tsr_world_is_leader(e->world) ? tsr_clock_ns() - e->sent_ns : 0;
    return TSR_OK;
}

static tsr_status follow_one(tsr_engine *e)
{
    tsr_findings findings;
    double ignored[2];

    TSR_TRY(tsr_turn_start(e));
    if (e->step.kind == TSR_STEP_MEASURE) {
        return measure(e, &ignored[0], &ignored[1]);
    }
    if (e->step.kind == TSR_STEP_MEMORY) {
        return gather_memory(e, NULL);
    }
    if (e->step.kind == TSR_STEP_BLOCKS) {
        return gather_places(e, NULL);
    }
    if (e->step.kind == TSR_STEP_RUN) {
        TSR_TRY(tsr_turn_finish(e, &findings));
        TSR_TRY(e->step.may_ask ? answer_questions(e) : TSR_OK);
    }
    tsr_world_note(e->world, "waiting for work after step", e->n_steps - 1);
    return TSR_OK;
}

tsr_status tsr_engine_follow(tsr_engine *e)
{
    if (tsr_engine_is_leader(e)) {
        return tsr_fail(TSR_ERR_ARG, "the leader leads; it does not follow");
    }
    while (!e->stopped) {
        const tsr_status st = follow_one(e);

        if (st != TSR_OK) {
            tsr_world_abort(e->world, st); // the others are in the middle of a step
        }
        e->stopped = e->step.kind == TSR_STEP_END;
    }
    return TSR_OK;
}

tsr_status tsr_engine_stop(tsr_engine *e)
{
    if (e->stopped) {
        return TSR_OK;
    }
    tsr_step_reset(&e->step);
    e->step.kind = TSR_STEP_END;
    TSR_TRY(share_step(e));
    e->stopped = true;
    return TSR_OK;
}

tsr_status tsr_engine_measure(tsr_engine *e, double *read_bytes_per_s, double *macs_per_s)
{
    if (e->remote != NULL) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "ranks measure themselves where they are no servers");
    }
    tsr_step_reset(&e->step);
    e->step.kind = TSR_STEP_MEASURE;
    TSR_TRY(share_step(e));
    return measure(e, read_bytes_per_s, macs_per_s);
}

tsr_status tsr_engine_memory(tsr_engine *e, tsr_memory_stats *ranks)
{
    if (e->remote != NULL) {
        return tsr_remote_memory(e->remote, ranks);
    }
    tsr_step_reset(&e->step);
    e->step.kind = TSR_STEP_MEMORY;
    TSR_TRY(share_step(e));
    return gather_memory(e, ranks);
}

tsr_status tsr_engine_blocks(tsr_engine *e, int64_t *owners, uint8_t *places)
{
    if (e->remote != NULL) {
        return tsr_remote_blocks(e->remote, owners, places);
    }
    tsr_leader_owners(e, owners);
    tsr_step_reset(&e->step);
    e->step.kind = TSR_STEP_BLOCKS;
    TSR_TRY(share_step(e));
    return gather_places(e, places);
}
