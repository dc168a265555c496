#include "engine/gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/scratch.h"
#include "tests/support/torture.h"

static int set_up(void **state)
{
    tsr_log_set_level(TSR_LOG_ERROR); // some tests ask for keys of the wrong kind
    return scratch_make(state);
}

/* The writer's file in a block of just its size: a sanitizer sees every byte read too many. */
static tsr_status open_cut(tsr_gguf **out, const uint8_t *bytes, size_t n_bytes, uint8_t **block)
{
    *block = malloc(n_bytes > 0 ? n_bytes : 1);
    assert_non_null(*block);
    memcpy(*block, bytes, n_bytes);
    return tsr_gguf_open_bytes(out, *block, n_bytes);
}

static void assert_text(tsr_gguf_text text, const char *expected)
{
    assert_int_equal(text.n_bytes, strlen(expected));
    assert_memory_equal(text.bytes, expected, text.n_bytes);
}

static const float eight[8] = {1.0F, -2.0F, 3.5F, 0.0F, 5.0F, 6.0F, -7.25F, 8.0F};

/* ---- sound files -------------------------------------------------------------------------------
 */

typedef struct scalar_case {
    const char *key;
    gguf_kind kind;
    uint64_t bits; /* little-endian */
    int64_t value;
} scalar_case;

static const scalar_case scalars[] = {
    {"u8", GGUF_KIND_U8, 200, 200},
    {"i8", GGUF_KIND_I8, 0xFE, -2},
    {"u16", GGUF_KIND_U16, 65535, 65535},
    {"i16", GGUF_KIND_I16, 0x8000, -32768},
    {"u32", GGUF_KIND_U32, 4294967295, 4294967295},
    {"i32", GGUF_KIND_I32, 0xFFFFFFFF, -1},
    {"u64", GGUF_KIND_U64, INT64_MAX, INT64_MAX},
    {"i64", GGUF_KIND_I64, UINT64_C(1) << 63, INT64_MIN},
};

static void write_metadata(gguf_writer *w, uint32_t version)
{
    static const char *const words[] = {"one", "", "three"};
    static const uint8_t truths[] = {1, 0};
    static const double doubles[] = {0.1, -1e300};
    static const int16_t shorts[] = {-5, 7};
    const double precise = 1e-6;

    gguf_writer_init(w);
    w->version = version;
    gguf_writer_string(w, "s", "text"); // of odd length in sum: what follows is not aligned
    for (size_t i = 0; i < sizeof(scalars) / sizeof(scalars[0]); i++) {
        gguf_writer_scalar(w, scalars[i].key, scalars[i].kind, &scalars[i].bits);
    }
    gguf_writer_u64(w, "huge", UINT64_MAX);
    gguf_writer_f32(w, "f32", -0.5F);
    gguf_writer_scalar(w, "f64", GGUF_KIND_F64, &precise);
    gguf_writer_bool(w, "yes", true);
    gguf_writer_bool(w, "no", false);
    gguf_writer_text(w, "raw", "a\0b\n", 4);
    gguf_writer_strings(w, "words", 3, words);
    gguf_writer_f32s(w, "floats", 8, eight);
    gguf_writer_array(w, "shorts", GGUF_KIND_I16, 2, shorts);
    gguf_writer_array(w, "truths", GGUF_KIND_BOOL, 2, truths);
    gguf_writer_array(w, "doubles", GGUF_KIND_F64, 2, doubles);
    gguf_writer_strings(w, "nothing", 0, NULL);
}

static void check_scalars(const tsr_gguf *gguf)
{
    tsr_gguf_text text;
    int64_t whole = 77;
    double number;
    bool truth;

    for (size_t i = 0; i < sizeof(scalars) / sizeof(scalars[0]); i++) {
        assert_true(tsr_gguf_int(gguf, scalars[i].key, &whole));
        assert_true(whole == scalars[i].value);
        assert_true(tsr_gguf_float(gguf, scalars[i].key, &number));
        assert_true(number == (double)scalars[i].value);
    }
    whole = 77;
    assert_false(tsr_gguf_int(gguf, "huge", &whole)); // does not fit
    assert_int_equal(whole, 77);
    assert_true(tsr_gguf_float(gguf, "f32", &number) && number == -0.5);
    assert_true(tsr_gguf_float(gguf, "f64", &number) && number == 1e-6);
    assert_true(tsr_gguf_bool(gguf, "yes", &truth) && truth);
    assert_true(tsr_gguf_bool(gguf, "no", &truth) && !truth);
    assert_true(tsr_gguf_string(gguf, "s", &text));
    assert_text(text, "text");
    assert_true(tsr_gguf_string(gguf, "raw", &text));
    assert_int_equal(text.n_bytes, 4);
    assert_memory_equal(text.bytes, "a\0b\n", 4);
}

static void check_arrays(const tsr_gguf *gguf)
{
    static const char *const words[] = {"one", "", "three"};
    tsr_gguf_text text;
    int64_t whole;
    double number;

    assert_int_equal(tsr_gguf_array_count(gguf, "words"), 3);
    for (int i = 0; i < 3; i++) {
        assert_true(tsr_gguf_array_string(gguf, "words", i, &text));
        assert_text(text, words[i]);
    }
    assert_int_equal(tsr_gguf_array_count(gguf, "floats"), 8);
    for (int i = 0; i < 8; i++) {
        assert_true(tsr_gguf_array_float(gguf, "floats", i, &number));
        assert_true(number == (double)eight[i]);
    }
    assert_true(tsr_gguf_array_int(gguf, "shorts", 0, &whole) && whole == -5);
    assert_true(tsr_gguf_array_int(gguf, "shorts", 1, &whole) && whole == 7);
    assert_true(tsr_gguf_array_float(gguf, "shorts", 1, &number) && number == 7.0);
    assert_true(tsr_gguf_array_int(gguf, "truths", 0, &whole) && whole == 1);
    assert_true(tsr_gguf_array_int(gguf, "truths", 1, &whole) && whole == 0);
    assert_true(tsr_gguf_array_float(gguf, "doubles", 1, &number) && number == -1e300);
    assert_int_equal(tsr_gguf_array_count(gguf, "nothing"), 0);
    assert_false(tsr_gguf_array_string(gguf, "nothing", 0, &text));
}

static void every_kind_of_metadata_reads_back_as_written_in_versions_2_and_3(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        gguf_writer w;
        tsr_gguf *gguf;
        uint8_t *block;
        const uint8_t *bytes;
        size_t n_bytes;

        write_metadata(&w, version);
        bytes = gguf_writer_finish(&w, &n_bytes);
        assert_int_equal(open_cut(&gguf, bytes, n_bytes, &block), TSR_OK);
        assert_int_equal(tsr_gguf_key_count(gguf), w.n_keys);
        assert_int_equal(tsr_gguf_tensor_count(gguf), 0);
        check_scalars(gguf);
        check_arrays(gguf);
        tsr_gguf_close(gguf);
        free(block);
        gguf_writer_clear(&w);
    }
}

static void a_key_that_is_missing_or_of_another_kind_leaves_the_output_alone(void **state)
{
    gguf_writer w;
    tsr_gguf *gguf;
    size_t n_bytes;
    const uint8_t *bytes;
    tsr_gguf_text text = {"kept", 4};
    int64_t whole = 77;
    double number = 7.5;
    bool truth = true;

    (void)state;
    write_metadata(&w, 3);
    bytes = gguf_writer_finish(&w, &n_bytes);
    assert_int_equal(tsr_gguf_open_bytes(&gguf, bytes, n_bytes), TSR_OK);
    assert_false(tsr_gguf_int(gguf, "none", &whole) || tsr_gguf_int(gguf, "f32", &whole) ||
                 tsr_gguf_int(gguf, "s", &whole) || tsr_gguf_int(gguf, "yes", &whole));
    assert_false(tsr_gguf_float(gguf, "none", &number) || tsr_gguf_float(gguf, "s", &number) ||
                 tsr_gguf_float(gguf, "floats", &number));
    assert_false(tsr_gguf_bool(gguf, "none", &truth) || tsr_gguf_bool(gguf, "u8", &truth));
    assert_false(tsr_gguf_string(gguf, "none", &text) || tsr_gguf_string(gguf, "words", &text));
    assert_int_equal(tsr_gguf_array_count(gguf, "none"), -1);
    assert_int_equal(tsr_gguf_array_count(gguf, "s"), -1);
    assert_false(tsr_gguf_array_string(gguf, "floats", 0, &text) ||
                 tsr_gguf_array_string(gguf, "words", 3, &text) ||
                 tsr_gguf_array_string(gguf, "words", -1, &text) ||
                 tsr_gguf_array_string(gguf, "s", 0, &text));
    assert_false(tsr_gguf_array_int(gguf, "floats", 0, &whole) ||
                 tsr_gguf_array_int(gguf, "shorts", 2, &whole) ||
                 tsr_gguf_array_float(gguf, "words", 0, &number));
    assert_text(text, "kept");
    assert_true(whole == 77 && number == 7.5 && truth);
    tsr_gguf_close(gguf);
    gguf_writer_clear(&w);
}

static void values_are_put_in_words_that_fit(void **state)
{
    static const struct {
        const char *key;
        const char *words;
    } expected[] = {
        {"s", "\"text\""},
        {"i8", "-2"},
        {"huge", "18446744073709551615"},
        {"f32", "-0.5"},
        {"f64", "1e-06"},
        {"yes", "true"},
        {"raw", "\"a\\x00b\\n\""},
        {"words", "3 x string: \"one\", \"\", \"three\""},
        {"floats", "8 x f32: 1, -2, 3.5, 0, ..."},
        {"nothing", "0 x string"},
    };
    gguf_writer w;
    tsr_gguf *gguf;
    size_t n_bytes;
    const uint8_t *bytes;
    size_t next = 0;

    (void)state;
    write_metadata(&w, 3);
    bytes = gguf_writer_finish(&w, &n_bytes);
    assert_int_equal(tsr_gguf_open_bytes(&gguf, bytes, n_bytes), TSR_OK);
    for (int i = 0; i < tsr_gguf_key_count(gguf); i++) {
        const tsr_gguf_text name = tsr_gguf_key_name(gguf, i);
        char shown[64];

        for (size_t room = 1; room <= sizeof(shown); room++) {
            tsr_gguf_key_value(gguf, i, shown, room);
            assert_true(strlen(shown) < room);
        }
        if (next < sizeof(expected) / sizeof(expected[0]) &&
            name.n_bytes == strlen(expected[next].key) &&
            memcmp(name.bytes, expected[next].key, name.n_bytes) == 0) {
            assert_string_equal(shown, expected[next++].words); // keys come in file order
        }
    }
    assert_int_equal(next, sizeof(expected) / sizeof(expected[0]));
    tsr_gguf_close(gguf);
    gguf_writer_clear(&w);
}

static void a_tensor_of_every_encoding_is_found_with_its_shape_and_bytes(void **state)
{
    gguf_writer w;
    tsr_gguf *gguf;
    struct stat facts;
    uint8_t content[256 * 4 * 3];

    (void)state;
    for (size_t i = 0; i < sizeof(content); i++) {
        content[i] = (uint8_t)(i * 37 + i / 256);
    }
    gguf_writer_init(&w);
    gguf_writer_align(&w, 64);
    for (int e = 0; e < TSR_ENCODING_COUNT; e++) {
        gguf_writer_tensor(&w, tsr_encoding_describe((tsr_encoding)e)->name, (tsr_encoding)e, 3,
                           (int64_t[]){256, 1, 3}, content + e,
                           3 * tsr_encoding_row_bytes((tsr_encoding)e, 256));
    }
    gguf_writer_save(&w, scratch_path("all.gguf"));
    assert_int_equal(stat(scratch_path("all.gguf"), &facts), 0);
    assert_int_equal(tsr_gguf_open(&gguf, scratch_path("all.gguf")), TSR_OK);
    assert_int_equal(tsr_gguf_tensor_count(gguf), TSR_ENCODING_COUNT);
    assert_int_equal(tsr_gguf_file_bytes(gguf), facts.st_size);
    for (int again = 0; again < 2; again++) { // the second time after the pages were given back
        for (int e = 0; e < TSR_ENCODING_COUNT; e++) {
            const tsr_gguf_tensor *tensor =
                tsr_gguf_find(gguf, tsr_encoding_describe((tsr_encoding)e)->name);

            assert_non_null(tensor);
            assert_ptr_equal(tensor, tsr_gguf_tensor_at(gguf, e));
            assert_int_equal(tensor->encoding, e);
            assert_int_equal(tensor->n_dims, 3);
            assert_true(tensor->shape[0] == 256 && tensor->shape[1] == 1 && tensor->shape[2] == 3 &&
                        tensor->shape[3] == 1);
            assert_int_equal(tensor->n_bytes, 3 * tsr_encoding_row_bytes((tsr_encoding)e, 256));
            assert_int_equal((uintptr_t)tensor->data % 64, 0);
            assert_memory_equal(tensor->data, content + e, tensor->n_bytes);
            assert_int_equal(tensor->part, 0);
        }
        tsr_gguf_release_pages(gguf);
    }
    assert_null(tsr_gguf_find(gguf, "Q4"));
    assert_null(tsr_gguf_find(gguf, "Q4_00"));
    assert_null(tsr_gguf_find(gguf, ""));
    tsr_gguf_close(gguf);
    tsr_gguf_close(NULL);
    assert_int_equal(unlink(scratch_path("all.gguf")), 0);
    gguf_writer_clear(&w);
}

static void among_thousands_every_name_is_found(void **state)
{
    enum {
        N = 5000
    };
    gguf_writer w;
    tsr_gguf *gguf;
    size_t n_bytes;
    const uint8_t *bytes;
    char name[32];

    (void)state;
    gguf_writer_init(&w);
    for (uint32_t i = 0; i < N; i++) {
        (void)snprintf(name, sizeof(name), "%u", i * 7919 % N); // 7919 is prime: each once
        gguf_writer_u32(&w, name, i);
        if (i < N / 10) {
            gguf_writer_tensor_f32(&w, name, 1, (int64_t[]){8}, eight);
        }
    }
    bytes = gguf_writer_finish(&w, &n_bytes);
    assert_int_equal(tsr_gguf_open_bytes(&gguf, bytes, n_bytes), TSR_OK);
    for (uint32_t i = 0; i < N; i++) {
        int64_t value;

        (void)snprintf(name, sizeof(name), "%u", i * 7919 % N);
        assert_true(tsr_gguf_int(gguf, name, &value));
        assert_int_equal(value, i);
        if (i < N / 10) {
            assert_ptr_equal(tsr_gguf_find(gguf, name), tsr_gguf_tensor_at(gguf, (int)i));
        }
    }
    tsr_gguf_close(gguf);
    gguf_writer_clear(&w);
}

/* An array of arrays, `depth` in all, the innermost of three u8. */
static void write_nested(gguf_writer *w, int depth)
{
    gguf_writer_init(w);
    gguf_writer_key(w, "nested", GGUF_KIND_ARRAY);
    for (int i = 1; i < depth; i++) {
        gguf_writer_raw_u32(w, GGUF_KIND_ARRAY);
        gguf_writer_raw_u64(w, 1);
    }
    gguf_writer_raw_u32(w, GGUF_KIND_U8);
    gguf_writer_raw_u64(w, 3);
    gguf_writer_raw(w, "abc", 3);
    gguf_writer_u32(w, "after", 5);
}

static void arrays_within_arrays_are_stepped_over_to_a_depth_of_four(void **state)
{
    gguf_writer w;
    tsr_gguf *gguf;
    size_t n_bytes;
    const uint8_t *bytes;
    int64_t whole;

    (void)state;
    for (int depth = 1; depth <= 4; depth++) {
        write_nested(&w, depth);
        bytes = gguf_writer_finish(&w, &n_bytes);
        assert_int_equal(tsr_gguf_open_bytes(&gguf, bytes, n_bytes), TSR_OK);
        assert_int_equal(tsr_gguf_array_count(gguf, "nested"), depth == 1 ? 3 : 1);
        assert_true(tsr_gguf_array_int(gguf, "nested", 0, &whole) == (depth == 1));
        assert_true(tsr_gguf_int(gguf, "after", &whole) && whole == 5);
        tsr_gguf_close(gguf);
        gguf_writer_clear(&w);
    }
    write_nested(&w, 5);
    bytes = gguf_writer_finish(&w, &n_bytes);
    assert_int_equal(tsr_gguf_open_bytes(&gguf, bytes, n_bytes), TSR_ERR_UNSUPPORTED);
    assert_sentence("\"nested\"", "arrays within arrays, 5 deep");
    gguf_writer_clear(&w);
}

static tsr_status open_and_close(void *path)
{
    tsr_gguf *gguf;

    TSR_TRY(tsr_gguf_open(&gguf, path));
    tsr_gguf_close(gguf);
    return TSR_OK;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    char path[256];
    gguf_writer w;

    (void)state;
    write_metadata(&w, 3);
    gguf_writer_tensor_f32(&w, "a", 2, (int64_t[]){4, 2}, eight);
    (void)snprintf(path, sizeof(path), "%s", scratch_path("small.gguf"));
    gguf_writer_save(&w, path);
    gguf_writer_clear(&w);
    assert_true(torture(open_and_close, path) >= 8);
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_metadata_reads_back_as_written_in_versions_2_and_3),
        cmocka_unit_test(a_key_that_is_missing_or_of_another_kind_leaves_the_output_alone),
        cmocka_unit_test(values_are_put_in_words_that_fit),
        cmocka_unit_test(a_tensor_of_every_encoding_is_found_with_its_shape_and_bytes),
        cmocka_unit_test(among_thousands_every_name_is_found),
        cmocka_unit_test(arrays_within_arrays_are_stepped_over_to_a_depth_of_four),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("gguf", tests, set_up, scratch_remove);
}
