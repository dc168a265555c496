/*
 * A prompt as one vector, on 1, 2 and 3 ranks: the oracle's hidden states pooled, and the same to
 * the bit however the prompt is cut, whatever runs beside it, and on any number of ranks.
 */
#include "tests/support/generations.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/oracle.h"

enum {
    N_PROMPTS = 24,
    LONGEST = 120,
    MOST_DIM = 512
};

typedef struct outcome {
    float vector[MOST_DIM];
    int n_vectors;
    int n_tokens;
    char reason[16];
} outcome;

static outcome first[N_PROMPTS];
static outcome again[N_PROMPTS];
static outcome *into;
static int dim;

static void note_event(void *ctx, const tsr_event *event)
{
    outcome *o = ctx;

    if (event->kind == TSR_EVENT_EMBEDDING) {
        memcpy(o->vector, event->embedding, (size_t)dim * sizeof(float));
        o->n_vectors++;
    } else if (event->kind == TSR_EVENT_END) {
        strncpy(o->reason, event->reason, sizeof(o->reason) - 1);
    } else {
        o->n_tokens++;
    }
}

static tsr_pooling pooling_of(int i)
{
    return i % 2 == 0 ? TSR_POOLING_MEAN : TSR_POOLING_LAST;
}

static tsr_generation pooled(int i)
{
    return (tsr_generation){.pooling = pooling_of(i), .on_event = note_event, .ctx = &into[i]};
}

/* Every third one generates: the others are pooled beside it. */
static tsr_generation mixed(int i)
{
    tsr_generation g = pooled(i);

    if (i % 3 == 0) {
        g.pooling = TSR_POOLING_NONE;
        g.max_tokens = 30;
        g.ignore_end = true;
    }
    return g;
}

static void run(const way *w, wish_fn *wish, outcome *to)
{
    into = to;
    memset(to, 0, N_PROMPTS * sizeof(*to));
    (void)run_way(w, N_PROMPTS, wish);
}

static const way exact = {"exact", {.kv_dtype = "f32", .activations = "f32"}, 1};

static void a_vector_is_the_oracles_hidden_states_pooled(void **state)
{
    oracle *o = NULL;
    double hidden[LONGEST * MOST_DIM];

    (void)state;
    make_model("9/3", 6, N_PROMPTS, LONGEST);
    for (int i = N_PROMPTS / 2; i < N_PROMPTS; i++) { // half of them begin as others do
        memcpy(prompts[i], prompts[i - N_PROMPTS / 2], sizeof(prompts[i]));
    }
    if (tsr_world_is_leader(world)) {
        o = oracle_open(model_path);
        dim = oracle_dim(o);
        assert_in_range(dim, 1, MOST_DIM);
    }
    run(&exact, pooled, first);
    for (int i = 0; o != NULL && i < N_PROMPTS; i++) {
        double sum[MOST_DIM] = {0};
        double square = 0;

        oracle_hidden(o, prompts[i], prompt_tokens[i], hidden);
        for (int p = pooling_of(i) == TSR_POOLING_MEAN ? 0 : prompt_tokens[i] - 1;
             p < prompt_tokens[i]; p++) {
            for (int k = 0; k < dim; k++) {
                sum[k] += hidden[p * dim + k];
            }
        }
        for (int k = 0; k < dim; k++) {
            square += sum[k] * sum[k];
        }
        assert_int_equal(first[i].n_vectors, 1);
        assert_int_equal(first[i].n_tokens, 0);
        assert_string_equal(first[i].reason, "length");
        for (int k = 0; k < dim; k++) {
            assert_true(fabs((double)first[i].vector[k] - sum[k] / sqrt(square)) < 1e-5);
        }
    }
    oracle_close(o);
}

static void it_depends_on_nothing_else(void **state)
{
    static const way ways[] = {
        {"alone", {.kv_dtype = "f32", .activations = "f32"}, 0},
        {"in pieces of 7 rows",
         {.kv_dtype = "f32", .activations = "f32", .max_batch_tokens = 7, .max_sequences = 5},
         11},
        {"planned ahead",
         {.kv_dtype = "f32", .activations = "f32", .max_batch_tokens = 16, .plan_ahead = 1},
         3},
        {"in little memory",
         {.kv_dtype = "f32", .activations = "f32", .kv_memory_bytes = 400000, .max_sequences = 8},
         5},
    };

    (void)state;
    for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
        run(&ways[w], w == 0 ? pooled : mixed, again);
        for (int i = 0; tsr_world_is_leader(world) && i < N_PROMPTS; i++) {
            if (w == 0 || i % 3 != 0) {
                assert_int_equal(again[i].n_vectors, 1);
                assert_memory_equal(again[i].vector, first[i].vector, sizeof(first[i].vector));
            }
        }
    }
}

static void it_is_the_same_on_any_number_of_ranks(void **state)
{
    (void)state;
    if (tsr_world_is_leader(world)) {
        open_golden();
        pass_golden(first, again, sizeof(first));
        close_golden();
        if (!writes_golden()) {
            assert_memory_equal(first, again, sizeof(first));
        }
    }
}

static tsr_generation greedy_pooled(int i)
{
    tsr_generation g = pooled(i);

    g.max_tokens = 1;
    return g;
}

static void what_generates_cannot_be_pooled(void **state)
{
    tsr_engine_options options = {.model_path = model_path};
    tsr_engine *engine = NULL;

    (void)state;
    must(tsr_engine_create(&engine, world, &options));
    if (tsr_engine_is_leader(engine)) {
        tsr_generation g = greedy_pooled(0);
        int64_t id;

        g.prompt = prompts[0];
        g.n_prompt = prompt_tokens[0];
        assert_int_equal(tsr_engine_submit(engine, &g, &id), TSR_ERR_ARG);
        g.max_tokens = 0;
        g.pooling = TSR_POOLING_COUNT;
        assert_int_equal(tsr_engine_submit(engine, &g, &id), TSR_ERR_ARG);
    }
    (void)end_engine(engine);
}

/* A block is of the generation that wrote it, and lies on every rank, as long as that runs. */
static void blocks_are_told_with_their_owners(void **state)
{
    tsr_engine_options options = {.model_path = model_path, .kv_memory_bytes = 1 << 20};
    tsr_engine *engine = NULL;

    (void)state;
    must(tsr_engine_create(&engine, world, &options));
    if (tsr_engine_is_leader(engine)) {
        const tsr_engine_stats stats = tsr_engine_describe(engine);
        int64_t *owners = calloc((size_t)stats.n_blocks, sizeof(*owners));
        uint8_t *places = calloc((size_t)stats.n_blocks, (size_t)stats.n_ranks);
        tsr_generation g = {.prompt = prompts[0],
                            .n_prompt = 5,
                            .max_tokens = 40,
                            .ignore_end = true,
                            .on_event = note_event,
                            .ctx = &again[0]};
        int n_owned = 0;
        int64_t id;
        bool busy;

        assert_non_null(owners);
        assert_non_null(places);
        must(tsr_engine_submit(engine, &g, &id));
        for (int i = 0; i < 20; i++) {
            must(tsr_engine_step(engine, &busy));
        }
        must(tsr_engine_blocks(engine, owners, places));
        for (int b = 0; b < stats.n_blocks; b++) {
            n_owned += owners[b] == id ? 1 : 0;
            assert_true(owners[b] == id || owners[b] == -1);
            for (int rank = 0; rank < stats.n_ranks; rank++) {
                assert_int_equal(places[rank * stats.n_blocks + b],
                                 owners[b] == id ? 1 << TSR_MEMORY_DEVICE : 0);
            }
        }
        assert_int_equal(n_owned, 2); // 5 tokens of the prompt and 19 more: 24 are two blocks of 16
        free(owners);
        free(places);
    }
    (void)end_engine(engine);
    drop_model();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_vector_is_the_oracles_hidden_states_pooled),
        cmocka_unit_test(it_depends_on_nothing_else),
        cmocka_unit_test(it_is_the_same_on_any_number_of_ranks),
        cmocka_unit_test(what_generates_cannot_be_pooled),
        cmocka_unit_test(blocks_are_told_with_their_owners),
    };

    return run_generations(argc, argv, "pool", tests, sizeof(tests) / sizeof(tests[0]));
}
