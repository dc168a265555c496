/*
 * engine/remote/job_words.h - the command line of a job of ranks that serves clients: the options
 * of an engine as `tessera engine` takes them. Private to the room.
 *
 * Threads: none of its own.
 */
#ifndef TSR_ENGINE_REMOTE_JOB_WORDS_H
#define TSR_ENGINE_REMOTE_JOB_WORDS_H

#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_JOB_WORDS_MOST = 128
};

/* Start with {0}. */
typedef struct tsr_job_words {
    char *words[TSR_JOB_WORDS_MOST + 1]; /* owned, [n_words], a NULL behind them */
    int n_words;
    char *socket;     /* owned: where it listens */
    char *own_folder; /* owned: made for that; NULL: it was there */
} tsr_job_words;

/* Where no socket is named a folder is made for one, that only this user can enter. Errors: ARG,
 * IO, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_job_words_init(tsr_job_words *words,
                                             const tsr_launch_options *options);
void tsr_job_words_clear(tsr_job_words *words); /* and the folder is removed; fine on {0} */

#ifdef __cplusplus
}
#endif

#endif
