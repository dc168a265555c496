/*
 * What a rank reads of a Hugging Face folder: the bytes of its own shard, not one beside them; and
 * what its weights become.
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

#include <cmocka.h>
#include <jansson.h>

#include "tests/support/model_copy.h"
#include "tests/support/scratch.h"

/* Whether element (row, column) of a llama's tensor is a rank's, said here once more. */
static bool is_own(const char *name, const tsr_shard *s, int head_dim, int64_t row, int64_t col)
{
    const struct {
        const char *part;
        tsr_range range;
        int unit;
        bool by_col;
    } rules[] = {
        {"embed_tokens", s->vocab, 1, false},
        {"lm_head", s->vocab, 1, false},
        {"q_proj", s->heads, head_dim, false},
        {"k_proj", s->kv_heads, head_dim, false},
        {"v_proj", s->kv_heads, head_dim, false},
        {"o_proj", s->heads, head_dim, true},
        {"gate_proj", s->ff, 1, false},
        {"up_proj", s->ff, 1, false},
        {"down_proj", s->ff, 1, true},
    };

    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (strstr(name, rules[i].part) != NULL) {
            const int64_t at = (rules[i].by_col ? col : row) / rules[i].unit;

            return at >= rules[i].range.first && at < rules[i].range.first + rules[i].range.count;
        }
    }
    return true; // norms
}

/* All elements that are not the rank's become NaN. Returns the bytes that are its own. */
static uint64_t poison_others(const char *file, const tsr_shard *shard, int head_dim)
{
    size_t n_bytes;
    char *bytes = model_copy_read(model_copy_path(file), &n_bytes);
    uint64_t n_own = 0;
    uint64_t length;
    json_t *header;
    const char *name;
    json_t *entry;

    memcpy(&length, bytes, sizeof(length));
    header = json_loadb(bytes + 8, length, 0, NULL);
    json_object_foreach(header, name, entry)
    {
        const json_t *shape = json_object_get(entry, "shape");
        const bool matrix = json_array_size(shape) == 2;
        const int64_t rows = matrix ? json_integer_value(json_array_get(shape, 0)) : 1;
        const int64_t cols = json_integer_value(json_array_get(shape, matrix ? 1 : 0));
        char *data = bytes + 8 + length +
                     json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 0));

        for (int64_t i = 0; shape != NULL && i < rows * cols; i++) {
            if (is_own(name, shard, head_dim, i / cols, i % cols)) {
                n_own += 2;
            } else {
                memset(data + 2 * i, 0xFF, 2);
            }
        }
    }
    json_decref(header);
    model_copy_write(file, bytes, n_bytes);
    free(bytes);
    return n_own;
}

static void a_rank_reads_the_bytes_of_its_own_shard_and_no_others(void **state)
{
    static const tsr_shard_shape shape = {
        .n_heads = 6, .n_kv_heads = 2, .head_dim = 16, .dim = 96, .ff_dim = 160, .n_vocab = 512};

    (void)state;
    for (int n_ranks = 1; n_ranks <= 5; n_ranks++) {
        for (int rank = 0; rank < n_ranks; rank++) {
            const tsr_shard shard = tsr_shard_of(&shape, rank, n_ranks);
            tsr_weights whole;
            tsr_weights poisoned;
            uint64_t n_own = 0;

            model_copy_make("llama3");
            assert_int_equal(model_copy_load(&whole, rank, n_ranks, TSR_FORMAT_COUNT), TSR_OK);
            for (int part = 1; part <= 4; part++) {
                char name[64];

                (void)snprintf(name, sizeof(name), "model-%05d-of-00004.safetensors", part);
                n_own += poison_others(name, &shard, shape.head_dim);
            }
            assert_int_equal(model_copy_load(&poisoned, rank, n_ranks, TSR_FORMAT_COUNT), TSR_OK);
            assert_int_equal(whole.n_bytes, poisoned.n_bytes);
            assert_memory_equal(whole.memory, poisoned.memory, whole.n_bytes);
            assert_int_equal(whole.file_bytes, n_own);
            tsr_weights_clear(&whole);
            tsr_weights_clear(&poisoned);
        }
    }
}

static void weights_become_the_type_that_is_asked_for(void **state)
{
    static const struct {
        tsr_format as;
        tsr_format format;
    } wishes[] = {
        {TSR_FORMAT_COUNT, TSR_FORMAT_BF16},
        {TSR_FORMAT_F32, TSR_FORMAT_F32},
        {TSR_FORMAT_F16, TSR_FORMAT_F16},
    };
    float values[3][96];

    (void)state;
    model_copy_make("qwen2");
    for (int i = 0; i < 3; i++) {
        tsr_weights w;

        assert_int_equal(model_copy_load(&w, 0, 1, wishes[i].as), TSR_OK);
        assert_int_equal(w.layers[1].q.weight.format, wishes[i].format);
        tsr_weight_unpack_row(&w.layers[1].q.weight, 17, values[i]);
        tsr_weights_clear(&w);
    }
    assert_memory_equal(values[0], values[1], sizeof(values[0])); // f32 holds every bf16
    for (int c = 0; c < 96; c++) {
        assert_float_equal(values[2][c], values[0][c], 1e-3F);
    }
}

/* A row's largest distance from what is stored, of the largest value. */
static double distance(const float *row, const float *stored, int n)
{
    double most = 0;
    double worst = 0;

    for (int c = 0; c < n; c++) {
        most = fmax(most, fabs((double)stored[c]));
        worst = fmax(worst, fabs((double)row[c] - (double)stored[c]));
    }
    return worst / most;
}

/* At most, of the largest in 32: half of 1/127, and of 1/2048 where the scale becomes a half; two
 * steps of 2/15, as 4 bits may leave an extreme out; half a step of 3 bits. */
static void weights_of_layers_round_to_fewer_bits_the_same_on_all_ranks(void **state)
{
    static const struct {
        tsr_format as;
        double bound;
    } wishes[] = {{TSR_FORMAT_Q8, 0.0045}, {TSR_FORMAT_Q4, 0.27}, {TSR_FORMAT_FP8, 0.0626}};
    float stored[96];
    float row[96];
    float own[96];
    tsr_weights plain;

    (void)state;
    model_copy_make("llama3");
    assert_int_equal(model_copy_load(&plain, 0, 1, TSR_FORMAT_COUNT), TSR_OK);
    for (int i = 0; i < 3; i++) {
        tsr_weights w;
        tsr_weights part;

        assert_int_equal(model_copy_load(&w, 0, 1, wishes[i].as), TSR_OK);
        assert_int_equal(model_copy_load(&part, 0, 2, wishes[i].as), TSR_OK);
        assert_int_equal(w.embed.weight.format, plain.embed.weight.format);
        assert_int_equal(w.head.weight.format, plain.head.weight.format);
        assert_int_equal(w.layers[1].q.weight.format, wishes[i].as);
        assert_int_equal(w.layers[1].down.weight.format, wishes[i].as);
        assert_int_equal(part.layers[1].down.weight.format, wishes[i].as);
        assert_true(w.n_bytes < plain.n_bytes);
        assert_int_equal(w.file_bytes, plain.file_bytes);
        for (int64_t r = 0; r < part.layers[1].q.weight.n_rows; r++) {
            double is;

            assert_int_equal(w.layers[1].q.weight.n_cols, 96);
            tsr_weight_unpack_row(&plain.layers[1].q.weight, r, stored);
            tsr_weight_unpack_row(&w.layers[1].q.weight, r, row);
            tsr_weight_unpack_row(&part.layers[1].q.weight, r, own);
            assert_memory_equal(row, own, sizeof(row));
            is = distance(row, stored, 96);
            if (!(is > 0 && is <= wishes[i].bound)) {
                fail_msg("%s is off by %g", tsr_weight_format_name(wishes[i].as), is);
            }
        }
        tsr_weights_clear(&w);
        tsr_weights_clear(&part);
    }
    tsr_weights_clear(&plain);
}

static int leave(void **state)
{
    model_copy_remove();
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_reads_the_bytes_of_its_own_shard_and_no_others),
        cmocka_unit_test(weights_become_the_type_that_is_asked_for),
        cmocka_unit_test(weights_of_layers_round_to_fewer_bits_the_same_on_all_ranks),
    };

    return cmocka_run_group_tests_name("rank_reads", tests, scratch_make, leave);
}
