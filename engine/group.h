/*
 * engine/group.h - the requests of one generation: a single one, several samples, or beams. Private
 * to the room.
 *
 * A generation starts with one request, that of member 0, which reads the prompt. Where its first
 * token is chosen the other members come to be as forks of it: samples go on by themselves from
 * there; beams advance together, a round whenever each has offered its continuations.
 *
 * A member that must wait for others, or be forked first, is *held*: the commit of its step gives
 * it no token, tsr_group_advance() does.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_ENGINE_GROUP_H
#define TSR_ENGINE_GROUP_H

#include "engine/adjust.h"
#include "engine/beam.h"
#include "engine/engine.h"
#include "engine/stops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_group tsr_group;
typedef struct tsr_search tsr_search; /* search.h */
typedef struct tsr_pool tsr_pool;     /* pool.h */

/* How far a text has been written: what decoding and the search for stop strings remember. */
typedef struct tsr_writing {
    tsr_token_stream stream;
    int stop_state;
} tsr_writing;

/* Behind a prompt. */
#define TSR_WRITING_BEGINS ((tsr_writing){.stream = {.begun = true}})

/* A sample or a beam; request->user. */
typedef struct tsr_member {
    tsr_group *group;
    int index;
    tsr_request *request; /* owned; NULL: not made yet */
    bool is_over;         /* the scheduler has handed it back, or never got it */
    char error[160];      /* why it ended, if the scheduler does not know; else "" */
    tsr_adjust *adjust;   /* owned; NULL: no logit is changed */
    tsr_writing writing;  /* of the text so far */

    /* Samples only. */
    int32_t next;     /* held: the token that it will get */
    double logprob;   /* of the token chosen last */
    bool is_chosen;   /* and it is not in the sum yet */
    bool is_complete; /* by a token that ends it; a step planned ahead may have a row behind that */
    tsr_top_token *top; /* owned, [n_top]: of its place */
    int n_top_found;
    tsr_text text; /* decoded and not yet told: an unfinished character, or what may be the
                      beginning of a stop string; all of it when told at the end */
    tsr_token_stream stream;
    int64_t n_shown;  /* tokens of the request that were looked at */
    double sum;       /* of log-probabilities: of all tokens, the end token among them */
    int64_t n_summed; /* how many these are */
    double score;     /* their mean */
    bool is_told;
    tsr_beam_place *kept;    /* owned, [n_shown - n_prompt], told at the end */
    tsr_top_token *kept_top; /* owned, [n_top] of each */
    int64_t kept_room;
} tsr_member;

struct tsr_group {
    int64_t id;
    tsr_group *next; /* in the leader's table */
    tsr_event_fn *on_event;
    void *ctx;
    int n_choices;
    int n_members;       /* samples or beams */
    tsr_member *members; /* owned */
    bool is_forked;      /* all members have come to be */
    bool is_held;        /* tsr_group_advance() is due */
    bool is_cancelled;
    bool tells_at_end; /* not token by token */
    bool is_told;      /* beams: all has been */
    int n_open;        /* samples that have not ended */
    int n_requests;    /* that the scheduler holds */

    bool wants_logits;
    bool wants_logprobs; /* in events */
    bool sums_logprobs;
    int n_top;
    tsr_stops *stops;   /* owned; NULL: no stop strings */
    int64_t min_tokens; /* the text of the first ones is not searched */
    bool include_stop;
    int64_t started_ns; /* of the first step it was in */
    int64_t scored_ns;  /* when the last prompt position was told */

    tsr_search *search; /* owned; NULL: samples */
    tsr_pool *pool;     /* owned; NULL: no embedding is wanted */
};

/* What a generation asks for, checked, and the request of member 0, not submitted yet. Errors: ARG,
 * NOMEM. */
TSR_MUST_CHECK tsr_status tsr_group_create(tsr_group **out, const tsr_engine *e,
                                           const tsr_generation *wish);

/* The scheduler holds none of its requests any more. NULL is fine. */
void tsr_group_destroy(tsr_group *group);

/* Do the tokens that its rows give have to wait for tsr_group_advance()? */
static inline bool tsr_group_holds(const tsr_group *group)
{
    return group->search != NULL || !group->is_forked;
}

/* After a commit that held some of its members: forks and tokens, as far as they are due. now_ns is
 * that of the commit. */
void tsr_group_advance(tsr_engine *e, tsr_group *group, int64_t now_ns);

/* A request for `member`, a fork of what `from` is, with as many tokens; both are held. Errors:
 * those of tsr_scheduler_fork(). */
TSR_MUST_CHECK tsr_status tsr_group_fork(tsr_engine *e, tsr_member *member, const tsr_member *from);

/* A held member gets its token. */
void tsr_group_give(tsr_engine *e, tsr_member *member, int32_t token);

/* End all members that have not ended. */
void tsr_group_cancel(tsr_engine *e, tsr_group *group);

#ifdef __cplusplus
}
#endif

#endif
