/*
 * launch/serve_desk.h - where requests are handed in and answers are handed out: between the
 * threads that talk with clients and the one that drives the engine.
 *
 * A job is one request. Who talks with its client makes it, hands it in, and lets it go at the end;
 * the engine's side holds it as long as its generations run. What comes of it is kept in its
 * answer, and each time there is more its client's side is woken. A client that goes away lets its
 * job go early: its generations are cancelled before the next step.
 *
 * Threads: as told at each call.
 */
#ifndef TSR_LAUNCH_SERVE_DESK_H
#define TSR_LAUNCH_SERVE_DESK_H

#include "launch/api_answer.h"
#include "launch/serve_metrics.h"
#include "launch/serve_picture.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_desk tsr_desk;
typedef struct tsr_job tsr_job;

typedef struct tsr_desk_options {
    int max_waiting;      /* jobs handed in and not begun; 0: any number */
    tsr_metrics *metrics; /* borrowed */
    tsr_picture *picture; /* borrowed */
} tsr_desk_options;

/* How it stands with the engine. */
typedef enum tsr_desk_state {
    TSR_DESK_SERVING,
    TSR_DESK_LOST,   /* its ranks are lost, and not back yet: what is handed in waits */
    TSR_DESK_ENDING, /* nothing more is taken; what is under way is finished */
    TSR_DESK_STATE_COUNT
} tsr_desk_state;

/* Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_desk_create(tsr_desk **out, const tsr_desk_options *options);
void tsr_desk_destroy(tsr_desk *desk); /* no job is left; NULL is fine */

/* ---- the client's side -------------------------------------------------------------------------
 */

/* Who waits for a job. Both are called by the engine's thread while the answer is locked, and never
 * after tsr_job_let_go(). */
typedef struct tsr_client {
    void (*wake)(void *ctx); /* there is more of the answer */
    void (*look)(void *ctx); /* now and then: is it still there? */
    void *ctx;
} tsr_client;

/* What a new job takes over: request and answer, which are {0} afterwards. Errors: NOMEM (nothing
 * is taken over). */
TSR_MUST_CHECK tsr_status tsr_job_create(tsr_job **out, tsr_api_request *request,
                                         tsr_api_answer *answer, const tsr_client *client);

/* Errors: FULL (too many wait), CANCELLED (the engine takes nothing more). */
TSR_MUST_CHECK tsr_status tsr_desk_hand_in(tsr_desk *desk, tsr_job *job);

/* The client's side has no more use for it. */
void tsr_job_let_go(tsr_job *job);

tsr_desk_state tsr_desk_is(const tsr_desk *desk);

/* Looks at the answer while nobody changes it. */
const tsr_api_answer *tsr_job_lock(tsr_job *job);
void tsr_job_unlock(tsr_job *job);

/* ---- the engine's side -------------------------------------------------------------------------
 */

/* Answers what is handed in until a signal asks to end: then what is under way is finished as far
 * as the engine goes on (tsr_engine_options.drain_s), and what is left after that fails in words.
 * Errors: those of tsr_engine_step(). */
TSR_MUST_CHECK tsr_status tsr_desk_serve(tsr_desk *desk, tsr_engine *engine);

#ifdef __cplusplus
}
#endif

#endif
