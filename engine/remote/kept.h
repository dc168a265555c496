/*
 * engine/remote/kept.h - a generation as a client keeps it: what was asked for and what was told
 * since, so that ranks that know nothing of it can go on with it. Private to the room.
 *
 * A sample goes on from the tokens that were told. Where answers are told when all is over (beams,
 * best_of), or none has a token yet, it begins again, and events that were told are not told twice:
 * they come in the same order. So the samples of one generation may be generations of their own for
 * the ranks, and each has a name: those of the generation with `name` are name + 1 + choice.
 *
 * Threads: none of its own.
 */
#ifndef TSR_ENGINE_REMOTE_KEPT_H
#define TSR_ENGINE_REMOTE_KEPT_H

#include "base/ids.h"
#include "engine/remote/wire.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_KEPT_NAMES = 8192, /* from one generation's name to the next */
    TSR_KEPT_MOST_CHOICES = 4096
};

/* An answer so far. */
typedef struct tsr_kept_choice {
    tsr_ids tokens;
    double sum; /* of their log-probabilities */
    int64_t first_ns;
    int64_t last_ns;
    bool is_over;
} tsr_kept_choice;

typedef struct tsr_kept {
    int64_t id; /* set by whoever keeps it, as is the next */
    int64_t name;
    tsr_event_fn *on_event;
    void *ctx;
    bool is_cancelled; /* likewise */

    tsr_text wish;            /* a SUBMIT frame */
    tsr_kept_choice *choices; /* owned, [n_choices] */
    int n_choices;
    int n_open;
    bool tells_at_end;
    bool has_token;    /* one of the choices does */
    bool is_torn;      /* a token could not be kept: it cannot go on with other ranks */
    bool is_split;     /* its choices have names of their own */
    int64_t n_told;    /* events */
    int64_t n_skipped; /* that are not told again, yet to come */
    int64_t submitted_ns;
    int64_t deadline_ns; /* 0: none */
} tsr_kept;

/* Errors: ARG, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_kept_create(tsr_kept **out, const tsr_generation *wish);
void tsr_kept_destroy(tsr_kept *kept); /* NULL is fine */

/* SUBMIT frames for what of it is not over. Errors: ARG, NOMEM (there is nothing of them then). */
TSR_MUST_CHECK tsr_status tsr_kept_submit(tsr_kept *kept, tsr_text *out);

/* An event that came under a name of its own, made what it is for whoever asked, and noted. False:
 * it was told before, or is none of it. */
bool tsr_kept_hear(tsr_kept *kept, int64_t name, tsr_event *event);

#ifdef __cplusplus
}
#endif

#endif
