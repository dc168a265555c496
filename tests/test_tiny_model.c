#include "tests/support/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/gguf.h"
#include "tests/support/encoder.h"
#include "tests/support/tiny_tokens.h"

static void every_preset_opens_and_holds_the_sizes_it_names(void **state)
{
    int n_presets;
    const tiny_model *presets = tiny_model_presets(&n_presets);

    (void)state;
    assert_int_equal(n_presets, 12);
    for (int i = 0; i < n_presets; i++) {
        const tiny_model *m = &presets[i];
        const tsr_gguf_tensor *tensor;
        gguf_writer w;
        size_t n_bytes;
        uint8_t *bytes;
        tsr_gguf *file = NULL;

        gguf_writer_init(&w);
        tiny_model_write(m, 5, &w);
        bytes = gguf_writer_finish(&w, &n_bytes);
        assert_int_equal(tsr_gguf_open_bytes(&file, bytes, n_bytes), TSR_OK);
        assert_int_equal(tsr_gguf_array_count(file, "tokenizer.ggml.tokens"), m->vocab);
        assert_int_equal(tsr_gguf_array_count(file, "tokenizer.ggml.token_type"), m->vocab);
        assert_int_equal(tsr_gguf_array_count(file, "tokenizer.ggml.merges"),
                         m->vocab - TINY_TOKENS_LEAST);
        tensor = tsr_gguf_find(file, "blk.0.attn_output.weight");
        assert_non_null(tensor);
        assert_int_equal(tensor->shape[0], m->n_heads * m->head_dim);
        assert_int_equal(tensor->shape[1], m->dim);
        assert_int_equal(tsr_gguf_find(file, "output.weight") == NULL, m->tied);
        assert_int_equal(tsr_gguf_find(file, "blk.0.attn_k.bias") != NULL, m->qkv_bias);
        assert_int_equal(tsr_gguf_find(file, "blk.0.ffn_down.bias") != NULL, m->other_bias);
        assert_ptr_equal(tiny_model_preset(m->name), m);
        tsr_gguf_close(file);
        gguf_writer_clear(&w);
    }
    assert_null(tiny_model_preset("10/3"));
}

static uint64_t hash_of(const char *preset, uint64_t seed)
{
    gguf_writer w;
    size_t n_bytes;
    const uint8_t *bytes;
    uint64_t hash = 0xCBF29CE484222325U; // FNV-1a

    gguf_writer_init(&w);
    tiny_model_write(tiny_model_preset(preset), seed, &w);
    bytes = gguf_writer_finish(&w, &n_bytes);
    for (size_t i = 0; i < n_bytes; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001B3U;
    }
    gguf_writer_clear(&w);
    return hash;
}

static void a_seed_makes_one_file_and_another_seed_another(void **state)
{
    (void)state;
    assert_true(hash_of("9/3", 7) == hash_of("9/3", 7));
    assert_true(hash_of("9/3", 7) != hash_of("9/3", 8));
}

static bool find_text(const tsr_gguf *file, const char *bytes, size_t n_bytes)
{
    tsr_gguf_text token;

    for (int64_t i = 0; tsr_gguf_array_string(file, "tokenizer.ggml.tokens", i, &token); i++) {
        if (token.n_bytes == n_bytes && memcmp(token.bytes, bytes, n_bytes) == 0) {
            return true;
        }
    }
    return false;
}

static void every_merge_joins_two_tokens_into_a_third(void **state)
{
    gguf_writer w;
    size_t n_bytes;
    uint8_t *bytes;
    tsr_gguf *file = NULL;
    tsr_gguf_text merge;
    int n_merges = 0;

    (void)state;
    gguf_writer_init(&w);
    tiny_tokens_write(&w, "smollm", 600);
    bytes = gguf_writer_finish(&w, &n_bytes);
    assert_int_equal(tsr_gguf_open_bytes(&file, bytes, n_bytes), TSR_OK);
    while (tsr_gguf_array_string(file, "tokenizer.ggml.merges", n_merges, &merge)) {
        const char *space = memchr(merge.bytes, ' ', merge.n_bytes);
        char joined[64];
        size_t n_left;

        assert_non_null(space);
        assert_true(merge.n_bytes < sizeof(joined));
        n_left = (size_t)(space - merge.bytes);
        memcpy(joined, merge.bytes, n_left);
        memcpy(joined + n_left, space + 1, merge.n_bytes - n_left - 1);
        assert_true(find_text(file, joined, n_left));
        assert_true(find_text(file, joined + n_left, merge.n_bytes - n_left - 1));
        assert_true(find_text(file, joined, merge.n_bytes - 1));
        n_merges++;
    }
    assert_int_equal(n_merges, 600 - TINY_TOKENS_LEAST);
    assert_true(find_text(file, "\xC4\x80", 2)); // byte 0
    assert_true(find_text(file, "\xC5\x83", 2)); // byte 0xAD, the last of those that cannot be seen
    tsr_gguf_close(file);
    gguf_writer_clear(&w);
}

/* Root mean square of the distance between values and what their encoding keeps, or of the decoded
 * values when there is no encoder. */
static double distance(tsr_encoding encoding)
{
    enum {
        N = 2048
    };
    static float values[N];
    static float decoded[N];
    static uint8_t row[4 * N];
    const bool takes = encoder_takes_values(encoding);
    test_random random = {11};
    double squares = 0.0;

    if (takes) {
        for (int i = 0; i < N; i++) {
            values[i] = (float)(0.1 * test_random_normal(&random));
        }
        encoder_row(encoding, row, values, N);
    } else {
        memset(values, 0, sizeof(values));
        encoder_random_row(encoding, row, 0.1, N, &random);
    }
    tsr_encoding_decode(encoding, decoded, row, 0, N);
    for (int i = 0; i < N; i++) {
        const double error = (double)decoded[i] - (double)values[i];

        squares += error * error;
    }
    return sqrt(squares / N);
}

static void encoders_keep_values_as_well_as_their_bits_allow(void **state)
{
    // A step of n bits over the range of 32 bell-shaped values (about 4 deviations of 0.1 in all,
    // for the centred ones twice the larger half) errs by step / sqrt(12).
    static const double most[TSR_ENCODING_COUNT] = {
        [TSR_ENCODING_F32] = 0.0,     [TSR_ENCODING_F16] = 5e-5,    [TSR_ENCODING_BF16] = 4e-4,
        [TSR_ENCODING_Q4_0] = 0.0095, [TSR_ENCODING_Q4_1] = 0.0085, [TSR_ENCODING_Q5_0] = 0.0047,
        [TSR_ENCODING_Q5_1] = 0.0042, [TSR_ENCODING_Q8_0] = 0.0006,
    };

    (void)state;
    for (int e = 0; e <= TSR_ENCODING_Q8_0; e++) {
        assert_true(distance((tsr_encoding)e) <= most[e]);
    }
}

static void random_groups_spread_as_asked(void **state)
{
    (void)state;
    for (int e = TSR_ENCODING_Q8_0 + 1; e < TSR_ENCODING_COUNT; e++) {
        const double spread = distance((tsr_encoding)e);

        assert_true(spread > 0.085 && spread < 0.115);
    }
}

static void random_numbers_are_bell_shaped(void **state)
{
    test_random random = {1};
    double sum = 0.0;
    double squares = 0.0;

    (void)state;
    for (int i = 0; i < 100000; i++) {
        const double x = test_random_normal(&random);

        assert_true(fabs(x) < 3.5);
        sum += x;
        squares += x * x;
    }
    assert_true(fabs(sum / 1e5) < 0.02);
    assert_true(fabs(squares / 1e5 - 1.0) < 0.02);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_preset_opens_and_holds_the_sizes_it_names),
        cmocka_unit_test(a_seed_makes_one_file_and_another_seed_another),
        cmocka_unit_test(every_merge_joins_two_tokens_into_a_third),
        cmocka_unit_test(encoders_keep_values_as_well_as_their_bits_allow),
        cmocka_unit_test(random_groups_spread_as_asked),
        cmocka_unit_test(random_numbers_are_bell_shaped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
