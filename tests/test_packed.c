/*
 * Weights in fewer bits, in folders built here: what engine/packed.h reads of them against values
 * computed beside, what is refused, and whole models against the same values stored as f32.
 */
#include "engine/packed.h"

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

#include "kernels/dtype.h"
#include "tests/support/scratch.h"

enum {
    ROWS = 40,
    COLS = 96,
    GROUP = 32,
    GROUPS = COLS / GROUP,
    MOST_TENSORS = 8,
    HEADER_BYTES = 4096
};

/* ---- a folder of a few tensors ----------------------------------------------------------------
 */

typedef struct stored {
    const char *name;
    const char *type; /* with more than two dimensions these follow: "U8:2,4,3" */
    int64_t rows;     /* 0: one dimension */
    int64_t cols;
    const void *bytes;
    size_t n_bytes;
} stored;

static tsr_checkpoint *checkpoint;
static tsr_packing how;
static tsr_packed packed;

static void write_file(const char *name, const void *head, size_t n_head, const stored *t)
{
    FILE *to = fopen(scratch_path(name), "wb");
    const uint64_t length = n_head;

    assert_non_null(to);
    if (t != NULL) {
        assert_int_equal(fwrite(&length, sizeof(length), 1, to), 1);
    }
    assert_int_equal(fwrite(head, 1, n_head, to), n_head);
    for (; t != NULL && t->name != NULL; t++) {
        assert_int_equal(fwrite(t->bytes, 1, t->n_bytes, to), t->n_bytes);
    }
    assert_int_equal(fclose(to), 0);
}

/* Opens a folder of these tensors, up to one without a name, and finds the weight "w" in it. */
static tsr_status find_w(bool *found, const char *quantization, const stored *tensors)
{
    static const char config[] = "config.json";
    static const char file[] = "model.safetensors";
    char text[HEADER_BYTES];
    size_t used = 1;
    size_t at = 0;
    tsr_hf_keys keys;
    tsr_status st;

    tsr_checkpoint_close(checkpoint);
    checkpoint = NULL;
    *found = false;
    (void)snprintf(text, sizeof(text), "{\"quantization_config\": %s}", quantization);
    write_file(config, text, strlen(text), NULL);
    (void)strcpy(text, "{");
    for (const stored *t = tensors; t->name != NULL; t++) {
        const int n_type = (int)strcspn(t->type, ":");
        char shape[64];

        (void)snprintf(shape, sizeof(shape), t->rows > 0 ? "%lld,%lld" : "%.0lld%lld",
                       (long long)t->rows, (long long)t->cols);
        used += (size_t)snprintf(
            text + used, sizeof(text) - used,
            "%s\"%s\":{\"dtype\":\"%.*s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
            t > tensors ? "," : "", t->name, n_type, t->type,
            t->type[n_type] == ':' ? t->type + n_type + 1 : shape, at, at + t->n_bytes);
        at += t->n_bytes;
    }
    (void)snprintf(text + used, sizeof(text) - used, "}");
    write_file(file, text, strlen(text), tensors);
    st = tsr_checkpoint_open(&checkpoint, scratch_folder());
    assert_int_equal(unlink(scratch_path(config)), 0);
    assert_int_equal(unlink(scratch_path(file)), 0);
    if (st != TSR_OK) {
        fail_msg("the folder does not open: %s", tsr_status_message());
    }
    keys = tsr_checkpoint_config(checkpoint);
    TSR_TRY(tsr_packing_read(&how, &keys));
    return tsr_packed_find(&packed, found, &how, checkpoint, "w");
}

/* ---- what is in it ----------------------------------------------------------------------------
 */

static int code_of(int64_t r, int64_t c, int range)
{
    return (int)((r * 7 + c * 5 + r * c / 3) % range);
}

static int zero_of(int64_t r, int64_t g)
{
    return (int)((r * 3 + g * 5) % 16);
}

static float scale_of(int64_t r, int64_t g)
{
    return (float)(1 + (r * 5 + g * 3) % 61) / 1024; // exact in bf16
}

static uint16_t scales16[ROWS * GROUPS];
static float scales32[ROWS * GROUPS];
static uint32_t words4[ROWS * (COLS + 7) / 8];
static uint32_t zeros4[ROWS / 8 * GROUPS];
static uint8_t bytes8[ROWS * COLS];

static void make_scales(int64_t n_groups)
{
    for (int64_t r = 0; r < ROWS; r++) {
        for (int64_t g = 0; g < n_groups; g++) {
            scales32[r * n_groups + g] = scale_of(r, g);
            scales16[r * n_groups + g] = tsr_dtype_to_bf16(scale_of(r, g));
        }
    }
}

/* Codes along the columns, zeros along the rows. */
static void make_words(int64_t n_cols)
{
    const int64_t per_row = (n_cols + 7) / 8;

    memset(words4, 0, sizeof(words4));
    memset(zeros4, 0, sizeof(zeros4));
    for (int64_t r = 0; r < ROWS; r++) {
        for (int64_t c = 0; c < n_cols; c++) {
            words4[r * per_row + c / 8] |= (uint32_t)code_of(r, c, 16) << (c % 8 * 4);
        }
        for (int64_t g = 0; g < GROUPS; g++) {
            zeros4[r / 8 * GROUPS + g] |= (uint32_t)zero_of(r, g) << (r % 8 * 4);
        }
    }
}

typedef float value_fn(int64_t r, int64_t c);

/* Values in whole rows and in pieces, and through tiles where there are tiles. */
static void holds(tsr_format format, int64_t n_cols, value_fn *value)
{
    const int64_t n_tiles = n_cols / TSR_TILE_COLS;
    float groups[GROUPS * 2 * TSR_PANEL_ROWS] = {0};
    float got[COLS];
    float piece;

    assert_int_equal(packed.format, format);
    assert_int_equal(packed.n_rows, ROWS);
    assert_int_equal(packed.n_cols, n_cols);
    for (int64_t r = 0; r < ROWS; r++) {
        assert_int_equal(tsr_packed_values(&packed, got, r, 0, n_cols), TSR_OK);
        for (int64_t c = 0; c < n_cols; c++) {
            assert_true(got[c] == value(r, c));
            assert_int_equal(tsr_packed_values(&packed, &piece, r, c, 1), TSR_OK);
            assert_true(piece == value(r, c));
        }
        if (format != TSR_FORMAT_F32) {
            void *panel = calloc(1, tsr_weight_panel_bytes(format, n_cols));
            const tsr_weight weight = {.format = format,
                                       .n_rows = TSR_PANEL_ROWS,
                                       .n_cols = n_cols,
                                       .tiles = panel,
                                       .groups = tsr_weight_is_mixed(format) ? groups : NULL,
                                       .n_groups = packed.n_groups};

            assert_non_null(panel);
            for (int64_t t = 0; t < n_tiles; t++) {
                tsr_encoding_run run;

                assert_int_equal(tsr_packed_run(&packed, &run, r, t), TSR_OK);
                tsr_weight_put_run(format, panel, 5, t, &run);
                if (tsr_weight_is_mixed(format)) {
                    uint16_t of_columns[TSR_TILE_COLS];

                    tsr_packed_groups(&packed, of_columns, t);
                    tsr_weight_put_groups(format, panel, t, of_columns);
                }
            }
            for (int64_t g = 0; g < packed.n_groups && tsr_weight_is_mixed(format); g++) {
                float *of_group = groups + tsr_weight_table_floats(g);

                assert_int_equal(
                    tsr_packed_group(&packed, &of_group[5], &of_group[TSR_PANEL_ROWS + 5], r, g),
                    TSR_OK);
            }
            tsr_weight_unpack_row(&weight, 5, got);
            free(panel);
            for (int64_t c = 0; c < n_cols; c++) {
                assert_true(got[c] == value(r, c));
            }
        }
    }
}

static uint64_t bytes_of(const stored *t)
{
    uint64_t n = 0;

    for (; t->name != NULL; t++) {
        n += t->n_bytes;
    }
    return n;
}

static uint64_t file_bytes(int64_t row, int64_t n_rows, int64_t col, int64_t n_cols)
{
    return tsr_packed_file_bytes(&packed, (tsr_range){row, n_rows}, n_rows,
                                 (tsr_range){col, n_cols});
}

#define INT4_GROUPS                                                                     \
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", "       \
    "\"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": {"       \
    "\"num_bits\": 4, \"type\": \"int\", \"strategy\": \"group\", \"group_size\": 32, " \
    "\"symmetric\": true}}}}"

static const int64_t whole_shape[2] = {ROWS, COLS};
static const stored codes4 = {"w.weight_packed", "I32", ROWS, COLS / 8, words4, ROWS *COLS / 2};
static const stored shape4 = {"w.weight_shape", "I64", 0, 2, whole_shape, 16};
static const stored scale4 = {"w.weight_scale", "BF16", ROWS, GROUPS, scales16, ROWS *GROUPS * 2};
static const stored zero4 = {"w.weight_zero_point", "I32", ROWS / 8, GROUPS, zeros4,
                             sizeof(zeros4)};

/* ---- what is read -----------------------------------------------------------------------------
 */

static float symmetric_value(int64_t r, int64_t c)
{
    return (float)(code_of(r, c, 16) - 8) * scale_of(r, c / GROUP);
}

static float zeroed_value(int64_t r, int64_t c)
{
    return (float)(code_of(r, c, 16) - zero_of(r, c / GROUP)) * scale_of(r, c / GROUP);
}

static float ordered_value(int64_t r, int64_t c)
{
    return (float)(code_of(r, c, 16) - 8) * scale_of(r, c % GROUPS);
}

static void words_of_four_bits_are_codes_less_eight_times_a_scale(void **state)
{
    const stored tensors[] = {codes4, shape4, scale4, {0}};
    bool found;

    (void)state;
    make_words(COLS);
    make_scales(GROUPS);
    assert_int_equal(find_w(&found, INT4_GROUPS, tensors), TSR_OK);
    assert_true(found);
    assert_int_equal(packed.n_tensors, 3);
    holds(TSR_FORMAT_Q4_WIDE, COLS, symmetric_value);
    assert_int_equal(file_bytes(0, ROWS, 0, COLS), bytes_of(tensors) - 16); // all but its shape
    assert_int_equal(file_bytes(0, 7, 0, COLS) + file_bytes(7, ROWS - 7, 0, COLS),
                     file_bytes(0, ROWS, 0, COLS));
    assert_int_equal(file_bytes(0, ROWS, 0, 32) + file_bytes(0, ROWS, 32, 64),
                     file_bytes(0, ROWS, 0, COLS));
}

static void zeros_of_words_lie_along_the_rows(void **state)
{
    const stored tensors[] = {codes4, shape4, scale4, zero4, {0}};
    bool found;

    (void)state;
    make_words(COLS);
    make_scales(GROUPS);
    assert_int_equal(find_w(&found, INT4_GROUPS, tensors), TSR_OK);
    assert_true(found);
    holds(TSR_FORMAT_Q4_WIDE, COLS, zeroed_value);
    assert_int_equal(file_bytes(0, ROWS, 0, COLS), bytes_of(tensors) - 16);
}

static void what_does_not_fit_runs_is_mixed_or_opened(void **state)
{
    static const int64_t odd_shape[2] = {ROWS, 90};
    static int32_t groups[COLS];
    const stored odd[] = {{"w.weight_packed", "I32", ROWS, 12, words4, ROWS * 48},
                          {"w.weight_shape", "I64", 0, 2, odd_shape, 16},
                          scale4,
                          {0}};
    const stored wide[] = {
        codes4,
        shape4,
        {"w.weight_scale", "F32", ROWS, GROUPS, scales32, (size_t)ROWS * GROUPS * 4},
        {0}};
    const stored ordered[] = {
        codes4, shape4, scale4, {"w.weight_g_idx", "I32", 0, COLS, groups, sizeof(groups)}, {0}};
    bool found;

    (void)state;
    make_scales(GROUPS);
    make_words(90);
    assert_int_equal(find_w(&found, INT4_GROUPS, odd), TSR_OK);
    holds(TSR_FORMAT_F32, 90, symmetric_value);
    make_words(COLS);
    assert_int_equal(find_w(&found, INT4_GROUPS, wide), TSR_OK);
    holds(TSR_FORMAT_Q4_MIXED, COLS, symmetric_value);
    for (int c = 0; c < COLS; c++) {
        groups[c] = c % GROUPS;
    }
    assert_int_equal(find_w(&found, INT4_GROUPS, ordered), TSR_OK);
    holds(TSR_FORMAT_Q4_MIXED, COLS, ordered_value);
    assert_int_equal(file_bytes(0, ROWS, 0, COLS), bytes_of(ordered) - 16);
    for (int c = 0; c < COLS; c++) {
        groups[c] = c / GROUP; // as if there were no list
    }
    assert_int_equal(find_w(&found, INT4_GROUPS, ordered), TSR_OK);
    holds(TSR_FORMAT_Q4_WIDE, COLS, symmetric_value);
}

static float byte_value(int64_t r, int64_t c)
{
    return (float)(code_of(r, c, 256) - 128) * scale_of(r, 0);
}

static void bytes_have_a_scale_a_row(void **state)
{
    static const char config[] =
        "{\"quant_method\": \"compressed-tensors\", \"format\": \"int-quantized\", "
        "\"config_groups\": {\"group_0\": {\"weights\": {\"num_bits\": 8, \"type\": \"int\", "
        "\"strategy\": \"channel\", \"group_size\": null}}}}";
    const stored tensors[] = {{"w.weight", "I8", ROWS, COLS, bytes8, sizeof(bytes8)},
                              {"w.weight_scale", "BF16", ROWS, 1, scales16, (size_t)ROWS * 2},
                              {0}};
    const stored wide[] = {
        tensors[0], {"w.weight_scale", "F32", ROWS, 1, scales32, (size_t)ROWS * 4}, {0}};
    bool found;

    (void)state;
    make_scales(1);
    for (int64_t i = 0; i < (int64_t)ROWS * COLS; i++) {
        bytes8[i] = (uint8_t)(code_of(i / COLS, i % COLS, 256) - 128);
    }
    assert_int_equal(find_w(&found, config, tensors), TSR_OK);
    assert_true(found);
    holds(TSR_FORMAT_Q8_WIDE, COLS, byte_value);
    assert_int_equal(file_bytes(0, ROWS, 0, COLS), bytes_of(tensors));
    assert_int_equal(find_w(&found, config, wide), TSR_OK);
    holds(TSR_FORMAT_Q8_MIXED, COLS, byte_value);
}

/* 255 codes but the two that are no numbers. */
static uint8_t float_code(int64_t r, int64_t c)
{
    const int code = code_of(r, c, 254);

    return (uint8_t)(code < 0x7F ? code : code + 1);
}

static float float_value(int64_t r, int64_t c)
{
    return tsr_dtype_from_fp8(float_code(r, c)) * scale_of(r, 0);
}

static float whole_value(int64_t r, int64_t c)
{
    return tsr_dtype_from_fp8(float_code(r, c)) * scale_of(0, 0);
}

static float block_value(int64_t r, int64_t c)
{
    return tsr_dtype_from_fp8(float_code(r, c)) * scale_of(r / 16, c / 32);
}

#define FLOATS(strategy)                                                                     \
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"float-quantized\", "           \
    "\"config_groups\": {\"group_0\": {\"weights\": {\"num_bits\": 8, \"type\": \"float\", " \
    "\"strategy\": " strategy "}}}}"

static const stored codes_f = {"w.weight", "F8_E4M3", ROWS, COLS, bytes8, sizeof(bytes8)};

static void make_floats(void)
{
    for (int64_t i = 0; i < (int64_t)ROWS * COLS; i++) {
        bytes8[i] = float_code(i / COLS, i % COLS);
    }
}

static void floats_have_a_scale_a_row_a_block_or_in_all(void **state)
{
    const stored rows[] = {
        codes_f, {"w.weight_scale", "F32", ROWS, 1, scales32, (size_t)ROWS * 4}, {0}};
    const stored one[] = {codes_f,
                          {"w.weight_scale", "F32", 0, 1, scales32, 4},
                          {"w.input_scale", "F32", 0, 1, scales32, 4},
                          {0}};
    const stored blocks[] = {codes_f, {"w.weight_scale", "F32", 3, 3, scales32, 36}, {0}};
    bool found;

    (void)state;
    make_floats();
    make_scales(1);
    assert_int_equal(find_w(&found, FLOATS("\"channel\""), rows), TSR_OK);
    assert_true(found);
    holds(TSR_FORMAT_FP8, COLS, float_value);
    assert_int_equal(find_w(&found, FLOATS("\"tensor\""), one), TSR_OK);
    assert_int_equal(packed.n_tensors, 3);
    holds(TSR_FORMAT_FP8, COLS, whole_value);
    make_scales(GROUPS);
    assert_int_equal(find_w(&found, FLOATS("\"block\", \"block_structure\": [16, 32]"), blocks),
                     TSR_OK);
    holds(TSR_FORMAT_FP8, COLS, block_value);
    assert_int_equal(file_bytes(0, ROWS, 0, COLS), bytes_of(blocks));
    assert_int_equal(file_bytes(16, 16, 32, 64), 16 * 64 + 2 * 4);
}

/* Two matrices of four rows. */
static uint8_t blocks[2 * 4 * GROUPS * 16];
static uint8_t exponents[2 * 4 * GROUPS];
static const stored codes_mx = {"w_blocks", "U8:2,4,3,16", 0, 0, blocks, sizeof(blocks)};
static const stored scale_mx = {"w_scales", "U8:2,4,3", 0, 0, exponents, sizeof(exponents)};
static const char MXFP4[] = "{\"quant_method\": \"mxfp4\"}";

static void make_blocks(void)
{
    for (size_t i = 0; i < sizeof(blocks); i++) {
        blocks[i] = (uint8_t)(i * 7 + i / 16);
    }
    for (size_t i = 0; i < sizeof(exponents); i++) {
        exponents[i] = (uint8_t)(i * 10); // 2^-127 to 2^103
    }
}

static void blocks_hold_two_columns_in_a_byte_and_share_an_exponent(void **state)
{
    static const float points[16] = {0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
                                     -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};
    const stored tensors[] = {codes_mx, scale_mx, {0}};
    bool found;

    (void)state;
    make_blocks();
    assert_int_equal(find_w(&found, MXFP4, tensors), TSR_OK);
    assert_true(found && packed.format == TSR_FORMAT_FP4);
    assert_true(packed.n_stack == 2 && packed.n_rows == 4 && packed.n_cols == COLS);
    assert_int_equal(tsr_packed_count(&how, packed.tensors[0]), 8 * COLS);
    assert_int_equal(tsr_packed_count(&how, packed.tensors[1]), 0);
    assert_int_equal(tsr_packed_file_bytes(&packed, (tsr_range){4, 2}, 2, (tsr_range){32, 64}),
                     2 * (32 + 2));
    for (int64_t r = 0; r < 8; r++) {
        float values[COLS];

        assert_int_equal(tsr_packed_values(&packed, values, r, 0, COLS), TSR_OK);
        for (int64_t c = 0; c < COLS; c++) {
            const unsigned byte = blocks[(r * COLS + c) / 2];
            const unsigned code = c % 2 == 0 ? byte & 15U : byte >> 4;
            const int e = exponents[r * GROUPS + c / 32] - 127;
            tsr_encoding_run run;

            assert_true(values[c] == ldexpf(points[code], e));
            assert_int_equal(tsr_packed_run(&packed, &run, r, c / 32), TSR_OK);
            assert_int_equal(run.q[c % 32], code);
            assert_true(run.d[0] == ldexpf(0.5F, e));
        }
    }
}

/* ---- what is not ------------------------------------------------------------------------------
 */

static void plain_weights_are_not_packed(void **state)
{
    const stored tensors[] = {{"w.weight", "F32", 3, 3, scales32, 36}, {0}};
    bool found;

    (void)state;
    assert_int_equal(find_w(&found, INT4_GROUPS, tensors), TSR_OK);
    assert_false(found);
    assert_int_equal(find_w(&found, "null", tensors), TSR_OK);
    assert_false(found);
}

static void refuses(tsr_status want, const char *config, const stored *tensors, const char *name,
                    const char *part)
{
    bool found;
    const tsr_status st = find_w(&found, config, tensors);

    if (st != want) {
        fail_msg("%s (%s) gave status %d, not %d", name, part, (int)st, (int)want);
    }
    assert_sentence(name, part);
}

static void broken_tensors_are_refused_in_a_sentence(void **state)
{
    static const int64_t too_wide[2] = {ROWS, COLS + 1};
    static const int64_t endless[2] = {ROWS, INT64_MAX};
    static int32_t groups[COLS];
    const stored bad_group = {"w.weight_g_idx", "I32", 0, COLS, groups, sizeof(groups)};
    const stored no_scale[] = {codes4, shape4, {0}};
    const stored no_shape[] = {codes4, scale4, {0}};
    const stored wrong_shape[] = {
        codes4, {"w.weight_shape", "I64", 0, 2, too_wide, 16}, scale4, {0}};
    const stored beyond[] = {codes4, {"w.weight_shape", "I64", 0, 2, endless, 16}, scale4, {0}};
    const stored wrong_scale[] = {
        codes4, shape4, {"w.weight_scale", "BF16", GROUPS, ROWS, scales16, scale4.n_bytes}, {0}};
    const stored int_scale[] = {
        codes4, shape4, {"w.weight_scale", "I16", ROWS, GROUPS, scales16, scale4.n_bytes}, {0}};
    const stored out_of_range[] = {codes4, shape4, scale4, bad_group, {0}};
    const stored half_floats[] = {{"w.weight", "F8_E5M2", ROWS, COLS, bytes8, sizeof(bytes8)},
                                  {"w.weight_scale", "F32", 0, 1, scales32, 4},
                                  {0}};
    const stored empty[] = {{"w.weight_packed", "I32", 0, 0, words4, 0}, shape4, scale4, {0}};

    (void)state;
    groups[50] = GROUPS;
    refuses(TSR_ERR_FORMAT, INT4_GROUPS, no_scale, "w.weight_scale", "missing");
    refuses(TSR_ERR_FORMAT, INT4_GROUPS, no_shape, "w.weight_shape", "missing");
    refuses(TSR_ERR_FORMAT, INT4_GROUPS, wrong_shape, "w.weight_shape", "[40, 97]");
    refuses(TSR_ERR_FORMAT, INT4_GROUPS, beyond, "w.weight_shape", "[40, 9223372036854775807]");
    refuses(TSR_ERR_FORMAT, INT4_GROUPS, wrong_scale, "w.weight_scale", "[40, 3]");
    refuses(TSR_ERR_UNSUPPORTED, INT4_GROUPS, int_scale, "w.weight_scale", "f32, f16 or bf16");
    refuses(TSR_ERR_FORMAT, INT4_GROUPS, out_of_range, "w.weight_g_idx", "column 50 is in group 3");
    refuses(TSR_ERR_FORMAT, FLOATS("\"tensor\""), half_floats, "w.weight", "F8_E5M2");
    refuses(TSR_ERR_FORMAT, INT4_GROUPS, empty, "w.weight_packed", "[1, 0]");
}

static void broken_blocks_are_refused_in_a_sentence(void **state)
{
    const stored flat = {"w_blocks", "U8:2,4,48", 0, 0, blocks, sizeof(blocks)};
    const stored wide = {"w_blocks", "U8:2,4,1,48", 0, 0, blocks, sizeof(blocks)};
    const stored signs = {"w_blocks", "I8:2,4,3,16", 0, 0, blocks, sizeof(blocks)};
    const stored none = {"w_blocks", "U8:2,0,3,16", 0, 0, blocks, 0};
    const stored turned = {"w_scales", "U8:2,3,4", 0, 0, exponents, sizeof(exponents)};
    const stored floats = {"w_scales", "F8_E4M3:2,4,3", 0, 0, exponents, sizeof(exponents)};
    const stored tensors[] = {codes_mx, scale_mx, {0}};
    tsr_encoding_run run;
    float values[COLS];
    bool found;

    (void)state;
    refuses(TSR_ERR_FORMAT, MXFP4, (stored[]){codes_mx, {0}}, "w_scales", "missing");
    refuses(TSR_ERR_FORMAT, MXFP4, (stored[]){scale_mx, {0}}, "w_blocks", "missing");
    refuses(TSR_ERR_FORMAT, MXFP4, (stored[]){flat, scale_mx, {0}}, "w_blocks", "groups, 16]");
    refuses(TSR_ERR_FORMAT, MXFP4, (stored[]){wide, scale_mx, {0}}, "w_blocks", "groups, 16]");
    refuses(TSR_ERR_FORMAT, MXFP4, (stored[]){signs, scale_mx, {0}}, "w_blocks", "of U8");
    refuses(TSR_ERR_FORMAT, MXFP4, (stored[]){none, scale_mx, {0}}, "w_blocks", "groups, 16]");
    refuses(TSR_ERR_FORMAT, MXFP4, (stored[]){codes_mx, turned, {0}}, "w_scales", "[2, 4, 3]");
    refuses(TSR_ERR_FORMAT, MXFP4, (stored[]){codes_mx, floats, {0}}, "w_scales", "of U8");
    make_blocks();
    exponents[5 * GROUPS + 1] = 0xFF;
    assert_int_equal(find_w(&found, MXFP4, tensors), TSR_OK);
    assert_int_equal(tsr_packed_run(&packed, &run, 5, 0), TSR_OK);
    assert_int_equal(tsr_packed_run(&packed, &run, 5, 1), TSR_ERR_FORMAT);
    assert_sentence("row 5, column 32", "no number");
    assert_int_equal(tsr_packed_values(&packed, values, 5, 0, COLS), TSR_ERR_FORMAT);
    assert_sentence("row 5, column 32", "no number");
}

static void unknown_methods_are_refused_in_a_sentence(void **state)
{
    static const struct {
        const char *config, *name, *part;
    } wrong[] = {
        {"{\"quant_method\": \"bitsandbytes\"}", "bitsandbytes", "not known"},
        {"{}", "quant_method", "not known"},
        {"{\"quant_method\": \"gptq\", \"bits\": 3}", "GPTQ", "3 bits"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"checkpoint_format\": \"marlin\"}", "marlin",
         "not known"},
        {"{\"quant_method\": \"awq\", \"bits\": 4, \"version\": \"gemv\"}", "AWQ", "gemv"},
        {"{\"quant_method\": \"fp8\", \"fmt\": \"e5m2\"}", "fp8", "e5m2"},
        {"{\"quant_method\": \"fp8\", \"weight_block_size\": [128]}", "weight_block_size", "two"},
        {"{\"quant_method\": \"fp8\", \"weight_block_size\": [0, 1]}", "weight_block_size", "two"},
        {"{\"quant_method\": \"compressed-tensors\"}", "config_groups", "0"},
        {FLOATS("\"block\""), "block_structure", "two"},
        {"{\"quant_method\": \"compressed-tensors\", \"format\": \"nvfp4-pack-quantized\", "
         "\"config_groups\": {\"g\": {\"weights\": {\"num_bits\": 4, \"type\": \"float\"}}}}",
         "nvfp4-pack-quantized", "4 bits"},
    };
    const stored none[] = {{"w.weight", "F32", 3, 3, scales32, 36}, {0}};

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        refuses(wrong[i].config[1] == '}' || strstr(wrong[i].part, "two") == NULL
                    ? TSR_ERR_UNSUPPORTED
                    : TSR_ERR_FORMAT,
                wrong[i].config, none, wrong[i].name, wrong[i].part);
    }
}

static void what_is_no_number_is_refused(void **state)
{
    const stored tensors[] = {codes_f, {"w.weight_scale", "F32", 0, 1, scales32, 4}, {0}};
    tsr_encoding_run run;
    float values[COLS];
    bool found;

    (void)state;
    make_scales(1);
    for (int sign = 0; sign < 2; sign++) {
        make_floats();
        bytes8[3 * COLS + 70] = sign == 0 ? 0x7F : 0xFF;
        assert_int_equal(find_w(&found, FLOATS("\"tensor\""), tensors), TSR_OK);
        assert_int_equal(tsr_packed_run(&packed, &run, 3, 1), TSR_OK);
        assert_int_equal(tsr_packed_run(&packed, &run, 3, 2), TSR_ERR_FORMAT);
        assert_sentence("row 3, column 64", "no number");
        assert_int_equal(tsr_packed_values(&packed, values, 3, 0, COLS), TSR_ERR_FORMAT);
        assert_sentence("row 3, column 70", "no number");
    }
    scales32[0] = INFINITY;
    make_floats();
    assert_int_equal(find_w(&found, FLOATS("\"tensor\""), tensors), TSR_OK);
    assert_int_equal(tsr_packed_run(&packed, &run, 0, 0), TSR_ERR_FORMAT);
}

static int leave(void **state)
{
    tsr_checkpoint_close(checkpoint);
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_of_four_bits_are_codes_less_eight_times_a_scale),
        cmocka_unit_test(zeros_of_words_lie_along_the_rows),
        cmocka_unit_test(what_does_not_fit_runs_is_mixed_or_opened),
        cmocka_unit_test(bytes_have_a_scale_a_row),
        cmocka_unit_test(floats_have_a_scale_a_row_a_block_or_in_all),
        cmocka_unit_test(blocks_hold_two_columns_in_a_byte_and_share_an_exponent),
        cmocka_unit_test(plain_weights_are_not_packed),
        cmocka_unit_test(broken_tensors_are_refused_in_a_sentence),
        cmocka_unit_test(broken_blocks_are_refused_in_a_sentence),
        cmocka_unit_test(unknown_methods_are_refused_in_a_sentence),
        cmocka_unit_test(what_is_no_number_is_refused),
    };

    return cmocka_run_group_tests_name("packed", tests, scratch_make, leave);
}
