/*
 * engine/scheduler.h - who runs in the next step, and with which blocks. No device and no rank in
 * it.
 *
 * First come, first served, with continuous batching: each step takes one token of every sequence
 * that is decoding and fills the rest of its token budget with chunks of prompts, those that run
 * before those that wait. A request is admitted when the blocks of its first chunk are there, and
 * one more for each sequence that runs; not those of its worst case. When blocks run out the
 * youngest running request is put back at the head of the waiting ones and its blocks are freed;
 * later its tokens are computed again, which gives the same cache and so the same continuation (to
 * come back it needs room for all of them, so that none is put back over and over). A request that
 * has nobody younger to put back waits with what it holds. The oldest is never put back and always
 * finds room, so all end. Only a request that alone needs more blocks than there are ends with an
 * error that says so.
 *
 * A plan costs time by its rows, sequences and changed blocks, whatever the size of the pool, the
 * lengths of the sequences or the number of waiting requests.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_ENGINE_SCHEDULER_H
#define TSR_ENGINE_SCHEDULER_H

#include "engine/request.h"
#include "engine/step.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_scheduler tsr_scheduler;

typedef struct tsr_scheduler_options {
    int max_batch_tokens; /* rows a step */
    int max_seqs;         /* running at once */
    int block_tokens;
    int n_blocks;
    int64_t context; /* positions a sequence */
    int n_vocab;
} tsr_scheduler_options;

/* Errors: ARG, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_scheduler_create(tsr_scheduler **out,
                                               const tsr_scheduler_options *options);

/* Requests still queued or running are left to their owner, their blocks given back. NULL is fine.
 */
void tsr_scheduler_destroy(tsr_scheduler *scheduler);

tsr_step_limits tsr_scheduler_step_limits(const tsr_scheduler *scheduler);

/*
 * Queue a request; the scheduler holds it until it has ENDED and been handed out by
 * tsr_scheduler_take_ended(). Errors: ARG (prompt longer than the context, a token out of range,
 * sampling out of range), UNSUPPORTED (the prompt could never fit the pool: says what would).
 */
TSR_MUST_CHECK tsr_status tsr_scheduler_submit(tsr_scheduler *scheduler, tsr_request *request);

/* End a request wherever it is; its blocks are dropped with the next step. One that is in a step
 * which has been planned and not committed ends with the commit, without a token from it. */
void tsr_scheduler_cancel(tsr_scheduler *scheduler, tsr_request *request);

/* The text of a request is complete: it ends now (STOP), between a commit and the next plan. One
 * that has ended for its length in that commit has stopped, too. */
void tsr_scheduler_stop(tsr_scheduler *scheduler, tsr_request *request);

/* Fill `step` (reset first). False: nothing to run now and nothing to drop. A step that has
 * sequences must be committed before the next is planned. Requests may end in it (FAILED). */
bool tsr_scheduler_plan(tsr_scheduler *scheduler, tsr_step *step);

/* Which request the s-th sequence of the step planned last belongs to, until the next plan; NULL
 * when it has ended and been handed out since. */
tsr_request *tsr_scheduler_request_of(const tsr_scheduler *scheduler, int s);

/* Does that sequence get its next token from this step? Then its last row is wanted, and the token
 * will have position request->n_tokens. */
bool tsr_scheduler_samples(const tsr_scheduler *scheduler, int s);

/*
 * The step planned last has run. next [n_seqs] is the token of each sequence that samples
 * (tsr_scheduler_samples()); entries of other sequences are not read. ends(ctx, token) says whether
 * a token ends an answer. Appends tokens, ends requests (STOP: the end token is not kept; LENGTH),
 * frees their blocks.
 */
void tsr_scheduler_commit(tsr_scheduler *scheduler, const tsr_step *step, const int32_t *next,
                          bool (*ends)(void *ctx, int32_t token), void *ctx);

/* The next request that has ended since, in order of ending; NULL if none. The caller owns it
 * again. */
tsr_request *tsr_scheduler_take_ended(tsr_scheduler *scheduler);

/* Nothing waits, runs or is to be dropped. */
bool tsr_scheduler_is_idle(const tsr_scheduler *scheduler);
int tsr_scheduler_n_waiting(const tsr_scheduler *scheduler);
int tsr_scheduler_n_running(const tsr_scheduler *scheduler);
int tsr_scheduler_n_free_blocks(const tsr_scheduler *scheduler);

/* Are the blocks held those of the running requests, lanes unique, queues in order of arrival ...?
 * For tests and debug builds. */
bool tsr_scheduler_verify(const tsr_scheduler *scheduler);

#ifdef __cplusplus
}
#endif

#endif
