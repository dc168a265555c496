/*
 * tests/support/generations.h - many generations by an engine on all ranks, in any way that must
 * give the same, and a file that runs on other numbers of ranks are held to.
 *
 * Whatever goes wrong ends the job: ranks must not be left waiting for one that has failed.
 */
#ifndef TSR_TESTS_SUPPORT_GENERATIONS_H
#define TSR_TESTS_SUPPORT_GENERATIONS_H

#include "engine/tessera.h"
#include "parallel/world.h"

struct CMUnitTest;

enum {
    MOST_PROMPTS = 200,
    MOST_PROMPT_TOKENS = 150,
    END_TOKEN = 2 /* of tiny models */
};

typedef struct way {
    const char *name;
    tsr_engine_options options;
    uint64_t together; /* 0: one after the other; 1: all at once; other: and shuffled by that */
} way;

/* What the i-th generation asks for, and where its events go. */
typedef tsr_generation wish_fn(int i);

extern tsr_world *world;
extern const char *golden_path;
extern char model_path[64];
extern int32_t prompts[MOST_PROMPTS][MOST_PROMPT_TOKENS];
extern int prompt_tokens[MOST_PROMPTS];
extern int n_vocab;

void must(tsr_status st);

/* Prompts of 1 to `longest` tokens and a tiny model, made by the leader for all. */
void make_model(const char *name, uint64_t seed, int n_prompts, int longest);
void drop_model(void);

/* All ranks together: the leader when it is done with an engine, the others at once, to follow
 * until then. The engine is gone; what it was. */
tsr_engine_stats end_engine(tsr_engine *engine);

/* All ranks together: n generations, with the prompts above unless they bring their own. */
tsr_engine_stats run_way(const way *w, int n, wish_fn *wish);

/* On the leader: the run on one rank writes, the others read. */
bool writes_golden(void);
void open_golden(void);
void pass_golden(void *got, void *golden, size_t n_bytes); /* written, or read into `golden` */
void close_golden(void);

/* A whole test program: [mpirun -n N] test_x GOLDEN_FILE. Returns its exit status. */
int run_generations(int argc, char **argv, const char *name, const struct CMUnitTest *tests,
                    size_t n_tests);

#endif
