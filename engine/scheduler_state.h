/*
 * engine/scheduler_state.h - what a scheduler is made of. Private to the files that work on it:
 *
 *   scheduler.c         requests come, results come, requests end
 *   scheduler_plan.c    who gets rows in the next step, and the step
 *   scheduler_blocks.c  blocks taken, shared, copied, given back; what the ranks are told of that
 *   scheduler_prefix.c  what is in the cache already
 *   scheduler_rest.c    room on the device, who makes it, resting and waking
 *   scheduler_fork.c    sequences that go on from where another one is
 *   scheduler_verify.c  is everything as it must be?
 */
#ifndef TSR_ENGINE_SCHEDULER_STATE_H
#define TSR_ENGINE_SCHEDULER_STATE_H

#include "engine/pace.h"
#include "engine/request_heap.h"
#include "engine/scheduler.h"
#include "kv/prefix_index.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tsr_scheduler {
    tsr_scheduler_options options;
    tsr_block_groups groups;
    tsr_block_pool *pool;       /* owned */
    tsr_prefix_index *prefix;   /* owned; NULL: none is kept */
    tsr_request_heap waiting;   /* by standing; room for those that run as well */
    tsr_request_heap deadlines; /* of those that wait or run and have one */
    tsr_request_queue held;     /* held ones that have given up their lane: they wait for a token */
    tsr_request_queue ended;    /* by end */
    int64_t n_arrived;
    int n_resting;  /* of the waiting and the held ones */
    int64_t now_ns; /* as last heard */
    tsr_pace pace;

    tsr_request **running; /* owned, [max_seqs], by standing */
    int *rows;             /* owned, [max_seqs]: of each running one in the step being planned */
    int n_running;
    int *free_lanes; /* owned, [max_seqs]: the first n_free_lanes */
    int n_free_lanes;

    /* What the ranks know, and what they are yet to be told. */
    bool *known;      /* owned, [n_blocks]: blocks they were told of and not yet to drop */
    int32_t *dropped; /* owned, [n_blocks]: free again */
    int n_dropped;
    bool *lane_told; /* owned, [max_seqs]: lanes that have a table there */
    int32_t *left;   /* owned, [max_seqs]: lanes whose table they are to forget */
    int n_left;
    int32_t *freed; /* owned, [n_blocks]: to work with */
    int32_t *path;  /* owned, [columns of the context, groups]: likewise */

    /* Tiers; see scheduler.h. */
    bool is_tiered;
    int claim_most;    /* blocks that a sequence claims at most: D / 2 */
    int *n_lanes_with; /* owned, [n_blocks]: lanes whose sequence has the block */
    int n_in_lanes;    /* blocks that some lane has */
    int64_t n_claimed; /* the sum of what sequences with lanes claim, shared blocks each time */
    int n_writes;      /* blocks that the step being planned may yet write into */
    int64_t n_tickets;
    int64_t n_tickets_done;
    double moved_bytes; /* both fading */
    double moved_us;

    /* Of the step planned last, each owned, [max_seqs]. */
    tsr_request **planned; /* NULL: handed out since */
    bool *samples;
    tsr_request_reason *ends_as; /* to end for that when the step has run; NONE: to go on */
    int32_t *copied; /* [max_seqs, groups]: blocks that are copied from, held until it has */
    int n_planned;
    int n_copied;
    int64_t n_held_tokens;    /* of all sequences in all steps so far: in the cache, */
    int64_t n_held_positions; /* and that their blocks have room for */
    tsr_scheduler_load load;
    bool is_out; /* planned and not committed */
};

/* ---- scheduler.c -------------------------------------------------------------------------------
 */

/* Check a request and make room for it in every list it may come to stand in; it is in none but the
 * deadlines then. max_waiting: so many may wait already. Errors: see tsr_scheduler_submit(). */
TSR_MUST_CHECK tsr_status tsr_scheduler_take_on(tsr_scheduler *s, tsr_request *r, int n_waiting);

/* Among the waiting ones, or the held ones, with the blocks it has. */
void tsr_scheduler_wait(tsr_scheduler *s, tsr_request *r);

void tsr_scheduler_wait_no_more(tsr_scheduler *s, tsr_request *r);

/* A place among those that run, by standing, for one that is in no queue; returns which. There is a
 * lane. */
int tsr_scheduler_start(tsr_scheduler *s, tsr_request *r);

/* Which of the running ones it is. */
int tsr_scheduler_index_of(const tsr_scheduler *s, const tsr_request *r);

/* The i-th running request back among the waiting ones, with or without its blocks. Returns the
 * rows it had been given in this plan. */
int tsr_scheduler_put_back(tsr_scheduler *s, int i, bool keep);

/* A resting request gives up what it has in the cache; it waits on. */
void tsr_scheduler_forget(tsr_scheduler *s, tsr_request *r);

/* End a request wherever it is. */
void tsr_scheduler_end(tsr_scheduler *s, tsr_request *r, tsr_request_reason reason);
void tsr_scheduler_fail(tsr_scheduler *s, tsr_request *r, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* How many tokens the sequence has when it has generated all it may. */
int64_t tsr_scheduler_longest(const tsr_scheduler *s, const tsr_request *r);

/* Tokens of which keys and values are yet to be computed. */
static inline int64_t tsr_scheduler_n_ahead(const tsr_request *r)
{
    return r->n_tokens - r->n_cached;
}

/* ---- scheduler_blocks.c ------------------------------------------------------------------------
 */

/* A block has become free: the ranks are to drop it, if they know of it. */
void tsr_scheduler_blocks_note_free(tsr_scheduler *s, int32_t id);

/* One owner less. */
void tsr_scheduler_blocks_release(tsr_scheduler *s, int32_t id);

/* A request keeps the first n_keep of its columns; its list is freed with the last. */
void tsr_scheduler_blocks_cut(tsr_scheduler *s, tsr_request *r, int n_keep);

/* Its cache has grown: blocks that no row can reach any more are given back. */
void tsr_scheduler_blocks_leave(tsr_scheduler *s, tsr_request *r);

/* A request takes part in the blocks of another instead of its own; n_same first columns are the
 * same, and its lane keeps those. Errors: NOMEM (as it was). */
TSR_MUST_CHECK tsr_status tsr_scheduler_blocks_become(tsr_scheduler *s, tsr_request *r,
                                                      const tsr_request *from, int *n_same);

/* Blocks [groups], which have the same in them, for column `at` of a running request's. */
void tsr_scheduler_blocks_replace(tsr_scheduler *s, tsr_request *r, int at, const int32_t *ids);

/* Take a free lane; or its lane is free again. */
void tsr_scheduler_blocks_take_lane(tsr_scheduler *s, tsr_request *r);
void tsr_scheduler_blocks_leave_lane(tsr_scheduler *s, tsr_request *r);

/* The ranks are to forget the table of its lane; they are told of it anew with the next rows. */
void tsr_scheduler_blocks_untell(tsr_scheduler *s, tsr_request *r);

/* Would its next row be written into blocks that are somebody else's as well? Then that column is
 * copied first. */
bool tsr_scheduler_blocks_must_copy(const tsr_scheduler *s, const tsr_request *r);

/* Columns for n_rows more, the first of them a copy where it must be. On failure nothing has
 * changed that matters. Errors: FULL, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_scheduler_blocks_grow(tsr_scheduler *s, tsr_request *r,
                                                    int64_t n_rows);

/* A request that was to get rows in the step being planned does not: nothing is copied for it, and
 * nothing is held beyond what is in the cache. */
void tsr_scheduler_blocks_ungrow(tsr_scheduler *s, tsr_request *r);

/* The step tells the ranks what has changed in the request's table. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_scheduler_blocks_tell(tsr_scheduler *s, tsr_request *r,
                                                    tsr_step *step);

/* Has something? */
bool tsr_scheduler_blocks_has_news(const tsr_scheduler *s, const tsr_request *r);

/* And which blocks and lanes are free again. */
void tsr_scheduler_blocks_tell_free(tsr_scheduler *s, tsr_step *step);

/* ---- scheduler_prefix.c ------------------------------------------------------------------------
 */

/* What of a request that holds nothing is in the cache. */
tsr_prefix_match tsr_scheduler_prefix_find(const tsr_scheduler *s, const tsr_request *r);

/* How many blocks of that nobody has at the moment. */
int tsr_scheduler_prefix_n_idle(tsr_scheduler *s, const tsr_prefix_match *match);

/* It takes part in that. Errors: NOMEM (nothing has changed). */
TSR_MUST_CHECK tsr_status tsr_scheduler_prefix_attach(tsr_scheduler *s, tsr_request *r,
                                                      const tsr_prefix_match *match);

/* Its cache has grown: columns that are full now are known to others. */
void tsr_scheduler_prefix_grow(tsr_scheduler *s, tsr_request *r);

/* It will give up its cache: its last column is known to others, too. */
void tsr_scheduler_prefix_keep_tail(tsr_scheduler *s, tsr_request *r);

/* Its cache is now only as long as r->n_cached says. */
void tsr_scheduler_prefix_shrink(tsr_scheduler *s, tsr_request *r);

/* `child` goes on from where `parent` is; its n_cached is set. */
void tsr_scheduler_prefix_fork(tsr_scheduler *s, tsr_request *child, const tsr_request *parent);

/* Block `id`, and what is of no use without it, is no longer what it was. */
void tsr_scheduler_prefix_lose(tsr_scheduler *s, int32_t id);

/* n free blocks, as far as forgetting makes them. */
void tsr_scheduler_prefix_make_room(tsr_scheduler *s, int64_t n);

/* Blocks that are free or could be forgotten. */
int tsr_scheduler_prefix_n_free(const tsr_scheduler *s);

/* ---- scheduler_rest.c --------------------------------------------------------------------------
 */

/* How many blocks a request that has a lane may have in all on the device's account; 0: no row can
 * be written, for its last block would have to be copied first. */
int64_t tsr_scheduler_rest_room(const tsr_scheduler *s, const tsr_request *r);

/* What those that run claim of the device's memory: each its blocks, but claim_most at most; where
 * they share blocks so many, all their different blocks, but those of the longest beyond
 * claim_most. It never grows when one of them leaves, or keeps fewer columns. */
int64_t tsr_scheduler_rest_claims(const tsr_scheduler *s);

/* Windows have moved on: those that run claim no more than there is, or somebody rests. Between a
 * commit and the next plan. */
void tsr_scheduler_rest_settle(tsr_scheduler *s);

/* Would it, at its present length, find room among those that run, with a block in hand for each of
 * them? */
bool tsr_scheduler_rest_fits(const tsr_scheduler *s, const tsr_request *r);

/* The i-th running request needs a block (is_device: room on the device's account): it is found
 * where it is missed least. budget grows by rows that are taken back. False: there is nobody whom
 * it may take from. */
bool tsr_scheduler_rest_make_room(tsr_scheduler *s, int *i, bool is_device, int *budget);

/* Are all who stand in front of the i-th running one held, so that it must find room in any case?
 */
bool tsr_scheduler_rest_is_first(const tsr_scheduler *s, int i);

/* There is no lane, or no room, for the first that waits: a held one gives up its lane, or what it
 * has, where it stands no earlier and the lane is missing, or where nobody can go on. False: there
 * is none. */
bool tsr_scheduler_rest_make_way(tsr_scheduler *s, const tsr_request *r);

/* May it have rows now? */
bool tsr_scheduler_rest_is_awake(tsr_scheduler *s, tsr_request *r);

/* Tickets for those that wake, and what has changed in the tables of others without rows, in a step
 * that is otherwise complete. */
void tsr_scheduler_rest_tell(tsr_scheduler *s, tsr_step *step);

#ifdef __cplusplus
}
#endif

#endif
