#include "tests/support/device.h"

#include "kernels/kv_layout.h"
#include "tests/support/torture.h"

static void every_slot_of_the_backend_is_filled(void **state)
{
    const tsr_ops_limits limits = {1, 32, 1, 8, 16, 1, 0};
    tsr_device *dev = open_device(1, &limits);
    void (*slots[sizeof(tsr_backend) / sizeof(void (*)(void))])(void);

    (void)state;
    // All members are pointers to functions: seen as an array, none may be NULL.
    assert_int_equal(sizeof(slots), sizeof(tsr_backend));
    memcpy(slots, dev->backend, sizeof(slots));
    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
        assert_true(slots[i] != NULL);
    }
    tsr_device_close(dev);
}

static void a_device_says_what_it_is(void **state)
{
    const tsr_ops_limits limits = {1, 32, 1, 8, 16, 1, 0};
    tsr_device *dev = open_device(3, &limits);

    (void)state;
    assert_int_equal(tsr_device_kind_of(dev), TSR_DEVICE_CPU);
    assert_int_equal(strncmp(tsr_device_describe(dev), "CPU, ", 5), 0);
    assert_non_null(strstr(tsr_device_describe(dev), "3 threads"));
    assert_int_equal(tsr_cpu_pool_n_threads(tsr_device_pool(dev)), 3);
    assert_int_equal(tsr_device_sync(dev), TSR_OK);
    tsr_device_close(dev);
    tsr_device_close(NULL);
}

static void the_instruction_set_is_the_one_asked_for_or_refused(void **state)
{
    static const struct {
        const char *name;
        tsr_isa isa;
    } sets[] = {
        {"plain", TSR_ISA_PLAIN_C}, {"avx2", TSR_ISA_AVX2_FMA}, {"avx512", TSR_ISA_AVX512_VNNI}};
    tsr_isa isa = TSR_ISA_COUNT;

    (void)state;
    for (int i = 0; i < 3; i++) {
        const tsr_status st = tsr_device_cpu_choose(&isa, sets[i].name);

        assert_int_equal(st, tsr_device_cpu_can(sets[i].isa) ? TSR_OK : TSR_ERR_UNSUPPORTED);
        assert_true(st != TSR_OK || isa == sets[i].isa);
    }
    assert_true(tsr_device_cpu_can(TSR_ISA_PLAIN_C));
    assert_false(tsr_device_cpu_can(TSR_ISA_COUNT));
    assert_int_equal(tsr_device_cpu_choose(&isa, "auto"), TSR_OK);
    assert_true(tsr_device_cpu_can(isa));
    for (int better = (int)isa + 1; better < TSR_ISA_COUNT; better++) {
        assert_false(tsr_device_cpu_can((tsr_isa)better));
    }
    assert_int_equal(tsr_device_cpu_choose(&isa, "sse9"), TSR_ERR_ARG);
}

static void a_device_opened_under_TSR_ISA_uses_that_set(void **state)
{
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    tsr_device *dev = NULL;

    (void)state;
    assert_int_equal(setenv("TSR_ISA", "plain", 1), 0);
    assert_int_equal(tsr_device_open(&dev, &options), TSR_OK);
    assert_int_equal(dev->isa, TSR_ISA_PLAIN_C);
    tsr_device_close(dev);
    assert_int_equal(setenv("TSR_ISA", "nonsense", 1), 0);
    assert_int_equal(tsr_device_open(&dev, &options), TSR_ERR_ARG);
    assert_int_equal(unsetenv("TSR_ISA"), 0);
}

static void what_this_build_cannot_do_is_refused(void **state)
{
    tsr_device_options options = {.kind = TSR_DEVICE_CUDA, .n_threads = 1};
    tsr_device *dev = NULL;

    (void)state;
    assert_int_equal(tsr_device_open(&dev, &options), TSR_ERR_UNSUPPORTED);
    options.kind = TSR_DEVICE_KIND_COUNT;
    assert_int_equal(tsr_device_open(&dev, &options), TSR_ERR_ARG);
    options = (tsr_device_options){.kind = TSR_DEVICE_CPU, .n_threads = 0};
    assert_int_equal(tsr_device_open(&dev, &options), TSR_ERR_ARG);
    assert_null(dev);
}

static void memory_comes_zeroed_and_bytes_go_there_and_back(void **state)
{
    const tsr_ops_limits limits = {1, 32, 1, 8, 16, 1, 0};
    tsr_device *dev = open_device(1, &limits);
    const size_t n_bytes = 100000;
    char *memory = tsr_device_alloc(dev, n_bytes);
    char back[6] = "none.";

    (void)state;
    assert_non_null(memory);
    assert_int_equal(memory[0], 0);
    assert_int_equal(memory[n_bytes - 1], 0);
    assert_int_equal(tsr_device_upload(dev, memory + 10, "there", 6), TSR_OK);
    assert_int_equal(tsr_device_upload(dev, NULL, NULL, 0), TSR_OK);
    assert_int_equal(tsr_device_download(dev, back, memory + 10, 6), TSR_OK);
    assert_string_equal(back, "there");
    tsr_device_free(dev, memory, n_bytes);
    tsr_device_free(dev, NULL, 0);
    assert_null(tsr_device_alloc(dev, SIZE_MAX / 2 + 10));
    tsr_device_close(dev);
}

static void scratch_grows_and_survives_when_it_cannot(void **state)
{
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    tsr_device *dev = NULL;
    void *kept;

    (void)state;
    assert_int_equal(tsr_device_open(&dev, &options), TSR_OK);
    assert_int_equal(tsr_device_reserve_scratch(dev, 1000), TSR_OK);
    assert_int_equal((uintptr_t)dev->scratch % 64, 0);
    kept = dev->scratch;
    assert_int_equal(tsr_device_reserve_scratch(dev, 10), TSR_OK);
    assert_ptr_equal(dev->scratch, kept);
    assert_int_equal(tsr_device_reserve_scratch(dev, SIZE_MAX / 2 + 10), TSR_ERR_NOMEM);
    assert_ptr_equal(dev->scratch, kept);
    assert_int_equal(dev->scratch_bytes, 1000);
    assert_int_equal(tsr_device_reserve_scratch(dev, 5 << 20), TSR_OK);
    assert_int_equal(dev->scratch_bytes, 5 << 20);
    tsr_device_close(dev);
}

static tsr_status open_and_close(void *ctx)
{
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 2};
    tsr_device *dev = NULL;
    tsr_status st;

    (void)ctx;
    TSR_TRY(tsr_device_open(&dev, &options));
    st = tsr_device_reserve_scratch(dev, 1000);
    tsr_device_close(dev);
    return st;
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    (void)state;
    assert_int_equal(torture(open_and_close, NULL), 4);
}

static void scratch_for_larger_operands_is_no_smaller(void **state)
{
    const tsr_ops_limits small = {16, 576, 9, 64, 2048, 4, 0};
    tsr_ops_limits larger[5];
    const size_t n_bytes = tsr_ops_scratch_bytes(TSR_DEVICE_CPU, 2, &small);

    (void)state;
    for (int i = 0; i < 5; i++) {
        larger[i] = small;
    }
    larger[0].n_rows *= 9;
    larger[1].n_cols *= 9;
    larger[2].n_heads *= 9;
    larger[3].head_dim *= 2;
    larger[4].n_seqs *= 9;
    for (int i = 0; i < 5; i++) {
        assert_true(tsr_ops_scratch_bytes(TSR_DEVICE_CPU, 2, &larger[i]) >= n_bytes);
    }
    assert_true(tsr_ops_scratch_bytes(TSR_DEVICE_CPU, 3, &small) > n_bytes);
}

/* ---- the layout of the cache ----------------------------------------------------------------- */

static void layouts_that_kernels_do_not_know_are_refused(void **state)
{
    const tsr_kv_layout good = {30, 3, 64, 64, 16, TSR_KV_TYPE_F16, false, false};
    const tsr_kv_layout bad[] = {
        {0, 3, 64, 64, 16, TSR_KV_TYPE_F16, false, false},
        {30, -1, 64, 64, 16, TSR_KV_TYPE_F16, false, false},
        {30, 3, 577, 64, 16, TSR_KV_TYPE_F16, false, false},
        {30, 3, 64, 577, 16, TSR_KV_TYPE_F16, false, false},
        {30, 3, 0, 64, 16, TSR_KV_TYPE_F16, false, false},
        {30, 3, 64, 0, 16, TSR_KV_TYPE_F16, false, false},
        {30, 3, 64, 64, 8, TSR_KV_TYPE_F16, false, false},
        {30, 3, 64, 64, 48, TSR_KV_TYPE_F16, false, false},
        {30, 3, 64, 64, 128, TSR_KV_TYPE_F16, false, false},
        {30, 3, 64, 64, 16, TSR_KV_TYPE_COUNT, false, false},
        {30, 3, 64, 64, 16, (tsr_kv_type)-1, false, false},
        {30, 3, 64, 65, 16, TSR_KV_TYPE_F16, true, false},
    };

    (void)state;
    assert_int_equal(tsr_kv_layout_check(&good), TSR_OK);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(tsr_kv_layout_check(&bad[i]), TSR_ERR_ARG);
    }
}

static void a_block_is_as_large_as_its_heads(void **state)
{
    const tsr_kv_layout even = {30, 3, 64, 64, 16, TSR_KV_TYPE_F16, false, false};
    const tsr_kv_layout padded = {2, 5, 40, 40, 32, TSR_KV_TYPE_F32, false, false};

    (void)state;
    assert_int_equal(tsr_kv_layout_block_bytes(&even), 30 * 3 * 2 * 64 * 16 * 2);
    assert_int_equal(tsr_kv_layout_padded_dim(&padded), 48);
    assert_int_equal(tsr_kv_layout_block_bytes(&padded), 2 * 5 * (40 + 48) * 32 * 4);
    assert_int_equal(tsr_kv_layout_offset(&padded, 1, 2), (5 + 2) * (40 + 48) * 32 * 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_slot_of_the_backend_is_filled),
        cmocka_unit_test(a_device_says_what_it_is),
        cmocka_unit_test(the_instruction_set_is_the_one_asked_for_or_refused),
        cmocka_unit_test(a_device_opened_under_TSR_ISA_uses_that_set),
        cmocka_unit_test(what_this_build_cannot_do_is_refused),
        cmocka_unit_test(memory_comes_zeroed_and_bytes_go_there_and_back),
        cmocka_unit_test(scratch_grows_and_survives_when_it_cannot),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
        cmocka_unit_test(scratch_for_larger_operands_is_no_smaller),
        cmocka_unit_test(layouts_that_kernels_do_not_know_are_refused),
        cmocka_unit_test(a_block_is_as_large_as_its_heads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
