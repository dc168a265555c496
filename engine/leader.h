/*
 * engine/leader.h - what only rank 0 keeps: the generations and the tables for choosing tokens.
 * Private to the room.
 *
 *   leader.c   generations come, steps are taken, events go out
 *   choose.c   what each row is asked for, and what is made of the findings: tokens, scores,
 *              log-probabilities
 */
#ifndef TSR_ENGINE_LEADER_H
#define TSR_ENGINE_LEADER_H

#include "engine/adjust.h"
#include "engine/engine.h"
#include "engine/stops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The leader's side of one generation; request->user. */
typedef struct tsr_wish {
    tsr_event_fn *on_event;
    void *ctx;
    tsr_text text; /* decoded and not yet shown: an unfinished character, or what may be the
                      beginning of a stop string */
    tsr_token_stream stream;
    int64_t n_shown;    /* tokens of the request that were reported */
    int64_t scored_ns;  /* when the last of them was */
    int64_t started_ns; /* of the first step it was in */
    int64_t last_ns;    /* of the last token */
    bool wants_logits;

    tsr_adjust *adjust; /* owned; NULL: no logit is changed */
    tsr_stops *stops;   /* owned; NULL: no stop strings */
    int stop_state;     /* of the text so far */
    int64_t min_tokens; /* the text of the first ones is not searched */
    bool include_stop;

    bool wants_logprobs;
    int n_top;
    double logprob;     /* of the token chosen last, unless it has been told */
    tsr_top_token *top; /* owned, [n_top] at its place */
    int n_top_found;
} tsr_wish;

struct tsr_leader {
    tsr_scheduler *scheduler;
    int32_t *candidate_ids;  /* [n_vocab] */
    float *candidate_logits; /* [n_vocab] */
    float *masses;           /* [2 * all units] */
    int *cursor;             /* [n_ranks] */
    int32_t *next;           /* [max_seqs] */
    tsr_request **live;      /* what was submitted and has not ended, [n_live], in no order */
    int n_live;
    int live_capacity;
    int64_t next_id;
    int64_t n_preempted;
};

/* ---- leader.c ----------------------------------------------------------------------------------
 */

/* Calls the generation's on_event; fills in whose event it is. */
void tsr_leader_tell(const tsr_request *request, tsr_event *event);

/* ---- choose.c ----------------------------------------------------------------------------------
 */

/* After planning: what the rows of the step are to give besides what the scheduler has asked for.
 * Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_choose_prepare(tsr_engine *e);

/* One wanted row of sequence s, when the step has run: scores are told, the last row gives the next
 * token, leader->next[s]. */
TSR_MUST_CHECK tsr_status tsr_choose_row(tsr_engine *e, const tsr_findings *f, int wanted, int s);

#ifdef __cplusplus
}
#endif

#endif
