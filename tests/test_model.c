/*
 * Opening a model and making an engine of it: what files may lie about beyond the form that
 * engine/gguf checks, and every allocation failing in turn.
 */
#include "engine/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "tests/support/scratch.h"
#include "tests/support/tiny_model.h"
#include "tests/support/torture.h"

static gguf_writer writer;
static const char *path;

static void begin(const char *preset)
{
    gguf_writer_init(&writer);
    tiny_model_write(tiny_model_preset(preset), 3, &writer);
    path = scratch_path("model.gguf");
}

static tsr_status open_it(void)
{
    const tsr_engine_options options = {
        .model_path = path, .n_threads = 1, .context = 64, .max_batch_tokens = 16};
    tsr_engine *engine = NULL;
    tsr_status st;

    gguf_writer_save(&writer, path);
    gguf_writer_clear(&writer);
    st = tsr_engine_create(&engine, NULL, &options);
    tsr_engine_destroy(engine);
    assert_int_equal(unlink(path), 0);
    return st;
}

/* The bytes behind a key's name and kind: its value. */
static uint8_t *value_of(const char *key)
{
    const size_t n = strlen(key);

    for (size_t i = 0; i + n + 8 <= writer.meta.n_bytes; i++) {
        if (memcmp(writer.meta.at + i, key, n) == 0) {
            return writer.meta.at + i + n + 4;
        }
    }
    fail_msg("no key %s", key);
    return NULL;
}

static void set_u32(const char *key, uint32_t value)
{
    memcpy(value_of(key), &value, sizeof(value));
}

static void set_f32(const char *key, float value)
{
    memcpy(value_of(key), &value, sizeof(value));
}

/* The key is there no longer: it has another name. */
static void lose(const char *key)
{
    value_of(key)[-5] = '?';
}

static gguf_writer_entry *tensor(const char *name)
{
    for (size_t i = 0; i < writer.n_entries; i++) {
        if (strcmp(writer.tensors[i].name, name) == 0) {
            return &writer.tensors[i];
        }
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static void a_sound_model_opens(void **state)
{
    (void)state;
    begin("9/3");
    assert_int_equal(open_it(), TSR_OK);
}

static void metadata_that_cannot_be_is_refused_in_words(void **state)
{
    static const struct {
        const char *preset;
        const char *key;
        uint32_t value;
        const char *words;
    } lies[] = {
        {"9/3", "llama.block_count", 0, "block_count is 0"},
        {"9/3", "llama.block_count", 5000, "block_count is 5000"},
        {"9/3", "llama.block_count", 9, "lacks the tensor"},
        {"9/3", "llama.embedding_length", 1U << 31, "embedding_length is"},
        {"9/3", "llama.embedding_length", 96, "key_length"},
        {"9/3", "llama.embedding_length", 360, "token_embd.weight"},
        {"9/3", "llama.feed_forward_length", 0, "feed_forward_length is 0"},
        {"9/3", "llama.feed_forward_length", 417, "ffn_gate.weight"},
        {"9/3", "llama.context_length", 0, "context_length is 0"},
        {"9/3", "llama.attention.head_count", 0, "head_count is 0"},
        {"9/3", "llama.attention.head_count_kv", 0, "head_count_kv is 0"},
        {"9/3", "llama.attention.head_count_kv", 2, "heads"},
        {"9/3", "llama.attention.head_count_kv", 9, "attn_k.weight"},
        {"wide", "llama.attention.key_length", 12, "heads of 12"},
        {"wide", "llama.attention.key_length", 0, "key_length is 0"},
        {"9/3", "llama.rope.dimension_count", 7, "odd"},
        {"9/3", "llama.rope.dimension_count", 1U << 20, "dimension_count is"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        begin(lies[i].preset);
        set_u32(lies[i].key, lies[i].value);
        if (open_it() == TSR_OK) {
            fail_msg("%s = %u was taken", lies[i].key, lies[i].value);
        }
        assert_sentence(lies[i].words, lies[i].words);
    }
}

static void numbers_that_are_none_are_refused(void **state)
{
    static const struct {
        const char *key;
        float value;
        const char *words;
    } lies[] = {
        {"llama.attention.layer_norm_rms_epsilon", 0.0F, "epsilon"},
        {"llama.attention.layer_norm_rms_epsilon", 1.0F / 0.0F, "epsilon"},
        {"llama.rope.freq_base", 0.0F, "freq_base is 0"},
        {"llama.rope.freq_base", -1e4F, "freq_base is -10000"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        begin("9/3");
        set_f32(lies[i].key, lies[i].value);
        assert_int_equal(open_it(), TSR_ERR_FORMAT);
        assert_sentence(lies[i].words, lies[i].words);
    }
}

static void missing_metadata_is_named(void **state)
{
    static const char *const keys[] = {
        "general.architecture",
        "llama.block_count",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.context_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        begin("9/3");
        // "head_count" is the beginning of "head_count_kv" as well: lose() takes the first.
        lose(keys[i]);
        assert_int_equal(open_it(), TSR_ERR_FORMAT);
        assert_sentence(keys[i], strrchr(keys[i], '.') + 1);
    }
}

static void another_architecture_is_refused_and_known_ones_named(void **state)
{
    (void)state;
    begin("9/3");
    memcpy(value_of("general.architecture") + 8, "mamba", 5);
    assert_int_equal(open_it(), TSR_ERR_UNSUPPORTED);
    assert_sentence("architecture", "\"mamba\"");
}

static void a_missing_tensor_is_named(void **state)
{
    static const char *const names[] = {"token_embd.weight", "blk.1.attn_q.weight",
                                        "blk.0.ffn_norm.weight", "output_norm.weight",
                                        "blk.1.ffn_down.weight"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        begin("9/3");
        (void)snprintf(tensor(names[i])->name, 16, "lost");
        assert_int_equal(open_it(), TSR_ERR_FORMAT);
        assert_sentence(names[i], names[i]);
    }
}

static void a_tensor_of_another_shape_is_named_with_both_shapes(void **state)
{
    gguf_writer_entry *entry;

    (void)state;
    begin("8/8"); // square matrices in Q8_0: turned round they are as many bytes
    entry = tensor("blk.0.ffn_up.weight");
    entry->dims[0] /= 2;
    entry->dims[1] *= 2;
    assert_int_equal(open_it(), TSR_ERR_FORMAT);
    assert_sentence("ffn_up", "want");
}

static void a_tensor_that_is_not_understood_is_refused(void **state)
{
    const float values[8] = {0};

    (void)state;
    begin("9/3");
    gguf_writer_tensor_f32(&writer, "blk.0.attn_q_norm.weight", 1, (int64_t[]){8}, values);
    assert_int_equal(open_it(), TSR_ERR_UNSUPPORTED);
    assert_sentence("blk.0.attn_q_norm.weight", "no place");
}

static void options_out_of_range_are_refused_in_words(void **state)
{
    static const struct {
        tsr_engine_options options;
        const char *words;
    } wrong[] = {
        {{.context = -1}, "context of -1"},
        {{.kv_dtype = "f64"}, "f64"},
        {{.kv_dtype = "int3"}, "int3"},
        {{.block_tokens = 24}, "24 tokens"},
        {{.activations = "fp4"}, "fp4"},
        {{.max_batch_tokens = -5}, "max_batch_tokens is -5"},
        {{.max_sequences = 1 << 20}, "max_sequences is 1048576"},
        {{.kv_memory_bytes = 100}, "--kv-memory"},
        {{.n_threads = -1}, "-1"},
    };

    (void)state;
    begin("9/3");
    gguf_writer_save(&writer, path);
    gguf_writer_clear(&writer);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        tsr_engine_options options = wrong[i].options;
        tsr_engine *engine = NULL;

        options.model_path = path;
        assert_int_equal(tsr_engine_create(&engine, NULL, &options), TSR_ERR_ARG);
        assert_null(engine);
        assert_sentence(wrong[i].words, wrong[i].words);
    }
    assert_int_equal(unlink(path), 0);
}

static tsr_status open_and_close_model(void *ctx)
{
    tsr_model *model = NULL;

    TSR_TRY(tsr_model_open(&model, ctx));
    tsr_model_close(model);
    return TSR_OK;
}

static void drop_event(void *ctx, const tsr_event *event)
{
    (void)ctx;
    (void)event;
}

static tsr_status make_engine_and_run(void *ctx)
{
    static const int32_t prompt[] = {5, 6, 7};
    const tsr_engine_options options = {
        .model_path = ctx, .n_threads = 2, .context = 64, .max_batch_tokens = 16};
    const tsr_generation wish = {
        .prompt = prompt, .n_prompt = 3, .max_tokens = 1, .on_event = drop_event};
    tsr_engine *engine = NULL;
    int64_t id;
    tsr_status st;

    TSR_TRY(tsr_engine_create(&engine, NULL, &options));
    // Only submitting: a step that finds no memory ends the whole job, and this process with it.
    st = tsr_engine_submit(engine, &wish, &id);
    tsr_engine_destroy(engine);
    return st;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    begin("qwen2");
    gguf_writer_save(&writer, path);
    gguf_writer_clear(&writer);
    assert_true(torture(open_and_close_model, (void *)(uintptr_t)path) > 10);
    assert_true(torture(make_engine_and_run, (void *)(uintptr_t)path) > 40);
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_model_opens),
        cmocka_unit_test(metadata_that_cannot_be_is_refused_in_words),
        cmocka_unit_test(numbers_that_are_none_are_refused),
        cmocka_unit_test(missing_metadata_is_named),
        cmocka_unit_test(another_architecture_is_refused_and_known_ones_named),
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(a_tensor_of_another_shape_is_named_with_both_shapes),
        cmocka_unit_test(a_tensor_that_is_not_understood_is_refused),
        cmocka_unit_test(options_out_of_range_are_refused_in_words),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("model", tests, scratch_make, scratch_remove);
}
