/*
 * Hugging Face folders that are not sound: each is refused in one sentence that names what is
 * wrong.
 */
#include "engine/checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/model_copy.h"
#include "tests/support/scratch.h"
#include "tests/support/torture.h"

static tsr_status open_it(void)
{
    return model_copy_load(NULL, 0, 1, TSR_FORMAT_COUNT);
}

static void refuses(tsr_status want, const char *name, const char *part)
{
    const tsr_status st = open_it();

    if (st != want) {
        fail_msg("%s gave status %d, not %d: %s", name, (int)st, (int)want, tsr_status_message());
    }
    assert_sentence(name, part);
}

/* ---- files -------------------------------------------------------------------------------------
 */

static void sound_folders_open_with_and_without_an_index(void **state)
{
    (void)state;
    model_copy_make("llama3");
    assert_int_equal(open_it(), TSR_OK);
    assert_int_equal(unlink(model_copy_path("model.safetensors.index.json")), 0);
    assert_int_equal(open_it(), TSR_OK);
    model_copy_make("qwen2");
    assert_int_equal(open_it(), TSR_OK);
}

static void a_missing_file_is_named(void **state)
{
    static const char part[] = "model-00002-of-00004.safetensors";

    (void)state;
    model_copy_make("llama3");
    assert_int_equal(unlink(model_copy_path(part)), 0);
    refuses(TSR_ERR_IO, part, "cannot be opened");
    assert_int_equal(unlink(model_copy_path("model.safetensors.index.json")), 0);
    refuses(TSR_ERR_IO, part, "file 2 of 4");
    model_copy_make("qwen2");
    assert_int_equal(unlink(model_copy_path("model.safetensors")), 0);
    refuses(TSR_ERR_IO, "model*.safetensors", "has no");
    model_copy_make("qwen2");
    assert_int_equal(unlink(model_copy_path("config.json")), 0);
    refuses(TSR_ERR_IO, "config.json", "has no");
}

static void an_index_that_does_not_fit_is_refused(void **state)
{
    static const char index[] = "model.safetensors.index.json";

    (void)state;
    model_copy_make("llama3");
    model_copy_change(index, "lm_head.weight\": \"model-0000", "lm_head.wrong\": \"model-0000");
    refuses(TSR_ERR_FORMAT, "lm_head.wrong", "where it is not");
    model_copy_make("llama3");
    model_copy_change(index, "model-00001-of", "../el-00001-of");
    refuses(TSR_ERR_FORMAT, index, "no name of a file");
    model_copy_make("llama3");
    model_copy_change(index, "weight_map", "weight_mop");
    refuses(TSR_ERR_FORMAT, index, "weight_map");
    model_copy_make("llama3");
    model_copy_write(index, "{\"weight_map\": {\"a\": 3}}", 24);
    refuses(TSR_ERR_FORMAT, index, "file of a");
    model_copy_make("llama3");
    model_copy_write(index, "{", 1);
    refuses(TSR_ERR_FORMAT, index, "JSON");
}

static void headers_that_lie_are_refused(void **state)
{
    static const char file[] = "model.safetensors";
    static const struct {
        const char *was, *is, *words;
    } lies[] = {
        {"\"dtype\":\"BF16\"", "\"dtype\":\"XF16\"", "XF16"},
        {"\"shape\":[512,96]", "\"shape\":[612,96]", "its shape and type need"},
        {"\"shape\":[512,96]", "\"shape\":[-12,96]", "not negative"},
        {"\"shape\":[512,96]", "\"shape\":[5e2,96]", "not negative"},
        {"\"data_offsets\":[0,", "\"data_offsets\":[9,", "its shape and type need"},
        {"\"dtype\":", "\"dtipe\":", "type"},
        {"{\"__", "[\"__", "JSON"},
    };
    const uint64_t huge = UINT64_MAX / 2;
    size_t n_bytes;
    char *bytes;

    (void)state;
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        model_copy_make("qwen2");
        model_copy_change(file, lies[i].was, lies[i].is);
        refuses(TSR_ERR_FORMAT, file, lies[i].words);
    }
    model_copy_make("qwen2");
    bytes = model_copy_read(model_copy_path(file), &n_bytes);
    model_copy_write(file, bytes, 4);
    refuses(TSR_ERR_FORMAT, file, "4 bytes");
    model_copy_write(file, bytes, 100);
    refuses(TSR_ERR_FORMAT, file, "cut short");
    model_copy_write(file, bytes, n_bytes - 1);
    refuses(TSR_ERR_FORMAT, file, "does not lie within");
    model_copy_write(file, bytes, 0);
    refuses(TSR_ERR_FORMAT, file, "0 bytes");
    memcpy(bytes, &huge, sizeof(huge));
    model_copy_write(file, bytes, n_bytes);
    refuses(TSR_ERR_FORMAT, file, "cut short");
    free(bytes);
}

static void shapes_beyond_all_counting_are_refused(void **state)
{
    static const char text[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4,4],"
                               "\"data_offsets\":[0,0]}}";
    char bytes[256];
    const uint64_t length = sizeof(text) - 1;

    (void)state;
    model_copy_make("qwen2");
    memcpy(bytes, &length, sizeof(length));
    memcpy(bytes + sizeof(length), text, sizeof(text));
    model_copy_write("model.safetensors", bytes, sizeof(length) + sizeof(text) - 1);
    refuses(TSR_ERR_FORMAT, "model.safetensors", "more than can be counted");
}

/* ---- tensors -----------------------------------------------------------------------------------
 */

static void tensors_that_are_missing_doubled_or_superfluous_are_named(void **state)
{
    size_t n_bytes;
    char *bytes;

    (void)state;
    model_copy_make("x_cla"); // one file, an lm_head of its own
    model_copy_change("model.safetensors", "\"lm_head.weight\"", "\"lm_hexd.weight\"");
    refuses(TSR_ERR_FORMAT, "lm_head.weight", "lacks");
    model_copy_make("x_cla");
    model_copy_change("config.json", "[0, 0, 2, 2]", "[0, 0, 0, 0]");
    refuses(TSR_ERR_UNSUPPORTED, "model.layers.2.self_attn", "no place");
    model_copy_make("llama3");
    assert_int_equal(unlink(model_copy_path("model.safetensors.index.json")), 0);
    bytes = model_copy_read(model_copy_path("model-00003-of-00004.safetensors"), &n_bytes);
    model_copy_write("model-again.safetensors", bytes, n_bytes);
    free(bytes);
    refuses(TSR_ERR_FORMAT, "model-again.safetensors", "there twice");
    model_copy_make("qwen2");
    model_copy_change("model.safetensors", "model.layers.1.self_attn.q_proj.bias",
                      "model.layers.1.self_attn.q_proj.bios");
    refuses(TSR_ERR_FORMAT, "model.layers.1.self_attn.q_proj.bias", "lacks");
    model_copy_make("mixtral");
    model_copy_change("model.safetensors", "model.layers.1.block_sparse_moe.experts.3.w2.weight",
                      "model.layers.1.block_sparse_moe.experts.9.w2.weight");
    refuses(TSR_ERR_FORMAT, "experts.3.w2.weight", "lacks");
}

static void a_tensor_of_another_shape_is_named_with_both_shapes(void **state)
{
    (void)state;
    model_copy_make("qwen2");
    model_copy_change("config.json", "\"intermediate_size\": 160", "\"intermediate_size\": 176");
    refuses(TSR_ERR_FORMAT, "mlp.gate_proj.weight is [160, 96]", "want [176, 96]");
    model_copy_make("bloom");
    model_copy_change("config.json", "\"vocab_size\": 512", "\"vocab_size\": 500");
    refuses(TSR_ERR_FORMAT, "word_embeddings.weight is [512, 96]", "want [500, 96]");
}

/* ---- config ------------------------------------------------------------------------------------
 */

static void keys_that_cannot_be_are_refused_in_words(void **state)
{
    static const struct {
        const char *folder, *was, *is, *words;
    } lies[] = {
        {"qwen2", "\"hidden_size\": 96", "\"hidden_size\": \"96\"", "hidden_size is text"},
        {"qwen2", "\"hidden_size\": 96", "\"hidden_size\": 96.5", "hidden_size is a number"},
        {"qwen2", "\"hidden_size\": 96", "\"hidden_size\": -1", "hidden_size is -1"},
        {"qwen2", "\"hidden_size\": 96", "\"hidden_sise\": 96", "lacks hidden_size"},
        {"qwen2", "\"hidden_size\": 96", "\"hidden_size\": 97", "do not divide"},
        {"qwen2", "\"hidden_size\": 96", "\"hidden_size\": 1e400", "JSON"},
        {"qwen2", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 0", "num_hidden_layers is 0"},
        {"qwen2", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 99999", "1..4096"},
        {"qwen2", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4", "do not divide"},
        {"qwen2", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": []", "is a list"},
        {"qwen2", "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": true", "rms_norm_eps is true"},
        {"qwen2", "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 7", "epsilon is 7"},
        {"qwen2", "\"model_type\": \"qwen2\"", "\"model_type\": \"mamba\"", "\"mamba\""},
        {"qwen2", "\"model_type\": \"qwen2\"", "\"model_type\": 2", "model_type is a number"},
        {"qwen2", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"mish\"", "\"mish\""},
        {"qwen2", "\"rope_theta\": 1000000.0", "\"rope_theta\": -3", "base of -3"},
        {"qwen2", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": 1", "true or false"},
        {"llama3", "\"rope_type\": \"llama3\"", "\"rope_type\": \"spiral\"", "\"spiral\""},
        {"llama3", "\"factor\": 8.0", "\"factor\": \"8\"", "factor is text"},
        {"llama3", "\"factor\": 8.0", "\"factor\": 0", "scaled by 0"},
        {"phi3_longrope", "12.0", "12.0, 13.0", "long_factor has 7"},
        {"phi3_longrope", "12.0", "\"x\"", "something else than numbers"},
        {"gpt_oss", "\"full_attention\"", "\"odd_attention\"", "odd_attention"},
        {"mixtral", "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 5", "1..4"},
        {"deepseek_v2", "\"topk_method\": \"greedy\"", "\"topk_method\": \"best\"", "\"best\""},
        {"x_cla", "[0, 0, 2, 2]", "[0, 0, 3, 2]", "kv_share"},
        {"x_cla", "[0, 0, 2, 2]", "[0, 0, 2]", "kv_share has 3"},
        {"x_atrous", "\"stride\": 4", "\"stride\": 0", "stride is 0"},
        {"x_atrous", "\"atrous\"", "\"random\"", "\"random\""},
        {"gptj", "\"rotary_dim\": 8", "\"rotary_dim\": 7", "odd number"},
        {"falcon7b", "\"multi_query\": true", "\"multi_query\": \"yes\"", "multi_query is text"},
        {"bloom", "post_layernorm\": false", "post_layernorm\": \"no\"", "post_layernorm is text"},
        {"mpt", "\"qk_ln\": false", "\"qk_ln\": true", "qk_ln, which is not known"},
        {"mpt", "\"clip_qkv\": null", "\"clip_qkv\": -1", "cut to -1"},
        {"opt", "\"word_embed_proj_dim\": 96", "\"word_embed_proj_dim\": 97", "1..96"},
        {"gemma3", "_attention\": false", "_attention\": true", "look at later ones"},
        {"gemma3", "\"gemma3_text\"", "\"gemma3\"", "has no text_config"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        model_copy_make(lies[i].folder);
        model_copy_change("config.json", lies[i].was, lies[i].is);
        if (open_it() == TSR_OK) {
            fail_msg("%s was taken", lies[i].is);
        }
        assert_sentence(lies[i].words, "");
    }
}

/* ---- memory ------------------------------------------------------------------------------------
 */

static tsr_status open_and_close(void *ctx)
{
    (void)ctx;
    return open_it();
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        model_copy_make((const char *const[]){"llama3", "deepseek_v2", "gpt_oss", "mpt"}[i]);
        assert_int_equal(open_it(), TSR_OK); // the device is there
        assert_true(torture(open_and_close, NULL) > 8);
    }
}

static int leave(void **state)
{
    model_copy_remove();
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_folders_open_with_and_without_an_index),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(an_index_that_does_not_fit_is_refused),
        cmocka_unit_test(headers_that_lie_are_refused),
        cmocka_unit_test(shapes_beyond_all_counting_are_refused),
        cmocka_unit_test(tensors_that_are_missing_doubled_or_superfluous_are_named),
        cmocka_unit_test(a_tensor_of_another_shape_is_named_with_both_shapes),
        cmocka_unit_test(keys_that_cannot_be_are_refused_in_words),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("checkpoint", tests, scratch_make, leave);
}
