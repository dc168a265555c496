/*
 * engine/beam.h - beam search as arithmetic: which beams go on by which token, and which answers
 * are complete. Pure: no device, no request, no text.
 *
 * A beam is a sequence of tokens and the sum of their log-probabilities. In a round each live beam
 * offers its likeliest continuations; of all of them together, best sum first, those that end the
 * answer become *finished* if they are among the first `width`, and the first `width` others are
 * the live beams of the next round. Equal sums: the lower beam first, then the order in which it
 * offered them (likelier first, then the lower id).
 *
 *     score = sum / length ^ length_penalty
 *
 * where length counts the generated tokens, the end token among them, the prompt not. The best
 * `width` finished answers by score are kept, of equal ones those that were finished first. The
 * rules are those of BeamSearchScorer in the transformers library (4.40), but for equal sums, which
 * there are left to the sort, and for log-probabilities: here they are what the logits say after
 * penalties, biases and bans, so that they are a distribution.
 *
 * When it is over (stopping), with `width` answers finished:
 *     EARLY  at once
 *     USUAL  when the worst of them scores at least what the best continuation of this round would
 *            score at its length
 *     NEVER  when it scores at least what that sum could score at any length up to max_tokens
 * or after max_tokens: then, and whenever it is ended from outside, the live beams are finished as
 * they are.
 *
 * Nothing is copied when beams part: the tokens that they have in common are kept once.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_ENGINE_BEAM_H
#define TSR_ENGINE_BEAM_H

#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_beam tsr_beam; /* a search */

/* What a token does to the answer that it is put behind. */
typedef enum tsr_beam_end {
    TSR_BEAM_GOES_ON,
    TSR_BEAM_ENDS,      /* the answer ends before it */
    TSR_BEAM_ENDS_WITH, /* it is the answer's last */
    TSR_BEAM_END_COUNT
} tsr_beam_end;

typedef struct tsr_beam_rules {
    int width;
    double length_penalty;
    tsr_stopping stopping;
    int64_t max_tokens; /* of an answer */
    int n_offers;       /* most continuations that a beam offers */
    int n_top;          /* most candidates that are remembered for each place */
    /* beam: a live one, in [0, n_live). */
    tsr_beam_end (*ends)(void *ctx, int beam, int32_t token);
    void *ctx;
} tsr_beam_rules;

/* One continuation that a beam offers. */
typedef struct tsr_beam_candidate {
    int32_t id;
    double logprob; /* what counts; one that is not above -infinity is not possible */
    double told;    /* what is remembered for the answer */
} tsr_beam_candidate;

/* A live beam of a new round, as it came from one of the round before. */
typedef struct tsr_beam_step {
    int parent;
    int32_t token;
} tsr_beam_step;

/* The search begins with one live beam without tokens. Errors: ARG (the width, the penalty),
 * NOMEM. */
TSR_MUST_CHECK tsr_status tsr_beam_create(tsr_beam **out, const tsr_beam_rules *rules);
void tsr_beam_destroy(tsr_beam *beam); /* NULL is fine */

/* How many continuations a beam must offer so that none is missed: with n_ends tokens that end an
 * answer, 2 * width + n_ends, or the whole vocabulary. */
int tsr_beam_n_offers(int width, int n_ends, int n_vocab);

int tsr_beam_n_live(const tsr_beam *beam);
int64_t tsr_beam_n_tokens(const tsr_beam *beam); /* of each live beam */

/* The continuations of live beam i, likeliest first, and the likeliest tokens of that place; both
 * copied. Again in the same round: these count. */
void tsr_beam_offer(tsr_beam *beam, int i, const tsr_beam_candidate *candidates, int n,
                    const tsr_top_token *top, int n_top);
bool tsr_beam_has_offered(const tsr_beam *beam, int i);

/*
 * Every live beam has offered: the next round. steps [width] says how each of the live beams,
 * best first, came to be. When the search is over none is left. Errors: NOMEM (as it was).
 */
TSR_MUST_CHECK tsr_status tsr_beam_advance(tsr_beam *beam, tsr_beam_step *steps);

/* End it: live beams are finished as they are. */
void tsr_beam_finish(tsr_beam *beam);

/* The i-th best of the finished answers. */
typedef struct tsr_beam_answer {
    int64_t n_tokens;
    bool is_open; /* finished as it was: no token has ended it */
    double sum;   /* of the log-probabilities that counted, the end token's among them */
    double score;
} tsr_beam_answer;

int tsr_beam_n_answers(const tsr_beam *beam);
tsr_beam_answer tsr_beam_answer_at(const tsr_beam *beam, int i);

/* One place of it. */
typedef struct tsr_beam_place {
    int32_t token;
    double told;
    const tsr_top_token *top; /* [n_top], good until the next round */
    int n_top;
} tsr_beam_place;

/* places [n_tokens] of the i-th answer, in order. */
void tsr_beam_read(const tsr_beam *beam, int i, tsr_beam_place *places);

#ifdef __cplusplus
}
#endif

#endif
