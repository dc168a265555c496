/*
 * engine/scheduler_state.h - what a scheduler is made of. Private to scheduler.c, which works on
 * it, and scheduler_verify.c, which looks at it.
 */
#ifndef TSR_ENGINE_SCHEDULER_STATE_H
#define TSR_ENGINE_SCHEDULER_STATE_H

#include "engine/pace.h"
#include "engine/request_heap.h"
#include "engine/scheduler.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tsr_scheduler {
    tsr_scheduler_options options;
    tsr_block_pool *pool;       /* owned */
    tsr_request_heap waiting;   /* by standing; room for those that run as well */
    tsr_request_heap deadlines; /* of those that wait or run and have one */
    tsr_request_queue ended;    /* by end */
    int64_t n_arrived;
    int64_t now_ns; /* as last heard */
    tsr_pace pace;

    tsr_request **running; /* owned, [max_seqs], by standing */
    int *rows;             /* owned, [max_seqs]: of each running one in the step being planned */
    int n_running;
    int *free_lanes; /* owned, [max_seqs]: the first n_free_lanes */
    int n_free_lanes;

    int32_t *dropped; /* owned, [n_blocks]: free again, and the ranks are yet to be told */
    int n_dropped;

    /* Of the step planned last, each owned, [max_seqs]. */
    tsr_request **planned; /* NULL: handed out since */
    bool *samples;
    bool *cancelled; /* to end when the step has run */
    int n_planned;
    int n_decoding;    /* of these */
    int n_prompt_rows; /* of the others */
    bool is_out;       /* planned and not committed */
};

#ifdef __cplusplus
}
#endif

#endif
