#include "kernels/encoding.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct vector { /* one file of tests/data/encoding, see make.py there */
    uint32_t n_elems;
    uint32_t n_bytes;
    uint8_t *bytes;
    float *values;
} vector;

static void vector_read(vector *v, const char *name)
{
    char path[512];
    FILE *from;

    (void)snprintf(path, sizeof(path), "%s/encoding/%s.bin", TSR_TEST_DATA, name);
    from = fopen(path, "rb");
    assert_non_null(from);
    assert_int_equal(fread(&v->n_elems, 4, 1, from), 1);
    assert_int_equal(fread(&v->n_bytes, 4, 1, from), 1);
    v->bytes = malloc(v->n_bytes);
    v->values = malloc(v->n_elems * sizeof(float));
    assert_non_null(v->bytes);
    assert_non_null(v->values);
    assert_int_equal(fread(v->bytes, 1, v->n_bytes, from), v->n_bytes);
    assert_int_equal(fread(v->values, sizeof(float), v->n_elems, from), v->n_elems);
    assert_int_equal(fclose(from), 0);
}

static void vector_free(vector *v)
{
    free(v->bytes);
    free(v->values);
}

static void every_encoding_decodes_to_the_bits_of_an_independent_decoder(void **state)
{
    (void)state;
    // F32 is the identity and has no file.
    for (int e = TSR_ENCODING_F32 + 1; e < TSR_ENCODING_COUNT; e++) {
        const tsr_encoding_traits *traits = tsr_encoding_describe((tsr_encoding)e);
        vector v;
        float *out;

        vector_read(&v, traits->name);
        assert_true(v.n_elems >= 256);
        assert_int_equal(tsr_encoding_row_bytes((tsr_encoding)e, v.n_elems), v.n_bytes);
        out = malloc(v.n_elems * sizeof(float));
        assert_non_null(out);
        tsr_encoding_decode((tsr_encoding)e, out, v.bytes, 0, v.n_elems);
        for (uint32_t i = 0; i < v.n_elems; i++) {
            if (out[i] != v.values[i]) {
                fail_msg("%s, element %u: %a, expected %a", traits->name, i, (double)out[i],
                         (double)v.values[i]);
            }
        }
        free(out);
        vector_free(&v);
    }
}

static void a_piece_of_a_row_decodes_as_in_the_whole_and_touches_nothing_else(void **state)
{
    (void)state;
    for (int e = TSR_ENCODING_F32 + 1; e < TSR_ENCODING_COUNT; e++) {
        const tsr_encoding_traits *traits = tsr_encoding_describe((tsr_encoding)e);
        const int n = traits->group_elems;
        vector v;
        float out[256 + 2];

        vector_read(&v, traits->name);
        for (uint32_t first = 0; first < v.n_elems; first += (uint32_t)n) {
            out[0] = -7.5F;
            out[n + 1] = -7.5F;
            tsr_encoding_decode((tsr_encoding)e, out + 1, v.bytes, first, n);
            assert_memory_equal(out + 1, v.values + first, (size_t)n * sizeof(float));
            assert_true(out[0] == -7.5F && out[n + 1] == -7.5F);
        }
        vector_free(&v);
    }
}

static void rows_may_lie_at_odd_addresses(void **state)
{
    (void)state;
    for (int e = 0; e < TSR_ENCODING_COUNT; e++) {
        const tsr_encoding_traits *traits = tsr_encoding_describe((tsr_encoding)e);
        // As large as the group: a sanitizer sees a byte read too many.
        uint8_t *bytes = malloc((size_t)traits->group_bytes + 1);
        float out[256];

        assert_non_null(bytes);
        memset(bytes, 0, (size_t)traits->group_bytes + 1);
        tsr_encoding_decode((tsr_encoding)e, out, bytes + 1, 0, traits->group_elems);
        assert_true(out[traits->group_elems - 1] == 0.0F);
        free(bytes);
    }
}

static void f32_is_taken_as_it_is(void **state)
{
    const float in[5] = {1.0F, -0.0F, 3.4e38F, 1e-45F, -2.5F};
    float out[3];

    (void)state;
    tsr_encoding_decode(TSR_ENCODING_F32, out, in, 1, 3);
    assert_memory_equal(out, in + 1, sizeof(out));
}

static void groups_have_the_sizes_of_the_format(void **state)
{
    static const struct {
        tsr_encoding encoding;
        const char *name;
        int group_elems;
        int group_bytes;
    } expected[TSR_ENCODING_COUNT] = {
        {TSR_ENCODING_F32, "F32", 1, 4},
        {TSR_ENCODING_F16, "F16", 1, 2},
        {TSR_ENCODING_BF16, "BF16", 1, 2},
        {TSR_ENCODING_Q4_0, "Q4_0", 32, 18},
        {TSR_ENCODING_Q4_1, "Q4_1", 32, 20},
        {TSR_ENCODING_Q5_0, "Q5_0", 32, 22},
        {TSR_ENCODING_Q5_1, "Q5_1", 32, 24},
        {TSR_ENCODING_Q8_0, "Q8_0", 32, 34},
        {TSR_ENCODING_Q2_K, "Q2_K", 256, 84},
        {TSR_ENCODING_Q3_K, "Q3_K", 256, 110},
        {TSR_ENCODING_Q4_K, "Q4_K", 256, 144},
        {TSR_ENCODING_Q5_K, "Q5_K", 256, 176},
        {TSR_ENCODING_Q6_K, "Q6_K", 256, 210},
        {TSR_ENCODING_IQ1_S, "IQ1_S", 256, 50},
        {TSR_ENCODING_IQ1_M, "IQ1_M", 256, 56},
        {TSR_ENCODING_IQ2_XXS, "IQ2_XXS", 256, 66},
        {TSR_ENCODING_IQ2_XS, "IQ2_XS", 256, 74},
        {TSR_ENCODING_IQ2_S, "IQ2_S", 256, 82},
        {TSR_ENCODING_IQ3_XXS, "IQ3_XXS", 256, 98},
        {TSR_ENCODING_IQ3_S, "IQ3_S", 256, 110},
        {TSR_ENCODING_IQ4_NL, "IQ4_NL", 32, 18},
        {TSR_ENCODING_IQ4_XS, "IQ4_XS", 256, 136},
        {TSR_ENCODING_TQ1_0, "TQ1_0", 256, 54},
        {TSR_ENCODING_TQ2_0, "TQ2_0", 256, 66},
        {TSR_ENCODING_MXFP4, "MXFP4", 32, 17},
        {TSR_ENCODING_NVFP4, "NVFP4", 64, 36},
    };

    (void)state;
    for (int i = 0; i < TSR_ENCODING_COUNT; i++) {
        const tsr_encoding_traits *traits = tsr_encoding_describe(expected[i].encoding);

        assert_string_equal(traits->name, expected[i].name);
        assert_int_equal(traits->group_elems, expected[i].group_elems);
        assert_int_equal(traits->group_bytes, expected[i].group_bytes);
        assert_int_equal(tsr_encoding_row_bytes(expected[i].encoding, 768),
                         768 / expected[i].group_elems * expected[i].group_bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_encoding_decodes_to_the_bits_of_an_independent_decoder),
        cmocka_unit_test(a_piece_of_a_row_decodes_as_in_the_whole_and_touches_nothing_else),
        cmocka_unit_test(rows_may_lie_at_odd_addresses),
        cmocka_unit_test(f32_is_taken_as_it_is),
        cmocka_unit_test(groups_have_the_sizes_of_the_format),
    };

    return cmocka_run_group_tests_name("encoding", tests, NULL, NULL);
}
