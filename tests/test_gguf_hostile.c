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

#include "base/alloc.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/scratch.h"

/* Opens the bytes in a block of just their size, so that a sanitizer sees every byte read too many.
 */
static void assert_refused(tsr_status expected, const uint8_t *bytes, size_t n_bytes,
                           const char *sentence)
{
    const long live = tsr_alloc_live();
    uint8_t *block = malloc(n_bytes > 0 ? n_bytes : 1);
    tsr_gguf *gguf = NULL;
    tsr_status st;

    assert_non_null(block);
    memcpy(block, bytes, n_bytes);
    st = tsr_gguf_open_bytes(&gguf, block, n_bytes);
    if (st != expected) {
        fail_msg("status \"%s\" where \"%s\" is said", tsr_status_name(st), sentence);
    }
    assert_null(gguf);
    assert_int_equal(tsr_alloc_live(), live);
    assert_sentence("(in memory)", sentence);
    free(block);
}

static const float eight[8] = {1.0F, -2.0F, 3.5F, 0.0F, 5.0F, 6.0F, -7.25F, 8.0F};

/* Two keys and two tensors that fill the file to its last byte. */
static void write_small(gguf_writer *w)
{
    static const char *const words[] = {"one", "", "three"};

    gguf_writer_init(w);
    gguf_writer_string(w, "general.architecture", "llama");
    gguf_writer_strings(w, "words", 3, words);
    gguf_writer_tensor_f32(w, "a", 2, (int64_t[]){4, 2}, eight);
    gguf_writer_tensor_f32(w, "b", 1, (int64_t[]){8}, eight);
}

static void a_file_cut_at_any_byte_is_refused(void **state)
{
    gguf_writer w;
    tsr_gguf *gguf;
    const uint8_t *bytes;
    size_t n_bytes;

    (void)state;
    write_small(&w);
    bytes = gguf_writer_finish(&w, &n_bytes);
    assert_int_equal(tsr_gguf_open_bytes(&gguf, bytes, n_bytes), TSR_OK);
    tsr_gguf_close(gguf);
    for (size_t cut = 0; cut < n_bytes; cut++) {
        assert_refused(TSR_ERR_FORMAT, bytes, cut, "(in memory)");
    }
    gguf_writer_clear(&w);
}

static void a_model_file_cut_at_every_4_kib_is_refused_by_name(void **state)
{
    enum {
        N_WORDS = 2000
    };
    static const char *words[N_WORDS];
    static const float zeros[8192];
    const char *path = scratch_path("cut.gguf");
    gguf_writer w;
    tsr_gguf *gguf = NULL;
    size_t n_bytes;

    (void)state;
    for (int i = 0; i < N_WORDS; i++) {
        words[i] = "a word";
    }
    gguf_writer_init(&w);
    gguf_writer_strings(&w, "words", N_WORDS, words);
    gguf_writer_tensor_f32(&w, "a", 1, (int64_t[]){8192}, zeros);
    gguf_writer_tensor_f32(&w, "b", 1, (int64_t[]){8192}, zeros);
    gguf_writer_save(&w, path);
    (void)gguf_writer_finish(&w, &n_bytes);
    gguf_writer_clear(&w);
    assert_true(n_bytes > 20 * 4096);
    assert_int_equal(tsr_gguf_open(&gguf, path), TSR_OK);
    tsr_gguf_close(gguf);
    gguf = NULL;
    for (size_t cut = (n_bytes - 1) / 4096 * 4096; cut > 0; cut -= 4096) {
        assert_int_equal(truncate(path, (off_t)cut), 0);
        assert_int_equal(tsr_gguf_open(&gguf, path), TSR_ERR_FORMAT);
        assert_null(gguf);
        assert_sentence(path, "is cut short");
    }
    assert_int_equal(unlink(path), 0);
}

static void what_is_no_model_file_is_said(void **state)
{
    static const char zeros[64];
    static const struct {
        const char *content;
        size_t n_bytes;
        const char *sentence;
    } files[] = {
        {"", 0, "is empty"},
        {"This is a text.\n", 16, "is not a GGUF file: it begins with 54 68 69 73, not"},
        {"GG", 2, "is not a GGUF file: it begins with 47 47, not"},
        {zeros, sizeof(zeros), "is not a GGUF file: it begins with 00 00 00 00, not"},
    };
    tsr_gguf *gguf = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        const char *path = scratch_path("file");
        FILE *to = fopen(path, "wb");

        assert_non_null(to);
        assert_int_equal(fwrite(files[i].content, 1, files[i].n_bytes, to), files[i].n_bytes);
        assert_int_equal(fclose(to), 0);
        assert_int_equal(tsr_gguf_open(&gguf, path), TSR_ERR_FORMAT);
        assert_sentence(path, files[i].sentence);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(tsr_gguf_open(&gguf, scratch_folder()), TSR_ERR_IO);
    assert_sentence(scratch_folder(), "is a directory, not a file");
    assert_int_equal(tsr_gguf_open(&gguf, scratch_path("none")), TSR_ERR_IO);
    assert_sentence(scratch_path("none"), "cannot be opened: No such file or directory");
    assert_int_equal(mkfifo(scratch_path("pipe"), 0600), 0);
    assert_int_equal(tsr_gguf_open(&gguf, scratch_path("pipe")), TSR_ERR_IO); // and does not wait
    assert_sentence(scratch_path("pipe"), "not a file");
    assert_int_equal(unlink(scratch_path("pipe")), 0);
    assert_null(gguf);
}

static void a_path_longer_than_a_message_still_leaves_room_for_the_sentence(void **state)
{
    char path[1024];
    tsr_gguf *gguf;

    (void)state;
    memset(path, 'x', sizeof(path));
    (void)snprintf(path + 900, sizeof(path) - 900, "/end.gguf");
    assert_int_equal(tsr_gguf_open(&gguf, path), TSR_ERR_IO);
    assert_sentence("xxx/end.gguf", "cannot be opened");
}

/* ---- lies --------------------------------------------------------------------------------------
 */

typedef struct lie {
    void (*tell)(gguf_writer *w);
    tsr_status expected;
    const char *sentence;
} lie;

#define HUGE_COUNT (UINT64_C(1) << 63)

static void version_1(gguf_writer *w)
{
    w->version = 1;
}
static void version_4(gguf_writer *w)
{
    w->version = 4;
}
static void big_endian(gguf_writer *w)
{
    w->version = UINT32_C(3) << 24;
}
static void huge_n_keys(gguf_writer *w)
{
    w->n_keys = HUGE_COUNT;
}
static void huge_n_tensors(gguf_writer *w)
{
    w->n_tensors = HUGE_COUNT;
}
static void one_key_more(gguf_writer *w)
{
    w->n_keys++;
}
static void one_tensor_more(gguf_writer *w)
{
    w->n_tensors++;
}
static void key_twice(gguf_writer *w)
{
    gguf_writer_u32(w, "words", 1);
}
static void key_without_name(gguf_writer *w)
{
    gguf_writer_u32(w, "", 1);
}
static void unknown_kind(gguf_writer *w)
{
    gguf_writer_key(w, "k", 13);
}
static void huge_kind(gguf_writer *w)
{
    gguf_writer_key(w, "k", UINT32_MAX);
}
static void alignment_0(gguf_writer *w)
{
    gguf_writer_u32(w, "general.alignment", 0);
}
static void alignment_4(gguf_writer *w)
{
    gguf_writer_u32(w, "general.alignment", 4);
}
static void alignment_48(gguf_writer *w)
{
    gguf_writer_u32(w, "general.alignment", 48);
}
static void alignment_of_text(gguf_writer *w)
{
    gguf_writer_string(w, "general.alignment", "32");
}
static void huge_alignment(gguf_writer *w)
{
    gguf_writer_u64(w, "general.alignment", HUGE_COUNT);
}
static void no_dims(gguf_writer *w)
{
    w->tensors[1].n_dims = 0;
}
static void five_dims(gguf_writer *w)
{
    w->tensors[1].n_dims = 5;
}
static void huge_n_dims(gguf_writer *w)
{
    w->tensors[1].n_dims = UINT32_MAX;
}
static void dim_0(gguf_writer *w)
{
    w->tensors[1].dims[0] = 0;
}
static void huge_dim(gguf_writer *w)
{
    w->tensors[1].dims[0] = HUGE_COUNT;
}
static void large_dim(gguf_writer *w)
{
    w->tensors[1].dims[0] = INT64_MAX;
}
static void tensor_without_name(gguf_writer *w)
{
    w->tensors[1].name[0] = '\0';
}
static void tensor_twice(gguf_writer *w)
{
    w->tensors[1].name[0] = 'a';
}
static void same_place(gguf_writer *w)
{
    w->tensors[1].offset = 0;
}
static void offset_not_aligned(gguf_writer *w)
{
    w->tensors[1].offset = 16;
}
static void offset_past_the_end(gguf_writer *w)
{
    w->tensors[1].offset = 64;
}
static void huge_offset(gguf_writer *w)
{
    w->tensors[1].offset = HUGE_COUNT;
}
static void offset_that_wraps(gguf_writer *w)
{
    w->tensors[1].offset = UINT64_MAX - 31;
}
static void type_q8_1(gguf_writer *w)
{
    w->tensors[1].type = 9;
}
static void unknown_type(gguf_writer *w)
{
    w->tensors[1].type = 1000000;
}
static void type_q8_0(gguf_writer *w)
{
    w->tensors[1].type = 8;
}

static void string_of_huge_length(gguf_writer *w)
{
    gguf_writer_key(w, "k", GGUF_KIND_STRING);
    gguf_writer_raw_u64(w, UINT64_MAX);
}

static void array_head(gguf_writer *w, uint32_t kind, uint64_t n)
{
    gguf_writer_key(w, "k", GGUF_KIND_ARRAY);
    gguf_writer_raw_u32(w, kind);
    gguf_writer_raw_u64(w, n);
}

static void array_of_unknown_kind(gguf_writer *w)
{
    array_head(w, 99, 1);
}
static void array_of_huge_count(gguf_writer *w)
{
    array_head(w, GGUF_KIND_U8, HUGE_COUNT);
}
static void doubles_that_wrap(gguf_writer *w)
{
    array_head(w, GGUF_KIND_F64, HUGE_COUNT >> 2);
}
static void doubles_past_the_end(gguf_writer *w)
{
    array_head(w, GGUF_KIND_F64, 100);
}
static void strings_past_the_end(gguf_writer *w)
{
    array_head(w, GGUF_KIND_STRING, 250);
}

static void bool_of_2(gguf_writer *w)
{
    gguf_writer_key(w, "k", GGUF_KIND_BOOL);
    gguf_writer_raw(w, "\2", 1);
}

static void array_with_a_bool_of_255(gguf_writer *w)
{
    gguf_writer_array(w, "k", GGUF_KIND_BOOL, 2, (const uint8_t[]){1, 255});
}

static void dims_whose_product_wraps(gguf_writer *w)
{
    w->tensors[1].n_dims = 4;
    for (int d = 0; d < 4; d++) {
        w->tensors[1].dims[d] = UINT64_C(1) << 16; // 2^64 in all
    }
}

static void inside_the_other(gguf_writer *w)
{
    static const float many[64];

    gguf_writer_tensor_f32(w, "large", 1, (int64_t[]){64}, many);
    w->tensors[1].offset = w->tensors[2].offset + 128;
}

static const lie lies[] = {
    {version_1, TSR_ERR_UNSUPPORTED, "version 1; versions 2 and 3 can be read"},
    {version_4, TSR_ERR_UNSUPPORTED, "version 4; versions 2 and 3 can be read"},
    {big_endian, TSR_ERR_UNSUPPORTED, "big-endian"},
    {huge_n_keys, TSR_ERR_FORMAT, "the header claims 9223372036854775808 keys"},
    {huge_n_tensors, TSR_ERR_FORMAT, "the header claims 9223372036854775808 tensors"},
    {one_key_more, TSR_ERR_FORMAT, "is cut short: tensor 1 of 2 needs"},
    {one_tensor_more, TSR_ERR_FORMAT, "tensor 3 of 3 has a name of 0 bytes"},
    {key_twice, TSR_ERR_FORMAT, "has the key \"words\" twice"},
    {key_without_name, TSR_ERR_FORMAT, "key 3 of 3 has a name of 0 bytes"},
    {unknown_kind, TSR_ERR_FORMAT, "key \"k\" has a value of unknown kind 13"},
    {huge_kind, TSR_ERR_FORMAT, "key \"k\" has a value of unknown kind 4294967295"},
    {alignment_0, TSR_ERR_FORMAT, "general.alignment must be a whole power of two"},
    {alignment_4, TSR_ERR_FORMAT, "general.alignment must be a whole power of two"},
    {alignment_48, TSR_ERR_FORMAT, "general.alignment must be a whole power of two"},
    {alignment_of_text, TSR_ERR_FORMAT, "general.alignment must be a whole power of two"},
    {huge_alignment, TSR_ERR_FORMAT, "general.alignment must be a whole power of two"},
    {no_dims, TSR_ERR_FORMAT, "tensor \"b\" has 0 dimensions"},
    {five_dims, TSR_ERR_FORMAT, "tensor \"b\" has 5 dimensions"},
    {huge_n_dims, TSR_ERR_FORMAT, "tensor \"b\" has 4294967295 dimensions"},
    {dim_0, TSR_ERR_FORMAT, "tensor \"b\" is 0 long in dimension 1"},
    {huge_dim, TSR_ERR_FORMAT, "tensor \"b\" is 9223372036854775808 long in dimension 1"},
    {large_dim, TSR_ERR_FORMAT, "tensor \"b\" has 9223372036854775807 groups of 4 bytes"},
    {dims_whose_product_wraps, TSR_ERR_FORMAT, "tensor \"b\" is 65536 long in dimension 4"},
    {tensor_without_name, TSR_ERR_FORMAT, "tensor 2 of 2 has a name of 0 bytes"},
    {tensor_twice, TSR_ERR_FORMAT, "has the tensor \"a\" twice"},
    {same_place, TSR_ERR_FORMAT, "overlap"},
    {inside_the_other, TSR_ERR_FORMAT, "tensors \"large\" and \"b\" overlap"},
    {offset_not_aligned, TSR_ERR_FORMAT, "offset 16, which is no multiple of the file's alignment"},
    {offset_past_the_end, TSR_ERR_FORMAT, "is cut short: tensor \"b\" has 32 bytes at offset 64"},
    {huge_offset, TSR_ERR_FORMAT, "tensor \"b\" has 32 bytes at offset 9223372036854775808"},
    {offset_that_wraps, TSR_ERR_FORMAT, "tensor \"b\" has 32 bytes at offset 18446744073709551584"},
    {type_q8_1, TSR_ERR_UNSUPPORTED, "tensor \"b\" is of type 9 (Q8_1)"},
    {unknown_type, TSR_ERR_UNSUPPORTED, "tensor \"b\" is of type 1000000 (unknown)"},
    {type_q8_0, TSR_ERR_FORMAT, "rows of 8 elements, which is no whole number of Q8_0 groups"},
    {string_of_huge_length, TSR_ERR_FORMAT, "key \"k\" needs 18446744073709551615 bytes"},
    {array_of_unknown_kind, TSR_ERR_FORMAT, "key \"k\" has a value of unknown kind 99"},
    {array_of_huge_count, TSR_ERR_FORMAT, "key \"k\" claims 9223372036854775808 elements"},
    {doubles_that_wrap, TSR_ERR_FORMAT, "key \"k\" claims 2305843009213693952 elements"},
    {doubles_past_the_end, TSR_ERR_FORMAT, "key \"k\" needs 800 bytes"},
    {strings_past_the_end, TSR_ERR_FORMAT, "key \"k\""},
    {bool_of_2, TSR_ERR_FORMAT, "key \"k\" has a bool of value 2"},
    {array_with_a_bool_of_255, TSR_ERR_FORMAT, "key \"k\" has a bool of value 255"},
};

static void every_lie_is_refused_in_one_sentence(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        gguf_writer w;
        const uint8_t *bytes;
        size_t n_bytes;

        write_small(&w);
        lies[i].tell(&w);
        bytes = gguf_writer_finish(&w, &n_bytes);
        assert_refused(lies[i].expected, bytes, n_bytes, lies[i].sentence);
        gguf_writer_clear(&w);
    }
}

static void names_that_do_not_print_are_escaped_and_cut_in_messages(void **state)
{
    gguf_writer w;
    const uint8_t *bytes;
    size_t n_bytes;

    (void)state;
    write_small(&w);
    memcpy(w.tensors[1].name, "\033[2J\n", 5);
    memset(w.tensors[1].name + 5, 'x', 200);
    w.tensors[1].offset = 16;
    bytes = gguf_writer_finish(&w, &n_bytes);
    assert_refused(TSR_ERR_FORMAT, bytes, n_bytes, "tensor \"\\x1b[2J\\nxxxxxxxx");
    assert_refused(TSR_ERR_FORMAT, bytes, n_bytes, "xxxxxxxx\"... lies at offset 16");
    gguf_writer_clear(&w);
}

static void any_one_byte_changed_is_survived(void **state)
{
    gguf_writer w;
    uint8_t *bytes;
    size_t n_bytes;
    int n_open = 0;

    (void)state;
    write_small(&w);
    bytes = gguf_writer_finish(&w, &n_bytes);
    for (size_t i = 0; i < n_bytes; i++) {
        const uint8_t was = bytes[i];

        for (int flip = 1; flip < 256; flip <<= 1) {
            tsr_gguf *gguf = NULL;

            bytes[i] = (uint8_t)(was ^ flip);
            if (tsr_gguf_open_bytes(&gguf, bytes, n_bytes) == TSR_OK) {
                n_open++;
                tsr_gguf_close(gguf);
            }
        }
        bytes[i] = was;
    }
    // Those in the tensors' elements change no structure.
    assert_true(n_open >= 64 * 8);
    gguf_writer_clear(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test(a_model_file_cut_at_every_4_kib_is_refused_by_name),
        cmocka_unit_test(what_is_no_model_file_is_said),
        cmocka_unit_test(a_path_longer_than_a_message_still_leaves_room_for_the_sentence),
        cmocka_unit_test(every_lie_is_refused_in_one_sentence),
        cmocka_unit_test(names_that_do_not_print_are_escaped_and_cut_in_messages),
        cmocka_unit_test(any_one_byte_changed_is_survived),
    };

    return cmocka_run_group_tests_name("gguf_hostile", tests, scratch_make, scratch_remove);
}
