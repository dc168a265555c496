#include "engine/gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/gguf_writer.h"
#include "tests/support/scratch.h"
#include "tests/support/torture.h"

static const float values[8] = {1.0F, -2.0F, 3.5F, 0.0F, 5.0F, 6.0F, -7.25F, 8.0F};

enum {
    N_PARTS = 3
};

static const char *part_path(int i)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "m-%05d-of-%05d.gguf", i + 1, N_PARTS);
    return scratch_path(name);
}

/* Part i of three: its tensors are "t<i>" and "u<i>". */
static void write_part(gguf_writer *w, int i)
{
    const uint16_t no = (uint16_t)i;
    const uint16_t count = N_PARTS;
    char name[16];

    gguf_writer_init(w);
    if (i == 0) {
        gguf_writer_string(w, "general.architecture", "llama");
    }
    gguf_writer_scalar(w, "split.no", GGUF_KIND_U16, &no);
    gguf_writer_scalar(w, "split.count", GGUF_KIND_U16, &count);
    gguf_writer_i32(w, "split.tensors.count", 2 * N_PARTS);
    for (int t = 0; t < 2; t++) {
        (void)snprintf(name, sizeof(name), "%c%d", t == 0 ? 't' : 'u', i);
        gguf_writer_tensor_f32(w, name, 1, (int64_t[]){1}, &values[2 * i + t]);
    }
}

static void save_part(gguf_writer *w, int i)
{
    gguf_writer_save(w, part_path(i));
    gguf_writer_clear(w);
}

static int make_parts(void **state)
{
    gguf_writer w;

    (void)state;
    for (int i = 0; i < N_PARTS; i++) {
        write_part(&w, i);
        save_part(&w, i);
    }
    return 0;
}

static int remove_parts(void **state)
{
    (void)state;
    for (int i = 0; i < N_PARTS; i++) {
        (void)unlink(part_path(i));
    }
    return 0;
}

static void a_split_model_has_the_tensors_of_all_its_parts(void **state)
{
    tsr_gguf *gguf;
    tsr_gguf_text text;
    uint64_t n_bytes = 0;
    struct stat facts;

    (void)state;
    assert_int_equal(tsr_gguf_open(&gguf, part_path(0)), TSR_OK);
    assert_true(tsr_gguf_string(gguf, "general.architecture", &text));
    assert_int_equal(tsr_gguf_tensor_count(gguf), 2 * N_PARTS);
    for (int i = 0; i < 2 * N_PARTS; i++) {
        const tsr_gguf_tensor *tensor = tsr_gguf_tensor_at(gguf, i);
        char name[16];

        (void)snprintf(name, sizeof(name), "%c%d", i % 2 == 0 ? 't' : 'u', i / 2);
        assert_ptr_equal(tsr_gguf_find(gguf, name), tensor);
        assert_int_equal(tensor->part, i / 2);
        assert_memory_equal(tensor->data, &values[i], sizeof(float));
    }
    for (int i = 0; i < N_PARTS; i++) {
        assert_int_equal(stat(part_path(i), &facts), 0);
        n_bytes += (uint64_t)facts.st_size;
    }
    assert_true(tsr_gguf_file_bytes(gguf) == n_bytes);
    tsr_gguf_close(gguf);
}

static void assert_split_fails(tsr_status expected, const char *path, const char *sentence)
{
    tsr_gguf *gguf = NULL;

    assert_int_equal(tsr_gguf_open(&gguf, path), expected);
    assert_null(gguf);
    assert_sentence(scratch_folder(), sentence);
}

static void a_missing_part_is_named(void **state)
{
    (void)state;
    assert_int_equal(unlink(part_path(1)), 0);
    assert_split_fails(TSR_ERR_IO, part_path(0), "part 2 of 3 is missing");
    assert_split_fails(TSR_ERR_IO, part_path(0), "m-00002-of-00003.gguf");
}

static void a_split_model_is_opened_by_its_first_part(void **state)
{
    (void)state;
    assert_split_fails(TSR_ERR_FORMAT, part_path(2), "is part 3 of a model of 3");
}

static void a_part_in_the_place_of_another_is_refused(void **state)
{
    gguf_writer w;

    (void)state;
    write_part(&w, 2);
    save_part(&w, 1);
    assert_split_fails(TSR_ERR_FORMAT, part_path(0), "should be part 2 of 3");
}

static void a_part_that_is_no_gguf_file_is_named(void **state)
{
    FILE *to = fopen(part_path(2), "wb");

    (void)state;
    assert_non_null(to);
    assert_int_equal(fclose(to), 0);
    assert_split_fails(TSR_ERR_FORMAT, part_path(0), "m-00003-of-00003.gguf is empty");
}

static void the_first_part_says_how_many_tensors_there_are(void **state)
{
    gguf_writer w;

    (void)state;
    write_part(&w, 1);
    gguf_writer_tensor_f32(&w, "more", 1, (int64_t[]){1}, values);
    save_part(&w, 1);
    assert_split_fails(TSR_ERR_FORMAT, part_path(0), "have 6 tensors, but they have 7");
}

static void a_tensor_in_two_parts_is_refused(void **state)
{
    gguf_writer w;

    (void)state;
    write_part(&w, 1);
    w.tensors[1].name[1] = '0'; // "u0", as in the first part
    save_part(&w, 1);
    assert_split_fails(TSR_ERR_FORMAT, part_path(0), "has the tensor \"u0\" twice");
}

static void a_first_part_under_another_name_is_refused(void **state)
{
    char path[256];
    gguf_writer w;

    (void)state;
    write_part(&w, 0);
    (void)snprintf(path, sizeof(path), "%s", scratch_path("renamed.gguf"));
    gguf_writer_save(&w, path);
    gguf_writer_clear(&w);
    assert_split_fails(TSR_ERR_FORMAT, path, "does not end in -00001-of-00003.gguf");
    assert_int_equal(unlink(path), 0);
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

    (void)state;
    (void)snprintf(path, sizeof(path), "%s", part_path(0));
    assert_true(torture(open_and_close, path) >= 12);
}

#define WITH_PARTS(test) cmocka_unit_test_setup_teardown(test, make_parts, remove_parts)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_PARTS(a_split_model_has_the_tensors_of_all_its_parts),
        WITH_PARTS(a_missing_part_is_named),
        WITH_PARTS(a_split_model_is_opened_by_its_first_part),
        WITH_PARTS(a_part_in_the_place_of_another_is_refused),
        WITH_PARTS(a_part_that_is_no_gguf_file_is_named),
        WITH_PARTS(the_first_part_says_how_many_tensors_there_are),
        WITH_PARTS(a_tensor_in_two_parts_is_refused),
        WITH_PARTS(a_first_part_under_another_name_is_refused),
        WITH_PARTS(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("gguf_split", tests, scratch_make, scratch_remove);
}
