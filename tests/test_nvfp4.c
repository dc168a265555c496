/*
 * GGUF's NVFP4 as models are converted to it: each tensor has a factor beside it, each stack of
 * experts one for each. On every rank each weight is bit for bit that of the same model with the
 * values stored as f32.
 */
#include "tests/support/loaded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/encoder.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/scratch.h"

static tsr_device *dev;

enum {
    N_EXPERTS = 3,
    WIDTH = 128,
    EXPERT_FF = 192
};

/* A tensor of random NVFP4 with factors, and the plain one of its values. Products with such
 * factors are exact, whatever their order. */
static void put_nvfp4(gguf_writer *packed, gguf_writer *plain, const char *name, int n_stack,
                      int64_t n_rows, int64_t n_cols, test_random *random)
{
    static uint8_t codes[N_EXPERTS * EXPERT_FF * WIDTH];
    static float values[N_EXPERTS * EXPERT_FF * WIDTH];
    const int64_t shape[3] = {n_cols, n_rows, n_stack};
    const size_t row_bytes = tsr_encoding_row_bytes(TSR_ENCODING_NVFP4, n_cols);
    const int n_dims = n_stack > 1 ? 3 : 2;
    float factors[N_EXPERTS];
    char whole[64];

    for (int e = 0; e < n_stack; e++) {
        factors[e] = (float)(test_random_bits(random) % 511 + 1) / 256;
    }
    for (int64_t r = 0; r < n_stack * n_rows; r++) {
        encoder_random_row(TSR_ENCODING_NVFP4, codes + (size_t)r * row_bytes, 0.1, n_cols, random);
        tsr_encoding_decode(TSR_ENCODING_NVFP4, values + r * n_cols, codes + (size_t)r * row_bytes,
                            0, n_cols);
        for (int64_t c = 0; c < n_cols; c++) {
            values[r * n_cols + c] *= factors[r / n_rows];
        }
    }
    (void)snprintf(whole, sizeof(whole), "%s.weight", name);
    gguf_writer_tensor(packed, whole, TSR_ENCODING_NVFP4, n_dims, shape, codes,
                       (size_t)(n_stack * n_rows) * row_bytes);
    gguf_writer_tensor_f32(plain, whole, n_dims, shape, values);
    (void)snprintf(whole, sizeof(whole), "%s.scale", name);
    gguf_writer_tensor_f32(packed, whole, 1, (int64_t[]){n_stack}, factors);
    (void)snprintf(whole, sizeof(whole), "%s.input_scale", name);
    gguf_writer_tensor_f32(packed, whole, 1, (int64_t[]){n_stack}, factors);
}

static void put_both(gguf_writer *const both[2], const char *name, int n_dims, int64_t n_cols,
                     int64_t n_rows)
{
    static const float ones[512 * WIDTH];

    for (int i = 0; i < 2; i++) {
        gguf_writer_tensor_f32(both[i], name, n_dims, (int64_t[]){n_cols, n_rows}, ones);
    }
}

/* A Mixtral of one layer. */
static void write_nvfp4(gguf_writer *packed, gguf_writer *plain)
{
    gguf_writer *const both[2] = {packed, plain};
    test_random random = {9};

    for (int i = 0; i < 2; i++) {
        gguf_writer_init(both[i]);
        gguf_writer_string(both[i], "general.architecture", "llama");
        gguf_writer_u32(both[i], "llama.block_count", 1);
        gguf_writer_u32(both[i], "llama.embedding_length", WIDTH);
        gguf_writer_u32(both[i], "llama.feed_forward_length", EXPERT_FF);
        gguf_writer_u32(both[i], "llama.context_length", 64);
        gguf_writer_u32(both[i], "llama.attention.head_count", 8);
        gguf_writer_u32(both[i], "llama.attention.head_count_kv", 2);
        gguf_writer_f32(both[i], "llama.attention.layer_norm_rms_epsilon", 1e-5F);
        gguf_writer_u32(both[i], "llama.expert_count", N_EXPERTS);
        gguf_writer_u32(both[i], "llama.expert_used_count", 2);
    }
    put_both(both, "token_embd.weight", 2, WIDTH, 256);
    put_both(both, "output_norm.weight", 1, WIDTH, 1);
    put_both(both, "blk.0.attn_norm.weight", 1, WIDTH, 1);
    put_both(both, "blk.0.ffn_norm.weight", 1, WIDTH, 1);
    put_both(both, "blk.0.ffn_gate_inp.weight", 2, WIDTH, N_EXPERTS);
    put_nvfp4(packed, plain, "blk.0.attn_q", 1, WIDTH, WIDTH, &random);
    put_nvfp4(packed, plain, "blk.0.attn_k", 1, WIDTH / 4, WIDTH, &random);
    put_nvfp4(packed, plain, "blk.0.attn_v", 1, WIDTH / 4, WIDTH, &random);
    put_nvfp4(packed, plain, "blk.0.attn_output", 1, WIDTH, WIDTH, &random);
    put_nvfp4(packed, plain, "blk.0.ffn_gate_exps", N_EXPERTS, EXPERT_FF, WIDTH, &random);
    put_nvfp4(packed, plain, "blk.0.ffn_up_exps", N_EXPERTS, EXPERT_FF, WIDTH, &random);
    put_nvfp4(packed, plain, "blk.0.ffn_down_exps", N_EXPERTS, WIDTH, EXPERT_FF, &random);
}

static void nvfp4_with_factors_is_the_plain_model_of_its_values(void **state)
{
    gguf_writer packed;
    gguf_writer plain;
    const char *packed_path = scratch_path("nvfp4.gguf");
    const char *plain_path = scratch_path("plain.gguf");

    (void)state;
    write_nvfp4(&packed, &plain);
    gguf_writer_save(&packed, packed_path);
    gguf_writer_save(&plain, plain_path);
    for (int n_ranks = 1; n_ranks <= 5; n_ranks += n_ranks == 3 ? 2 : 1) {
        int n_packed = 0;

        for (int rank = 0; rank < n_ranks; rank++) {
            loaded a = {0};
            loaded b = {0};

            if (loaded_open(&a, dev, packed_path, rank, n_ranks) != TSR_OK) {
                fail_msg("%s", tsr_status_message());
            }
            assert_int_equal(loaded_open(&b, dev, plain_path, rank, n_ranks), TSR_OK);
            n_packed += loaded_compare(&a, &b, 0);
            loaded_close(&a);
            loaded_close(&b);
        }
        assert_true(n_packed >= 7);
    }
    assert_int_equal(unlink(packed_path), 0);
    assert_int_equal(unlink(plain_path), 0);
    gguf_writer_clear(&packed);
    gguf_writer_clear(&plain);
}

static void factors_of_another_number_are_refused(void **state)
{
    gguf_writer packed;
    gguf_writer plain;
    loaded l = {0};
    const char *path = scratch_path("two.gguf");

    (void)state;
    write_nvfp4(&packed, &plain);
    assert_true(packed.n_entries > 0);
    for (size_t i = 0; i < packed.n_entries; i++) {
        if (strcmp(packed.tensors[i].name, "blk.0.ffn_up_exps.scale") == 0) {
            packed.tensors[i].dims[0] = 2;
        }
    }
    gguf_writer_save(&packed, path);
    assert_int_equal(loaded_open(&l, dev, path, 0, 1), TSR_ERR_FORMAT);
    assert_sentence("blk.0.ffn_up_exps.scale must be one number of f32", "ffn_up_exps.weight");
    assert_int_equal(unlink(path), 0);
    gguf_writer_clear(&packed);
    gguf_writer_clear(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nvfp4_with_factors_is_the_plain_model_of_its_values),
        cmocka_unit_test(factors_of_another_number_are_refused),
    };
    const tsr_device_options options = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    int n_failed = 1;

    if (tsr_device_open(&dev, &options) == TSR_OK) {
        n_failed = cmocka_run_group_tests_name("nvfp4", tests, scratch_make, scratch_remove);
        tsr_device_close(dev);
    }
    return n_failed;
}
