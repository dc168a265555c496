/*
 * engine/remote/attach.h - a client's hold on the leader of an engine: starts the job of ranks, or
 * finds one, says hello, and when it is lost begins again. Private to the room.
 *
 * Ranks that cannot be brought back are given up: after TSR_ATTACH_MOST_FAILURES starts in a row
 * that did not come to serve, each after a longer rest than the one before; at once where none ever
 * did. Ranks that serve and are lost before anything comes of it are started again without end, and
 * counted. An engine that others started is waited for for a minute.
 *
 * Threads: one.
 */
#ifndef TSR_ENGINE_REMOTE_ATTACH_H
#define TSR_ENGINE_REMOTE_ATTACH_H

#include "engine/remote/link.h"
#include "parallel/launcher.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_ATTACH_MOST_FAILURES = 5
};

typedef enum tsr_attach_state {
    TSR_ATTACH_RESTING,
    TSR_ATTACH_STARTING, /* the ranks load, or are to be found */
    TSR_ATTACH_SERVING,
    TSR_ATTACH_ENDING, /* lost, and the rest of the job is to go first */
    TSR_ATTACH_STATE_COUNT
} tsr_attach_state;

typedef struct tsr_attach {
    const char *const *words; /* of the job to start, borrowed; NULL: somebody else starts it */
    const char *socket;       /* borrowed */
    const char *folder;       /* borrowed: made for it, and gone with this process; NULL: none */

    tsr_attach_state state;
    tsr_link link;
    tsr_launcher launcher;
    int64_t until_ns;   /* RESTING, ENDING */
    int64_t heard_ns;   /* SERVING: when anything came last */
    int64_t stopped_ns; /* SERVING: since when the leader's process is stopped; 0: it is not */
    int64_t lost_ns;    /* since when it has not served */
    int64_t served_ns;  /* when it began to serve last; 0: it never did */
    int64_t rest_ns;    /* before the next start */
    bool was_useful;    /* set by whoever hears that something came of it */
    bool is_idle;       /* likewise: nothing is waited for */
    int n_failures;     /* starts in a row that did not come to serve */
    int n_useless;      /* losses in a row before anything came of it */
    int n_restarts;
    double away_s; /* the last time */

    char *model_path;       /* owned: as the leader said */
    tsr_engine_stats stats; /* likewise; its texts are in the next two */
    char device[128];
    char comm[64];
    int wake; /* an eventfd: something is to be done; -1: none could be had */
} tsr_attach; /* start with tsr_attach_init(), then words, socket and folder */

typedef enum tsr_attach_news {
    TSR_ATTACH_NO_NEWS,
    TSR_ATTACH_CAME, /* it serves, and knows nothing of what was before */
    TSR_ATTACH_LOST,
    TSR_ATTACH_NEWS_COUNT
} tsr_attach_news;

void tsr_attach_init(tsr_attach *attach);

/* Ends the turn that waits, or the next. Threads: any. */
void tsr_attach_wake(tsr_attach *attach);

/* Passes some milliseconds, or as long as it takes for something to come. Errors: COMM (given up,
 * in words), FORMAT, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_attach_turn(tsr_attach *attach, tsr_attach_news *news);

/* There is no use in it any more: it is lost. */
void tsr_attach_lose(tsr_attach *attach);

/* Stats that came. Errors: FORMAT. */
TSR_MUST_CHECK tsr_status tsr_attach_take_stats(tsr_attach *attach, tsr_wire *wire);

/* The engine ends if it was started here; returns when it has. */
void tsr_attach_close(tsr_attach *attach);

#ifdef __cplusplus
}
#endif

#endif
