/*
 * engine/scheduler.h - who runs in the next step, and with which blocks. No device and no rank in
 * it.
 *
 * Continuous batching: each step takes one token of every sequence that is decoding and fills the
 * rest of its token budget with chunks of prompts, those that run before those that wait. While
 * sequences decode, the prompt rows are as many as let the step take about 1.6 times what it takes
 * without them, or options.target_itl_us; what steps cost is learnt from tsr_scheduler_note_time()
 * (pace.h). So a long prompt never stalls the others' tokens. When nobody decodes prompts have the
 * whole budget.
 *
 * Who goes first: a request's standing is the moment it came, less options.priority_ns for each
 * step of its priority; the least stands first. It never changes, and yet waiting raises a request:
 * whoever comes priority_ns later needs a priority higher by one to draw level. With priorities
 * within a range of p, nobody who comes more than p x priority_ns later is ever taken before it: no
 * one starves.
 *
 * A request is admitted, first in standing first, when there are blocks for all its tokens so far
 * and one more for each sequence that runs; not for what it might generate. It comes after the
 * prompts that are still being read, so what those need is taken. Newcomers put nobody back. When
 * blocks run out for one that runs, a request that stands behind it is put back (victim.h says
 * which) among the waiting ones and its blocks are freed; later its tokens are computed again,
 * which gives the same cache and so the same continuation. A request that has nobody behind it to
 * put back waits with what it holds. The first in standing of those that run is never put back and
 * always finds room, so all end. Only a request that alone needs more blocks than there are ends
 * with an error that says so.
 *
 * Memory has tiers when there are more blocks than the device holds (D; the host holds H). Which
 * block lies where is each rank's own business; what is promised to it is that the sequences which
 * have a lane have D + H blocks at most and claim D at most, where a long one claims no more than D
 * / 2 (the rest of it is read where it lies), and that a step writes into D / 2 blocks at most.
 * When a claim grows and there is no room, the request that is put back *rests*: it leaves its lane
 * and keeps its blocks, to the last partial one. When its turn has come again it is given a lane
 * and *wakes*: the ranks are told its table ahead of any rows, fetch what lies elsewhere while
 * others run, and say when they are done (tsr_scheduler_note_report()). Instead, its cache is given
 * up where it is computed again in less time than it takes to move it twice (options.preempt). When
 * there is no free block in any tier, those of resting requests are given up, of the last in
 * standing first; then a running one is put back without its blocks.
 *
 * With options.prefix_cache, columns are known by their tokens (kv/prefix_index.h) as they fill,
 * and the last one of a sequence when that ends or is put back. A request that comes in takes part
 * in those with which it begins and computes the rest, at least its last token and whatever is to
 * be scored. Blocks that nobody else needs are forgotten before anybody is put back.
 *
 * Layers that see a window only (options.groups) keep what the next rows can reach: at each commit
 * the blocks that a sequence has behind that are given back, and with a prefix cache stay known
 * until they are wanted. So a sequence holds, of such a group, what its window sees and two columns
 * more, however long it is; all that is said here of what a sequence needs is counted so. One that
 * is put back without its blocks reads from the start again, and leaves them again on its way.
 *
 * The next step can be planned while this one runs (tsr_scheduler_may_plan_ahead()): it is
 * committed before it has run, as if every sequence that samples went on, and the tokens are told
 * when they are known. One that ended with its token has then been planned once too often: the row
 * counts for nothing, and it ends when that step is committed.
 *
 * Time is what the calls say (submitted_ns, now_ns: of one clock, never going back); there is no
 * clock in here.
 *
 * A plan costs time by its rows, sequences and changed blocks, whatever the size of the pool or the
 * lengths of the sequences, and the logarithm of the number of waiting requests for each of them
 * that comes or goes.
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

enum {
    TSR_SCHEDULER_PRIORITIES = 1000, /* from -1000 to 1000 */
    TSR_SCHEDULER_HOLD = -1,         /* instead of a token: it comes by tsr_scheduler_give() */
    TSR_SCHEDULER_LATER = -2         /* it comes by tsr_scheduler_settle() */
};

typedef struct tsr_scheduler tsr_scheduler;

/* What becomes of the cache of a sequence that is put back. */
typedef enum tsr_preempt {
    TSR_PREEMPT_AUTO,      /* whichever takes less time, as far as that is known */
    TSR_PREEMPT_SWAP,      /* kept, in slower memory */
    TSR_PREEMPT_RECOMPUTE, /* forgotten, and computed again */
    TSR_PREEMPT_COUNT
} tsr_preempt;

typedef struct tsr_scheduler_options {
    int max_batch_tokens;    /* rows a step */
    int max_seqs;            /* running at once */
    tsr_block_groups groups; /* of layers, of which block_tokens is not read; n 0: one that sees all
                              */
    int block_tokens;
    int n_blocks;         /* ids: of device, host and disk memory together */
    int n_device_blocks;  /* that device memory holds; 0: all, there is nothing below it */
    int n_host_blocks;    /* and the host's */
    uint64_t block_bytes; /* of the rank whose blocks are largest; for the cost of moving them */
    tsr_preempt preempt;
    bool
        prefix_cache; /* blocks stay when their sequences have ended, for others that begin alike */
    int64_t context;  /* positions a sequence */
    int n_vocab;
    int max_queue;         /* waiting at once; 0: any number */
    int64_t target_itl_us; /* time of a step that decodes; 0: 1.6 times one without prompts */
    int64_t long_from;     /* > 0: sequences of more tokens are long: one that grows beyond is put
                              back, to be computed again as such (config->rope_switch) */
    int64_t priority_ns;   /* of waiting that a step of priority is worth; 0: 10 seconds */
} tsr_scheduler_options;

/* Errors: ARG, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_scheduler_create(tsr_scheduler **out,
                                               const tsr_scheduler_options *options);

/* Requests still queued or running are left to their owner, their blocks given back. NULL is fine.
 */
void tsr_scheduler_destroy(tsr_scheduler *scheduler);
/* Bytes of what grows with the blocks. */
size_t tsr_scheduler_table_bytes(const tsr_scheduler_options *options);

tsr_step_limits tsr_scheduler_step_limits(const tsr_scheduler *scheduler);

/*
 * Queue a request; the scheduler holds it until it has ENDED and been handed out by
 * tsr_scheduler_take_ended(). Its submitted_ns, deadline_ns and priority are set; it may have
 * tokens behind its prompt, as one that was put back has. Errors: ARG (prompt longer than the
 * context, a token, the sampling or the priority out of range), UNSUPPORTED (the prompt could never
 * fit the pool: says what would), FULL (options.max_queue wait already), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_scheduler_submit(tsr_scheduler *scheduler, tsr_request *request);

/*
 * Queue `child`, which goes on from where `parent` is: their first n_kept tokens are the same, and
 * what the parent has of them in the cache becomes the child's as well; tokens behind them, which a
 * request otherwise gets from steps, may be there already. It is like a request that has been put
 * back and kept its blocks, and runs at once when there is a lane. Of a parent that is held a child
 * that has no other tokens is held as well. Between a commit and the next plan; a parent that has
 * ended has nothing left to share. Errors: those of tsr_scheduler_submit() but FULL.
 */
TSR_MUST_CHECK tsr_status tsr_scheduler_fork(tsr_scheduler *scheduler, const tsr_request *parent,
                                             tsr_request *child, int64_t n_kept);

/*
 * `to` becomes what `from` is at this moment: its tokens, and its part in its blocks, for its own.
 * No more is touched than where the two differ. Both have as many tokens, as many prompt tokens,
 * are both held or both not, and have not ended. Between a commit and the next plan. Errors: NOMEM
 * (all is as it was; never while both run).
 */
TSR_MUST_CHECK tsr_status tsr_scheduler_refork(tsr_scheduler *scheduler, const tsr_request *from,
                                               tsr_request *to);

/* End a request wherever it is; its blocks are dropped with the next step. One that is in a step
 * which has been planned and not committed ends with the commit, without a token from it; so does
 * one that is stopped. */
void tsr_scheduler_cancel(tsr_scheduler *scheduler, tsr_request *request);

/* The text of a request is complete: it ends (STOP). One that has ended for its length in the last
 * commit has stopped, too. */
void tsr_scheduler_stop(tsr_scheduler *scheduler, tsr_request *request);

/* Fill `step` (reset first). False: nothing to run now and nothing that the ranks should hear of. A
 * step that has sequences must be committed before the next is planned. Requests may end in it
 * (DEADLINE: those whose time is over, waiting or running; FAILED). */
bool tsr_scheduler_plan(tsr_scheduler *scheduler, tsr_step *step, int64_t now_ns);

/* Which request the s-th sequence of the step planned last belongs to, until the next plan; NULL
 * when it has ended and been handed out since. */
tsr_request *tsr_scheduler_request_of(const tsr_scheduler *scheduler, int s);

/* Does that sequence get its next token from this step? Then its last row is wanted, and the token
 * will have position request->n_tokens. */
bool tsr_scheduler_samples(const tsr_scheduler *scheduler, int s);

/*
 * The step planned last has run. next [n_seqs] is the token of each sequence that samples
 * (tsr_scheduler_samples()), or TSR_SCHEDULER_HOLD; entries of other sequences are not read.
 * ends(ctx, token) says whether a token ends an answer. Appends tokens, ends requests (STOP: the
 * end token is not kept; LENGTH), frees their blocks.
 */
void tsr_scheduler_commit(tsr_scheduler *scheduler, const tsr_step *step, const int32_t *next,
                          bool (*ends)(void *ctx, int32_t token), void *ctx, int64_t now_ns);

/* Could the step planned last be committed before it has run, with LATER for all that sample? Not
 * where more than a token depends on what it brings: an answer's last token that is known to be
 * one, scores, a lost block of a lower tier. */
bool tsr_scheduler_may_plan_ahead(const tsr_scheduler *scheduler, const tsr_step *step);

/*
 * The token of one that a commit has left for LATER, after the next plan, which may have filled
 * `ahead` (NULL: there was nothing to plan): the request has it, and the step, where it is fed to
 * the model. Before any other commit.
 */
void tsr_scheduler_settle(tsr_scheduler *scheduler, tsr_request *request, int32_t token,
                          bool (*ends)(void *ctx, int32_t token), void *ctx, int64_t now_ns,
                          tsr_step *ahead);

/*
 * The token of one that a commit has held, after that commit or any later one and before a plan: it
 * goes on as if that commit had brought it. Meanwhile it needs nothing: it gets no rows, and what
 * it has is taken from it when somebody else cannot go on, be it one that stands behind it.
 */
void tsr_scheduler_give(tsr_scheduler *scheduler, tsr_request *request, int32_t token,
                        bool (*ends)(void *ctx, int32_t token), void *ctx);

/* In place of a commit: the step has run, and nothing that came of it counts (a block that it read
 * is lost). Its sequences are where they were; those that were cancelled meanwhile end. */
void tsr_scheduler_void(tsr_scheduler *scheduler, int64_t now_ns);

/* What the step planned last is to be timed by. */
typedef struct tsr_scheduler_load {
    int n_decoding; /* sequences */
    int n_prompt_rows;
} tsr_scheduler_load;

tsr_scheduler_load tsr_scheduler_load_of(const tsr_scheduler *scheduler);

/* A step with that load took `us` microseconds in all: what the next ones are cut by. Never calling
 * it leaves every step the whole budget. */
void tsr_scheduler_note_time(tsr_scheduler *scheduler, tsr_scheduler_load load, int64_t us);

/*
 * What the ranks said of the step run last, if memory has tiers: when that is committed or void,
 * before the next plan. Sequences with a lost block keep what is before it and compute the rest
 * again.
 */
void tsr_scheduler_note_report(tsr_scheduler *scheduler, const tsr_step_report *report);

/* The next request that has ended since, in order of ending; NULL if none. The caller owns it
 * again. */
tsr_request *tsr_scheduler_take_ended(tsr_scheduler *scheduler);

/* Nothing waits, runs or is to be dropped. */
bool tsr_scheduler_is_idle(const tsr_scheduler *scheduler);
int tsr_scheduler_n_waiting(const tsr_scheduler *scheduler);
int tsr_scheduler_n_running(const tsr_scheduler *scheduler);
/* Blocks that nobody holds, or only the prefix index. */
int tsr_scheduler_n_free_blocks(const tsr_scheduler *scheduler);

/* How much of the blocks that sequences held while they ran had tokens in it, over all steps; 0..1.
 */
double tsr_scheduler_fill(const tsr_scheduler *scheduler);

/* Are the blocks held those of the running requests, lanes unique, queues in their order ...? For
 * tests and debug builds. */
bool tsr_scheduler_verify(const tsr_scheduler *scheduler);

#ifdef __cplusplus
}
#endif

#endif
