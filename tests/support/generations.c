#include "tests/support/generations.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "engine/leader.h"
#include "tests/support/dice.h"
#include "tests/support/tiny_model.h"

enum {
    FEW_BLOCKS = 256 // so few that looking at all of them after each step costs little
};

tsr_world *world;
const char *golden_path;
char model_path[64];
int32_t prompts[MOST_PROMPTS][MOST_PROMPT_TOKENS];
int prompt_tokens[MOST_PROMPTS];
int n_vocab;

static FILE *golden;

void must(tsr_status st)
{
    if (st != TSR_OK) {
        tsr_world_abort(world, st); // the others must not be left waiting
    }
}

/* ---- models and prompts ---- */

void make_model(const char *name, uint64_t seed, int n_prompts, int longest)
{
    const tiny_model *m = tiny_model_preset(name);
    uint64_t state = seed;

    n_vocab = m->vocab;
    (void)snprintf(model_path, sizeof(model_path), "/tmp/tsr_generations_%d.gguf", (int)getpid());
    must(tsr_world_broadcast(world, model_path, sizeof(model_path)));
    if (tsr_world_is_leader(world)) {
        tiny_model_save(m, seed, model_path);
    }
    for (int i = 0; i < n_prompts; i++) {
        prompt_tokens[i] = 1 + (i * 37) % longest;
        for (int t = 0; t < prompt_tokens[i]; t++) {
            state = state * 6364136223846793005U + 1442695040888963407U;
            prompts[i][t] = (int32_t)((state >> 33) % (uint64_t)m->vocab);
        }
    }
    must(tsr_world_agree(world, TSR_OK)); // the file is there
}

void drop_model(void)
{
    must(tsr_world_agree(world, TSR_OK)); // nobody reads it any more
    if (tsr_world_is_leader(world)) {
        (void)unlink(model_path);
    }
}

/* ---- runs ---- */

static void run_to_the_end(tsr_engine *engine)
{
    const bool is_small = tsr_engine_describe(engine).n_blocks <= FEW_BLOCKS;
    bool busy = true;

    while (busy) {
        must(tsr_engine_step(engine, &busy));
        assert_true(!is_small || tsr_scheduler_verify(engine->leader->scheduler));
    }
}

static void lead(tsr_engine *engine, const way *w, int n, wish_fn *wish)
{
    int order[MOST_PROMPTS];
    uint64_t dice = w->together;
    int64_t id;

    for (int i = 0; i < n; i++) {
        const int at = w->together > 1 ? dice_below(&dice, i + 1) : i;

        order[i] = order[at];
        order[at] = i;
    }
    for (int i = 0; i < n; i++) {
        tsr_generation g = wish(order[i]);

        if (g.prompt == NULL) {
            g.prompt = prompts[order[i]];
            g.n_prompt = prompt_tokens[order[i]];
        }
        must(tsr_engine_submit(engine, &g, &id));
        if (w->together == 0) {
            run_to_the_end(engine);
        }
    }
    run_to_the_end(engine);
}

tsr_engine_stats end_engine(tsr_engine *engine)
{
    tsr_engine_stats stats;

    must(tsr_engine_is_leader(engine) ? tsr_engine_stop(engine) : tsr_engine_follow(engine));
    stats = tsr_engine_describe(engine);
    tsr_engine_destroy(engine);
    return stats;
}

tsr_engine_stats run_way(const way *w, int n, wish_fn *wish)
{
    tsr_engine_options options = w->options;
    tsr_engine *engine = NULL;

    options.model_path = model_path;
    options.n_threads = options.n_threads == 0 ? 1 : options.n_threads;
    must(tsr_engine_create(&engine, world, &options));
    if (tsr_engine_is_leader(engine)) {
        lead(engine, w, n, wish);
    }
    return end_engine(engine);
}

/* ---- the file ---- */

bool writes_golden(void)
{
    return tsr_world_size(world) == 1;
}

void open_golden(void)
{
    golden = fopen(golden_path, writes_golden() ? "wb" : "rb");
    if (golden == NULL) {
        must(tsr_fail(TSR_ERR_IO, "%s: the run on one rank writes it", golden_path));
    }
}

void pass_golden(void *got, void *to, size_t n_bytes)
{
    const size_t n =
        writes_golden() ? fwrite(got, n_bytes, 1, golden) : fread(to, n_bytes, 1, golden);

    assert_int_equal(n, 1);
}

void close_golden(void)
{
    assert_int_equal(fclose(golden), 0);
}

int run_generations(int argc, char **argv, const char *name, const struct CMUnitTest *tests,
                    size_t n_tests)
{
    if (argc != 2 || tsr_world_open(&world) != TSR_OK) {
        (void)fprintf(stderr, "usage: [mpirun -n N] %s GOLDEN_FILE\n", argv[0]);
        return 2;
    }
    golden_path = argv[1];
    if (_cmocka_run_group_tests(name, tests, n_tests, NULL, NULL) > 0) {
        _exit(1); // ranks that wait for this one are ended by the launcher
    }
    tsr_world_close(world);
    return 0;
}
