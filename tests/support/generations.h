/*
 * tests/support/generations.h - sixteen generations by an engine on all ranks, and all that they
 * give.
 *
 * Whatever goes wrong ends the job: ranks must not be left waiting for one that has failed.
 */
#ifndef TSR_TESTS_SUPPORT_GENERATIONS_H
#define TSR_TESTS_SUPPORT_GENERATIONS_H

#include "engine/tessera.h"
#include "parallel/world.h"

enum {
    N_PROMPTS = 16,
    N_NEW = 48,
    N_TOP = 5,
    LONGEST = 90,
    MOST_TEXT = 512,
    END_TOKEN = 2 /* of tiny models */
};

typedef struct likely {
    double logprob;
    tsr_top_token top[N_TOP];
    int n_top;
} likely;

/* What one generation gave. */
typedef struct outcome {
    int32_t ids[N_NEW];
    likely tokens[N_NEW];
    int n_ids;
    likely prompt[LONGEST]; /* of the token behind each position */
    int n_scores;
    char text[MOST_TEXT];
    int n_text;
    char reason[16];
} outcome;

typedef struct way {
    const char *name;
    tsr_engine_options options;
    bool together; /* all at once, or one after the other */
} way;

/* What the i-th generation asks for: all but its prompt and its events. */
typedef tsr_generation wish_fn(int i);

extern tsr_world *world; /* the test's */
extern char model_path[64];
extern int32_t prompts[N_PROMPTS][LONGEST];
extern int prompt_tokens[N_PROMPTS];
extern int n_vocab;

void must(tsr_status st);

/* Prompts of 1 to LONGEST tokens and a tiny model, made by the leader for all. */
void make_model(const char *name, uint64_t seed);
void drop_model(void);

void note_event(void *ctx, const tsr_event *event); /* ctx is an outcome */

/* All ranks together. On the leader `into` [N_PROMPTS] holds what came out. */
tsr_engine_stats run_way(const way *w, wish_fn *wish, outcome *into);

#endif
