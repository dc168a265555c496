/*
 * engine/adjust.h - what a generation changes in its logits before a token is chosen: penalties for
 * tokens that it has, biases, and end tokens that must not come yet. Pure: no device, no rank.
 *
 * All of these change single logits, each by a factor and an addend (tsr_adjust_logits() of
 * kernels/ops.h):
 *   repetition  tokens of the prompt or of what was generated: x / factor or x * factor, whichever
 *               is less (Keskar et al., arXiv 1909.05858)
 *   presence    tokens that were generated: less by this much
 *   frequency   tokens that were generated: less by this much for each time
 *   bias        a token's own addend
 *   ban         -infinity, until enough tokens have been generated
 * The list is a function of the settings and the tokens so far: a request that is computed again
 * gets the same one.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_ENGINE_ADJUST_H
#define TSR_ENGINE_ADJUST_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_adjust tsr_adjust;

typedef struct tsr_adjust_settings {
    float repetition; /* 0.001 to 1000; 1: off */
    float presence;   /* -1000 to 1000; 0: off */
    float frequency;
    const int32_t *bias_ids; /* [n_biases], none twice */
    const float *biases;     /* -1000 to 1000 */
    int n_biases;
    const int32_t *banned; /* [n_banned] */
    int n_banned;
    int64_t ban_until; /* as long as fewer tokens than this have been generated */
} tsr_adjust_settings;

/* Does it change any logit, ever? */
bool tsr_adjust_is_wanted(const tsr_adjust_settings *settings);

/* A copy of the settings. Errors: ARG (a value out of range or not a number, an id not in
 * [0, n_vocab), an id with two biases), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_adjust_create(tsr_adjust **out, const tsr_adjust_settings *settings,
                                            int n_vocab);
void tsr_adjust_destroy(tsr_adjust *adjust); /* NULL is fine */

/* An adjust that has counted what another has. Errors: NOMEM (`to` is as it was). */
TSR_MUST_CHECK tsr_status tsr_adjust_copy(tsr_adjust **out, const tsr_adjust *from);
TSR_MUST_CHECK tsr_status tsr_adjust_become(tsr_adjust *to, const tsr_adjust *from);

/* Count the tokens of a sequence, which has only grown since the last call. Errors: NOMEM (as it
 * was). */
TSR_MUST_CHECK tsr_status tsr_adjust_count(tsr_adjust *adjust, const int32_t *tokens,
                                           int64_t n_prompt, int64_t n_tokens);

/* The most entries that tsr_adjust_list() can give now. */
int tsr_adjust_most(const tsr_adjust *adjust);

/* The changes for the token that comes next: ids rising. Returns how many there are. */
int tsr_adjust_list(const tsr_adjust *adjust, int32_t *ids, float *factors, float *adds);

/* What one entry makes of a logit: the same bits as tsr_adjust_logits(). */
float tsr_adjust_apply(float logit, float factor, float add);

#ifdef __cplusplus
}
#endif

#endif
