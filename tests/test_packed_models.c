/*
 * Whole models whose linear weights are bytes with scales, fused tensors and experts among them,
 * or whose experts are blocks of MXFP4: on every rank each weight is bit for bit that of the same
 * model with the values stored as f32.
 */
#include "engine/weights.h"

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
#include <jansson.h>

#include "engine/config.h"
#include "kernels/dtype.h"
#include "tests/support/loaded.h"
#include "tests/support/scratch.h"
#include "tests/support/torture.h"

enum {
    PATH_BYTES = 512
};

static tsr_device *dev;

static const char QUANTIZATION[] =
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"int-quantized\", "
    "\"config_groups\": {\"all\": {\"weights\": {\"num_bits\": 8, \"type\": \"int\", "
    "\"strategy\": \"channel\"}}}}";

static const char MXFP4[] =
    "{\"quant_method\": \"mxfp4\", \"modules_to_not_convert\": [\"model.layers.*.self_attn\", "
    "\"model.layers.*.mlp.router\", \"model.embed_tokens\", \"lm_head\"]}";

/* ---- two folders out of one --------------------------------------------------------------------
 */

typedef struct folder {
    char path[PATH_BYTES];
    json_t *header;
    FILE *data;
    size_t at;
} folder;

static const char *file_of(const folder *f, const char *name)
{
    static char path[2 * PATH_BYTES];

    (void)snprintf(path, sizeof(path), "%s/%s", f->path, name);
    return path;
}

static void begin(folder *f, const char *name)
{
    (void)snprintf(f->path, sizeof(f->path), "%s", scratch_path(name));
    f->header = json_object();
    f->data = tmpfile();
    f->at = 0;
    assert_non_null(f->data);
    assert_int_equal(mkdir(f->path, 0700), 0);
}

/* The shape is the folder's own now. */
static void put_shaped(folder *f, const char *name, const char *suffix, const char *type,
                       json_t *shape, const void *bytes, size_t n_bytes)
{
    char whole[PATH_BYTES];

    (void)snprintf(whole, sizeof(whole), "%s%s", name, suffix);
    assert_int_equal(fwrite(bytes, 1, n_bytes, f->data), n_bytes);
    assert_int_equal(json_object_set_new(f->header, whole,
                                         json_pack("{s:s,s:o,s:[I,I]}", "dtype", type, "shape",
                                                   shape, "data_offsets", (json_int_t)f->at,
                                                   (json_int_t)(f->at + n_bytes))),
                     0);
    f->at += n_bytes;
}

static void put(folder *f, const char *name, const char *suffix, const char *type, int64_t rows,
                int64_t cols, const void *bytes, size_t n_bytes)
{
    put_shaped(f, name, suffix, type,
               rows > 0 ? json_pack("[I,I]", (json_int_t)rows, (json_int_t)cols)
                        : json_pack("[I]", (json_int_t)cols),
               bytes, n_bytes);
}

static void finish(folder *f, const json_t *config)
{
    char *header = json_dumps(f->header, JSON_COMPACT);
    const uint64_t length = strlen(header);
    FILE *to = fopen(file_of(f, "model.safetensors"), "wb");
    int c;

    assert_non_null(to);
    assert_int_equal(fwrite(&length, sizeof(length), 1, to), 1);
    assert_int_equal(fwrite(header, 1, (size_t)length, to), length);
    rewind(f->data);
    while ((c = fgetc(f->data)) != EOF) {
        assert_int_equal(fputc(c, to), c);
    }
    assert_int_equal(fclose(to), 0);
    assert_int_equal(fclose(f->data), 0);
    assert_int_equal(json_dump_file(config, file_of(f, "config.json"), 0), 0);
    free(header);
    json_decref(f->header);
}

static void forget(const folder *f)
{
    assert_int_equal(unlink(file_of(f, "model.safetensors")), 0);
    assert_int_equal(unlink(file_of(f, "config.json")), 0);
    assert_int_equal(rmdir(f->path), 0);
}

/* The linear weights inside layers; all others stay as they are. */
static bool is_linear(const char *name, const tsr_stored_tensor *t)
{
    return t->n_dims == 2 && strstr(name, "layers.") != NULL &&
           (strstr(name, "proj") != NULL || strstr(name, "dense") != NULL ||
            strstr(name, "query_key_value") != NULL);
}

/* Codes and scales that no other row and column has at once. */
static void put_linear(folder *packed, folder *plain, const char *stem, const tsr_stored_tensor *t,
                       int seed)
{
    const int64_t rows = t->shape[1];
    const int64_t cols = t->shape[0];
    int8_t *codes = malloc((size_t)(rows * cols));
    uint16_t *scales = malloc((size_t)rows * sizeof(*scales));
    float *values = malloc((size_t)(rows * cols) * sizeof(*values));

    assert_non_null(codes);
    assert_non_null(scales);
    assert_non_null(values);
    for (int64_t r = 0; r < rows; r++) {
        scales[r] = tsr_dtype_to_bf16((float)(r + 1 + seed % 7) / 65536);
        for (int64_t c = 0; c < cols; c++) {
            codes[r * cols + c] = (int8_t)((r * 31 + c * 17 + r * c / 5 + seed) % 255 - 127);
            values[r * cols + c] = (float)codes[r * cols + c] * tsr_dtype_from_bf16(scales[r]);
        }
    }
    put(packed, stem, ".weight", "I8", rows, cols, codes, (size_t)(rows * cols));
    put(packed, stem, ".weight_scale", "BF16", rows, 1, scales, (size_t)rows * sizeof(*scales));
    put(plain, stem, ".weight", "F32", rows, cols, values, (size_t)(rows * cols) * sizeof(*values));
    free(values);
    free(scales);
    free(codes);
}

/* The stack [experts, columns, rows] as blocks whose bytes and scales differ between neighbours. */
static void put_blocks(folder *packed, folder *plain, const char *stem, const tsr_stored_tensor *t,
                       int seed)
{
    static const float points[8] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
    const int64_t n = t->shape[2];
    const int64_t cols = t->shape[1];
    const int64_t rows = t->shape[0];
    const size_t n_values = (size_t)(n * rows * cols);
    uint8_t *blocks = malloc(n_values / 2);
    uint8_t *scales = malloc(n_values / 32);
    float *values = malloc(n_values * sizeof(*values));

    assert_non_null(blocks);
    assert_non_null(scales);
    assert_non_null(values);
    assert_int_equal(cols % 32, 0);
    for (int64_t row = 0; row < n * rows; row++) { // of all experts
        for (int64_t c = 0; c < cols; c++) {
            const int64_t block = (row * cols + c) / 32;
            uint8_t *byte = &blocks[(row * cols + c) / 2];
            unsigned code;

            if (c % 2 == 0) {
                *byte = (uint8_t)(row * 37 + c * 11 + row * c / 3 + seed);
            }
            code = c % 2 == 0 ? *byte & 15U : *byte / 16U;
            scales[block] = (uint8_t)(116 + (block * 5 + row + seed) % 9);
            values[(row / rows * cols + c) * rows + row % rows] =
                ldexpf(code < 8 ? points[code] : -points[code - 8], scales[block] - 127);
        }
    }
    put_shaped(packed, stem, "_blocks", "U8",
               json_pack("[I,I,I,i]", (json_int_t)n, (json_int_t)rows, (json_int_t)(cols / 32), 16),
               blocks, n_values / 2);
    put_shaped(packed, stem, "_scales", "U8",
               json_pack("[I,I,I]", (json_int_t)n, (json_int_t)rows, (json_int_t)(cols / 32)),
               scales, n_values / 32);
    put_shaped(plain, stem, "", "F32",
               json_pack("[I,I,I]", (json_int_t)n, (json_int_t)cols, (json_int_t)rows), values,
               n_values * sizeof(*values));
    free(values);
    free(scales);
    free(blocks);
}

static void make_twins(folder *packed, folder *plain, const char *name, const char *quantization)
{
    static const char *const types[] = {"F32", "F16", "BF16"};
    tsr_checkpoint *checkpoint = NULL;
    char path[PATH_BYTES];
    json_t *config;
    int n_linear = 0;

    (void)snprintf(path, sizeof(path), "%s/models/%s", TSR_TEST_DATA, name);
    assert_int_equal(tsr_checkpoint_open(&checkpoint, path), TSR_OK);
    begin(packed, "packed");
    begin(plain, "plain");
    for (int i = 0; i < tsr_checkpoint_count(checkpoint); i++) {
        const tsr_stored_tensor *t = tsr_checkpoint_at(checkpoint, i);
        const int64_t rows = t->n_dims == 2 ? t->shape[1] : 0;
        char stem[PATH_BYTES];

        (void)snprintf(stem, sizeof(stem), "%.*s", (int)t->name.n_bytes, t->name.bytes);
        assert_true(t->n_dims == 1 || t->n_dims == 2 || quantization == MXFP4);
        if (t->n_dims == 3) {
            put_blocks(packed, plain, stem, t, i);
            n_linear += (int)t->shape[2];
        } else if (quantization != MXFP4 && is_linear(stem, t) && strstr(stem, ".weight") != NULL) {
            *strstr(stem, ".weight") = '\0';
            put_linear(packed, plain, stem, t, i);
            n_linear++;
        } else {
            put(packed, stem, "", types[t->encoding], rows, t->shape[0], t->data, t->n_bytes);
            put(plain, stem, "", types[t->encoding], rows, t->shape[0], t->data, t->n_bytes);
        }
    }
    assert_true(n_linear >= 6);
    config = json_deep_copy(tsr_checkpoint_config(checkpoint).object);
    finish(plain, config);
    assert_int_equal(
        json_object_set_new(config, "quantization_config", json_loads(quantization, 0, NULL)), 0);
    finish(packed, config);
    json_decref(config);
    tsr_checkpoint_close(checkpoint);
}

/* ---- compared ----------------------------------------------------------------------------------
 */

static uint64_t bytes_of_tensors(const tsr_checkpoint *checkpoint)
{
    uint64_t n_bytes = 0;

    for (int t = 0; t < tsr_checkpoint_count(checkpoint); t++) {
        n_bytes += tsr_checkpoint_at(checkpoint, t)->n_bytes;
    }
    return n_bytes;
}

static void packed_models_are_the_plain_models_of_their_values(void **state)
{
    static const struct {
        const char *name, *quantization;
    } models[] = {
        {"qwen2", QUANTIZATION},       {"phi3", QUANTIZATION},      {"gpt_neox", QUANTIZATION},
        {"deepseek_v2", QUANTIZATION}, {"qwen3_moe", QUANTIZATION}, {"gpt_oss", MXFP4},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        folder packed;
        folder plain;

        make_twins(&packed, &plain, models[i].name, models[i].quantization);
        for (int n_ranks = 1; n_ranks <= 5; n_ranks += n_ranks == 3 ? 2 : 1) {
            int n_packed = 0;

            for (int rank = 0; rank < n_ranks; rank++) {
                loaded a = {0};
                loaded b = {0};
                size_t n_bytes;

                if (loaded_open(&a, dev, packed.path, rank, n_ranks) != TSR_OK) {
                    fail_msg("%s: %s", models[i].name, tsr_status_message());
                }
                assert_int_equal(loaded_open(&b, dev, plain.path, rank, n_ranks), TSR_OK);
                for (int layer = 0; layer < a.config.n_layers; layer++) {
                    n_packed += loaded_compare(&a, &b, layer);
                }
                assert_int_equal(tsr_weights_measure(&n_bytes, a.checkpoint, &a.config, &a.shard,
                                                     TSR_FORMAT_COUNT, TSR_DEVICE_CPU),
                                 TSR_OK);
                assert_int_equal(n_bytes, a.weights.n_bytes);
                assert_true(rank > 0 || a.weights.file_bytes < b.weights.file_bytes);
                if (n_ranks == 1 && models[i].quantization == MXFP4) {
                    assert_int_equal(a.weights.file_bytes, bytes_of_tensors(a.checkpoint));
                }
                loaded_close(&a);
                loaded_close(&b);
            }
            assert_true(n_packed >= 6);
        }
        forget(&packed);
        forget(&plain);
    }
}

static void a_stack_of_another_size_is_refused(void **state)
{
    folder packed;
    folder plain;
    loaded l = {0};
    json_t *config;

    (void)state;
    make_twins(&packed, &plain, "gpt_oss", MXFP4);
    config = json_load_file(file_of(&packed, "config.json"), 0, NULL);
    assert_int_equal(json_object_set_new(config, "intermediate_size", json_integer(96)), 0);
    assert_int_equal(json_dump_file(config, file_of(&packed, "config.json"), 0), 0);
    json_decref(config);
    assert_int_equal(loaded_open(&l, dev, packed.path, 0, 1), TSR_ERR_FORMAT);
    assert_sentence("mlp.experts.gate_up_proj is packed as [128, 64]", "want [192, 64]");
    forget(&packed);
    forget(&plain);
}

static tsr_status load_and_unload(void *ctx)
{
    loaded l = {0};

    TSR_TRY(loaded_open(&l, dev, ctx, 0, 1));
    loaded_close(&l);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    static const char *const names[] = {"q_gptq4_act", "q_fp8"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        char path[PATH_BYTES];

        (void)snprintf(path, sizeof(path), "%s/models/%s", TSR_TEST_DATA, names[i]);
        assert_int_equal(load_and_unload(path), TSR_OK);
        assert_true(torture(load_and_unload, path) > 8);
    }
}

/* Every byte of weights is read once by one rank: all but lists of groups that say nothing. */
static void one_rank_reads_all_bytes_of_weights(void **state)
{
    static const char *const names[] = {"q_awq", "q_fp8", "q_gptq4_act"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        char path[PATH_BYTES];
        loaded l = {0};

        (void)snprintf(path, sizeof(path), "%s/models/%s", TSR_TEST_DATA, names[i]);
        assert_int_equal(loaded_open(&l, dev, path, 0, 1), TSR_OK);
        assert_int_equal(l.weights.file_bytes, bytes_of_tensors(l.checkpoint));
        loaded_close(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_models_are_the_plain_models_of_their_values),
        cmocka_unit_test(a_stack_of_another_size_is_refused),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
        cmocka_unit_test(one_rank_reads_all_bytes_of_weights),
    };
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    int n_failed = 1;

    if (tsr_device_open(&dev, &options) == TSR_OK) {
        n_failed =
            cmocka_run_group_tests_name("packed_models", tests, scratch_make, scratch_remove);
        tsr_device_close(dev);
    }
    return n_failed;
}
