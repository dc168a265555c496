/*
 * Hugging Face folders that are not sound: each is refused in one sentence that names what is
 * wrong. And what a rank reads of a sound one: the bytes of its own shard, not one beside them.
 */
#include "engine/checkpoint.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/stat.h>

#include <cmocka.h>

#include "engine/model.h"
#include "engine/weights.h"
#include "tests/support/scratch.h"
#include "tests/support/torture.h"

enum {
    PATH_BYTES = 512
};

static char folder[PATH_BYTES];

/* ---- a copy of a folder, to be spoiled --------------------------------------------------------
 */

static const char *path_of(const char *name)
{
    static char path[2 * PATH_BYTES];

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static char *read_file(const char *path, size_t *n_bytes)
{
    FILE *from = fopen(path, "rb");
    char *bytes;
    long size;

    assert_non_null(from);
    assert_int_equal(fseek(from, 0, SEEK_END), 0);
    size = ftell(from);
    bytes = calloc((size_t)size + 1, 1);
    assert_non_null(bytes);
    rewind(from);
    assert_int_equal(fread(bytes, 1, (size_t)size, from), size);
    assert_int_equal(fclose(from), 0);
    *n_bytes = (size_t)size;
    return bytes;
}

static void write_file(const char *name, const char *bytes, size_t n_bytes)
{
    FILE *to = fopen(path_of(name), "wb");

    assert_non_null(to);
    assert_int_equal(fwrite(bytes, 1, n_bytes, to), n_bytes);
    assert_int_equal(fclose(to), 0);
}

static void remove_folder(void)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    if (dir == NULL) {
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            assert_int_equal(unlink(path_of(entry->d_name)), 0);
        }
    }
    (void)closedir(dir);
    assert_int_equal(rmdir(folder), 0);
}

/* Lists on one line, as the changes below expect them. */
static void flatten(char *json)
{
    char *to = json;

    for (const char *at = json; *at != '\0'; at++) {
        if (*at == '\n') {
            at += strspn(at + 1, " ");
            if (to > json && to[-1] == ',') {
                *to++ = ' ';
            }
        } else {
            *to++ = *at;
        }
    }
    *to = '\0';
}

static void begin(const char *name)
{
    char from[PATH_BYTES];
    char path[2 * PATH_BYTES];
    const struct dirent *entry;
    DIR *dir;

    (void)snprintf(folder, sizeof(folder), "%s", scratch_path("model"));
    remove_folder();
    assert_int_equal(mkdir(folder, 0700), 0);
    (void)snprintf(from, sizeof(from), "%s/models/%s", TSR_TEST_DATA, name);
    dir = opendir(from);
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, "model", 5) == 0 || strcmp(entry->d_name, "config.json") == 0) {
            size_t n_bytes;
            char *bytes;

            (void)snprintf(path, sizeof(path), "%s/%s", from, entry->d_name);
            bytes = read_file(path, &n_bytes);
            if (strcmp(entry->d_name, "config.json") == 0) {
                flatten(bytes);
                n_bytes = strlen(bytes);
            }
            write_file(entry->d_name, bytes, n_bytes);
            free(bytes);
        }
    }
    (void)closedir(dir);
}

/* The first `was` in a file becomes `is`; in a header of fixed length both are as long. */
static void change(const char *name, const char *was, const char *is)
{
    size_t n_bytes;
    char *bytes = read_file(path_of(name), &n_bytes);
    char *changed = calloc(n_bytes + strlen(is) + 1, 1);
    const size_t n = strlen(was);
    size_t at = 0;

    while (at + n <= n_bytes && memcmp(bytes + at, was, n) != 0) {
        at++;
    }
    assert_true(at + n <= n_bytes);
    memcpy(changed, bytes, at);
    memcpy(changed + at, is, strlen(is));
    memcpy(changed + at + strlen(is), bytes + at + n, n_bytes - at - n);
    write_file(name, changed, n_bytes - n + strlen(is));
    free(changed);
    free(bytes);
}

/* Opens the folder with all that a rank does alone; nothing stays open. */
static tsr_status load_share(tsr_weights *weights, int rank, int n_ranks, tsr_format as)
{
    static tsr_device *dev;
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    tsr_model *model = NULL;
    tsr_weights loaded = {0};
    tsr_status st = tsr_model_open_mute(&model, folder);

    if (st == TSR_OK) {
        const tsr_config *config = tsr_model_config(model);
        const tsr_shard shard = tsr_shard_of(&config->shape, rank, n_ranks);

        if (dev == NULL) {
            assert_int_equal(tsr_device_open(&dev, &options), TSR_OK); // stays for all tests
        }
        st = tsr_weights_load(&loaded, dev, tsr_model_checkpoint(model), config, &shard, as);
    }
    tsr_model_close(model);
    if (weights != NULL) {
        *weights = loaded;
    } else {
        tsr_weights_clear(&loaded);
    }
    return st;
}

static tsr_status open_it(void)
{
    return load_share(NULL, 0, 1, TSR_FORMAT_COUNT);
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
    begin("llama3");
    assert_int_equal(open_it(), TSR_OK);
    assert_int_equal(unlink(path_of("model.safetensors.index.json")), 0);
    assert_int_equal(open_it(), TSR_OK);
    begin("qwen2");
    assert_int_equal(open_it(), TSR_OK);
}

static void a_missing_file_is_named(void **state)
{
    static const char part[] = "model-00002-of-00004.safetensors";

    (void)state;
    begin("llama3");
    assert_int_equal(unlink(path_of(part)), 0);
    refuses(TSR_ERR_IO, part, "cannot be opened");
    assert_int_equal(unlink(path_of("model.safetensors.index.json")), 0);
    refuses(TSR_ERR_IO, part, "file 2 of 4");
    begin("qwen2");
    assert_int_equal(unlink(path_of("model.safetensors")), 0);
    refuses(TSR_ERR_IO, "model*.safetensors", "has no");
    begin("qwen2");
    assert_int_equal(unlink(path_of("config.json")), 0);
    refuses(TSR_ERR_IO, "config.json", "has no");
}

static void an_index_that_does_not_fit_is_refused(void **state)
{
    static const char index[] = "model.safetensors.index.json";

    (void)state;
    begin("llama3");
    change(index, "lm_head.weight\": \"model-0000", "lm_head.wrong\": \"model-0000");
    refuses(TSR_ERR_FORMAT, "lm_head.wrong", "where it is not");
    begin("llama3");
    change(index, "model-00001-of", "../el-00001-of");
    refuses(TSR_ERR_FORMAT, index, "no name of a file");
    begin("llama3");
    change(index, "weight_map", "weight_mop");
    refuses(TSR_ERR_FORMAT, index, "weight_map");
    begin("llama3");
    write_file(index, "{\"weight_map\": {\"a\": 3}}", 24);
    refuses(TSR_ERR_FORMAT, index, "file of a");
    begin("llama3");
    write_file(index, "{", 1);
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
        begin("qwen2");
        change(file, lies[i].was, lies[i].is);
        refuses(TSR_ERR_FORMAT, file, lies[i].words);
    }
    begin("qwen2");
    bytes = read_file(path_of(file), &n_bytes);
    write_file(file, bytes, 4);
    refuses(TSR_ERR_FORMAT, file, "4 bytes");
    write_file(file, bytes, 100);
    refuses(TSR_ERR_FORMAT, file, "cut short");
    write_file(file, bytes, n_bytes - 1);
    refuses(TSR_ERR_FORMAT, file, "does not lie within");
    write_file(file, bytes, 0);
    refuses(TSR_ERR_FORMAT, file, "0 bytes");
    memcpy(bytes, &huge, sizeof(huge));
    write_file(file, bytes, n_bytes);
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
    begin("qwen2");
    memcpy(bytes, &length, sizeof(length));
    memcpy(bytes + sizeof(length), text, sizeof(text));
    write_file("model.safetensors", bytes, sizeof(length) + sizeof(text) - 1);
    refuses(TSR_ERR_FORMAT, "model.safetensors", "more than can be counted");
}

/* ---- tensors -----------------------------------------------------------------------------------
 */

static void tensors_that_are_missing_doubled_or_superfluous_are_named(void **state)
{
    size_t n_bytes;
    char *bytes;

    (void)state;
    begin("x_cla"); // one file, an lm_head of its own
    change("model.safetensors", "\"lm_head.weight\"", "\"lm_hexd.weight\"");
    refuses(TSR_ERR_FORMAT, "lm_head.weight", "lacks");
    begin("x_cla");
    change("config.json", "[0, 0, 2, 2]", "[0, 0, 0, 0]");
    refuses(TSR_ERR_UNSUPPORTED, "model.layers.2.self_attn", "no place");
    begin("llama3");
    assert_int_equal(unlink(path_of("model.safetensors.index.json")), 0);
    bytes = read_file(path_of("model-00003-of-00004.safetensors"), &n_bytes);
    write_file("model-again.safetensors", bytes, n_bytes);
    free(bytes);
    refuses(TSR_ERR_FORMAT, "model-again.safetensors", "there twice");
    begin("qwen2");
    change("model.safetensors", "model.layers.1.self_attn.q_proj.bias",
           "model.layers.1.self_attn.q_proj.bios");
    refuses(TSR_ERR_FORMAT, "model.layers.1.self_attn.q_proj.bias", "lacks");
    begin("mixtral");
    change("model.safetensors", "model.layers.1.block_sparse_moe.experts.3.w2.weight",
           "model.layers.1.block_sparse_moe.experts.9.w2.weight");
    refuses(TSR_ERR_FORMAT, "experts.3.w2.weight", "lacks");
}

static void a_tensor_of_another_shape_is_named_with_both_shapes(void **state)
{
    (void)state;
    begin("qwen2");
    change("config.json", "\"intermediate_size\": 160", "\"intermediate_size\": 176");
    refuses(TSR_ERR_FORMAT, "mlp.gate_proj.weight is [160, 96]", "want [176, 96]");
    begin("bloom");
    change("config.json", "\"vocab_size\": 512", "\"vocab_size\": 500");
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
        begin(lies[i].folder);
        change("config.json", lies[i].was, lies[i].is);
        if (open_it() == TSR_OK) {
            fail_msg("%s was taken", lies[i].is);
        }
        assert_sentence(lies[i].words, "");
    }
}

/* ---- what a rank reads --------------------------------------------------------------------------
 */

/* Whether element (row, column) of a llama's tensor is a rank's, said here once more. */
static bool is_own(const char *name, const tsr_shard *s, int head_dim, int64_t row, int64_t col)
{
    const struct {
        const char *part;
        tsr_range range;
        int unit;
        bool by_col;
    } rules[] = {
        {"embed_tokens", s->vocab, 1, false},
        {"lm_head", s->vocab, 1, false},
        {"q_proj", s->heads, head_dim, false},
        {"k_proj", s->kv_heads, head_dim, false},
        {"v_proj", s->kv_heads, head_dim, false},
        {"o_proj", s->heads, head_dim, true},
        {"gate_proj", s->ff, 1, false},
        {"up_proj", s->ff, 1, false},
        {"down_proj", s->ff, 1, true},
    };

    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (strstr(name, rules[i].part) != NULL) {
            const int64_t at = (rules[i].by_col ? col : row) / rules[i].unit;

            return at >= rules[i].range.first && at < rules[i].range.first + rules[i].range.count;
        }
    }
    return true; // norms
}

/* All elements that are not the rank's become NaN. Returns the bytes that are its own. */
static uint64_t poison_others(const char *file, const tsr_shard *shard, int head_dim)
{
    size_t n_bytes;
    char *bytes = read_file(path_of(file), &n_bytes);
    uint64_t n_own = 0;
    uint64_t length;
    json_t *header;
    const char *name;
    json_t *entry;

    memcpy(&length, bytes, sizeof(length));
    header = json_loadb(bytes + 8, length, 0, NULL);
    json_object_foreach(header, name, entry)
    {
        const json_t *shape = json_object_get(entry, "shape");
        const bool matrix = json_array_size(shape) == 2;
        const int64_t rows = matrix ? json_integer_value(json_array_get(shape, 0)) : 1;
        const int64_t cols = json_integer_value(json_array_get(shape, matrix ? 1 : 0));
        char *data = bytes + 8 + length +
                     json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 0));

        for (int64_t i = 0; shape != NULL && i < rows * cols; i++) {
            if (is_own(name, shard, head_dim, i / cols, i % cols)) {
                n_own += 2;
            } else {
                memset(data + 2 * i, 0xFF, 2);
            }
        }
    }
    json_decref(header);
    write_file(file, bytes, n_bytes);
    free(bytes);
    return n_own;
}

static void a_rank_reads_the_bytes_of_its_own_shard_and_no_others(void **state)
{
    static const tsr_shard_shape shape = {
        .n_heads = 6, .n_kv_heads = 2, .head_dim = 16, .dim = 96, .ff_dim = 160, .n_vocab = 512};

    (void)state;
    for (int n_ranks = 1; n_ranks <= 5; n_ranks++) {
        for (int rank = 0; rank < n_ranks; rank++) {
            const tsr_shard shard = tsr_shard_of(&shape, rank, n_ranks);
            tsr_weights whole;
            tsr_weights poisoned;
            uint64_t n_own = 0;

            begin("llama3");
            assert_int_equal(load_share(&whole, rank, n_ranks, TSR_FORMAT_COUNT), TSR_OK);
            for (int part = 1; part <= 4; part++) {
                char name[64];

                (void)snprintf(name, sizeof(name), "model-%05d-of-00004.safetensors", part);
                n_own += poison_others(name, &shard, shape.head_dim);
            }
            assert_int_equal(load_share(&poisoned, rank, n_ranks, TSR_FORMAT_COUNT), TSR_OK);
            assert_int_equal(whole.n_bytes, poisoned.n_bytes);
            assert_memory_equal(whole.memory, poisoned.memory, whole.n_bytes);
            assert_int_equal(whole.file_bytes, n_own);
            tsr_weights_clear(&whole);
            tsr_weights_clear(&poisoned);
        }
    }
}

static void weights_become_the_type_that_is_asked_for(void **state)
{
    static const struct {
        tsr_format as;
        tsr_format format;
    } wishes[] = {
        {TSR_FORMAT_COUNT, TSR_FORMAT_BF16},
        {TSR_FORMAT_F32, TSR_FORMAT_F32},
        {TSR_FORMAT_F16, TSR_FORMAT_F16},
    };
    float values[3][96];

    (void)state;
    begin("qwen2");
    for (int i = 0; i < 3; i++) {
        tsr_weights w;

        assert_int_equal(load_share(&w, 0, 1, wishes[i].as), TSR_OK);
        assert_int_equal(w.layers[1].q.weight.format, wishes[i].format);
        tsr_weight_unpack_row(&w.layers[1].q.weight, 17, values[i]);
        tsr_weights_clear(&w);
    }
    assert_memory_equal(values[0], values[1], sizeof(values[0])); // f32 holds every bf16
    for (int c = 0; c < 96; c++) {
        assert_float_equal(values[2][c], values[0][c], 1e-3F);
    }
}

/* A row's largest distance from what is stored, of the largest value. */
static double distance(const float *row, const float *stored, int n)
{
    double most = 0;
    double worst = 0;

    for (int c = 0; c < n; c++) {
        most = fmax(most, fabs((double)stored[c]));
        worst = fmax(worst, fabs((double)row[c] - (double)stored[c]));
    }
    return worst / most;
}

/* At most, of the largest in 32: half of 1/127, and of 1/2048 where the scale becomes a half; two
 * steps of 2/15, as 4 bits may leave an extreme out; half a step of 3 bits. */
static void weights_of_layers_round_to_fewer_bits_the_same_on_all_ranks(void **state)
{
    static const struct {
        tsr_format as;
        double bound;
    } wishes[] = {{TSR_FORMAT_Q8, 0.0045}, {TSR_FORMAT_Q4, 0.27}, {TSR_FORMAT_FP8, 0.0626}};
    float stored[96];
    float row[96];
    float own[96];
    tsr_weights plain;

    (void)state;
    begin("llama3");
    assert_int_equal(load_share(&plain, 0, 1, TSR_FORMAT_COUNT), TSR_OK);
    for (int i = 0; i < 3; i++) {
        tsr_weights w;
        tsr_weights part;

        assert_int_equal(load_share(&w, 0, 1, wishes[i].as), TSR_OK);
        assert_int_equal(load_share(&part, 0, 2, wishes[i].as), TSR_OK);
        assert_int_equal(w.embed.weight.format, plain.embed.weight.format);
        assert_int_equal(w.head.weight.format, plain.head.weight.format);
        assert_int_equal(w.layers[1].q.weight.format, wishes[i].as);
        assert_int_equal(w.layers[1].down.weight.format, wishes[i].as);
        assert_int_equal(part.layers[1].down.weight.format, wishes[i].as);
        assert_true(w.n_bytes < plain.n_bytes);
        assert_int_equal(w.file_bytes, plain.file_bytes);
        for (int64_t r = 0; r < part.layers[1].q.weight.n_rows; r++) {
            double is;

            assert_int_equal(w.layers[1].q.weight.n_cols, 96);
            tsr_weight_unpack_row(&plain.layers[1].q.weight, r, stored);
            tsr_weight_unpack_row(&w.layers[1].q.weight, r, row);
            tsr_weight_unpack_row(&part.layers[1].q.weight, r, own);
            assert_memory_equal(row, own, sizeof(row));
            is = distance(row, stored, 96);
            if (!(is > 0 && is <= wishes[i].bound)) {
                fail_msg("%s is off by %g", tsr_weight_format_name(wishes[i].as), is);
            }
        }
        tsr_weights_clear(&w);
        tsr_weights_clear(&part);
    }
    tsr_weights_clear(&plain);
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
        begin((const char *const[]){"llama3", "deepseek_v2", "gpt_oss", "mpt"}[i]);
        assert_int_equal(open_it(), TSR_OK); // the device is there
        assert_true(torture(open_and_close, NULL) > 8);
    }
}

static int leave(void **state)
{
    remove_folder();
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
        cmocka_unit_test(a_rank_reads_the_bytes_of_its_own_shard_and_no_others),
        cmocka_unit_test(weights_become_the_type_that_is_asked_for),
        cmocka_unit_test(weights_of_layers_round_to_fewer_bits_the_same_on_all_ranks),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("checkpoint", tests, scratch_make, leave);
}
