/*
 * Plans, on 1, 2, 3 and 4 ranks: what was foretold against what an engine then really takes, and
 * the arithmetic of what fits.
 */
#include "engine/tessera.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "engine/config_read.h"
#include "engine/engine.h"
#include "engine/shapes.h"
#include "parallel/comm_ways.h"
#include "tests/support/tiny_model.h"
#include "tests/support/torture.h"

static tsr_world *world;

static void must(tsr_status st)
{
    if (st != TSR_OK) {
        tsr_world_abort(world, st); // failing alone would leave the other ranks waiting
    }
}

/* Bytes of the window that the ranks share to add up their sums. */
static size_t window_bytes(const tsr_comm *comm)
{
    MPI_Aint n_bytes = 0;
    void *memory;
    int unit;

    if (comm->win != MPI_WIN_NULL) {
        assert_int_equal(MPI_Win_shared_query(comm->win, 0, &n_bytes, &unit, &memory), MPI_SUCCESS);
    }
    return (size_t)n_bytes;
}

/* What an engine takes on this rank beside what its model file's index and tokenizer take. */
static size_t taken_by(const tsr_engine_options *options)
{
    const size_t before = tsr_alloc_live_bytes();
    tsr_model *model = NULL;
    tsr_engine *engine = NULL;
    size_t model_bytes;
    size_t n_bytes;

    must(tsr_world_is_leader(world) ? tsr_model_open(&model, options->model_path)
                                    : tsr_model_open_mute(&model, options->model_path));
    model_bytes = tsr_alloc_live_bytes() - before;
    tsr_model_close(model);
    must(tsr_engine_create(&engine, world, options));
    n_bytes = tsr_alloc_live_bytes() - before - model_bytes +
              window_bytes(engine->comm) / (size_t)tsr_world_size(world);
    must(tsr_engine_is_leader(engine) ? tsr_engine_stop(engine) : tsr_engine_follow(engine));
    tsr_engine_destroy(engine);
    assert_int_equal(tsr_alloc_live_bytes(), before);
    return n_bytes;
}

static void hold_to_plan(const char *name, const tsr_engine_options *options)
{
    const int n_ranks = tsr_world_size(world);
    const size_t taken = taken_by(options);
    tsr_plan_request request = {.options = *options};
    tsr_model *model = NULL;
    tsr_plan_share shares[8];
    const tsr_plan_share *own = &shares[tsr_world_rank(world)];
    tsr_plan plan;
    size_t planned;

    must(tsr_model_open(&model, options->model_path));
    request.model = model;
    must(tsr_plan_of(&plan, shares, &request, n_ranks));
    tsr_model_close(model);
    planned = own->weight_bytes + own->workspace_bytes + own->table_bytes + own->kv_bytes +
              own->host_bytes;
    assert_true(plan.fits);
    must(tsr_world_agree(
        world, planned <= taken * 103 / 100 && planned >= taken * 97 / 100
                   ? TSR_OK
                   : tsr_fail(TSR_ERR_ARG, "%s, rank %d of %d: %zu bytes planned, %zu taken", name,
                              tsr_world_rank(world), n_ranks, planned, taken)));
}

static void tiny_models_take_what_was_planned_within_3_percent(void **state)
{
    char path[64];
    int n_presets;
    const tiny_model *presets = tiny_model_presets(&n_presets);
    static const char *const types[] = {"f32", "f16", "fp8", "int4"};

    (void)state;
    (void)snprintf(path, sizeof(path), "/tmp/tessera-plan-%d.gguf", (int)getpid());
    must(tsr_world_broadcast(world, path, sizeof(path)));
    for (int i = 0; i < n_presets; i++) {
        const tsr_engine_options options = {
            .model_path = path,
            .context = 128 + 64 * (i % 5),
            .kv_dtype = types[i % 4],
            .kv_host_bytes = i % 3 == 1 ? 2 << 20 : 0,
            .kv_disk_bytes = i % 3 == 2 ? 1 << 20 : 0,
            .no_prefix_cache = i % 2 == 0,
            .kv_memory_bytes = (uint64_t)(1 + i % 4) << 20,
            .block_tokens = i % 2 == 0 ? 16 : 64,
            .n_threads = 1 + i % 2,
            .max_batch_tokens = i % 4 == 1 ? 96 : 0,
        };

        if (tsr_world_is_leader(world)) {
            tiny_model_save(&presets[i], 7, path);
        }
        must(tsr_world_agree(world, TSR_OK));
        hold_to_plan(presets[i].name, &options);
        must(tsr_world_agree(world, TSR_OK)); // all have read the file
    }
    if (tsr_world_is_leader(world)) {
        assert_int_equal(unlink(path), 0);
    }
}

static void models_of_folders_take_what_was_planned_within_3_percent(void **state)
{
    static const char *const folders[] = {"mixtral",     "qwen2_moe", "gpt_oss", "gemma2",
                                          "deepseek_v2", "x_yoco",    "bloom"};

    (void)state;
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        char path[512];
        const tsr_engine_options options = {.model_path = path,
                                            .dtype = i % 2 == 0 ? "f16" : NULL,
                                            .kv_memory_bytes = 2 << 20,
                                            .n_threads = 1,
                                            .max_sequences = 8};

        (void)snprintf(path, sizeof(path), "%s/models/%s", TSR_TEST_DATA, folders[i]);
        hold_to_plan(folders[i], &options);
    }
}

static void the_real_model_takes_what_was_planned_within_3_percent(void **state)
{
    const char *path = getenv("TSR_TEST_MODEL");
    const tsr_engine_options options = {
        .model_path = path, .kv_memory_bytes = 64 << 20, .n_threads = 1};

    (void)state;
    if (path == NULL || path[0] == '\0') {
        print_message("skipped: TSR_TEST_MODEL is not set (tests/run.sh gets the model)\n");
        skip();
    }
    hold_to_plan("the real model", &options);
}

/* ---- arithmetic ---------------------------------------------------------
 */

static tsr_plan plan_shape(const char *shape, const char *weights, int n_ranks,
                           uint64_t device_bytes, uint64_t host_bytes, int64_t context)
{
    const tsr_plan_request request = {
        .shape = shape,
        .weights = weights,
        .device_bytes = device_bytes,
        .options = {.context = context, .kv_host_bytes = host_bytes},
    };
    tsr_plan plan;

    assert_int_equal(tsr_plan_of(&plan, NULL, &request, n_ranks), TSR_OK);
    return plan;
}

static const uint64_t GIB = (uint64_t)1 << 30;

static void tokens_of_well_known_models_take_their_known_bytes(void **state)
{
    // layers * 2 * KV heads * head_dim * 2 bytes
    (void)state;
    assert_int_equal(plan_shape("llama-3-8b", NULL, 1, 80 * GIB, 0, 0).share.kv_token_bytes,
                     131072);
    assert_int_equal(plan_shape("llama-3-70b", NULL, 1, 80 * GIB, 0, 0).share.kv_token_bytes,
                     327680);
    assert_int_equal(plan_shape("falcon-7b", NULL, 1, 80 * GIB, 0, 0).share.kv_token_bytes,
                     32 * 2 * 64 * 2);
    assert_int_equal(plan_shape("qwen2.5-7b", NULL, 1, 80 * GIB, 0, 0).share.kv_token_bytes,
                     28 * 2 * 4 * 128 * 2);
    assert_int_equal(plan_shape("mixtral-8x7b", NULL, 1, 80 * GIB, 0, 0).share.kv_token_bytes,
                     131072);
}

static void weights_of_well_known_models_take_their_known_bytes(void **state)
{
    // Parameters as the models' authors count them, two bytes each.
    static const struct {
        const char *shape;
        double millions;
    } known[] = {{"llama-2-7b", 6738.4},  {"llama-3-8b", 8030.3},   {"llama-3-70b", 70553.7},
                 {"falcon-7b", 6921.7},   {"mistral-7b", 7241.7},   {"qwen2.5-7b", 7615.6},
                 {"qwen2.5-0.5b", 494.0}, {"llama-3.2-1b", 1235.8}, {"llama-3.1-405b", 405853.4},
                 {"smollm2-135m", 134.5}, {"mixtral-8x7b", 46702.8}};

    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        const uint64_t n_bytes =
            plan_shape(known[i].shape, "bf16", 1, 2000 * GIB, 0, 0).share.weight_bytes;

        // A thousandth for norms, which are kept in f32, and rounding.
        assert_true(fabs((double)n_bytes / (known[i].millions * 2e6) - 1) < 1e-3);
    }
}

static void every_shape_can_be_planned_on_1_to_16_ranks(void **state)
{
    (void)state;
    for (int i = 0; tsr_plan_shape_at(i) != NULL; i++) {
        for (int n = 1; n <= 16; n++) {
            const tsr_plan plan = plan_shape(tsr_plan_shape_at(i), "q4", n, 300 * GIB, 0, 2048);

            assert_true(plan.fits);
            assert_true(plan.n_sequences >= 1);
            assert_true(plan.longest_context >= 2048);
        }
    }
}

static void what_fits_fits_and_a_byte_less_does_not(void **state)
{
    (void)state;
    for (int n = 1; n <= 5; n++) {
        const tsr_plan plan = plan_shape("llama-3-8b", "q8", n, 20 * GIB, 0, 4096);
        const tsr_plan_share *s = &plan.share;
        const uint64_t total = s->weight_bytes + s->workspace_bytes + s->table_bytes + s->kv_bytes;

        assert_true(total <= 20 * GIB);
        assert_true(total + (uint64_t)plan.block_tokens * s->kv_token_bytes + 4096 > 20 * GIB);
        assert_int_equal(plan_shape("llama-3-8b", "q8", n, total, 0, 4096).n_blocks, plan.n_blocks);
        assert_int_equal(plan_shape("llama-3-8b", "q8", n, total - 1, 0, 4096).n_blocks,
                         plan.n_blocks - 1);
        assert_int_equal(plan.n_sequences, plan.n_blocks / (4096 / plan.block_tokens));
        // The longest context is held, and a block more is not.
        assert_true(
            plan_shape("llama-3-8b", "q8", n, 20 * GIB, 0, plan.longest_context).n_sequences == 1);
        assert_true(
            plan_shape("llama-3-8b", "q8", n, 20 * GIB, 0, plan.longest_context + plan.block_tokens)
                .n_sequences == 0);
    }
}

static void windows_keep_what_they_see(void **state)
{
    const tsr_plan plan = plan_shape("gemma-3-27b", NULL, 1, 100 * GIB, 0, 131072);
    const uint64_t layer_bytes = 2 * 16 * 128 * 2; // of a position

    (void)state;
    // 10 layers see everything; 52, in 6 groups of 10, see 1,024 positions: 64 columns before that
    // of a row, the row's own and one more.
    assert_int_equal(plan.share.kv_token_bytes, 70 * layer_bytes);
    assert_int_equal(plan.share.kv_sequence_bytes,
                     10 * layer_bytes * (131072 + 6 * 66 * (uint64_t)plan.block_tokens));
    // As many blocks as that is, and one less.
    assert_int_equal(plan.n_sequences, plan.n_blocks / (131072 / 16 + 6 * 66));
    // Short sequences do not get so far that anything is left.
    assert_int_equal(plan_shape("gemma-3-27b", NULL, 1, 100 * GIB, 0, 1024).share.kv_sequence_bytes,
                     1024 * 70 * layer_bytes);
    assert_int_equal(plan_shape("llama-3-8b", NULL, 1, 80 * GIB, 0, 8192).share.kv_sequence_bytes,
                     8192 * 131072);
}

static void layers_that_see_as_far_share_blocks(void **state)
{
    tsr_config c = {0};

    (void)state;
    assert_int_equal(tsr_shapes_find(&c, "gemma-2-9b"), TSR_OK);
    assert_int_equal(c.n_groups, 2);
    assert_int_equal(c.group_layers, 21);
    assert_int_equal(c.reach[0], 0);
    assert_int_equal(c.reach[1], 4096);
    for (int i = 0; i < 42; i++) {
        assert_int_equal(c.layers[i].group, i % 2 == 0 ? 1 : 0);
        assert_int_equal(c.layers[i].group_layer, i / 2);
    }
    // Readers of one layer's keys: the one that sees furthest counts.
    c.layers[0].window = 7;
    for (int i = 1; i < 42; i++) {
        c.layers[i].kv_layer = i < 10 ? 0 : 1;
        c.layers[i].window = i < 10 ? 5 * i : 3;
    }
    c.n_kv_layers = 2;
    assert_int_equal(tsr_config_groups_find(&c), TSR_OK);
    assert_int_equal(c.n_groups, 2);
    assert_int_equal(c.reach[0], 45);
    assert_int_equal(c.reach[1], 3);
    assert_int_equal(c.layers[41].group, 1);
    // More windows than groups: nobody keeps less than it sees.
    for (int i = 0; i < 42; i++) {
        c.layers[i].kv_layer = i;
        c.layers[i].window = 1 + (i * 11) % 42;
    }
    c.n_kv_layers = 42;
    assert_int_equal(tsr_config_groups_find(&c), TSR_OK);
    assert_true(c.n_groups <= TSR_CONFIG_GROUPS && c.n_groups * c.group_layers >= 42);
    for (int i = 0; i < 42; i++) {
        assert_true(c.reach[c.layers[i].group] >= c.layers[i].window);
        for (int k = 0; k < i; k++) { // each has a place of its own
            assert_false(c.layers[i].group == c.layers[k].group &&
                         c.layers[i].group_layer == c.layers[k].group_layer);
        }
    }
    tsr_config_clear(&c);
}

static void too_little_memory_says_how_much_is_lacking(void **state)
{
    const tsr_plan plan = plan_shape("llama-3-70b", "q4", 1, 24 * GIB, 0, 4096);

    (void)state;
    assert_false(plan.fits);
    assert_int_equal(plan.n_sequences, 0);
    assert_true(plan_shape("llama-3-70b", "q4", 1, 24 * GIB + plan.lacking_bytes, 0, 4096).fits);
    assert_false(
        plan_shape("llama-3-70b", "q4", 1, 24 * GIB + plan.lacking_bytes - 1, 0, 4096).fits);
}

static void host_memory_adds_to_what_is_in_flight_and_to_the_longest_context(void **state)
{
    const tsr_plan bare = plan_shape("llama-3-8b", NULL, 2, 24 * GIB, 0, 8192);
    const tsr_plan more = plan_shape("llama-3-8b", NULL, 2, 24 * GIB, 64 * GIB, 8192);

    (void)state;
    assert_int_equal(bare.n_in_flight, bare.n_sequences);
    // 64 KiB a token and rank: 64 GiB hold 1048576 tokens, 128 sequences of 8192. Two blocks of
    // them are for exchanges, and the books of all take some hundred bytes a block on the device.
    assert_in_range(more.n_sequences, bare.n_sequences - 1, bare.n_sequences);
    assert_in_range(more.n_in_flight, bare.n_in_flight + 126, bare.n_in_flight + 128);
    assert_true(more.longest_context > bare.longest_context + 1000000);
    assert_true(more.longest_context < bare.longest_context + 1048576);
}

static void the_busiest_rank_decides(void **state)
{
    // 3 KV heads on 2 ranks go 2 and 2, one being kept twice; on 4 ranks 9 heads go 3, 2, 2, 2.
    tsr_plan_share shares[4];
    const tsr_plan_request request = {.shape = "smollm2-135m", .device_bytes = GIB};
    tsr_plan plan;

    (void)state;
    assert_int_equal(tsr_plan_of(&plan, shares, &request, 4), TSR_OK);
    for (int rank = 0; rank < 4; rank++) {
        assert_true(shares[rank].kv_token_bytes <= plan.share.kv_token_bytes);
        assert_true(shares[rank].weight_bytes + shares[rank].workspace_bytes +
                        shares[rank].table_bytes + shares[rank].kv_bytes <=
                    GIB);
    }
    assert_memory_equal(&shares[plan.busiest], &plan.share, sizeof(plan.share));
}

static void what_is_not_known_is_refused_in_words(void **state)
{
    tsr_plan plan = {.n_ranks = -7};
    tsr_plan_request request = {.shape = "llama-9", .device_bytes = GIB};

    (void)state;
    assert_int_equal(tsr_plan_of(&plan, NULL, &request, 1), TSR_ERR_ARG);
    assert_non_null(strstr(tsr_tessera_message(), "llama-3-8b"));
    request.shape = "llama-3-8b";
    request.weights = "q3";
    assert_int_equal(tsr_plan_of(&plan, NULL, &request, 1), TSR_ERR_ARG);
    assert_non_null(strstr(tsr_tessera_message(), "q8"));
    request.weights = NULL;
    assert_int_equal(tsr_plan_of(&plan, NULL, &request, 0), TSR_ERR_ARG);
    request.device_bytes = 0;
    assert_int_equal(tsr_plan_of(&plan, NULL, &request, 1), TSR_ERR_ARG);
    request.device_bytes = GIB;
    request.options.kv_dtype = "f64";
    assert_int_equal(tsr_plan_of(&plan, NULL, &request, 1), TSR_ERR_ARG);
    request.shape = NULL;
    assert_int_equal(tsr_plan_of(&plan, NULL, &request, 1), TSR_ERR_ARG);
    assert_int_equal(plan.n_ranks, -7);
}

static tsr_status plan_it(void *ctx)
{
    const tsr_plan_request request = {.shape = "llama-3-8b", .device_bytes = 40 * GIB};
    tsr_plan plan;

    (void)ctx;
    return tsr_plan_of(&plan, NULL, &request, 3);
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_true(torture(plan_it, NULL) >= 1);
}

int main(void)
{
    const struct CMUnitTest taken[] = {
        cmocka_unit_test(tiny_models_take_what_was_planned_within_3_percent),
        cmocka_unit_test(models_of_folders_take_what_was_planned_within_3_percent),
        cmocka_unit_test(the_real_model_takes_what_was_planned_within_3_percent),
    };
    const struct CMUnitTest arithmetic[] = {
        cmocka_unit_test(tokens_of_well_known_models_take_their_known_bytes),
        cmocka_unit_test(weights_of_well_known_models_take_their_known_bytes),
        cmocka_unit_test(every_shape_can_be_planned_on_1_to_16_ranks),
        cmocka_unit_test(what_fits_fits_and_a_byte_less_does_not),
        cmocka_unit_test(windows_keep_what_they_see),
        cmocka_unit_test(layers_that_see_as_far_share_blocks),
        cmocka_unit_test(too_little_memory_says_how_much_is_lacking),
        cmocka_unit_test(host_memory_adds_to_what_is_in_flight_and_to_the_longest_context),
        cmocka_unit_test(the_busiest_rank_decides),
        cmocka_unit_test(what_is_not_known_is_refused_in_words),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };
    int n_failed;

    if (tsr_world_open(&world) != TSR_OK) {
        return 1;
    }
    n_failed = cmocka_run_group_tests(taken, NULL, NULL);
    if (tsr_world_size(world) == 1) {
        n_failed += cmocka_run_group_tests(arithmetic, NULL, NULL);
    }
    tsr_world_close(world);
    return n_failed;
}
