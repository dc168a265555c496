#include "kernels/weight.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/dtype.h"

enum {
    COLS = 1024,
    MOST_ROW_BYTES = COLS * 4,
    NO_SCALE = -1
};

/* Where an encoding's groups keep f16 scales. */
static const int scales[TSR_ENCODING_COUNT][2] = {
    [TSR_ENCODING_F32] = {NO_SCALE, NO_SCALE},
    [TSR_ENCODING_F16] = {NO_SCALE, NO_SCALE},
    [TSR_ENCODING_BF16] = {NO_SCALE, NO_SCALE},
    [TSR_ENCODING_Q4_0] = {0, NO_SCALE},
    [TSR_ENCODING_Q4_1] = {0, 2},
    [TSR_ENCODING_Q5_0] = {0, NO_SCALE},
    [TSR_ENCODING_Q5_1] = {0, 2},
    [TSR_ENCODING_Q8_0] = {0, NO_SCALE},
    [TSR_ENCODING_Q2_K] = {80, 82},
    [TSR_ENCODING_Q3_K] = {108, NO_SCALE},
    [TSR_ENCODING_Q4_K] = {0, 2},
    [TSR_ENCODING_Q5_K] = {0, 2},
    [TSR_ENCODING_Q6_K] = {208, NO_SCALE},
    [TSR_ENCODING_IQ1_S] = {0, NO_SCALE},
    [TSR_ENCODING_IQ1_M] = {NO_SCALE, NO_SCALE},
    [TSR_ENCODING_IQ2_XXS] = {0, NO_SCALE},
    [TSR_ENCODING_IQ2_XS] = {0, NO_SCALE},
    [TSR_ENCODING_IQ2_S] = {0, NO_SCALE},
    [TSR_ENCODING_IQ3_XXS] = {0, NO_SCALE},
    [TSR_ENCODING_IQ3_S] = {0, NO_SCALE},
    [TSR_ENCODING_IQ4_NL] = {0, NO_SCALE},
    [TSR_ENCODING_IQ4_XS] = {0, NO_SCALE},
    [TSR_ENCODING_TQ1_0] = {52, NO_SCALE},
    [TSR_ENCODING_TQ2_0] = {64, NO_SCALE},
    [TSR_ENCODING_MXFP4] = {NO_SCALE, NO_SCALE},
    [TSR_ENCODING_NVFP4] = {NO_SCALE, NO_SCALE},
};

static uint32_t random_bits(uint32_t *seed)
{
    *seed = *seed * 1664525U + 1013904223U;
    return *seed >> 8;
}

/* A half of either sign, subnormal ones and zeros among them. */
static uint16_t random_half(uint32_t *seed)
{
    const uint32_t bits = random_bits(seed);

    return (uint16_t)((bits & 0x83FFU) | (bits >> 10 & 15U) << 10);
}

/* A row of COLS elements: any codes, sound scales. */
static void random_row(uint8_t *row, tsr_encoding encoding, uint32_t *seed)
{
    const tsr_encoding_traits *traits = tsr_encoding_describe(encoding);
    const size_t n_bytes = tsr_encoding_row_bytes(encoding, COLS);

    for (size_t i = 0; i < n_bytes; i++) {
        row[i] = (uint8_t)random_bits(seed);
    }
    if (traits->group_elems == 1) {
        // Plain elements: no NaN, which equals nothing.
        for (size_t i = (size_t)traits->group_bytes - 1; i < n_bytes;
             i += (size_t)traits->group_bytes) {
            row[i] &= 0xBF;
        }
        return;
    }
    for (size_t at = 0; at < n_bytes; at += (size_t)traits->group_bytes) {
        if (encoding == TSR_ENCODING_IQ1_M) {
            row[at + 55] &= 0xBF; // its half is spread over four words: no infinity, no NaN
        } else if (encoding == TSR_ENCODING_MXFP4) {
            row[at] = (uint8_t)(100 + row[at] % 40);
        }
        for (int s = 0; s < 2; s++) {
            const uint16_t half = random_half(seed);

            if (scales[encoding][s] != NO_SCALE) {
                memcpy(row + at + scales[encoding][s], &half, 2);
            }
        }
    }
}

typedef struct encoded {
    uint8_t rows[TSR_PANEL_ROWS][MOST_ROW_BYTES];
    const void *pointers[TSR_PANEL_ROWS];
} encoded;

static encoded *random_rows(tsr_encoding encoding)
{
    encoded *e = malloc(sizeof(*e));
    uint32_t seed = 7U + (uint32_t)encoding;

    assert_non_null(e);
    for (int r = 0; r < TSR_PANEL_ROWS; r++) {
        random_row(e->rows[r], encoding, &seed);
        e->pointers[r] = e->rows[r];
    }
    return e;
}

static void *poisoned(size_t n_bytes)
{
    void *p = malloc(n_bytes);

    assert_non_null(p);
    memset(p, 0xA5, n_bytes);
    return p;
}

static void every_encoding_is_packed_without_loss(void **state)
{
    (void)state;
    for (int e = 0; e < TSR_ENCODING_COUNT; e++) {
        const tsr_encoding encoding = (tsr_encoding)e;
        const tsr_format format = tsr_weight_format_for(encoding);
        encoded *from = random_rows(encoding);
        void *panel = poisoned(tsr_weight_panel_bytes(format, COLS));
        const tsr_weight weight = {
            .format = format, .n_rows = TSR_PANEL_ROWS, .n_cols = COLS, .tiles = panel};
        float expected[COLS];
        float got[COLS];

        assert_int_equal(tsr_weight_pack_panel(encoding, panel, from->pointers, 0, COLS), TSR_OK);
        for (int r = 0; r < TSR_PANEL_ROWS; r++) {
            tsr_encoding_decode(encoding, expected, from->rows[r], 0, COLS);
            tsr_weight_unpack_row(&weight, r, got);
            for (int c = 0; c < COLS; c++) {
                if (!(got[c] == expected[c])) {
                    fail_msg("%s row %d column %d: %a is %a in the file",
                             tsr_encoding_describe(encoding)->name, r, c, (double)got[c],
                             (double)expected[c]);
                }
            }
        }
        free(panel);
        free(from);
    }
}

static void a_cut_of_columns_and_rows_packs_what_it_names_and_zeros_beyond(void **state)
{
    (void)state;
    for (int e = 0; e < TSR_ENCODING_COUNT; e++) {
        const tsr_encoding encoding = (tsr_encoding)e;
        const tsr_format format = tsr_weight_format_for(encoding);
        const bool grouped = tsr_weight_is_quantised(format);
        const int64_t first = grouped ? 352 : 5; // 352 = 11 * 32: within a group of 256
        const int64_t n_cols = grouped ? 544 : 75;
        const size_t n_bytes = tsr_weight_panel_bytes(format, n_cols);
        const int64_t stored_cols = (n_cols + 31) / 32 * 32;
        encoded *from = random_rows(encoding);
        uint8_t *panel = poisoned(n_bytes + 1);
        const tsr_weight weight = {
            .format = format, .n_rows = TSR_PANEL_ROWS, .n_cols = stored_cols, .tiles = panel};
        float expected[COLS];
        float got[COLS];

        for (int r = 11; r < TSR_PANEL_ROWS; r++) {
            from->pointers[r] = NULL;
        }
        assert_int_equal(tsr_weight_pack_panel(encoding, panel, from->pointers, first, n_cols),
                         TSR_OK);
        assert_int_equal(panel[n_bytes], 0xA5);
        for (int r = 0; r < TSR_PANEL_ROWS; r++) {
            tsr_encoding_decode(encoding, expected, from->rows[r], 0, COLS);
            tsr_weight_unpack_row(&weight, r, got);
            for (int64_t c = 0; c < stored_cols; c++) {
                assert_true(got[c] == (r < 11 && c < n_cols ? expected[first + c] : 0.0F));
            }
        }
        free(panel);
        free(from);
    }
}

static void tiles_are_laid_out_as_the_header_says(void **state)
{
    encoded *q4 = random_rows(TSR_ENCODING_Q4_1);
    encoded *q8 = random_rows(TSR_ENCODING_Q8_0);
    uint8_t *panel4 = poisoned(tsr_weight_panel_bytes(TSR_FORMAT_Q4, 64));
    uint8_t *panel8 = poisoned(tsr_weight_panel_bytes(TSR_FORMAT_Q8, 64));
    const uint8_t *block4 = q4->rows[5] + 20; // row 5, columns 32 to 63: d, m, 16 bytes of codes
    const uint8_t *block8 = q8->rows[5] + 34;
    const uint8_t *tile4 = panel4 + 320;
    const uint8_t *tile8 = panel8 + 544;

    (void)state;
    assert_int_equal(tsr_weight_pack_panel(TSR_ENCODING_Q4_1, panel4, q4->pointers, 0, 64), TSR_OK);
    assert_int_equal(tsr_weight_pack_panel(TSR_ENCODING_Q8_0, panel8, q8->pointers, 0, 64), TSR_OK);
    assert_memory_equal(tile4 + 256 + 2 * 5, block4, 2);
    assert_memory_equal(tile4 + 288 + 2 * 5, block4 + 2, 2);
    assert_memory_equal(tile8 + 512 + 2 * 5, block8, 2);
    for (int j = 0; j < 4; j++) {
        for (int i = 0; i < 4; i++) {
            // File and tile agree that columns c and c + 16 share a byte.
            assert_int_equal(tile4[64 * j + 4 * 5 + i], block4[4 + 4 * j + i]);
        }
    }
    for (int c = 0; c < 32; c++) {
        assert_int_equal(tile8[64 * (c / 4) + 4 * 5 + c % 4], block8[2 + c]);
    }
    free(panel4);
    free(panel8);
    free(q4);
    free(q8);
}

static void sizes_count_whole_panels_and_tiles(void **state)
{
    static const size_t tile_bytes[TSR_FORMAT_COUNT] = {2048, 1024, 1024, 576, 320, 384,
                                                        320,  320,  544,  768, 320, 576};

    (void)state;
    for (int f = 0; f < TSR_FORMAT_COUNT; f++) {
        const tsr_format format = (tsr_format)f;

        assert_int_equal(tsr_weight_tile_bytes(format), tile_bytes[f]);
        assert_int_equal(tsr_weight_panel_bytes(format, 33), 2 * tile_bytes[f]);
        assert_int_equal(tsr_weight_bytes(format, 17, 33), 4 * tile_bytes[f]);
        assert_int_equal(tsr_weight_bytes(format, 0, 33), 0);
        assert_int_equal(tsr_weight_bytes(format, 17, 0), 0);
        assert_true(tsr_weight_is_quantised(format) ==
                    (f >= TSR_FORMAT_Q4 && f < TSR_FORMAT_Q4_MIXED));
        for (int other = 0; other < f; other++) {
            assert_string_not_equal(tsr_weight_format_name(format),
                                    tsr_weight_format_name((tsr_format)other));
        }
    }
}

static void a_q4_0_scale_whose_minimum_is_no_half_is_refused(void **state)
{
    static const struct {
        uint16_t d;
        tsr_status expected;
    } cases[] = {{0x6FFF, TSR_OK},         // 8188: 8 d = 65504, the largest half
                 {0xEFFF, TSR_OK},         // the same, negative
                 {0x7000, TSR_ERR_FORMAT}, // 8192
                 {0x7C00, TSR_ERR_FORMAT}, // infinity
                 {0x7E00, TSR_ERR_FORMAT}, // NaN
                 {0x0001, TSR_OK},         // the least subnormal
                 {0x03FF, TSR_OK}};
    encoded *from = random_rows(TSR_ENCODING_Q4_0);
    void *panel = poisoned(tsr_weight_panel_bytes(TSR_FORMAT_Q4, 32));
    const tsr_weight weight = {
        .format = TSR_FORMAT_Q4, .n_rows = TSR_PANEL_ROWS, .n_cols = 32, .tiles = panel};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        float expected[32];
        float got[32];

        memcpy(from->rows[3], &cases[i].d, 2);
        assert_int_equal(tsr_weight_pack_panel(TSR_ENCODING_Q4_0, panel, from->pointers, 0, 32),
                         cases[i].expected);
        if (cases[i].expected == TSR_OK) {
            tsr_encoding_decode(TSR_ENCODING_Q4_0, expected, from->rows[3], 0, 32);
            tsr_weight_unpack_row(&weight, 3, got);
            for (int c = 0; c < 32; c++) {
                assert_true(got[c] == expected[c]);
            }
        }
    }
    free(panel);
    free(from);
}

static void a_cut_through_a_group_is_refused(void **state)
{
    encoded *from = random_rows(TSR_ENCODING_Q8_0);
    void *panel = poisoned(tsr_weight_panel_bytes(TSR_FORMAT_Q8, 64));

    (void)state;
    assert_int_equal(tsr_weight_pack_panel(TSR_ENCODING_Q8_0, panel, from->pointers, 16, 32),
                     TSR_ERR_ARG);
    assert_int_equal(tsr_weight_pack_panel(TSR_ENCODING_Q8_0, panel, from->pointers, 32, 40),
                     TSR_ERR_ARG);
    free(panel);
    free(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_encoding_is_packed_without_loss),
        cmocka_unit_test(a_cut_of_columns_and_rows_packs_what_it_names_and_zeros_beyond),
        cmocka_unit_test(tiles_are_laid_out_as_the_header_says),
        cmocka_unit_test(sizes_count_whole_panels_and_tiles),
        cmocka_unit_test(a_q4_0_scale_whose_minimum_is_no_half_is_refused),
        cmocka_unit_test(a_cut_through_a_group_is_refused),
    };

    return cmocka_run_group_tests_name("weight", tests, NULL, NULL);
}
