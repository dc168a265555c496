/*
 * engine/engine.h - what an engine is made of. Private to the room; the public face is
 * engine/tessera.h.
 *
 *   engine.c   making and describing it
 *   turn.c     one step on all ranks: the message out, the findings back, questions and answers
 *   leader.c   what only rank 0 does: requests, sampling, events
 */
#ifndef TSR_ENGINE_ENGINE_H
#define TSR_ENGINE_ENGINE_H

#include "engine/model.h"
#include "engine/runner.h"
#include "engine/scheduler.h"
#include "engine/settings.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_leader tsr_leader; /* leader.c */
typedef struct tsr_remote tsr_remote; /* remote/remote.h */

struct tsr_engine {
    tsr_remote *remote; /* of a client: besides the model and, if it has one, the world there is
                           nothing else then; NULL: a rank */
    tsr_world *world;
    bool owns_world;
    tsr_settings settings;
    tsr_model *model;
    tsr_device *dev;
    tsr_comm *comm;
    tsr_shard shard;
    tsr_weights weights;
    tsr_kv_store *store;
    tsr_runner *runner;
    tsr_leader *leader; /* NULL on followers */

    tsr_step step;
    int32_t *message; /* [message_ints]; grows to the largest step that is met */
    size_t message_ints;
    int64_t n_steps;
    int64_t step_ns;  /* leader: of all steps */
    int64_t ranks_ns; /* of these what passed from sending a step to having all findings */
    int64_t sent_ns;  /* when the last step was */
    double load_s;
    uint64_t token_bytes; /* of weights that one token's matrices read on all ranks */
    bool stopped;         /* the leader has sent END, a follower has seen it */
    int64_t drain_ns;
    int64_t asked_ns; /* since when a signal asks to end; 0: none does */

    /* What comes back to the leader; NULL on followers. */
    int32_t *gathered; /* every rank's findings, end to end */
    size_t gathered_words;
    tsr_step_report report; /* with tiers of memory: of the step run last */
    float *whole_row;       /* [n_vocab] */
    size_t *row_parts;      /* [n_ranks] bytes of each rank's part of a row */
};

/* ---- turn.c ------------------------------------------------------------------------------------
 */

/* What the turns need. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_turn_prepare(tsr_engine *e);
void tsr_turn_forget(tsr_engine *e);

/* Leader: e->step reaches every rank, which begin to carry it out. Follower: the same, with the
 * step that arrives. */
TSR_MUST_CHECK tsr_status tsr_turn_start(tsr_engine *e);

/* It has been carried out; findings of all ranks lie in the leader's e->gathered. Not for the other
 * kinds of steps. */
TSR_MUST_CHECK tsr_status tsr_turn_finish(tsr_engine *e, tsr_findings *findings);

/* Leader, in a step with may_ask: the whole row of logits of a wanted row, into e->whole_row;
 * wanted = -1 ends the questions. */
TSR_MUST_CHECK tsr_status tsr_turn_ask(tsr_engine *e, int32_t wanted);

/* ---- leader.c ----------------------------------------------------------------------------------
 */

TSR_MUST_CHECK tsr_status tsr_leader_create(tsr_leader **out, const tsr_engine *e);

/* Bytes of what is sized by the vocabulary and the blocks: its own, the scheduler's and, of
 * tsr_turn_prepare(), the leader's. */
size_t tsr_leader_table_bytes(const tsr_settings *settings, const tsr_config *config, int n_ranks);
void tsr_leader_destroy(tsr_leader *leader); /* NULL is fine */
int tsr_leader_n_free_blocks(const tsr_leader *leader);
int64_t tsr_leader_n_preempted(const tsr_leader *leader);
double tsr_leader_block_fill(const tsr_leader *leader);

/* owners [n_blocks]: the id of a generation that has the block, or -1. */
void tsr_leader_owners(const tsr_engine *e, int64_t *owners);

#ifdef __cplusplus
}
#endif

#endif
