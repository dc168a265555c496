/*
 * engine/leader.h - what only rank 0 keeps: the generations and the tables for choosing tokens.
 * Private to the room.
 *
 *   leader.c   generations come, steps are taken
 *   group.c    what a generation asks for, and its requests: one, samples or beams
 *   choose.c   what each row is asked for, and what is made of the findings: tokens, scores,
 *              log-probabilities
 *   pool.c     what is made of a prompt's hidden states
 *   tell.c     events go out
 */
#ifndef TSR_ENGINE_LEADER_H
#define TSR_ENGINE_LEADER_H

#include "engine/group.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tsr_leader {
    tsr_scheduler *scheduler;
    int32_t *candidate_ids;  /* [n_vocab] */
    float *candidate_logits; /* [n_vocab] */
    float *changed_row;      /* [n_vocab] of a whole row that was asked for */
    uint64_t *sort_work;     /* [2 * n_vocab] */
    float *masses;           /* [2 * all units] */
    int *cursor;             /* [n_ranks] */
    int32_t *next;           /* [max_seqs] */

    /* Of the step that runs, each [max_seqs]: the scheduler may have planned another since. */
    tsr_request **requests;
    bool *samples;
    bool plans_ahead; /* where that can be done */
    bool is_ahead;    /* the next step is planned: it is in `ahead` */
    tsr_step ahead;   /* empty unless plans_ahead */

    int32_t *end_ids; /* [n_end_ids]: tokens that end an answer */
    int n_end_ids;
    tsr_group **table; /* [table_size], chained: every generation that has not ended, by its id */
    int table_size;    /* a power of two */
    int n_groups;
    int64_t next_id;
    int64_t n_preempted;
};

/* Does a token end an answer? ctx is the tokenizer. */
bool tsr_leader_token_ends(void *ctx, int32_t token);

/* ---- choose.c ----------------------------------------------------------------------------------
 */

/* After planning: what the rows of the step are to give besides what the scheduler has asked for.
 * Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_choose_prepare(tsr_engine *e);

/* One wanted row of sequence s, when the step has run: scores are told, the last row gives the next
 * token, leader->next[s], or what its group needs for that. */
TSR_MUST_CHECK tsr_status tsr_choose_row(tsr_engine *e, const tsr_findings *f, int wanted, int s);

#ifdef __cplusplus
}
#endif

#endif
