/*
 * launch/likely.h - how likely tokens were: kept as events bring it, given as JSON.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_LIKELY_H
#define TSR_LAUNCH_LIKELY_H

#include <jansson.h>

#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_likely_token {
    int32_t id;
    double logprob; /* not finite: not known */
    int top_at;     /* its candidates among `top` */
    int n_top;
} tsr_likely_token;

/* {0} is an empty one. */
typedef struct tsr_likely {
    tsr_likely_token *tokens;
    int n_tokens;
    int tokens_room;
    tsr_top_token *top;
    int n_top;
    int top_room;
} tsr_likely;

/* One token more, with n_top candidates for its place. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_likely_append(tsr_likely *likely, int32_t id, double logprob,
                                            const tsr_top_token *top, int n_top);
void tsr_likely_clear(tsr_likely *likely);

/* [{id, text, logprob, top: [{id, text, logprob}]}]; NULL when memory is short. */
json_t *tsr_likely_json(const tsr_likely *likely, const tsr_model *model);

#ifdef __cplusplus
}
#endif

#endif
